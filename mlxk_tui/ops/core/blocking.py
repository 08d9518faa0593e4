"""Runs blocking work for an operation, with or without an event loop."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_LOOK_S = 0.1
"""Interval in which signals are handled; the end of the work is noticed immediately."""
_GRACE_S = 1.0
"""Time that interrupted work gets to end without leaving a half-written file."""


async def run_blocking(work: Callable[[], T], stop: threading.Event | None = None) -> T:
    """Run `work` in a thread and return its result; works without a running event loop as well.

    Args:
        work: a function without arguments.
        stop: set when the result is no longer awaited, so that the work can end early.
    """
    stop = stop or threading.Event()
    try:
        if not _in_a_loop():
            return _Work(work).result(stop)
        import asyncio  # a seventh of the time of `list` as JSON, which avoids it

        return await asyncio.to_thread(work)
    finally:
        stop.set()


def run_without_loop(operation: Coroutine[Any, Any, T]) -> T:
    """Run an operation that awaits only `run_blocking`, without an event loop.

    Raises:
        RuntimeError: the operation awaits something else.
    """
    try:
        operation.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    operation.close()
    raise RuntimeError("the operation needs an event loop")


def _in_a_loop() -> bool:
    if "asyncio" not in sys.modules:
        return False
    import asyncio  # already imported by another module

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Work(threading.Thread, Generic[T]):
    """A daemon thread with a result; signals are handled while the work blocks on a file system."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Run the work and store its result or error for `result`."""
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised again in `result`
            self._error = error
        finally:
            self._ended.set()

    def result(self, stop: threading.Event) -> T:
        """Start the thread and return its result; on an interrupt set `stop` and give it time to end."""
        try:
            self.start()
            while not self._ended.wait(_LOOK_S):
                pass
        except BaseException:
            stop.set()
            self._ended.wait(_GRACE_S)
            raise
        if self._error is not None:
            raise self._error
        return self._results[0]
