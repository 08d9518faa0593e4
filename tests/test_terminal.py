"""On signals and closed terminals, the app exits cleanly and restores the terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.headless.running import Terminal
from tests.support.waiting import PATIENCE_S, wait_until
from tests.test_heap import heaps


@contextmanager
def demo(temporary: Path) -> Iterator[tuple[Terminal, int]]:
    """Run the demo in a new pseudo-terminal, not as its controlling one; yield both ends of it."""
    master, slave = pty.openpty()
    here = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-m", "mlxk_tui", "--demo"],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "TMPDIR": str(temporary), "PYTHONPATH": here},
    )  # fmt: skip
    try:
        yield Terminal(process, master), slave
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE_S)
        os.close(slave)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_restores_the_terminal_and_removes_its_files(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path) as (terminal, slave):
        before = termios.tcgetattr(slave)
        terminal.wait_for("models")
        wait_until(lambda: termios.tcgetattr(slave) != before)  # raw
        terminal.shown = ""
        terminal.process.send_signal(number)
        for restoring in ("\x1b[?1000l", "\x1b[?1049l", "\x1b[?25h"):  # mouse, main screen, cursor
            terminal.wait_for(restoring)
        assert terminal.process.wait(PATIENCE_S) == 128 + number
        assert termios.tcgetattr(slave) == before
        os.close(terminal.master)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_closed_terminal_ends_the_app_and_its_processes(tmp_path: Path) -> None:
    with demo(tmp_path) as (terminal, _):
        terminal.wait_for("models")
        started = psutil.Process(terminal.process.pid).children(recursive=True)
        os.close(terminal.master)
        assert terminal.process.wait(PATIENCE_S) == 128 + signal.SIGHUP
    wait_until(lambda: not any(child.is_running() for child in started))
    assert not list(tmp_path.iterdir())


def test_blocked_terminal_does_not_block_the_exit(tmp_path: Path) -> None:
    with demo(tmp_path) as (terminal, _):
        terminal.wait_for("models")
        # Nothing is read from now on: the output fills the terminal's buffer, then the writer blocks.
        for _ in range(60):
            terminal.type("\x1bOQ\x1bOP")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        os.close(terminal.master)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps")
@pytest.mark.parametrize("own", [False, True], ids=["one heap", "heap per thread"])
def test_threads_of_the_app_share_one_heap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if own:  # the user's setting is respected
        monkeypatch.setenv("MALLOC_ARENA_MAX", "64")
    with demo(tmp_path) as (terminal, _):
        terminal.wait_for("models")
        running = psutil.Process(terminal.process.pid)
        threads, before = running.num_threads(), heaps(running.pid)
        terminal.type("\x1bOQ")
        terminal.wait_for("Health")
        while "Verifying" not in terminal.shown:  # checks every model in threads; refused during the scan
            terminal.type("V")
            terminal.read()
        wait_until(lambda: running.num_threads() > threads)
        if own:
            wait_until(lambda: heaps(running.pid) > before)
        assert own or heaps(running.pid) == before
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        os.close(terminal.master)
