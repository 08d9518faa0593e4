"""Pictures of the app: one run draws many scenes, each in several themes.

Starting the app takes a second, a scene a tenth of that: so each state is opened once, and all its pictures
are stored for the tests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widgets import Input, TextArea

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.palette import Palette
from mlxk_tui.services.library import ScanPhase
from mlxk_tui.settings import load
from tests.ui.conftest import MACHINE, NOW, wait_until

NO_COLOR = "no-color"
"""The theme of a terminal without colors, which cannot be changed while the app runs."""
THEMES = {"dark": "mlxk-dark", "light": "mlxk-light", "ansi": "ansi-dark"}
"""The other looks, which can be had one after the other."""
_TICK_SECONDS = 0.02
_TICKS = 1000


@dataclass(frozen=True)
class Scene:
    """The steps to a picture and back.

    Attributes:
        name: part of the picture's name.
        keys: keys to press, with Textual's names.
        text: text to enter in the focused field afterwards.
        says: text on the screen once the scene is complete.
        back: keys to press to leave the scene.
    """

    name: str
    keys: Sequence[str]
    says: str
    text: str = ""
    back: Sequence[str] = ()


class Waiting(MlxkApp):
    """The app on a machine whose only worker thread is busy, so that the scan cannot start."""

    def on_load(self) -> None:
        self.busy = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, self.busy.wait)

    async def on_unmount(self) -> None:
        self.busy.set()


def open_app(cache: Cache, *, loading: bool = False, runtime: Runtime = MACHINE) -> MlxkApp:
    """Return the app for a cache, with the fixed time and machine of the tests."""
    made = Waiting if loading else MlxkApp
    return made(load({"refresh_seconds": 0}), cache, clock=lambda: NOW, runtime=runtime, remember=False)


def words(app: MlxkApp) -> str:
    """Return the text on the screen."""
    return _text(_frame(app))


def _text(frame: Sequence[Strip]) -> str:
    return "\n".join(strip.text for strip in frame)


def _frame(app: MlxkApp) -> list[Strip]:
    return app.screen._compositor.render_strips()


def _searches(app: MlxkApp) -> bool:
    """Return whether the palette is still searching."""
    return isinstance(app.screen, Palette) and any(
        worker.node is app.screen and not worker.is_finished for worker in app.workers
    )


async def settle(pilot: Pilot[Any], says: str) -> None:
    """Wait until the scan has ended, a text is on the screen, and nothing changes any more."""
    app = pilot.app
    assert isinstance(app, MlxkApp)
    before: list[Strip] = []
    for _ in range(_TICKS):
        await pilot.pause(_TICK_SECONDS)
        for field in app.screen.query(Input):
            field.cursor_blink = False
        for area in app.screen.query(TextArea):  # whose `cursor_blink` leaves lines as they were drawn
            hidden = area.has_focus and not area._cursor_visible
            area._pause_blink(visible=area.has_focus)
            if hidden:
                area.refresh()
        frame = _frame(app)
        scanned = isinstance(app, Waiting) or app.library.phase is not ScanPhase.LOADING
        focused = app.focused is not None or app.screen.AUTO_FOCUS is None
        if frame == before and scanned and focused and not _searches(app) and says in _text(frame):
            return
        before = frame
    raise AssertionError(f"the screen never came to rest saying {says!r}:\n{words(app)}")


async def draw(
    make: Callable[[], MlxkApp],
    sizes: Mapping[str, tuple[int, int]],
    scenes: Sequence[Scene],
    looks: Sequence[str],
) -> dict[tuple[str, str, str], str]:
    """Run an app once and return an SVG of each scene at each size in each look.

    Args:
        make: creates the app.
        sizes: columns and lines of the terminal, by name.
        scenes: the scenes; each starts where the previous one ended, and the first after the last.
        looks: `no-color` alone, or names of THEMES.
    """
    with pytest.MonkeyPatch.context() as patch:
        if NO_COLOR in looks:
            assert list(looks) == [NO_COLOR]
            patch.setenv("NO_COLOR", "1")
        app = make()
    pictures: dict[tuple[str, str, str], str] = {}
    async with app.run_test(size=next(iter(sizes.values())), notifications=True) as pilot:
        await settle(pilot, "mlxk")
        for size_name, size in sizes.items():
            if app.size != size:
                await pilot.resize_terminal(*size)
                await settle(pilot, "mlxk")
            for scene in scenes:
                await pilot.press(*scene.keys)
                if scene.text:
                    await wait_until(pilot, lambda: isinstance(app.focused, Input))
                    assert isinstance(app.focused, Input)
                    app.focused.value = scene.text
                    app.focused.cursor_position = len(scene.text)
                await settle(pilot, scene.says)
                for look in looks:
                    if look != NO_COLOR and app.theme != THEMES[look]:
                        app.theme = THEMES[look]
                        await settle(pilot, scene.says)
                    picture = app.export_screenshot(title=app.title, simplify=True)
                    pictures[scene.name, size_name, look] = picture
                for key in scene.back:
                    await pilot.press(key)
                    await settle(pilot, "")
    return pictures
