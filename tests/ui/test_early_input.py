"""Input that arrives before a screen is mounted or after it is closed is ignored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from textual import events
from textual.command import CommandList, CommandPalette
from textual.geometry import Size
from textual.pilot import Pilot
from textual.screen import Screen
from textual.style import Style
from textual.worker import WorkerState

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ui.chat.pane import ChatPane
from mlxk_tui.ui.models.pane import ModelsPane
from mlxk_tui.ui.server.pane import ServerPane
from mlxk_tui.ui.shell.registry import PANES
from mlxk_tui.ui.transfers.pane import TransfersPane
from mlxk_tui.ui.transfers.push_form import PushForm
from mlxk_tui.ui.widgets.dialogs import HelpScreen
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.tab_strip import TabStrip
from tests.support.waiting import until
from tests.ui.conftest import AppMaker, ready, wait_until
from tests.ui.test_memory import press


@pytest.fixture(autouse=True)
def _no_faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test with an exception in a message loop, also with one that did not stop the app."""
    seen: list[Exception] = []
    handle = MlxkApp._handle_exception

    def note(app: MlxkApp, error: Exception) -> None:
        seen.append(error)
        handle(app, error)

    monkeypatch.setattr(MlxkApp, "_handle_exception", note)
    yield
    assert not seen


@asynccontextmanager
async def started(app: MlxkApp) -> AsyncIterator[Pilot[Any]]:
    """Run an app whose first scan has ended."""
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot)
        yield pilot


def openings(app: MlxkApp) -> list[Callable[[], object]]:
    """Return functions that open a screen of each kind from the open pane."""
    pane = app.screen
    found: list[Callable[[], object]] = [app.action_keys, app.action_command_palette]
    if isinstance(pane, ModelsPane):
        chosen = RowList.Selected(pane.table, pane.table.cursor_key or "")
        found += [pane.action_disk_usage, lambda: pane.on_row_list_selected(chosen)]
    elif isinstance(pane, TransfersPane):
        found += [pane.action_find, pane.action_push]
    elif isinstance(pane, ChatPane):
        found += [pane.action_sessions, pane.action_search]
    elif isinstance(pane, ServerPane):
        found += [pane.action_connect]
    return found


def _is_closed(screen: Screen[Any]) -> bool:
    return screen._closed


@pytest.mark.slow
async def test_screen_can_be_closed_before_it_is_mounted(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample, push=True)
    async with started(app) as pilot:
        for pane in ("models", "transfers", "chat", "server"):
            app.action_pane(pane)
            await wait_until(pilot, lambda: app.screen.is_mounted)
            for opening in openings(app):
                below = app.screen
                opening()
                opened = app.screen
                assert opened is not below
                assert not opened.is_mounted
                app.action_pane(pane)
                await until(partial(_is_closed, opened))
        await press(pilot, ["ctrl+p"])  # none is left in its place
        assert isinstance(app.screen, CommandPalette)


@pytest.mark.slow
async def test_key_in_a_screen_without_widgets_is_ignored(make_app: AppMaker, sample: Cache) -> None:
    """ctrl+p overtook escape, which then found a palette that was not mounted and crashed the app."""
    app = make_app(sample)
    async with started(app) as pilot:
        await press(pilot, ["escape", "ctrl+p"])
        await press(pilot, ["escape"])
        app.action_keys()
        assert not await app.run_action("scroll(1)", app.screen)
        await wait_until(pilot, lambda: app.screen.is_mounted)
        assert await app.run_action("scroll(1)", app.screen)


async def test_pane_without_widgets_has_no_keys(make_app: AppMaker, sample: Cache) -> None:
    """The footer requested the keys before the list was mounted, and crashed the app."""
    app = make_app(sample)
    async with started(app):
        assert app._check_action_state("filter", app.screen)
        for pane in PANES:
            made = pane.make(app.context)
            actions = [binding.action for _, binding in made._bindings]
            assert not any(app._check_action_state(action, made) for action in actions if "." not in action)


async def test_palette_can_be_reopened_while_it_closes(make_app: AppMaker, sample: Cache) -> None:
    """Textual gives each palette the same id, so two of them crashed the app."""
    app = make_app(sample)
    async with started(app) as pilot:
        await press(pilot, ["ctrl+p"])
        left = app.screen
        assert isinstance(left, CommandPalette)
        left.dismiss()
        app.action_command_palette()
        assert isinstance(app.screen, CommandPalette)
        assert app.screen is not left
        await press(pilot, ["escape"])


async def test_tab_click_before_a_dialog_opened_does_not_affect_the_dialog(
    make_app: AppMaker, sample: Cache
) -> None:
    """The palette stayed in the pane that was left, and could not be mounted."""
    app = make_app(sample)
    async with started(app) as pilot:
        pane = app.screen
        assert isinstance(pane, ModelsPane)
        pane.tabs.post_message(TabStrip.Activated(pane.tabs, "health"))
        app.action_command_palette()
        await press(pilot, ["down"])
        assert isinstance(app.screen, CommandPalette)


async def test_pending_callbacks_of_a_closed_screen_are_dropped(make_app: AppMaker, sample: Cache) -> None:
    """Textual ran the callback in the screen on top, which crashed with NoMatches."""
    app = make_app(sample)
    async with started(app) as pilot:
        await press(pilot, ["question_mark"])
        left = app.screen
        assert isinstance(left, HelpScreen)
        free = asyncio.Event()
        app.screen_stack[0].call_later(free.wait)  # the pane below is busy
        left.post_message(events.Resize(Size(79, 24), Size(79, 24)))
        left.dismiss()
        await until(lambda: not left.is_attached)
        free.set()
        await press(pilot, ["down"])


@pytest.mark.slow
async def test_workers_stop_before_their_widgets_are_removed(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample, push=True)
    async with started(app) as pilot:
        await press(pilot, ["3", "P"])
        form = app.screen
        assert isinstance(form, PushForm)
        form.folder.value = "somewhere"
        await wait_until(pilot, lambda: any(worker.group == "push-check" for worker in app.workers))
        work = next(worker for worker in app.workers if worker.group == "push-check")
        there: list[bool] = []
        end = work.cancel

        def note() -> None:
            there.append(form.check.is_attached)
            end()

        work.cancel = note  # type: ignore[method-assign]  # to see what is there when it is called
        form.dismiss()
        await wait_until(pilot, lambda: work.is_finished)
        assert work.state is WorkerState.CANCELLED
        assert there[0]


@pytest.mark.slow
async def test_click_on_a_removed_row_is_ignored(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample)
    async with started(app) as pilot:
        await press(pilot, ["ctrl+p"])
        palette = app.screen
        lines = palette.query_one(CommandList)
        await wait_until(pilot, lambda: lines.option_count > 0)
        x, y = lines.region.offset
        meta = Style.from_meta({"option": lines.option_count})
        lines.post_message(
            events.Click(lines, 0, 0, 0, 0, 1, False, False, False, x, y, style=meta.rich_style)
        )
        await pilot.pause()
        assert app.screen is palette
