"""Runs blocking work in a thread that stops when its task is cancelled and reports progress."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from mlxk_tui.ops.core.events import OnEvent, Progress, ignore_event

T = TypeVar("T")
_INTERVAL = 0.1
"""Shortest time between two events, in seconds."""


class StoppedError(Exception):
    """Raised inside the thread when `stop` is set; callers never see it."""


async def run_in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work(stop)` in a thread and return its result.

    Cancelling the task sets `stop` and waits for the work to end, so that the files on disk are in their
    final state when the cancellation continues. The work checks `stop` at least every half second.
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
    """Counts finished bytes and files, sends progress events and checks for a stop; thread-safe."""

    def __init__(
        self,
        stage: str,
        stop: threading.Event,
        on_event: OnEvent = ignore_event,
        *,
        bytes_total: int = 0,
        files_total: int = 0,
    ) -> None:
        self.bytes_done = 0
        """Bytes finished so far."""
        self.files_done = 0
        """Files finished so far."""
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
        """Raise StoppedError if the work is to stop."""
        if self._stop.is_set():
            raise StoppedError

    def add(self, file: str, n_bytes: int = 0, *, files: int = 0) -> None:
        """Add finished bytes and files; send an event at most ten times a second.

        Raises:
            StoppedError: the work is to stop.
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
        """Send a final event with the totals, regardless of the interval."""
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
