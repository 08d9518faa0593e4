"""Memory does not grow with key presses: closed screens are released.

The tests count widgets, watchers and the bytes allocated by Python after a pane, a screen or a dialog has
been used for a while. The short run presses some keys; `-m slow` 25 in each place, and with
MLXK2_LONG_TESTS=1 500.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from textual import events
from textual.dom import DOMNode
from textual.keys import key_to_character
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets._footer import FooterKey

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.events import Publisher
from mlxk_tui.ui.shell.footer import KeyFooter
from tests.ui.conftest import AppMaker, ready, wait_until

CYCLES = {
    "models: the cursor": ("f1", "down", "down", "up", "up"),
    "models: the inspector": ("f1", "tab", "right", "right", "left", "left", "shift+tab"),
    "models: the filter": ("f1", "slash", "z", "backspace", "escape"),
    "models: deleting": ("f1", "d", "escape"),
    "models: cloning": ("f1", "C", "escape"),
    "models: disk usage": ("f1", "u", "escape"),
    "models: sorting": ("f1", "s", "S", "m"),
    "health: the cursor": ("f2", "down", "down", "up", "up"),
    "health: pruning": ("f2", "x", "escape"),
    "transfers: searching": ("f3", "n", "a", "escape"),
    "transfers: pushing": ("f3", "P", "escape"),
    "chat: the composer": ("f4", "f6", "escape", "escape", "i", "a", "backspace"),
    "chat: the settings": ("f4", "f10", "escape"),
    "chat: the model": ("f4", "f9", "escape"),
    "chat: the list of chats": ("f4", "f7", "escape"),
    "server: its form": ("f5", "e", "escape"),
    "server: a key": ("f5", "n", "escape"),
    "server: the tabs": ("f5", "right", "right", "left", "left"),
    "help": ("f2", "question_mark", "escape"),
    "the palette": ("f2", "ctrl+p", "down", "escape"),
    "the panes": ("f1", "f2", "f3", "f4", "f5"),
}
"""What is pressed again and again; it ends where it began."""
WIDGETS_IN_FLIGHT = 90
"""Widgets that may be on their way out when it is counted: three screens full."""
BYTES = 600_000
"""How much more may be allocated afterwards: what Textual's caches still take up, and a screen on its way.

Before, 500 presses took 35 MB.
"""


@dataclass(frozen=True)
class Count:
    """Counts of objects."""

    widgets: int
    watchers: int
    bytes: int


def count(app: MlxkApp) -> Count:
    """Count after a cleanup, which the app's timer also does: see the last test."""
    app._sweep()
    gc.collect()
    nodes = [each for each in gc.get_objects() if isinstance(each, DOMNode)]
    watchers = sum(len(found) for node in nodes for found in getattr(node, "__watchers", {}).values())
    widgets = sum(isinstance(node, Widget) for node in nodes)
    return Count(widgets, watchers, tracemalloc.get_traced_memory()[0])


async def press(pilot: Pilot[None], keys: Sequence[str], times: int = 1) -> None:
    """Press keys at once and wait until the app has handled them; repeat."""
    app = pilot.app
    for _ in range(times):
        for key in keys:
            app.post_message(events.Key(key, key_to_character(key)))
        while any(node._running and node._message_queue.qsize() for node in (app, *app._registry)):  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.002)
        await pilot.pause()


async def check_flat(
    pilot: Pilot[None], cycles: Iterable[Sequence[str]], *, warm_up: int, times: int
) -> None:
    """Press the keys of each cycle repeatedly, and check that the counts do not change.

    A cache that fills, or a module that is loaded late, increases them once; a leak every time.
    """
    app = pilot.app
    assert isinstance(app, MlxkApp)
    every = [(*keys, "escape", "escape") for keys in cycles]
    for keys in every:
        await press(pilot, keys, warm_up)
    counts = [count(app)]
    for _ in range(3):
        for keys in every:
            await press(pilot, keys, times)
        assert not app._exit
        counts.append(count(app))
        before, after = counts[-2:]
        if (
            after.watchers <= before.watchers + 6
            and after.widgets <= before.widgets + WIDGETS_IN_FLIGHT
            and after.bytes <= before.bytes + BYTES
        ):
            return
    raise AssertionError(f"it grows each time: {counts}")


