"""The worker process on the parent's side: start, send, kill, stop. Leaves no zombie and no orphan."""

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
    # The worker forks the tokenizer processes before it has threads; macOS reads this at process start.
    "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
}
_MAX_LINE_BYTES = 64 * 2**20
_STDERR_LINES = 40
_EXIT_S = 1.0
"""Seconds that a worker may take to exit after its stdin was closed."""


class WorkerProcess:
    """One worker process, from its start to its exit.

    Args:
        on_message: receives the worker's messages, in the event loop.
        on_exit: called once with the exit status (negative for a signal), after the process was reaped.
    """

    def __init__(self, on_message: Callable[[Message], None], on_exit: Callable[[int], None]) -> None:
        self._on_message = on_message
        self._on_exit = on_exit
        self._process: ChildProcess | None = None
        self._reader: asyncio.Task[None] | None = None
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    @property
    def pid(self) -> int | None:
        """The process id, while the process runs."""
        return self._process.pid if self._process is not None else None

    @property
    def last_log_line(self) -> str:
        """The last line on stderr that is not blank, with control characters escaped; may be empty."""
        return next((line for line in reversed(self._stderr) if line.strip()), "")

    async def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Start the process and the task that reads its messages.

        Raises:
            OSError: the process cannot be started.
        """
        environ = {**(os.environ if environ is None else environ), **_ENVIRON}
        self._process = await ChildProcess.start("mlxk_tui.engine.worker", environ=environ, logs=True)
        self._reader = asyncio.create_task(self._read(self._process))

    def send(self, command: Command | Ping) -> None:
        """Send a command. It is dropped without an error if the worker has ended; `on_exit` reports that."""
        if self._process is not None:
            self._process.send(to_json(command))

    def kill(self) -> None:
        """Kill the process; `on_exit` follows."""
        process, reader = self._process, self._reader
        if process is not None and reader is not None and not reader.done():
            process.kill()

    async def stop(self) -> None:
        """Close the process's stdin, kill it if it does not exit within a second, and wait for its end."""
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        process.close_stdin()
        try:
            done, _ = await asyncio.wait([reader], timeout=_EXIT_S)
            if not done:
                self.kill()
                await asyncio.wait([reader])
        except asyncio.CancelledError:
            self.kill()
            raise

    async def wait_reaped(self) -> None:
        """Wait until `on_exit` has been called."""
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _read(self, process: ChildProcess) -> None:
        if process.stderr is None:
            raise AssertionError("started with logs=True")
        log = asyncio.create_task(self._read_log(process.stderr))
        try:
            await self._read_messages(process.stdout)
        except asyncio.CancelledError:
            self.kill()
            raise
        except Exception:  # noqa: BLE001 - of any kind: pending requests fail when the worker ends
            _LOG.exception("the worker sent an invalid message")
            self.kill()
        try:
            status = await process.wait(_EXIT_S)
        except asyncio.TimeoutError:  # it closed its stdout but did not exit
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
                raise ValueError("a message is too long")

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stderr.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-4096:]
            for line in lines:
                text = printable(line[:4096].decode(errors="replace"))
                self._stderr.append(text)
                _LOG.debug("worker: %s", text)
