"""If the worker dies, running requests fail within seconds, and the next request works."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from mlxk_tui.engine.client import Engine, EngineState
from mlxk_tui.engine.connection.liveness import LivenessLimits
from mlxk_tui.engine.generation import Delta, Finished, FinishReason, GenerationRequest, LoadProgress, Started
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, is_gone, needs_mlx, new_engine, run, until, worker_environment

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="module")]

LONG = GenerationRequest(
    prompt="Hello, world! How are", sampling=GREEDY, max_tokens=3000, stop=("never said",)
)
SHORT = replace(LONG, max_tokens=5)
HURRIED = LivenessLimits(silence_s=1.0, stall_s=1.0, overdue=1.0)
"""For what is known to be stuck: nobody has to wait for long."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    """Return the engine shared by most of these tests."""
    engine = new_engine()
    yield engine
    await engine.stop()


async def fate(engine: Engine, model: RunnableModel, request: GenerationRequest) -> str:
    """Generate, and return the finish reason or the error type."""
    try:
        result = await run(engine, model, request)
    except OpError as error:
        return error.type.value
    return result.finished.finish_reason.value


def pid_of(engine: Engine) -> int:
    pid = engine.status.pid
    assert pid is not None
    return pid


async def test_killed_worker_fails_running_requests_and_is_restarted(
    engine: Engine, babbler: RunnableModel
) -> None:
    tasks = [asyncio.create_task(fate(engine, babbler, LONG)) for _ in range(3)]
    await until(engine, lambda status: status.streams == 3)
    pid = pid_of(engine)
    os.kill(pid, signal.SIGKILL)
    assert await asyncio.gather(*tasks) == ["engine_crashed"] * 3
    assert is_gone(pid)
    failed = engine.status
    assert failed.state is EngineState.FAILED
    assert "killed (SIGKILL)" in str(failed.last_error)
    assert await fate(engine, babbler, SHORT) == "length"
    assert engine.status.state is EngineState.READY
    assert engine.status.last_error is None


@pytest.mark.slow
async def test_request_right_after_a_crash_starts_a_new_worker(
    engine: Engine, babbler: RunnableModel
) -> None:
    await engine.load(babbler)
    os.kill(pid_of(engine), signal.SIGKILL)
    while engine.status.pid is not None:  # noqa: ASYNC110 - checks in every turn of the loop
        await asyncio.sleep(0)
    await engine.load(babbler)
    assert engine.status.state is EngineState.READY


@pytest.mark.slow
async def test_hanging_worker_is_stopped_and_other_models_are_served(
    engine: Engine, babbler: RunnableModel, other: RunnableModel
) -> None:
    await engine.load(babbler)
    running = asyncio.create_task(fate(engine, babbler, LONG))
    await until(engine, lambda status: status.streams == 1)
    waiting = asyncio.create_task(fate(engine, other, SHORT))
    await until(engine, lambda status: status.waiting == 1)
    errors: list[OpError | None] = []
    unsubscribe = engine.subscribe(lambda status: errors.append(status.last_error))
    pid = pid_of(engine)
    os.kill(pid, signal.SIGSTOP)
    engine.liveness_limits = HURRIED
    assert await running == "engine_crashed"
    engine.liveness_limits = LivenessLimits()
    assert is_gone(pid)
    assert await waiting == "length"
    unsubscribe()
    assert any("sent no heartbeat" in str(error) for error in errors if error)


@pytest.mark.slow
async def test_suspended_process_is_unresponsive_and_stopped(engine: Engine, babbler: RunnableModel) -> None:
    assert engine.liveness_limits == LivenessLimits()  # the default limits
    stream = engine.generate(babbler, LONG)
    assert isinstance(await anext(stream), (LoadProgress, Started))
    await until(engine, lambda status: status.tokens_per_s > 0)
    running = asyncio.create_task(fate(engine, babbler, LONG))
    await until(engine, lambda status: status.streams == 2)
    pid = pid_of(engine)
    os.kill(pid, signal.SIGSTOP)
    stream.cancel()
    events = [event async for event in stream]
    assert not running.done()  # the stream ended long before the process is stopped
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.finish_reason is FinishReason.CANCELLED
    assert last.usage.prompt_tokens > 0
    assert last.usage.completion_tokens == sum(e.tokens for e in events if isinstance(e, Delta)) > 0
    assert last.timings.time_to_first_token_s > 0
    await until(engine, lambda status: status.unresponsive)
    assert engine.status.tokens_per_s == 0
    assert await running == "engine_crashed"
    assert is_gone(pid)
    assert not engine.status.unresponsive
    assert await fate(engine, babbler, SHORT) == "length"


@pytest.mark.slow
async def test_process_that_resumes_in_time_is_kept(engine: Engine, babbler: RunnableModel) -> None:
    stream = engine.generate(babbler, LONG)
    assert isinstance(await anext(stream), (LoadProgress, Started))
    await until(engine, lambda status: status.tokens_per_s > 0)
    pid = pid_of(engine)
    os.kill(pid, signal.SIGSTOP)
    await until(engine, lambda status: status.unresponsive)
    os.kill(pid, signal.SIGCONT)
    await until(engine, lambda status: not status.unresponsive and status.tokens_per_s > 0)
    stream.cancel()
    last = [event async for event in stream][-1]
    assert isinstance(last, Finished)
    assert last.finish_reason is FinishReason.CANCELLED
    assert engine.status.pid == pid


@pytest.mark.slow
async def test_crash_while_idle_or_loading_is_detected(engine: Engine, babbler: RunnableModel) -> None:
    await engine.load(babbler)
    os.kill(pid_of(engine), signal.SIGABRT)  # as Metal does if it is out of memory
    await until(engine, lambda status: status.state is EngineState.FAILED)
    assert "crashed (SIGABRT)" in str(engine.status.last_error)
    assert engine.status.model is None
    task = asyncio.create_task(engine.load(babbler))
    await until(engine, lambda status: status.state is EngineState.STARTING and status.pid is not None)
    os.kill(pid_of(engine), signal.SIGKILL)
    with pytest.raises(OpError) as caught:
        await task
    assert caught.value.type is ErrorType.ENGINE_CRASHED
    assert await fate(engine, babbler, SHORT) == "length"


async def test_crash_while_unloading_loses_no_model(engine: Engine, babbler: RunnableModel) -> None:
    await engine.load(babbler)
    seen: list[tuple[EngineState, object]] = []
    unsubscribe = engine.subscribe(lambda status: seen.append((status.state, status.model)))
    pid = pid_of(engine)
    os.kill(pid, signal.SIGSTOP)
    task = asyncio.create_task(engine.unload())
    await until(engine, lambda status: (EngineState.IDLE, None) in seen)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OpError) as caught:
        await task
    assert caught.value.type is ErrorType.ENGINE_CRASHED
    unsubscribe()
    after = seen[seen.index((EngineState.IDLE, None)) :]
    assert set(after) == {(EngineState.IDLE, None), (EngineState.FAILED, None)}


@pytest.mark.slow
async def test_missing_mlx_is_reported(babbler: RunnableModel, tmp_path_factory: object) -> None:
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    folder = tmp_path_factory.mktemp("shadow")
    (folder / "mlx_lm.py").write_text("raise ImportError('No module named mlx_lm')\n")
    engine = new_engine(environ=worker_environment(PYTHONPATH=str(folder)))
    with pytest.raises(OpError) as caught:
        await run(engine, babbler, SHORT)
    assert caught.value.type is ErrorType.DEPENDENCY_MISSING
    assert "No module named mlx_lm" in caught.value.message
    await engine.stop()
    assert engine.status.pid is None
