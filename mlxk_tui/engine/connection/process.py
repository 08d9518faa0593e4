"""The worker process as seen from its parent: started, spoken to, ended; never a zombie or an orphan."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping

from mlxk_tui.engine.connection.wire import from_json, to_json
from mlxk_tui.engine.protocol import Command, Message, Ping
from mlxk_tui.ops.core.child_process import ChildProcess
from mlxk_tui.ops.core.text import printable

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
        self._process: ChildProcess | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._process.pid if self._process is not None else None

    @property
    def last_words(self) -> str:
        """The last line that it wrote to stderr, safe to show; empty without one."""
        return next((line for line in reversed(self._stderr) if line.strip()), "")

    async def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Start it.

        Raises:
            OSError: the system gives no process.
        """
        environ = {**(os.environ if environ is None else environ), **_ENVIRON}
        self._process = await ChildProcess.start("mlxk_tui.engine.worker", environ=environ, logs=True)
        self._watch = asyncio.create_task(self._follow(self._process))

    def send(self, command: Command | Ping) -> None:
        """Say something; lost without a word where the worker is gone, which `on_exit` then tells."""
        if self._process is not None:
            self._process.send(to_json(command))

    def kill(self) -> None:
        """End it at once, whatever it does; `on_exit` follows."""
        process, watch = self._process, self._watch
        if process is not None and watch is not None and not watch.done():
            process.kill()

    async def stop(self) -> None:
        """Let it leave by closing its stdin, end it if it does not, and wait until it is gone."""
        process, watch = self._process, self._watch
        if process is None or watch is None:
            return
        process.close_stdin()
        try:
            done, _ = await asyncio.wait([watch], timeout=_LEAVE_S)
            if not done:
                self.kill()
                await asyncio.wait([watch])
        except asyncio.CancelledError:
            self.kill()
            raise

    async def reaped(self) -> None:
        """Wait until `on_exit` has been called."""
        if self._watch is not None:
            await asyncio.wait([self._watch])

    async def _follow(self, process: ChildProcess) -> None:
        if process.stderr is None:
            raise AssertionError("its log was asked for")
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
            status = await process.wait(_LEAVE_S)
        except asyncio.TimeoutError:  # it closed its stdout and stayed: nothing more comes from it
            status = await process.end()
        await log
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
