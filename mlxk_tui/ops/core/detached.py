"""Blocking questions in a thread that nobody waits for once the answer is not wanted any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def detached(work: Callable[[threading.Event], T], total_s: float) -> T:
    """Run `work(stop)` in a thread of its own and return its result.

    The wait ends at once when the task is cancelled, and `stop` is set. Unlike an executor's threads this
    one is waited for neither then nor when the loop or the process ends, so it must not write anything.

    Raises:
        asyncio.TimeoutError: `total_s` seconds are over.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    stop = threading.Event()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]  # T itself may be Optional

    def run() -> None:
        value: T | None = None
        failure: BaseException | None = None
        try:
            value = work(stop)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name="hub", daemon=True).start()
    try:
        # Not `wait_for`: before Python 3.12 it drops a cancellation that arrives together with the result.
        done, _ = await asyncio.wait([result], timeout=total_s)
        if not done:
            raise asyncio.TimeoutError
        return result.result()
    finally:
        stop.set()
        result.cancel()
        if not result.cancelled():
            result.exception()  # retrieved, so that asyncio does not report it as lost
