"""The worker process: its output, and that it never outlives its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from mlxk_tui.engine.connection.wire import from_json, to_json
from mlxk_tui.engine.generation import Delta, Finished, GenerationRequest, PrefillProgress
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.engine.protocol import Cancel, Command, Generate, Load, Loaded, Message, Ready, Streamed
from tests.engine.conftest import GREEDY, executable, is_gone, needs_mlx, worker_environment
from tests.engine.small_models import make_model
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = needs_mlx

ROOT = Path(__file__).resolve().parent.parent.parent
LONG = GenerationRequest(
    prompt="Hello, world! How are", sampling=GREEDY, max_tokens=4000, stop=("never said",)
)


class Worker(NamedTuple):
    """A worker and its pipes."""

    process: subprocess.Popen[bytes]

    def say(self, command: Command) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(to_json(command)).encode() + b"\n")
        self.process.stdin.flush()

    def next(self) -> Message:
        """Return the next message."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it ended"
        message: Message = from_json(json.loads(line))
        return message

    def hear(self, kind: type[Any]) -> Any:
        """Return the next message of a kind; all lines before it must be messages."""
        while True:
            message = self.next()
            inner = message.event if isinstance(message, Streamed) else message
            if isinstance(inner, kind):
                return inner


@pytest.fixture
def worker() -> Iterator[Worker]:
    process = subprocess.Popen(
        [executable(), "-m", "mlxk_tui.engine.worker"],
        cwd=ROOT,
        env=worker_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    yield Worker(process)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@pytest.mark.slow
def test_worker_ignores_interrupts_and_exits_with_its_stdin(worker: Worker, babbler: RunnableModel) -> None:
    worker.hear(Ready)
    worker.say(Load(1, babbler.name, str(babbler.folder), 10**8))
    assert worker.hear(Loaded).vocab_size > 256
    worker.say(Generate(2, LONG))
    worker.hear(Delta)
    worker.process.send_signal(signal.SIGINT)
    worker.say(Cancel(2))
    assert worker.hear(Finished).usage.completion_tokens > 0
    worker.say(Generate(3, LONG))
    worker.hear(Delta)
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.process.wait(timeout=PATIENCE_S) == 0


def test_stream_continues_during_another_prefill(worker: Worker, babbler: RunnableModel) -> None:
    """In the worker's order, independent of speed: a token comes between two chunks of a prompt."""
    worker.say(Load(1, babbler.name, str(babbler.folder), 10**8))
    worker.hear(Loaded)
    worker.say(Generate(2, replace(LONG, max_tokens=None)))
    worker.hear(Delta)
    worker.say(Generate(3, replace(LONG, prompt="How are you today? " * 480)))
    order: list[tuple[int, type[Any]]] = []
    while (3, Delta) not in order:
        message = worker.next()
        if isinstance(message, Streamed):
            order.append((message.id, type(message.event)))
    parts = [at for at, what in enumerate(order) if what == (3, PrefillProgress)]
    assert len(parts) > 1  # more tokens than a step may take
    for before, after in pairwise(parts):
        assert (2, Delta) in order[before:after]


@pytest.mark.slow
def test_worker_exits_with_its_stdin_before_importing_mlx(worker: Worker) -> None:
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.process.wait(timeout=PATIENCE_S) == 0


_PARENT = """
import asyncio, sys
from pathlib import Path
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.engine.generation import Delta, GenerationRequest, SamplingParams

async def main():
    engine = Engine()
    stage = sys.argv[2]
    engine.subscribe(lambda status: stage == status.state.value and print(status.pid, flush=True))
    request = GenerationRequest(prompt="Hello", sampling=SamplingParams(temperature=0), stop=("never said",))
    async for event in engine.generate(RunnableModel("m", Path(sys.argv[1])), request):
        if isinstance(event, Delta):
            print(engine.status.pid, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["starting", "loading", "streaming"])
def test_worker_exits_with_its_killed_parent(babbler: RunnableModel, stage: str, tmp_path: Path) -> None:
    """Also a suspended worker, if the system supports it; otherwise a running one."""
    folder = babbler.folder
    if stage == "loading":
        folder = make_model(tmp_path / "m")
        (folder / "model.safetensors").unlink()
        os.mkfifo(folder / "model.safetensors")  # weights that are never read, as on a disk that hangs
    parent = subprocess.Popen(
        [executable(), "-c", _PARENT, str(folder), stage],
        cwd=ROOT,
        env=worker_environment(PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path])),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = next(int(line) for line in parent.stdout if line.strip().isdigit())
    assert not is_gone(pid)
    if stage == "loading":
        weights = os.open(folder / "model.safetensors", os.O_WRONLY)  # returns when the worker has opened it
    if sys.platform.startswith("linux"):
        wait_until(lambda: psutil.Process(pid).num_threads() > 1)  # it has started to run its own code
        os.kill(pid, signal.SIGSTOP)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: is_gone(pid))
    if stage == "loading":
        os.close(weights)


@pytest.mark.parametrize(
    "module",
    [
        "mlxk_tui.engine.worker",
        "mlxk_tui.ops.push.upload_worker",
        "mlxk_tui.ops.hub.download_worker",
        "mlxk_tui.server.http.parser_worker",
    ],
)
def test_worker_started_after_its_parent_died_exits_at_once(module: str) -> None:
    gone = subprocess.Popen([executable(), "-c", ""])
    gone.wait()
    child = subprocess.Popen([executable(), "-m", module, str(gone.pid)], cwd=ROOT, stdin=subprocess.PIPE)
    assert child.wait(timeout=PATIENCE_S) == 0
    assert child.stdin is not None
    child.stdin.close()


_THREADED = """
import asyncio, os, signal, sys, threading
from pathlib import Path
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import RunnableModel

async def killed_by_us(engine):
    await engine.load(RunnableModel("m", Path(sys.argv[1])))
    os.kill(engine.status.pid, signal.SIGSTOP)  # does not leave when its stdin is closed
    await engine.stop()

async def killed_by_others(engine):
    started = asyncio.Event()
    engine.subscribe(lambda status: status.pid and started.set())
    loading = asyncio.create_task(engine.load(RunnableModel("m", Path(sys.argv[1]))))
    await started.wait()
    os.kill(engine.status.pid, signal.SIGKILL)
    await asyncio.wait([loading])
    assert loading.exception() is not None
    await engine.stop()

async def make():
    return Engine()

loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()
for work in (killed_by_us, killed_by_others):
    engine = asyncio.run_coroutine_threadsafe(make(), loop).result()
    asyncio.run_coroutine_threadsafe(work(engine), loop).result()
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
"""


@pytest.mark.slow
def test_stopped_worker_leaves_no_output_and_no_zombie(babbler: RunnableModel) -> None:
    done = subprocess.run(
        [executable(), "-W", "default", "-c", _THREADED, str(babbler.folder)],
        cwd=ROOT,
        env=worker_environment(PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path])),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", "")


def test_messages_survive_serialization() -> None:
    request = GenerationRequest(
        messages=({"role": "user", "content": "x"},),
        sampling=GREEDY,
        stop=("a", "b"),
        template_kwargs={"enable_thinking": False},
        logprobs=0,
    )
    command = Generate(7, request)
    assert from_json(json.loads(json.dumps(to_json(command)))) == command
