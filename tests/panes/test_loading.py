"""While the cache is being read both panes say so, and the keys work already."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlxk_tui.app import MlxkApp
from mlxk_tui.library import Phase
from mlxk_tui.ops.cache import Cache
from mlxk_tui.settings import load
from tests.panes.conftest import MACHINE, NOW, wait_until


class Waiting(MlxkApp):
    """The app on a machine whose only worker thread is busy, so that the scan cannot begin."""

    def on_load(self) -> None:
        self.busy = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, self.busy.wait)

    def on_unmount(self) -> None:
        self.busy.set()


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_both_panes_say_that_the_cache_is_being_read(hub: Path, size: tuple[int, int]) -> None:
    app = Waiting(load({"refresh_seconds": 0}), Cache(hub), clock=lambda: NOW, runtime=MACHINE)
    async with app.run_test(size=size) as pilot:

        def said(text: str) -> bool:
            return text.replace(" ", "&#160;") in app.export_screenshot()

        await wait_until(pilot, lambda: said("Reading the cache"))
        await pilot.press("2")
        await wait_until(pilot, lambda: said("Looking at every model"))
        assert app.library.phase is Phase.LOADING
        app.busy.set()
        await wait_until(pilot, lambda: app.library.phase is Phase.READY and said("Nothing to judge yet"))
