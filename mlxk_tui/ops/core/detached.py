"""Runs blocking requests in a thread that is abandoned when its result is no longer needed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_detached(work: Callable[[threading.Event], T], total_s: float) -> T:
    """Run `work(stop)` in a thread of its own and return its result.

    Cancelling the task ends the wait immediately and sets `stop`. In contrast to an executor's threads,
    this thread is a daemon: neither the loop nor the process waits for it. So `work` must not write files.

    Raises:
        asyncio.TimeoutError: `work` took longer than `total_s` seconds.
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
        except BaseException as error:  # noqa: BLE001 - raised again in the awaiting task
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name="hub", daemon=True).start()
    try:
        # Not `wait_for`: before Python 3.12 it loses a cancellation that coincides with the result.
        done, _ = await asyncio.wait([result], timeout=total_s)
        if not done:
            raise asyncio.TimeoutError
        return result.result()
    finally:
        stop.set()
        result.cancel()
        if not result.cancelled():
            result.exception()  # retrieved, so that asyncio does not log it
