"""Waits for conditions. `PATIENCE_S` is the timeout for hangs, not a measurement."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

PATIENCE_S = 60.0
"""Seconds after which something is taken to hang: far beyond what a loaded machine needs.

A test that says "without waiting for X" lets X take longer than this.
"""

_PAUSE_S = 0.005


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until `condition` holds; fail after the timeout."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        threading.Event().wait(_PAUSE_S)


async def until(condition: Callable[[], bool]) -> None:
    """Run the event loop until `condition` holds; fail after the timeout."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        await asyncio.sleep(_PAUSE_S)


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is cancelled; fail after the timeout."""
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
    assert done, "it does not end"
    assert task.cancelled()


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Fail if the block hangs. For the main thread."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
