"""Blocking work in a thread: stopped when its task is cancelled, with progress on the way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from mlxk_tui.ops.core.events import OnEvent, Progress, ignore

T = TypeVar("T")
_INTERVAL = 0.1
"""Seconds between two events."""


class StoppedError(Exception):
    """The work was asked to stop; only ever seen inside the thread."""


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work(stop)` in a thread and return its result.

    When the task is cancelled `stop` is set, and the cancellation goes on only when the work has
    ended: what it left on disk is then final. The work looks at `stop` at least every half second.
    """
    stop = threading.Event()
    running = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # retrieved, so that asyncio does not report it as lost
        raise


class Meter:
    """Counts what is done, sends events and notices the wish to stop; threads may share one."""

    def __init__(
        self,
        stage: str,
        stop: threading.Event,
        on_event: OnEvent = ignore,
        *,
        bytes_total: int = 0,
        files_total: int = 0,
    ) -> None:
        self.bytes_done = 0
        """Bytes so far."""
        self.files_done = 0
        """Files so far."""
        self._stage = stage
        self._stop = stop
        self._on_event = on_event
        self._bytes_total = bytes_total
        self._files_total = files_total
        self._began = time.monotonic()
        self._sent = 0.0
        self._file = ""
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise StoppedError when the work shall stop."""
        if self._stop.is_set():
            raise StoppedError

    def add(self, file: str, n_bytes: int = 0, *, files: int = 0) -> None:
        """Count bytes and files as done; sends an event at most ten times a second.

        Raises:
            StoppedError: the work shall stop.
        """
        with self._lock:
            self.bytes_done += n_bytes
            self.files_done += files
            self._file = file
            now = time.monotonic()
            if now - self._sent >= _INTERVAL:
                self._send(now)
        self.check()

    def finish(self) -> None:
        """Send the last event."""
        with self._lock:
            self._send(time.monotonic())

    def _send(self, now: float) -> None:
        self._sent = now
        self._on_event(
            Progress(
                stage=self._stage,
                file=self._file,
                bytes_done=self.bytes_done,
                bytes_total=self._bytes_total,
                rate=self.bytes_done / max(now - self._began, 1e-3),
                files_done=self.files_done,
                files_total=self._files_total,
            )
        )
