"""The Server pane without MLX, and after a crash of the inference process."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from textual.pilot import Pilot

from mlxk_tui.app import MlxkApp
from mlxk_tui.demo import tiny_model
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.status import EngineState
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.settings import load
from mlxk_tui.ui.server.pane import ServerPane
from tests.engine.conftest import is_gone, needs_mlx, new_engine
from tests.support.clients import openai
from tests.ui.conftest import MACHINE, NOWHERE, wait_until
from tests.ui.gallery import words

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIZES = [(120, 40), (80, 24)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    """Return an engine that outlives the app."""
    engine = new_engine()
    yield engine
    await engine.stop()


def app_on(hub: Path, state: Path, **options: Any) -> MlxkApp:
    """Return the app with the tiny model and the server on a free port."""
    tiny_model.install(hub)
    settings = load({"refresh_seconds": 0, "server_port": 0})
    return MlxkApp(settings, Cache(hub), hub=Hub(NOWHERE), state=state, **options)


async def pane_of(pilot: Pilot[Any]) -> ServerPane:
    """Open the pane."""
    app = pilot.app
    assert isinstance(app, MlxkApp)
    await wait_until(pilot, lambda: bool(app.library.entries))
    await pilot.press("f5")
    await wait_until(pilot, lambda: isinstance(app.screen, ServerPane))
    pane = app.screen
    assert isinstance(pane, ServerPane)
    return pane


@pytest.mark.parametrize(
    "size", [pytest.param(SIZES[0], marks=pytest.mark.slow), SIZES[1]], ids=["wide", "narrow"]
)
async def test_server_stays_off_without_mlx(hub: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    machine = replace(MACHINE, mlx_lm=None, architectures=frozenset())
    app = app_on(hub, tmp_path / "state", runtime=machine)
    async with app.run_test(size=size, notifications=True) as pilot:
        pane = await pane_of(pilot)
        await wait_until(pilot, lambda: "Models can't run here" in words(app))
        assert "mlx-lm is not installed" in words(app)
        assert "pip install mlx-lm" in words(app)
        # The server stays off, the key shows why, and nothing is started.
        await pilot.press("s")
        await wait_until(pilot, lambda: "mlx-lm is not installed, so no model can run" in words(app))
        await pilot.press("s", "m", "u", "x", "f")
        assert app.server.phase is ServerPhase.OFF
        assert app.server.server is None
        assert app.server.problem is None
        assert app.chats.status.pid is None
        assert app.screen is pane
        assert "Models can't run here" in words(app)


async def answer_of(app: MlxkApp) -> str:
    """Send a request with OpenAI's client and return the answer."""
    async with openai.AsyncOpenAI(base_url=f"{app.server.url}/v1", api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(
            model=tiny_model.NAME,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=8,
            temperature=0,
            timeout=60,
        )
    return answer.choices[0].message.content or ""


def kill(engine: Engine) -> int:
    """Kill the worker, as the system does if memory runs out, and return its process id."""
    pid = engine.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.slow
@needs_mlx
async def test_crashed_engine_is_restarted_and_reported(hub: Path, tmp_path: Path, engine: Engine) -> None:
    app = app_on(hub, tmp_path / "state", engine=engine)
    async with app.run_test(size=SIZES[0], notifications=True) as pilot:
        pane = await pane_of(pilot)
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
        said = await answer_of(app)
        assert said
        await wait_until(pilot, lambda: " 200 " in words(app))

        # With a loaded model the worker restarts at once, and a line above the requests shows it.
        first = kill(engine)
        await wait_until(pilot, lambda: "The engine crashed and is restarting." in words(app))
        assert app.server.phase is ServerPhase.ON
        assert await answer_of(app) == said
        assert is_gone(first)
        assert engine.status.pid not in {None, first}
        await wait_until(pilot, lambda: "is restarting" not in words(app) and not pane.note.display)

        # Without one, the next request starts it.
        await pilot.press("u")
        await wait_until(pilot, lambda: engine.status.state is EngineState.IDLE)
        second = kill(engine)
        await wait_until(pilot, lambda: "✗ engine crashed" in words(app))
        await wait_until(pilot, lambda: "next request" in words(app))
        assert engine.status.state is EngineState.FAILED
        assert await answer_of(app) == said
        assert is_gone(second)
        await wait_until(pilot, lambda: "the next request" not in words(app))
        assert "✗ engine crashed" not in words(app)
