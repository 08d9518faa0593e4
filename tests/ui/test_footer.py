"""The footer shows the active keys and reuses its widgets."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.widgets import Button
from textual.widgets._footer import FooterKey

from mlxk_tui.ui.shell.footer import KeyFooter
from tests.ui.conftest import wait_until


class Verbose(Button):
    BINDINGS = [Binding("v", "verify", "Verify")]

    able = True
    action_verify: Callable[[], None]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if action == "verify" and not self.able else True


class Keys(App[None]):
    def compose(self) -> ComposeResult:
        yield Button("one", id="one")
        yield Button("two", id="two")
        yield Verbose("three", id="three")
        yield KeyFooter()


async def test_footer_changes_with_its_keys_and_not_with_the_focus() -> None:
    app = Keys()

    def keys() -> dict[str, FooterKey]:
        return {key.description: key for key in app.query(FooterKey) if key.display}

    async with app.run_test(size=(100, 20)) as pilot:
        app.query_one("#one").focus()
        await wait_until(pilot, lambda: list(keys()) == ["palette"])
        first = keys()["palette"]
        app.query_one("#two").focus()
        await wait_until(pilot, lambda: app.focused is app.query_one("#two"))
        assert keys()["palette"] is first
        three = app.query_one("#three", Verbose)
        three.focus()
        await wait_until(pilot, lambda: "Verify" in keys())
        assert not keys()["Verify"].has_class("-disabled")
        three.able = False
        app.refresh_bindings()
        await wait_until(pilot, lambda: "Verify" in keys() and keys()["Verify"].has_class("-disabled"))
        app.query_one("#one").focus()
        await wait_until(pilot, lambda: "Verify" not in keys())
        await pilot.resize_terminal(60, 20)
        await wait_until(pilot, lambda: not keys())
        await pilot.resize_terminal(100, 20)
        await wait_until(pilot, lambda: list(keys()) == ["palette"])
        made = set(app.query(FooterKey))
        for _ in range(5):
            for button in ("#three", "#one"):
                app.query_one(button).focus()
                await wait_until(pilot, lambda: ("Verify" in keys()) is (button == "#three"))  # noqa: B023 - used at once
        assert set(app.query(FooterKey)) == made


async def test_reused_footer_key_runs_its_current_action() -> None:
    app = Keys()
    async with app.run_test(size=(100, 20)) as pilot:
        three = app.query_one("#three", Verbose)
        verified: list[str] = []
        three.action_verify = lambda: verified.append("three")
        for button, keys in (("#three", 1), ("#one", 0), ("#three", 1)):
            app.query_one(button).focus()
            await wait_until(pilot, lambda: sum(k.display for k in app.query(FooterKey)) == keys + 1)  # noqa: B023 - the same
        shown = next(key for key in app.query(FooterKey) if key.description == "Verify")
        await pilot.click(shown)
        await wait_until(pilot, lambda: verified == ["three"])
