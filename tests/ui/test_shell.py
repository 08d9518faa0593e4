"""The shell: panes, help, palette, themes, keymap, quitting, and the Health pane's keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.command import CommandList, CommandPalette
from textual.style import Style

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.settings import load
from mlxk_tui.ui.health.pane import HealthPane
from mlxk_tui.ui.inspector.screens import InspectorScreen
from mlxk_tui.ui.models.pane import ModelsPane
from mlxk_tui.ui.shell import keys
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog, Dialog, HelpScreen
from tests.support.hf_cache import HfCache, model_files
from tests.ui.conftest import NOW, AppMaker, ready, wait_until
from tests.ui.test_models_pane import text, three

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "keys.md"


def test_keys_page_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == keys.document(MlxkApp), (
        "run: python scripts/keys_page.py > docs/keys.md"
    )


def test_every_binding_has_an_id_and_a_description() -> None:
    for group in keys.binding_groups(MlxkApp):
        assert group.title, group.bindings
        for binding in group.bindings:
            assert binding.id, binding
            assert binding.description, binding


@pytest.mark.slow
async def test_panes_open_by_number_function_key_and_click(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("2")
        await wait_until(pilot, lambda: isinstance(app.screen, HealthPane))
        await pilot.press("f1")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsPane))
        await pilot.click("#tabs", offset=(14, 0))
        await wait_until(pilot, lambda: isinstance(app.screen, HealthPane))


@pytest.mark.slow
async def test_help_lists_the_keys_of_the_focused_part(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample)
    async with app.run_test(size=(120, 50), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("question_mark")
        await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert "Verify the checksums (reads every byte)" in text(app)
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(app.screen, HelpScreen))


@pytest.mark.slow
async def test_palette_finds_a_model_by_name(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("2", "ctrl+p")
        await wait_until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"smollm3", "minus", *"3b")
        results = app.screen.query_one(CommandList)
        await wait_until(pilot, lambda: results.option_count == 1)
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsPane))
        screen = app.screen
        assert isinstance(screen, ModelsPane)
        await wait_until(
            pilot, lambda: screen.selected is not None and screen.selected.short == "SmolLM3-3B-4bit"
        )


async def test_chosen_theme_is_saved_to_the_config_file(
    make_app: AppMaker, hub: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("# mine\n")
    app = make_app(Cache(hub))
    async with app.run_test(notifications=True) as pilot:
        await ready(pilot)
        app.theme = "mlxk-light"
        await wait_until(pilot, lambda: "mlxk-light" in (tmp_path / "config.toml").read_text())
    assert (tmp_path / "config.toml").read_text().startswith("# mine\n")
    assert load().settings.theme == "mlxk-light"


async def test_broken_config_file_is_reported_and_the_app_opens(
    make_app: AppMaker, hub: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("theme = = 1\n")
    app = make_app(Cache(hub))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await wait_until(pilot, lambda: "is not valid TOML" in text(app).replace("\n", " "))
        assert app.theme == "mlxk-dark"


async def test_keymap_changes_keys_and_unknown_ids_are_reported(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample, keymap={"pane.health": "f9", "models.delte": "D"})
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await wait_until(pilot, lambda: "models.delte" in text(app))
        await pilot.press("f9")
        await wait_until(pilot, lambda: isinstance(app.screen, HealthPane))


async def test_quitting_asks_only_while_a_task_runs(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        started = asyncio.Event()

        async def forever(_: object) -> str:
            started.set()
            await asyncio.Event().wait()
            return ""

        app.tasks.start("Waiting", forever)
        await wait_until(pilot, started.is_set)
        assert "Waiting" in text(app)
        await pilot.press("q")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("enter")
        await wait_until(pilot, lambda: not isinstance(app.screen, ConfirmDialog))
        await pilot.press("escape")
        await wait_until(pilot, lambda: not app.tasks.running)
        await pilot.press("q")
        await wait_until(pilot, lambda: app._exit)


async def test_task_bar_key_stops_the_task_in_the_inspector(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot)

        async def forever(_: object) -> str:
            await asyncio.Event().wait()
            return ""

        app.tasks.start("Waiting", forever)
        await wait_until(pilot, lambda: "esc stop" in text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, InspectorScreen) and "^c stop" in text(app))
        await pilot.press("ctrl+c")
        await wait_until(pilot, lambda: not app.tasks.running)
        assert isinstance(app.screen, InspectorScreen)


async def test_health_pane_lists_broken_models_first_and_deletes_with_one_key(
    make_app: AppMaker, hub: Path
) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("2")
        await wait_until(pilot, lambda: "Broken" in text(app))
        shown = text(app)
        assert shown.index("Gamma-4bit") < shown.index("healthy and ready to run")
        await pilot.press("d")
        await wait_until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: len(app.library.entries) == 2)
        await wait_until(pilot, lambda: "All 2 models healthy" in text(app))


async def test_prune_shows_the_plan_and_runs_it(make_app: AppMaker, hub: Path) -> None:
    repo = HfCache(hub).repo("org/Model")
    repo.add(model_files(fill=b"\x02"), refs=(), modified=NOW)
    repo.add(model_files(), modified=NOW)
    app = make_app(Cache(hub))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("2", "x")
        await wait_until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "1 unreferenced revision" in text(app)
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: app.library.entries["models--org--Model"].model.revisions == 1)
        await wait_until(pilot, lambda: not app.tasks.running)


async def test_palette_closed_during_a_search_shows_no_error(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+p")
        palette = app.screen
        assert isinstance(palette, CommandPalette)
        await pilot.press("escape")
        await wait_until(pilot, lambda: palette._closed)
        # A search result that arrives now; a KeyError there crashed the app.
        assert Style.from_styles(palette.get_component_styles("command-palette--help-text"))
