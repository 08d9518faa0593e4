"""Checking for updates: the mark in the table, the filter, the pull that removes it, and what is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from textual.pilot import Pilot

from mlxk_tui.app import MlxkApp
from mlxk_tui.demo.hub import Fault, LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.client import Timeouts
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.updates import DAY_SECONDS
from mlxk_tui.transfers.queue_file import state_file
from mlxk_tui.ui.widgets.text import UPDATE_GLYPH
from tests.support.hf_cache import HfCache, model_files
from tests.support.waiting import PATIENCE_S
from tests.ui.conftest import NOW, AppMaker, ready, wait_until
from tests.ui.test_model_actions import flat, toasts
from tests.ui.test_models_pane import WIDE, pane, shorts, text

ALPHA, BETA = "mlx-community/Alpha-4bit", "mlx-community/Beta-4bit"
FILES = model_files()


@pytest.fixture
def server(hub: Path) -> Iterator[LocalHub]:
    """A hub with a newer commit of Beta than the cache."""
    with LocalHub() as server:
        for name in (ALPHA, BETA):
            HfCache(hub).repo(name).add(FILES, commit=server.add_repo(name, FILES))
        server.commit(BETA, {"README.md": b"# A newer card\n"})
        yield server


def marked(app: MlxkApp) -> list[str]:
    """Return the models that are shown with the mark."""
    return [line.split()[1] for line in text(app).splitlines() if f"4bit {UPDATE_GLYPH}" in line]


async def idle(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, MlxkApp)
    await wait_until(pilot, lambda: not app.tasks.running)


async def test_update_is_marked_when_asked_and_the_pull_removes_the_mark(
    make_app: AppMaker, server: LocalHub, cache: Cache
) -> None:
    app = make_app(cache, hub=Hub(server.url))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await wait_until(pilot, lambda: app.transfers.ready)
        assert len(server.requests) == 0  # nothing is asked by itself
        await pilot.press("U")
        await wait_until(pilot, lambda: len(marked(app)) == 1)
        assert len(server.requests) == 2
        await wait_until(pilot, lambda: "1 update available" in flat(app))
        await pilot.press("slash")
        pane(pilot).filter_bar.input.value = "update:available"
        await pilot.press("enter")
        await wait_until(pilot, lambda: shorts(pilot) == ["Beta-4bit"])
        old, new = (commit.oid[:7] for commit in reversed(server.history(BETA)))
        assert f"Update available: {old} → {new}" in flat(app)
        await pilot.press("p")
        await wait_until(pilot, lambda: shorts(pilot) == [])
        await pilot.press("escape")
        await wait_until(pilot, lambda: len(shorts(pilot)) == 2 and not marked(app))
        assert (cache.root / "models--mlx-community--Beta-4bit" / "refs" / "main").read_text().startswith(new)


@pytest.mark.slow
async def test_setting_asks_once_a_day_and_the_result_is_stored(
    make_app: AppMaker, server: LocalHub, cache: Cache
) -> None:
    remote = Hub(server.url)
    for starts, requests in ((1, 2), (2, 2)):  # the second start shows the stored result
        app = make_app(cache, hub=remote, check_updates=True)
        async with app.run_test(size=WIDE, notifications=True) as pilot:
            await ready(pilot)
            await wait_until(pilot, lambda app=app: len(marked(app)) == 1)  # type: ignore[misc]  # bound now
            await idle(pilot)
            assert len(server.requests) == requests, starts
    app = make_app(cache, hub=remote, check_updates=True)
    app.library.clock = lambda: NOW + DAY_SECONDS
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await wait_until(pilot, lambda: len(server.requests) == 4)
        await idle(pilot)


@pytest.mark.slow
async def test_check_can_be_stopped_and_a_hub_that_fails_is_named_once(
    make_app: AppMaker, server: LocalHub, cache: Cache
) -> None:
    server.faults.add(Fault("silent", path="*/Beta-4bit/*"))
    patient = Timeouts(read_s=2 * PATIENCE_S, total_s=2 * PATIENCE_S)
    app = make_app(cache, hub=Hub(server.url, timeouts=patient))
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("U")
        await wait_until(pilot, lambda: "Checking for updates 1 of 2" in flat(app))
        await pilot.press("U")
        await wait_until(pilot, lambda: "Already checking for updates." in flat(app))
        await pilot.press("escape")
        await idle(pilot)
        assert "Checking for updates: stopped." in toasts(app)
        server.stop()
        await pilot.press("U")
        await wait_until(pilot, lambda: any("cannot be reached" in toast for toast in toasts(app)))
        assert not marked(app)


@pytest.mark.slow
async def test_invalid_stored_result_is_ignored(make_app: AppMaker, server: LocalHub, cache: Cache) -> None:
    path = state_file(platformdirs.user_state_path("mlxk-tui"), cache.root, "updates")
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"version": 1, "checked": 0, "updates": {"models--mlx-community--Beta-4bit": {"commit": 3}}}
    for content in ("", "[]", json.dumps(stored)):
        path.write_text(content)
        app = make_app(cache, hub=Hub(server.url))
        async with app.run_test(size=WIDE, notifications=True) as pilot:
            await ready(pilot)
            assert not marked(app)
            assert not pane(pilot).filter_bar.filter.updates
