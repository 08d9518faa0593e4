"""A signal ends a command with one complete object at any time: the result, or `cancelled`."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.verdict_cache import VerdictCache
from tests.headless.running import PROGRAM, TIMEOUT, checked, environment, started
from tests.support.hf_cache import HfCache, model_files
from tests.support.waiting import wait_until

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LARGE_CONFIG = "acme/Large-Config"
"""A model whose config is larger than a pipe's buffer."""

every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture
def large_config(hub: Path) -> Path:
    config = {"model_type": "llama", "notes": ["as long as it takes"] * 40_000}
    HfCache(hub).repo(LARGE_CONFIG).add({**model_files(), "config.json": json.dumps(config).encode()})
    return hub


@contextlib.contextmanager
def waiting_for_verdicts(
    hub: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *, ignored: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], None]]]:
    """Run a `list` that blocks on reading a pipe; the callable closes the pipe."""
    monkeypatch.setenv("MLXK_VERDICTS", str(folder))
    path = VerdictCache.for_cache(Cache(hub), Runtime.detect())._path
    assert path is not None
    os.mkfifo(path)
    writers: list[int] = []

    def opened() -> bool:
        with contextlib.suppress(OSError):
            writers.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    def unblock() -> None:
        while writers:
            os.close(writers.pop())

    previous = signal.signal(ignored, signal.SIG_IGN) if ignored is not None else None
    try:
        with started("list", "--json", hub=hub) as process:
            if ignored is not None:
                signal.signal(ignored, previous)
            wait_until(opened)
            yield process, unblock
    finally:
        unblock()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any]]:
    """Wait for the end; return the exit status and the object."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert err == b""
    return process.returncode, checked(out.decode())


@pytest.mark.slow
@every_signal
def test_signal_stops_a_running_command(
    number: signal.Signals, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with waiting_for_verdicts(hub, tmp_path, monkeypatch) as (process, _):
        process.send_signal(number)
        status, envelope = ended(process)
    assert (status, envelope["command"], envelope["error"]["type"]) == (1, "list", "cancelled")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT], ids=["nohup", "background job"])
def test_ignored_signals_stay_ignored(
    number: signal.Signals, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with waiting_for_verdicts(hub, tmp_path, monkeypatch, ignored=number) as (process, unblock):
        process.send_signal(number)
        unblock()
        status, envelope = ended(process)
    assert (status, envelope["status"]) == (0, "success")


@pytest.mark.parametrize(
    "numbers",
    [*[(number,) for number in SIGNALS], SIGNALS * 2],
    ids=["SIGINT", "SIGTERM", "SIGHUP", "all twice"],
)
def test_signal_does_not_cut_off_output_to_a_slow_reader(
    numbers: tuple[signal.Signals, ...], large_config: Path
) -> None:
    with started("show", LARGE_CONFIG, "--config", "--json", hub=large_config) as process:
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 1)
        for number in numbers:
            process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, b"")
    assert checked((first + out).decode())["status"] == "success"


def test_non_blocking_pipe_gets_the_whole_object(large_config: Path) -> None:
    """Some programs, such as Node.js, give their children non-blocking pipes."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = subprocess.Popen(
        [*PROGRAM, "show", LARGE_CONFIG, "--config", "--json"], stdout=writing, env=environment(large_config)
    )
    os.close(writing)
    with open(reading, "rb") as stream:
        out = stream.read()
    assert process.wait(TIMEOUT) == 0
    assert checked(out.decode())["status"] == "success"


_AT_IMPORT = """
import os, sys

MODULE, NUMBERS = sys.argv[1:3]

class Moment:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            for number in NUMBERS.split(","):
                os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, Moment())
from mlxk_tui_headless.__main__ import main
sys.argv = sys.argv[2:]
main()
"""


@pytest.mark.parametrize(
    "module", ["mlxk_tui_headless.output", "typer", "pydantic", "mlxk_tui.ops.catalog.catalog"]
)
@pytest.mark.parametrize("numbers", [(15,), (2, 1), (1, 15, 2)], ids=["one", "two", "three"])
def test_signal_during_startup_is_reported(module: str, numbers: tuple[int, ...], hub: Path) -> None:
    program = (sys.executable, "-c", _AT_IMPORT, module, ",".join(map(str, numbers)))
    with started("list", "--json", program=program, hub=hub) as process:
        status, envelope = ended(process)
    assert (status, envelope["error"]["type"]) == (1, "cancelled")


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a hub that accepts connections but never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listening.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT)
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["search", "x"], signal.SIGHUP),
        (["pull", "a/b"], signal.SIGINT),
        (["clone", "a/b", "copy"], signal.SIGTERM),
    ],
    ids=["search", "pull", "clone"],
)
def test_signal_while_the_hub_does_not_respond(
    arguments: list[str], number: signal.Signals, silent: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", silent)
    with started(*arguments, "--json", hub=hub) as process:
        port = int(silent.rpartition(":")[2])
        wait_until(lambda: _connected(process.pid, port))
        process.send_signal(number)
        status, envelope = ended(process)
    assert (status, envelope["command"], envelope["error"]["type"]) == (1, arguments[0], "cancelled")


def _connected(pid: int, port: int) -> bool:
    import psutil

    connections = psutil.Process(pid).net_connections("tcp")
    return any(port in connection.raddr for connection in connections)


_STUCK = """
import asyncio, sys, threading
from mlxk_tui_headless import runner, session
from mlxk_tui_headless.options import GlobalOptions
from mlxk_tui_headless.request import CommandRequest

session._STOP_TIMEOUT_S = 0.1

async def stuck():
    print("working", file=sys.stderr, flush=True)
    await asyncio.to_thread(threading.Event().wait)

runner.run_request(CommandRequest("health", lambda running: running.wait(stuck())), GlobalOptions(json=True))
"""


@every_signal
def test_work_that_does_not_stop_is_abandoned(number: signal.Signals, hub: Path) -> None:
    with started(program=(sys.executable, "-c", _STUCK), hub=hub) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"working\n"
        process.send_signal(number)
        status, envelope = ended(process)
    assert (status, envelope["command"], envelope["error"]["type"]) == (1, "health", "cancelled")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_signals_at_random_times(seed: int, large_config: Path) -> None:
    """One complete object, or nothing if Python itself had not started yet."""
    chance = random.Random(seed)
    for arguments in (
        ["list"],
        ["health"],
        ["show", LARGE_CONFIG, "--config"],
        ["--demo", "list"],
        ["version"],
    ):
        command = [*PROGRAM, *arguments, "--json"]
        began = time.monotonic()
        subprocess.run(
            command, env=environment(large_config), capture_output=True, check=True, timeout=TIMEOUT
        )
        takes = time.monotonic() - began
        for _ in range(6):
            numbers = chance.choices(SIGNALS, k=chance.choice((1, 1, 2, 3)))
            with started(*arguments, "--json", hub=large_config) as process:
                time.sleep(chance.uniform(0, 1.1 * takes))  # the random moment is part of the test
                for number in numbers:
                    process.send_signal(number)
                out, err = process.communicate(timeout=TIMEOUT)
            if out or process.returncode in {0, 1}:
                envelope = checked(out.decode())
                assert envelope["status"] == "success" or envelope["error"]["type"] == "cancelled"
            else:
                assert -process.returncode in SIGNALS or b"KeyboardInterrupt" in err, (numbers, err)
