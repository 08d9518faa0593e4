"""Blocking work that an operation awaits, with or without an event loop around it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def blocking(work: Callable[[], T]) -> T:
    """Return what `work` returns: run in a thread beside the event loop or, where none runs, right here."""
    if "asyncio" in sys.modules:
        import asyncio  # noqa: PLC0415 - a fifth of the time of `list` as JSON, which does without

        if asyncio._get_running_loop() is not None:
            return await asyncio.to_thread(work)
    return work()


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
