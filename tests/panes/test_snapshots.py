"""How both panes look in every state. Changed on purpose? `make snapshots`, then look at each one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mlxk_tui.ops.cache import Cache
from tests.panes.conftest import AppMaker, ready, wait_until

SMALL, LARGE = (80, 24), (120, 40)
Compare = Callable[..., bool]


def after(*keys: str, until: Callable[[Pilot[Any]], bool] | None = None) -> Callable[[Pilot[Any]], Any]:
    """Return what `snap_compare` runs first: wait for the scan, press keys, wait for their result."""

    async def run(pilot: Pilot[Any]) -> None:
        await ready(pilot)
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        if until is not None:
            await wait_until(pilot, lambda: until(pilot))
        for node in pilot.app.screen.query("Input"):
            node.cursor_blink = False  # type: ignore[attr-defined]  # every Input has it
        await pilot.pause()

    return run


def open_dialog(pilot: Pilot[Any]) -> bool:
    """Whether a dialog is there and has been put into the middle."""
    frames = pilot.app.screen.query(".dialog")
    return bool(frames) and frames.first().region.y > 0


def typed(text: str) -> list[str]:
    names = {" ": "space", ":": "colon", ">": "greater_than_sign", "/": "slash"}
    return [names.get(character, character) for character in text]


@pytest.mark.parametrize("theme", ["mlxk-dark", "mlxk-light", "ansi-dark"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "120x40"])
def test_models(
    snap_compare: Compare, make_app: AppMaker, sample: Cache, size: tuple[int, int], theme: str
) -> None:
    app = make_app(sample, theme=theme)
    assert snap_compare(app, terminal_size=size, run_before=after(*"jjjjj"))


@pytest.mark.parametrize("theme", ["mlxk-dark", "mlxk-light"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "120x40"])
def test_health(
    snap_compare: Compare, make_app: AppMaker, sample: Cache, size: tuple[int, int], theme: str
) -> None:
    app = make_app(sample, theme=theme)
    assert snap_compare(app, terminal_size=size, run_before=after("2", "j"))


@pytest.mark.parametrize("key", ["1", "2"], ids=["models", "health"])
def test_no_color(
    snap_compare: Compare, make_app: AppMaker, sample: Cache, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(make_app(sample), terminal_size=SMALL, run_before=after(key, "j"))


PANE_KEYS = pytest.mark.parametrize("key", ["1", "2"], ids=["models", "health"])
SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "120x40"])


@SIZES
@PANE_KEYS
def test_empty(snap_compare: Compare, make_app: AppMaker, key: str, size: tuple[int, int]) -> None:
    assert snap_compare(make_app(Cache(Path("hub"))), terminal_size=size, run_before=after(key))


@SIZES
@PANE_KEYS
def test_error(
    snap_compare: Compare, make_app: AppMaker, tmp_path: Path, key: str, size: tuple[int, int]
) -> None:
    (tmp_path / "hub").write_text("a file where a folder should be")
    assert snap_compare(make_app(Cache(Path("hub"))), terminal_size=size, run_before=after(key))


@pytest.mark.parametrize("tab", ["health", "files", "config", "card"])
def test_inspector_tabs(snap_compare: Compare, make_app: AppMaker, sample: Cache, tab: str) -> None:
    steps = ["health", "files", "config", "card"].index(tab) + 1

    def loaded(pilot: Pilot[Any]) -> bool:
        return "Reading" not in str(pilot.app.screen.query_one("#inspector-text").render())

    run = after(*"jjjjj", "enter", *["right"] * steps, until=loaded)
    assert snap_compare(make_app(sample), terminal_size=LARGE, run_before=run)


def test_inspector_is_a_screen_of_its_own_at_80_columns(
    snap_compare: Compare, make_app: AppMaker, sample: Cache
) -> None:
    assert snap_compare(make_app(sample), terminal_size=SMALL, run_before=after(*"jjjjj", "enter"))


def test_filter(snap_compare: Compare, make_app: AppMaker, sample: Cache) -> None:
    keys: Sequence[str] = ["slash", *typed("type:chat size>2GB")]
    assert snap_compare(make_app(sample), terminal_size=LARGE, run_before=after(*keys))


def test_bad_filter(snap_compare: Compare, make_app: AppMaker, sample: Cache) -> None:
    assert snap_compare(
        make_app(sample), terminal_size=SMALL, run_before=after("slash", *typed("health:ugly"))
    )


def test_disk_use(snap_compare: Compare, make_app: AppMaker, sample: Cache) -> None:
    assert snap_compare(make_app(sample), terminal_size=LARGE, run_before=after("u"))


def test_delete_dialog(snap_compare: Compare, make_app: AppMaker, sample: Cache) -> None:
    run = after("space", "space", "space", "d", until=open_dialog)
    assert snap_compare(make_app(sample), terminal_size=SMALL, run_before=run)


def test_prune_dialog(snap_compare: Compare, make_app: AppMaker, sample: Cache) -> None:
    run = after(*"jjjjj", "x", until=open_dialog)
    assert snap_compare(make_app(sample), terminal_size=LARGE, run_before=run)


def test_help(snap_compare: Compare, make_app: AppMaker, sample: Cache) -> None:
    assert snap_compare(
        make_app(sample), terminal_size=LARGE, run_before=after("question_mark", until=open_dialog)
    )
