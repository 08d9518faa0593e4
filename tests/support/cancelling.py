"""Cancels a running operation during its first progress event."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mlxk_tui.ops.core.events import OnEvent, Progress

T = TypeVar("T")
_TURNS = 20
"""Turns of the event loop after which a cancellation has surely been delivered."""


async def cancelled_at_first_event(start: Callable[[OnEvent], Awaitable[T]]) -> bool:
    """Run `start(on_event)`, cancel it during its first event, and return whether it was cancelled."""
    loop = asyncio.get_running_loop()
    told = threading.Event()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            told.set()

    def cancel() -> None:
        task.cancel()
        turn(_TURNS)

    def on_event(event: Progress) -> None:
        if not told.is_set():
            loop.call_soon_threadsafe(cancel)
            told.wait()

    async def run() -> T:
        return await start(on_event)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    return task.cancelled()
