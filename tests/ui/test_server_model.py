"""The default model of the server: saved once it is loaded, with a question if it is too large."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from textual.pilot import Pilot

from mlxk_tui.app import MlxkApp
from mlxk_tui.config_file import save
from mlxk_tui.demo import tiny_model
from mlxk_tui.engine.client import Engine
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.settings import load
from mlxk_tui.ui.server.pane import ServerPane
from mlxk_tui.ui.widgets.choice_dialogs import ChoiceDialog
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog
from tests.engine.conftest import needs_mlx, new_engine
from tests.ui.conftest import NOWHERE, wait_until
from tests.ui.gallery import words
from tests.ui.test_chat_interruptions import HUGE, add_huge

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="module")]
SIZES = {"wide": (120, 40), "narrow": (80, 24)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    """Return an engine that outlives the app."""
    engine = new_engine()
    yield engine
    await engine.stop()


def app_of(hub: Path, config: Path, engine: Engine) -> MlxkApp:
    """Return the app with the settings of a file and the server on a free port."""
    settings = load({"refresh_seconds": 0, "server_port": 0}, config)
    return MlxkApp(settings, Cache(hub), hub=Hub(NOWHERE), state=config.parent / "state", engine=engine)


def said(app: MlxkApp) -> str:
    """Return the text on the screen without frames, with wrapped lines joined."""
    return " ".join(word for word in words(app).split() if any(map(str.isalnum, word)))


async def pane_of(pilot: Pilot[Any], *, models: int = 2) -> ServerPane:
    app = pilot.app
    assert isinstance(app, MlxkApp)
    await wait_until(pilot, lambda: len(app.library.entries) == models)
    await pilot.press("f5")
    await wait_until(pilot, lambda: isinstance(app.screen, ServerPane))
    pane = app.screen
    assert isinstance(pane, ServerPane)
    return pane


async def choose(pilot: Pilot[Any], name: str) -> None:
    await pilot.press("m")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, ChoiceDialog))
    await pilot.press(*name, "enter")


@pytest.mark.slow
async def test_too_large_model_asks_first_and_is_saved_once_loaded(
    hub: Path, tmp_path: Path, engine: Engine
) -> None:
    tiny_model.install(hub)
    add_huge(hub, tiny_model.folder())
    config = tmp_path / "config.toml"
    app = app_of(hub, config, engine)
    async with app.run_test(size=SIZES["wide"], notifications=True) as pilot:
        pane = await pane_of(pilot)
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
        await choose(pilot, "huge")
        await wait_until(
            pilot, lambda: isinstance(app.screen, ConfirmDialog) and "Not enough memory" in words(app)
        )
        assert "needs about 1.00 TB of memory" in said(app)
        # Declined: nothing is saved or loaded.
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is pane)
        assert app.server.options.model is None
        assert app.chats.status.model is None
        assert load({}, config).settings.server_model == ""
        # Confirmed: it is loaded, then saved.
        await choose(pilot, "huge")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: app.server.options.model == HUGE)
        loaded = engine.status.model
        assert loaded is not None
        assert loaded.name == HUGE
        assert load({}, config).settings.server_model == HUGE
        # It answers, although a request alone cannot force it.
        assert app.server.server is not None
        assert app.server.server.address is not None
        url = f"{app.server.server.address.url}/v1/completions"
        async with aiohttp.ClientSession() as client:
            for body in ({"model": HUGE}, {}):
                reply = await client.post(url, json={"prompt": "Hello", "max_tokens": 1, **body})
                assert reply.status == 200, await reply.text()
    await engine.unload()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        (HUGE, "needs about 1.00 TB of memory,"),
        ("mlx-community/gone", "is not in the cache."),
    ],
    ids=["too-large", "gone"],
)
async def test_server_starts_with_a_warning_if_the_saved_model_cannot_be_loaded(
    hub: Path, tmp_path: Path, engine: Engine, name: str, why: str, size: tuple[int, int]
) -> None:
    tiny_model.install(hub)
    add_huge(hub, tiny_model.folder())
    config = tmp_path / "config.toml"
    save(config, "server_model", name)
    app = app_of(hub, config, engine)
    async with app.run_test(size=size) as pilot:
        await pane_of(pilot)
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
        await wait_until(pilot, lambda: f"The server_model {name} {why}" in said(app))
        assert "The server is on, but its model is missing" in said(app)
        assert "force it" not in said(app)
        assert "can't be loaded" in said(app)
        # Another one that can be loaded ends the warning.
        await choose(pilot, "tiny")
        await wait_until(pilot, lambda: app.server.options.model == tiny_model.NAME)
        await wait_until(pilot, lambda: "Waiting for the first request" in words(app))
        assert "server_model" not in words(app)
    assert load({}, config).settings.server_model == tiny_model.NAME
    await engine.unload()


async def test_warning_ends_when_the_saved_model_is_pulled(hub: Path, tmp_path: Path, engine: Engine) -> None:
    add_huge(hub, tiny_model.folder())
    config = tmp_path / "config.toml"
    save(config, "server_model", tiny_model.NAME)
    app = app_of(hub, config, engine)
    async with app.run_test(size=SIZES["wide"]) as pilot:
        await pane_of(pilot, models=1)
        await pilot.press("s")
        await wait_until(pilot, lambda: "is not in the cache" in said(app))
        tiny_model.install(hub)
        await app.library.refresh()
        await wait_until(pilot, lambda: "Waiting for the first request" in words(app))
