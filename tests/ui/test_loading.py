"""During the scan of the cache both panes show it, and the keys already work."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.services.library import ScanPhase
from tests.ui.conftest import wait_until
from tests.ui.gallery import Waiting, open_app


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_both_panes_show_that_the_cache_is_being_scanned(hub: Path, size: tuple[int, int]) -> None:
    app = open_app(Cache(hub), loading=True)
    assert isinstance(app, Waiting)
    async with app.run_test(size=size) as pilot:

        def said(text: str) -> bool:
            return text.replace(" ", "&#160;") in app.export_screenshot()

        await wait_until(pilot, lambda: said("Scanning the cache"))
        await pilot.press("2")
        await wait_until(pilot, lambda: said("Checking models"))
        assert app.library.phase is ScanPhase.LOADING
        app.busy.set()
        await wait_until(pilot, lambda: app.library.phase is ScanPhase.READY and said("No models to check"))
