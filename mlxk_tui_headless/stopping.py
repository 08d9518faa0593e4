"""Stopping an operation that runs in an event loop, when a signal asks for it."""

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


class Stopping:
    """Cancels an operation at the first signal, and abandons it at the second or when patience is over.

    asyncio's own signal handlers are not used: closing a loop puts the system's in their place for a moment,
    and a signal that comes then would end the process without a word.

    Args:
        interrupts: what signals do.
        patience_s: how long the operation may take to stop, in seconds.
    """

    def __init__(self, interrupts: Interrupts, patience_s: float) -> None:
        self._interrupts = interrupts
        self._patience = threading.Timer(patience_s, self._abandon)
        self._patience.daemon = True
        self._wanted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def run(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run the operation; raises CancelledError once it has stopped."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        with woken_by_signals(self._loop):
            if self._wanted:  # it came before the loop ran
                operation.close()
                raise asyncio.CancelledError
            return await operation

    def take(self, number: int) -> None:
        """Answer a signal; called in the main thread, wherever that is."""
        if self._wanted:
            self._abandon()
            return
        self._wanted = True
        self._patience.start()
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: it is over
                self._loop.call_soon_threadsafe(self._task.cancel)

    def close(self) -> None:
        """Wait no longer for anything."""
        self._patience.cancel()

    def _abandon(self) -> None:
        if self._interrupts.abandon is not None:
            self._interrupts.abandon()


@contextlib.contextmanager
def woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Wake the loop when a signal comes, also one that the system hands to another thread."""
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