PRESSES = 500 if os.environ.get("MLXK2_LONG_TESTS") == "1" else 25
OFTEN = ("models: the cursor", "models: disk usage", "help")
"""What is pressed in the quick run."""


@pytest.mark.slow
async def test_memory_does_not_grow(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        tracemalloc.start(1)
        try:
            await check_flat(pilot, [CYCLES[name] for name in OFTEN], warm_up=2, times=4)
        finally:
            tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", CYCLES)
async def test_memory_does_not_grow_in_any_place(make_app: AppMaker, sample: Cache, name: str) -> None:
    app = make_app(sample)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        tracemalloc.start(1)
        try:
            await check_flat(pilot, [CYCLES[name]], warm_up=3, times=PRESSES // len(CYCLES[name]))
        finally:
            tracemalloc.stop()


def subscriptions(app: MlxkApp) -> list[int]:
    """Return how many subscriptions each service has."""
    chats = app.chats
    publishers: tuple[Publisher[Any], ...] = (
        *(app.tasks.changed, app.library.changed, app.transfers.changed, app.server.changed),
        *(chats.engine_changed, chats.answers_changed, chats.write_error_changed),
    )
    return [publisher.subscriptions for publisher in publishers]


@pytest.mark.slow
async def test_closed_screen_has_no_subscription(
    make_app: AppMaker, sample: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlxk_tui.app.INTERVAL_S", 3600.0)  # nobody sweeps up behind it
    app = make_app(sample)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot)
        for pane in ("f2", "f3", "f4", "f5", "f1"):  # a pane stays once it has been opened
            await press(pilot, [pane])
        before = subscriptions(app)
        assert all(before)
        for keys, back in ((("f1", "enter"), "escape"), (("f3", "n"), "escape"), (("f5", "i"), "escape")):
            await press(pilot, keys)
            await wait_until(pilot, lambda: len(app.screen_stack) > 1 and subscriptions(app) != before)
            await press(pilot, [back])
            await wait_until(pilot, lambda: len(app.screen_stack) == 1)
            await wait_until(pilot, lambda: subscriptions(app) == before)
    assert subscriptions(app) == [0, 0, 1, 0, 0, 0, 0]  # the app's own, which hears of every transfer


@pytest.mark.slow
async def test_closed_screen_is_released(make_app: AppMaker, sample: Cache) -> None:
    app = make_app(sample)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot)
        left: list[weakref.ref[object]] = []
        for key in ("question_mark", "u", "enter"):
            await press(pilot, [key])
            await wait_until(pilot, lambda: len(app.screen_stack) > 1 and app.screen.is_running)
            left.append(weakref.ref(app.screen))
            await press(pilot, ["escape"])
            await wait_until(pilot, lambda: len(app.screen_stack) == 1)

        def forgotten() -> bool:
            gc.collect()
            return not any(ref() for ref in left)

        await wait_until(pilot, forgotten)


@pytest.mark.slow
async def test_footer_releases_hidden_keys(
    make_app: AppMaker, sample: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Textual's footer creates new keys whenever the focus moves, and never releases the old ones."""
    monkeypatch.setattr("mlxk_tui.app.INTERVAL_S", 3600.0)  # no cleanup during the test
    app = make_app(sample)

    def kept() -> tuple[int, int]:
        gc.collect()
        keys = sum(isinstance(each, FooterKey) for each in gc.get_objects())
        footer = app.screen.query_one(KeyFooter)
        return keys, sum(map(len, getattr(footer, "__watchers", {}).values()))

    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        around = ("tab", "shift+tab", "slash", "escape")
        await press(pilot, around, 2)
        before = kept()
        shown = {key.description for key in app.screen.query(FooterKey) if key.display}
        await press(pilot, ["tab"])
        assert shown != {key.description for key in app.screen.query(FooterKey) if key.display}
        await press(pilot, ["shift+tab"])
        await press(pilot, around, 10)
        assert kept() == before
