"""Runs an operation in an event loop and cancels it when a signal arrives."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from mlxk_tui_headless.interrupts import Interrupts

T = TypeVar("T")


class CancellableRun:
    """Cancels an operation at the first signal, and abandons it at the second signal or after a timeout.

    asyncio's own signal handlers are not used: closing a loop restores the system's handlers for a moment,
    and a signal that arrives then would end the process without any output.

    Args:
        interrupts: the process's signal handling.
        stop_timeout_s: how long the operation may take to stop, in seconds.
    """

    def __init__(self, interrupts: Interrupts, stop_timeout_s: float) -> None:
        self._interrupts = interrupts
        self._timer = threading.Timer(stop_timeout_s, self._abandon)
        self._timer.daemon = True
        self._cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def run(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run the operation; raises CancelledError once it has stopped."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        with wake_on_signals(self._loop):
            if self._cancelled:  # the signal arrived before the loop ran
                operation.close()
                raise asyncio.CancelledError
            return await operation

    def on_signal(self, number: int) -> None:
        """Cancel the operation; runs in the main thread, between two bytecodes."""
        if self._cancelled:
            self._abandon()
            return
        self._cancelled = True
        self._timer.start()
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the operation has ended
                self._loop.call_soon_threadsafe(self._task.cancel)

    def close(self) -> None:
        """Stop the timeout."""
        self._timer.cancel()

    def _abandon(self) -> None:
        if self._interrupts.abandon is not None:
            self._interrupts.abandon()


@contextlib.contextmanager
def wake_on_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Wake the loop when a signal arrives, also if the system delivers it to another thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    loop.add_reader(reading, _drain, reading)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        loop.remove_reader(reading)
        reading.close()
        writing.close()


def _drain(reading: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        reading.recv(4096)
