"""Blocking work that an operation awaits, with or without an event loop around it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_LOOK_S = 0.1
"""How often a signal is looked for; the end of the work is noticed at once."""
_GRACE_S = 1.0
"""How long work that nobody waits for may take to end, so that it leaves no half-written file."""


async def blocking(work: Callable[[], T], stop: threading.Event | None = None) -> T:
    """Return what `work` returns; it runs in a thread, whether or not an event loop waits for it.

    Args:
        work: called without arguments.
        stop: set when nobody waits for the work any more.
    """
    stop = stop or threading.Event()
    try:
        if not _in_a_loop():
            return _Work(work).result(stop)
        import asyncio  # a seventh of the time of `list` as JSON, which does without

        return await asyncio.to_thread(work)
    finally:
        stop.set()


def finish(operation: Coroutine[Any, Any, T]) -> T:
    """Run an operation that awaits nothing but `blocking` to its end, without an event loop.

    Raises:
        RuntimeError: it awaits something else.
    """
    try:
        operation.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    operation.close()
    raise RuntimeError("an operation that needs an event loop was run without one")


def _in_a_loop() -> bool:
    if "asyncio" not in sys.modules:
        return False
    import asyncio  # somebody has imported it already

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Work(threading.Thread, Generic[T]):
    """Work in a thread of its own, so that a file system that hangs keeps no signal from who waits."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Do it."""
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        finally:
            self._ended.set()

    def result(self, stop: threading.Event) -> T:
        """Start it, wait for it and return its result; on an interrupt, `stop` is set and it may end."""
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
