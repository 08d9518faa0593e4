"""A worker that hangs in any way, during any work, is stopped, and the next one works."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from mlxk_tui.engine.client import Engine, EngineState
from mlxk_tui.engine.connection.liveness import LivenessLimits
from mlxk_tui.engine.generation import GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, is_gone, needs_mlx, new_engine, run, worker_environment
from tests.engine.small_models import make_model
from tests.support.waiting import PATIENCE_S, until

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="module")]

FAULTS = Path(__file__).parent / "faults"
LONG = GenerationRequest(
    prompt="Hello, world! How are", sampling=GREEDY, max_tokens=3000, stop=("never said",)
)
SHORT = replace(LONG, max_tokens=5)
NO_SIGN, NO_WORK = "sent no heartbeat", "made no progress"
HURRIED = {
    NO_SIGN: LivenessLimits(silence_s=1.0, stall_s=600.0),
    NO_WORK: LivenessLimits(silence_s=600.0, stall_s=1.0, overdue=1.0),
}
"""For what is known to be stuck: nobody has to wait for long."""
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(faults: Path) -> AsyncIterator[Engine]:
    """Return an engine whose workers hang on request."""
    engine = new_engine(environ=worker_environment(PYTHONPATH=str(FAULTS), FAULT_FOLDER=str(faults)))
    yield engine
    await engine.stop()


@contextmanager
def fault(faults: Path, place: str, how: str) -> Iterator[Path]:
    """Make a worker hang; yields the file that exists once it hangs."""
    held = faults / "held"
    held.unlink(missing_ok=True)
    (faults / place).write_text(how)
    try:
        yield held
    finally:
        (faults / place).unlink()


async def generate(engine: Engine, model: RunnableModel) -> None:
    await run(engine, model, LONG)


async def embed(engine: Engine, model: RunnableModel) -> None:
    await engine.embed(replace(model, embedding=True), ["Hello", "world"])


async def count(engine: Engine, model: RunnableModel) -> None:
    await engine.count_tokens(model, [{"role": "user", "content": "Hello"}])


async def load(engine: Engine, model: RunnableModel) -> None:
    await engine.load(model)


async def unload(engine: Engine, model: RunnableModel) -> None:
    await engine.unload()


async def is_ended(engine: Engine, asked: asyncio.Task[None], pid: int, reason: str) -> None:
    """Check that the worker is stopped for the reason, the request fails, and the engine keeps working."""
    assert not asked.done()
    engine.liveness_limits = HURRIED[reason]
    await asyncio.wait([asked], timeout=PATIENCE_S)
    engine.liveness_limits = LivenessLimits()
    error = asked.exception()
    assert isinstance(error, OpError)
    assert error.type is ErrorType.ENGINE_CRASHED
    assert reason in error.message
    assert is_gone(pid)


def pid_of(engine: Engine) -> int:
    assert engine.status.pid is not None
    return engine.status.pid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "how", "reason"),
    [
        pytest.param("loading", "lock", NO_WORK, marks=slow),
        pytest.param("step", "lock", NO_WORK),
        pytest.param("step", "interpreter", NO_SIGN),
        pytest.param("unloading", "lock", NO_WORK, marks=slow),
        pytest.param("importing", "lock", NO_SIGN),  # before there are heartbeats
        pytest.param("importing", "spin", NO_SIGN, marks=slow),
        pytest.param("starting", "lock", NO_WORK, marks=slow),
        pytest.param("starting", "interpreter", NO_SIGN, marks=slow),
        pytest.param("loading", "interpreter", NO_SIGN, marks=slow),
        pytest.param("step", "spin", NO_SIGN, marks=slow),
        pytest.param("embedding", "lock", NO_WORK, marks=slow),
        pytest.param("embedding", "interpreter", NO_SIGN, marks=slow),
        pytest.param("unloading", "interpreter", NO_SIGN, marks=slow),
    ],
)
async def test_deadlocked_worker_is_stopped(
    engine: Engine, babbler: RunnableModel, faults: Path, place: str, how: str, reason: str
) -> None:
    acts = {"step": generate, "embedding": embed, "unloading": unload}
    act: Callable[[Engine, RunnableModel], Awaitable[None]] = acts.get(place, load)
    if place in acts:
        await engine.load(babbler)
    elif place == "loading":
        await engine.load(babbler)
        await engine.unload()
    elif (old := engine.status.pid) is not None:
        os.kill(old, signal.SIGKILL)
        await until(lambda: engine.status.pid is None)
    with fault(faults, "step" if place == "embedding" else place, how) as held:
        asked = asyncio.ensure_future(act(engine, babbler))
        await until(held.exists)
        await is_ended(engine, asked, pid_of(engine), reason)
    assert (await run(engine, babbler, SHORT)).tokens == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "doing",
    [
        pytest.param("counting"),
        pytest.param("unloading", marks=slow),
        pytest.param("embedding", marks=slow),
        pytest.param("starting", marks=slow),
        pytest.param("importing", marks=slow),
        pytest.param("loading", marks=slow),
    ],
)
async def test_suspended_process_is_stopped_during_any_request(
    engine: Engine, babbler: RunnableModel, faults: Path, doing: str
) -> None:
    acts = {"counting": count, "unloading": unload, "embedding": embed}
    if doing in ("starting", "importing"):
        if (old := engine.status.pid) is not None:
            os.kill(old, signal.SIGKILL)
            await until(lambda: engine.status.pid is None)
        with fault(faults, "importing", "lock" if doing == "importing" else "") as held:
            asked = asyncio.ensure_future(load(engine, babbler))
            await until(lambda: engine.status.state is EngineState.STARTING and engine.status.pid is not None)
            pid = pid_of(engine)
            if doing == "importing":
                await until(held.exists)
            os.kill(pid, signal.SIGSTOP)
    elif doing == "loading":
        await engine.load(babbler)
        await engine.unload()
        pid = pid_of(engine)
        with fault(faults, "loading", "lock") as held:
            asked = asyncio.ensure_future(load(engine, babbler))
            await until(held.exists)
            os.kill(pid, signal.SIGSTOP)
    else:
        await engine.load(babbler)
        pid = pid_of(engine)
        os.kill(pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(acts[doing](engine, babbler))
        await asyncio.sleep(0)
    await is_ended(engine, asked, pid, NO_SIGN)
    assert (await run(engine, babbler, SHORT)).tokens == 5


@slow
async def test_slow_disk_is_not_a_hang(engine: Engine, babbler: RunnableModel, tmp_path: Path) -> None:
    weights = make_model(tmp_path / "m", endless=True) / "model.safetensors"
    weights.rename(tmp_path / "weights")
    os.mkfifo(weights)

    def trickle() -> None:
        with weights.open("wb", buffering=0) as pipe:
            pipe.write((10**8).to_bytes(8, "little"))  # the claimed length of the header
            for _ in range(60):
                pipe.write(bytes(8192))
                threading.Event().wait(0.25)
            (tmp_path / "weights").rename(weights)

    await engine.load(babbler)
    pid = pid_of(engine)
    asked = asyncio.ensure_future(load(engine, RunnableModel("test/slow", weights.parent)))
    await asyncio.to_thread(trickle)
    await asked
    assert engine.status.pid == pid


@slow
async def test_worker_on_a_busy_machine_is_not_stopped(engine: Engine, babbler: RunnableModel) -> None:
    await engine.load(babbler)
    pid = pid_of(engine)
    engine.liveness_limits = LivenessLimits(silence_s=3.0, stall_s=3.0, overdue=1.0)
    try:
        with burners(3 * (os.cpu_count() or 1)):
            results = await asyncio.gather(
                *(run(engine, babbler, replace(LONG, max_tokens=300)) for _ in itertools.repeat(None, 4))
            )
    finally:
        engine.liveness_limits = LivenessLimits()
    assert [result.tokens for result in results] == [300] * 4
    assert engine.status.pid == pid


@contextmanager
def burners(number: int) -> Iterator[None]:
    """Keep this many cores busy with processes."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
