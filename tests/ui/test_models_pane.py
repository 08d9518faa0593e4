"""The Models pane: filter, sort, mark, inspect, and acting on models, by keyboard and by mouse."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.services.library import ModelState
from mlxk_tui.ui.inspector.screens import InspectorScreen
from mlxk_tui.ui.models.pane import ModelsPane
from mlxk_tui.ui.widgets.dialogs import Dialog
from tests.support.hf_cache import HfCache, model_files, safetensors
from tests.ui.conftest import AppMaker, ready, wait_until

WIDE, NARROW = (120, 40), (80, 24)


def three(hub: Path) -> Cache:
    """Return a cache with a healthy chat model, a larger base model and a broken one."""
    made = HfCache(hub)
    made.repo("mlx-community/Alpha-Instruct-4bit").add(model_files())
    made.repo("other/Beta-4bit").add(
        model_files(chat=False)
        | {"model.safetensors": safetensors({"model.embed_tokens.weight": ("F16", (4, 800))})}
    )
    made.repo("mlx-community/Gamma-4bit").add(model_files() | {"config.json": b"[]"})
    return Cache(hub)


def pane(pilot: Pilot[Any]) -> ModelsPane:
    screen = pilot.app.screen_stack[0]
    assert isinstance(screen, ModelsPane)
    return screen


def shorts(pilot: Pilot[Any]) -> list[str]:
    return [entry.short for entry in pane(pilot)._shown]


def text(app: MlxkApp) -> str:
    return "\n".join(
        "".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()
    )


async def test_every_repo_is_listed_with_its_state(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        assert shorts(pilot) == ["Alpha-Instruct-4bit", "Beta-4bit", "Gamma-4bit"]
        states = {entry.short: entry.state for entry in app.library.entries.values()}
        assert states["Alpha-Instruct-4bit"] is ModelState.GOOD
        assert states["Gamma-4bit"] is ModelState.BAD
        assert "3 models" in text(app)


@pytest.mark.slow
async def test_filter_narrows_the_list_and_escape_clears_it(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("slash", *"type", "colon", *"base")
        await wait_until(pilot, lambda: shorts(pilot) == ["Beta-4bit"])
        assert "1 of 3" in text(app)
        await pilot.press("escape")
        await wait_until(pilot, lambda: len(shorts(pilot)) == 3)
        assert pane(pilot).table.has_focus


async def test_invalid_filter_term_shows_the_allowed_values(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("slash")
        pane(pilot).query_one(Input).value = "alpha health:ugly"
        await wait_until(pilot, lambda: "takes good or bad" in text(app))
        assert shorts(pilot) == ["Alpha-Instruct-4bit"]


async def test_columns_are_sorted_by_key_and_click(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await ready(pilot)
        titles = pane(pilot).columns
        where = text(app).split("\n")[titles.region.y].index("Size") - titles.region.x
        await pilot.click("#table-header", offset=(where, 0))
        await wait_until(pilot, lambda: shorts(pilot)[0] == "Beta-4bit")
        assert "Size ↓" in text(app)
        await pilot.press("S")
        await wait_until(pilot, lambda: shorts(pilot)[-1] == "Beta-4bit")
        for _ in range(3):
            await pilot.press("s")
        await wait_until(pilot, lambda: "Name ↑" in text(app))
        assert "▲" not in text(app).split("\n")[titles.region.y]


async def test_cursor_moves_with_vi_keys_and_the_mouse(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        names = []
        for key in ("j", "j", "j", "k", "g", "G"):
            await pilot.press(key)
            selected = pane(pilot).selected
            names.append(selected.short[0] if selected else "")
        assert names == ["B", "G", "G", "B", "A", "G"]
        await pilot.click("#table", offset=(10, 1))
        selected = pane(pilot).selected
        assert selected is not None
        assert selected.short == "Beta-4bit"


@pytest.mark.slow
async def test_hidden_marks_are_counted_but_not_acted_on(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("space", "space")
        await wait_until(pilot, lambda: "◆ 2 marked" in text(app))
        await pilot.press("slash", *"beta", "enter")
        await wait_until(pilot, lambda: "1 more hidden by the filter" in text(app))
        assert [entry.short for entry in pane(pilot).targets] == ["Beta-4bit"]
        await pilot.press("d")
        await wait_until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "Delete this model?" in text(app)
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: len(app.library.entries) == 2)
        await wait_until(pilot, lambda: not app.tasks.running)
        assert (hub / "models--mlx-community--Alpha-Instruct-4bit").is_dir()
        await pilot.press("escape")  # the filter: marks are kept
        await wait_until(pilot, lambda: len(shorts(pilot)) == 2)
        assert [entry.short for entry in pane(pilot).targets] == ["Alpha-Instruct-4bit"]
        await pilot.press("escape")
        await wait_until(pilot, lambda: not pane(pilot).table.marks)


async def test_delete_dialog_shows_the_plan_and_focuses_the_safe_button(
    make_app: AppMaker, hub: Path
) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("j", "d")
        await wait_until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "Beta-4bit" in text(app)
        assert "Frees" in text(app)
        assert app.focused is not None
        assert app.focused.id == "safe"
        await pilot.press("enter")
        await wait_until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert (hub / "models--other--Beta-4bit").is_dir()
        await pilot.press("d")
        await wait_until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.click("#proceed")
        await wait_until(pilot, lambda: len(app.library.entries) == 2)
        assert not (hub / "models--other--Beta-4bit").exists()
        await wait_until(pilot, lambda: not app.tasks.running)


async def test_enter_opens_and_escape_closes_the_inspector_on_a_narrow_screen(
    make_app: AppMaker, hub: Path
) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, InspectorScreen))
        await pilot.press("right", "right")
        await wait_until(pilot, lambda: "model.safetensors" in text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is pane(pilot))


@pytest.mark.slow
async def test_list_follows_the_cache_and_keeps_the_cursor(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub), refresh_seconds=0.05)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("j")
        HfCache(hub).repo("aaa/Aardvark-4bit").add(model_files())
        await wait_until(pilot, lambda: "Aardvark-4bit" in shorts(pilot))
        selected = pane(pilot).selected
        assert selected is not None
        assert selected.short == "Beta-4bit"
        shutil.rmtree(hub / "models--other--Beta-4bit")
        await wait_until(pilot, lambda: "Beta-4bit" not in shorts(pilot))
        HfCache(hub).repo("mlx-community/Gamma-4bit").add(model_files())
        await wait_until(
            pilot,
            lambda: (
                [e.state for e in app.library.entries.values() if e.short == "Gamma-4bit"]
                == [ModelState.GOOD]
            ),
        )


async def test_cache_created_later_fills_the_empty_list(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app(Cache(tmp_path / "later"), refresh_seconds=0.05)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        assert "pull a model" in text(app)
        HfCache(tmp_path / "later").repo("org/Model").add(model_files())
        await wait_until(pilot, lambda: shorts(pilot) == ["Model"])
        await wait_until(pilot, lambda: pane(pilot).table.has_focus)


@pytest.mark.slow
async def test_verify_finds_damaged_bytes_and_shows_them_everywhere(make_app: AppMaker, hub: Path) -> None:
    cache = three(hub)
    weights = next((hub / "models--other--Beta-4bit" / "snapshots").glob("*/model.safetensors")).resolve()
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 0xFF
    app = make_app(cache)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        weights.write_bytes(raw)
        await pilot.press("j", "v")
        await wait_until(pilot, lambda: pane(pilot).selected is not None and not pane(pilot).selected.intact)  # type: ignore[union-attr]  # just checked
        await wait_until(pilot, lambda: "●2" in text(app))
        await pilot.press("2")
        await wait_until(pilot, lambda: "differs from its checksum" in text(app))


async def test_clone_asks_for_a_folder_and_rejects_one_that_is_not_empty(
    make_app: AppMaker, hub: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("C")
        await wait_until(pilot, lambda: bool(app.screen.query("#target")))
        form = app.screen
        form.query_one("#target", Input).value = str(tmp_path / "full")
        await wait_until(pilot, lambda: "not empty" in text(app))
        await pilot.press("enter")
        assert app.screen is form
        form.query_one("#target", Input).value = str(tmp_path / "mine")
        await pilot.press("enter")
        await wait_until(pilot, (tmp_path / "mine" / "model.safetensors").is_file)
        await wait_until(pilot, lambda: not app.tasks.running)


async def test_copy_puts_the_name_on_the_clipboard(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("j", "y")
        assert app.clipboard == "other/Beta-4bit"
        await pilot.press("Y")
        assert app.clipboard.startswith(str(hub / "models--other--Beta-4bit" / "snapshots"))


async def test_names_from_the_cache_are_escaped(make_app: AppMaker, hub: Path) -> None:
    for name in ("org/[bold]x[/nope]", "org/[/Users/x]", "org/a\x1b[31mred"):
        HfCache(hub).repo(name).path.joinpath("snapshots").mkdir(
            parents=True
        ) if "/Users" not in name else None
    app = make_app(Cache(hub))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await wait_until(pilot, lambda: bool(app.library.entries))
        assert "\\x1b[31mred" in text(app)
        assert "\x1b" not in text(app)
        await pilot.press("j", "enter", "d")
        await pilot.pause()
        assert app.is_running


async def test_disabled_key_shows_the_reason(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app(Cache(tmp_path / "none"))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("d")
        await wait_until(pilot, lambda: "The cache is empty" in text(app))
