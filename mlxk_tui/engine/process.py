"""The worker process as seen from its parent: started, spoken to, ended; never a zombie or an orphan."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from mlxk_tui.engine.protocol import Command, Message, Ping
from mlxk_tui.engine.wire import from_json, to_json
from mlxk_tui.ops.format import printable
from mlxk_tui.ops.lifeline import command

_HOME = Path(__file__).resolve().parent.parent.parent
_LOG = logging.getLogger("mlxk_tui.engine")
_READ_BYTES = 1 << 16
_ENVIRON = {
    "PYTHONUNBUFFERED": "1",
    # The worker forks those that read prompts before it has threads; macOS reads this when a process starts.
    "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
}
_MAX_LINE_BYTES = 64 * 2**20
_STDERR_LINES = 40
_LEAVE_S = 1.0
"""How long a worker may take to leave after its stdin was closed."""


class WorkerProcess:
    """One life of a worker.

    Args:
        on_message: receives what the worker says, in the event loop.
        on_exit: called once with the exit status (negative: the signal) when it is gone and reaped.
    """

    def __init__(self, on_message: Callable[[Message], None], on_exit: Callable[[int], None]) -> None:
        self._on_message = on_message
        self._on_exit = on_exit
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def last_words(self) -> str:
        """The last line that it wrote to stderr, safe to show; empty without one."""
        return next((line for line in reversed(self._stderr) if line.strip()), "")

    async def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Start it.

        Raises:
            OSError: the system gives no process.
        """
        # -m puts the current folder first on sys.path: from where the package lies nothing can get between.
        self._process = await asyncio.create_subprocess_exec(
            *command("mlxk_tui.engine.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=_HOME,
            env={**(os.environ if environ is None else environ), **_ENVIRON},
        )
        self._watch = asyncio.create_task(self._follow(self._process))

    def send(self, command: Command | Ping) -> None:
        """Say something; lost without a word where the worker is gone, which `on_exit` then tells."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            line = json.dumps(to_json(command), separators=(",", ":"))
            process.stdin.write(line.encode() + b"\n")

    def kill(self) -> None:
        """End it at once, whatever it does; `on_exit` follows."""
        process, watch = self._process, self._watch
        if process is None or process.returncode is not None or watch is None or watch.done():
            return  # reaped: its number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # Popen's own kill may reap it behind asyncio's back

    async def stop(self) -> None:
        """Let it leave by closing its stdin, end it if it does not, and wait until it is gone."""
        process, watch = self._process, self._watch
        if process is None or watch is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            done, _ = await asyncio.wait([watch], timeout=_LEAVE_S)
            if not done:
                self.kill()
                await asyncio.wait([watch])
        except asyncio.CancelledError:
            self.kill()
            raise

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None or process.stderr is None:
            return
        log = asyncio.create_task(self._read_log(process.stderr))
        try:
            await self._read_messages(process.stdout)
        except asyncio.CancelledError:
            self.kill()
            raise
        except Exception:  # noqa: BLE001 - whatever it is: those who wait are told by the worker's end
            _LOG.exception("the worker said something that is no message")
            self.kill()
        try:
            status = await asyncio.wait_for(process.wait(), _LEAVE_S)
        except asyncio.TimeoutError:  # it closed its stdout and stayed: nothing more comes from it
            self.kill()
            status = await process.wait()
        await log
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):  # what it did not read any more is lost
                await asyncio.wait_for(process.stdin.wait_closed(), _LEAVE_S)
        self._on_exit(status)

    async def _read_messages(self, stdout: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stdout.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._on_message(from_json(json.loads(line)))
            if len(rest) > _MAX_LINE_BYTES:
                raise ValueError("a line without an end")

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stderr.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-4096:]
            for line in lines:
                text = printable(line[:4096].decode(errors="replace"))
                self._stderr.append(text)
                _LOG.debug("worker: %s", text)
