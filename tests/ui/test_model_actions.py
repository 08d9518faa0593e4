"""Actions on models: their targets, the order in which escape closes things, and messages."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.services.tasks import Task
from mlxk_tui.ui.inspector.clone_dialog import CloneDialog, problem_with
from mlxk_tui.ui.shell.tasks import LONG_SECONDS, stop_latest_task
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog, Dialog, DialogList
from tests.support.hf_cache import HfCache, model_files
from tests.ui.conftest import AppMaker, ready, wait_until
from tests.ui.test_models_pane import NARROW, WIDE, pane, text, three


def flat(app: MlxkApp) -> str:
    """Return the screen without the line breaks and frames of toasts."""
    return " ".join(text(app).replace("▌", " ").replace("│", " ").split())


def toasts(app: MlxkApp) -> list[str]:
    return [notification.message for notification in app._notifications]


async def endless(_: object) -> str:
    await asyncio.Event().wait()
    return ""


async def sole_task(pilot: Pilot[Any]) -> Task:
    app = pilot.app
    assert isinstance(app, MlxkApp)
    task = app.tasks.start("Waiting", endless)
    await pilot.pause()
    return task


async def test_clone_and_copy_act_on_a_single_marked_model(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("space", "j")  # Alpha is marked, the cursor on Gamma
        await pilot.press("Y")
        assert "Alpha-Instruct-4bit" in app.clipboard
        await pilot.press("C")
        await wait_until(pilot, lambda: isinstance(app.screen, CloneDialog))
        assert app.screen.query_one("#target", Input).value == "./Alpha-Instruct-4bit"


async def test_unhealthy_model_cannot_be_cloned_and_the_key_shows_why(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("G", "C")
        await wait_until(pilot, lambda: "Gamma-4bit is broken and can't be cloned" in flat(app))


@pytest.mark.slow
async def test_long_list_in_a_dialog_is_scrolled_with_keys(make_app: AppMaker, hub: Path) -> None:
    for number in range(30):
        HfCache(hub).repo(f"org/Model-{number:02}").add(model_files())
    app = make_app(Cache(hub))
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+a", "d")
        await wait_until(pilot, lambda: isinstance(app.screen, Dialog) and bool(app.screen.query(DialogList)))
        box = app.screen.query_one(DialogList)
        await wait_until(pilot, lambda: box.max_scroll_y > 0)
        assert box.show_vertical_scrollbar
        seen = []
        for key in ("down", "pagedown", "pageup", "up", "end", "home"):
            await pilot.press(key)
            await pilot.pause()
            seen.append(round(box.scroll_y))
        assert seen[0] == 1
        assert seen[1] > 5
        assert seen[2:4] == [1, 0]
        assert seen[4] == box.max_scroll_y
        assert seen[5] == 0
        assert isinstance(app.focused, Button)
        assert app.focused.id == "safe"
        await pilot.press("right")
        assert app.focused.id == "proceed"
        await pilot.press("left")
        assert app.focused.id == "safe"


@pytest.mark.slow
async def test_escape_closes_transient_states_first_and_stops_a_task_last(
    make_app: AppMaker, hub: Path
) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("slash", *"4bit", "enter", "space", "enter")
        assert pane(pilot).inspector.body.has_focus
        await sole_task(pilot)
        await pilot.press("escape")
        assert pane(pilot).table.has_focus
        assert pane(pilot).filter_bar.input.value
        await pilot.press("u", "escape")
        assert not pane(pilot).filter_bar.input.value
        assert pane(pilot).table.marks
        await pilot.press("escape")
        assert not pane(pilot).table.marks
        assert pane(pilot).disk_usage.display
        await pilot.press("escape")
        assert pane(pilot).inspector.display
        assert app.tasks.running
        await pilot.press("escape")
        await wait_until(pilot, lambda: not app.tasks.running)


@pytest.mark.slow
async def test_stopping_a_long_task_asks_first(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        task = await sole_task(pilot)
        task.began -= LONG_SECONDS + 1
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("enter")
        await wait_until(pilot, lambda: not isinstance(app.screen, ConfirmDialog))
        assert app.tasks.running
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: not app.tasks.running)


async def test_task_cancelled_before_its_start_is_removed(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        app.tasks.start("Waiting", endless)
        stop_latest_task(app, app.tasks)
        await wait_until(pilot, lambda: not app.tasks.running)
        assert toasts(app) == ["Waiting: stopped."]


async def test_verify_reports_only_what_it_checked(make_app: AppMaker, hub: Path) -> None:
    made = three(hub)
    (HfCache(hub).repo("org/Nothing").path / "snapshots").mkdir(parents=True)
    app = make_app(made)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        keys = {entry.short: entry.key for entry in app.library.entries.values()}
        for short, words in (
            ("Nothing", "Nothing: no files with checksums."),
            ("Gamma-4bit", "all checksums match, but the model is still broken: "),
            ("Alpha-Instruct-4bit", "files verified, all checksums match."),
        ):
            pane(pilot).select(keys[short])
            await pilot.press("v")
            await wait_until(pilot, lambda words=words: words in " ".join(toasts(app)))  # type: ignore[misc]  # mypy cannot infer it
        assert not any("all right" in toast for toast in toasts(app))


async def test_running_verify_is_not_started_again(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        selected = pane(pilot).selected
        assert selected is not None
        app.tasks.start("Verifying", endless, about=[f"verify {selected.key}"])
        await pilot.press("v", "v")
        assert len(app.tasks.running) == 1
        assert toasts(app) == ["Already verifying Alpha-Instruct-4bit."]  # and it does not stack


async def test_damaged_bytes_are_the_reason_in_the_overview(make_app: AppMaker, hub: Path) -> None:
    cache = three(hub)
    weights = next((hub / "models--other--Beta-4bit" / "snapshots").glob("*/model.safetensors")).resolve()
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 0xFF
    app = make_app(cache)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        weights.write_bytes(raw)
        await pilot.press("j", "v")
        await wait_until(pilot, lambda: "differs from its checksum" in flat(app))
        assert pane(pilot).inspector.tab == "overview"


async def test_focus_moves_to_the_table_when_the_inspector_hides(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("enter")
        assert pane(pilot).inspector.body.has_focus
        await pilot.resize_terminal(*NARROW)
        await wait_until(pilot, lambda: pane(pilot).table.has_focus)


async def test_inspector_screen_closes_when_there_is_space_for_both(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("enter", "right")
        await wait_until(pilot, lambda: app.screen is not pane(pilot))
        await pilot.resize_terminal(*WIDE)
        await wait_until(pilot, lambda: app.screen is pane(pilot))
        assert pane(pilot).inspector.tab == "health"


@pytest.mark.slow
async def test_sorting_cycles_through_the_visible_columns(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=(60, 30), notifications=True) as pilot:
        await ready(pilot)
        for columns in (60, 80, 100, 120, 160):
            await pilot.resize_terminal(columns, 30)
            await wait_until(pilot, lambda: app.size.width == app.screen.size.width)
            shown = pane(pilot).columns.shown
            if columns >= 80:
                assert [name for name in shown if name != "org"] == [
                    "name", "type", "quant", "size", "modified", "state",
                ]  # fmt: skip
            assert ("org" in shown) == (columns >= 140)
            titles = pane(pilot).columns.region.y
            assert pane(pilot)._sort == "name"
            seen = []
            for _ in shown:
                await pilot.press("s")
                await pilot.pause()
                seen.append(pane(pilot)._sort)
                line = text(app).split("\n")[titles]
                assert "↑" in line or "↓" in line
            assert seen == [*shown[1:], shown[0]]


@pytest.mark.slow
async def test_inspector_has_every_tab(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await ready(pilot)
        for columns in (100, 104, 120, 160):
            await pilot.resize_terminal(columns, 30)
            await wait_until(pilot, lambda: app.size.width == app.screen.size.width)
            strip = pane(pilot).inspector.tabs.region
            line = text(app).split("\n")[strip.y][strip.x : strip.right]
            assert line.split() == ["Overview", "Health", "Files", "Config", "Card"]
            await pilot.click("#inspector-tabs", offset=(line.index("Card"), 0))
            assert pane(pilot).inspector.tab == "card"
            await pilot.click("#inspector-tabs", offset=(line.index("Overview"), 0))
            assert pane(pilot).inspector.tab == "overview"


def test_clone_form_accepts_only_valid_targets(tmp_path: Path, hub: Path) -> None:
    (tmp_path / "file").touch()
    for typed, words in (
        (str(hub / "inside"), "inside the cache"),
        ("~nobody-of-this-name/x", "Unknown user: nobody-of-this-name"),
        (".", "the current folder"),
        (str(tmp_path / "file" / "below"), "not a folder"),
        (str(tmp_path / "file"), "not a folder"),
        ("a\0b", "NUL"),
        ("\ud800", "unsupported character"),
        ("x" * 400, "Can't use this path"),
        ("  ", "Enter a folder"),
    ):
        assert words in (problem_with(typed, hub) or ""), typed
    assert problem_with(str(tmp_path / "new" / "folder"), hub) is None


@pytest.mark.slow
async def test_failed_clone_reopens_the_form_with_its_text(
    make_app: AppMaker, hub: Path, tmp_path: Path
) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("C")
        await wait_until(pilot, lambda: isinstance(app.screen, CloneDialog))
        first = app.screen
        target = str(tmp_path / "mine")
        first.query_one("#target", Input).value = target
        (hub / "models--mlx-community--Alpha-Instruct-4bit").rename(hub / "aside")
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, CloneDialog) and app.screen is not first)
        assert app.screen.query_one("#target", Input).value == target
        cause = "✗ 'mlx-community/Alpha-Instruct-4bit' is not in the cache"
        await wait_until(pilot, lambda: cause in flat(app))
        app.screen.query_one("#target", Input).value = target + "2"
        await wait_until(pilot, lambda: cause not in flat(app) and "→" in flat(app))
        await pilot.press("escape")


async def test_footer_of_the_filter_shows_only_its_keys(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("slash")
        await wait_until(pilot, lambda: "F12 Help" in text(app).split("\n")[-1])
        footer = text(app).split("\n")[-1]
        assert set(footer.split()) == {
            "esc",
            "Clear",
            "⏎",
            "To",
            "the",
            "table",
            "F12",
            "Help",
            "^p",
            "palette",
        }
        await pilot.press("f12")
        await wait_until(pilot, lambda: "Keys" in text(app))


async def test_unreadable_cache_is_not_shown_as_empty(make_app: AppMaker, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    app = make_app(Cache(tmp_path / "a-file"))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        for key in ("u", "u", "1", "d", "2", "V"):
            await pilot.press(key)
            await pilot.pause()
        assert toasts(app) == ["Can't read the cache. Press r to retry."]


async def test_rescan_in_the_health_pane_reports_its_result(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("2", "r")
        await wait_until(pilot, lambda: toasts(app) == ["Cache rescanned: 3 models."])


async def test_help_lists_the_palette_and_no_class_names(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=(80, 60), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("2", "question_mark")
        await wait_until(pilot, lambda: "^p" in text(app) and "Keys" in text(app))
        await wait_until(pilot, lambda: "Lists" in text(app))
        assert "HealthList" not in text(app)


async def test_unknown_theme_names_its_source_and_the_choices(
    make_app: AppMaker, hub: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('theme = "nrod"\n')
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        assert len(toasts(app)) == 1
        for words in (str(tmp_path / "config.toml"), "'nrod'", "Using the default.", "mlxk-light", "nord"):
            assert words in toasts(app)[0]
