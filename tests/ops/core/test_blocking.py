"""Blocking work with and without an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from mlxk_tui.ops.core.blocking import run_blocking, run_without_loop
from tests.support.waiting import PATIENCE_S, cancel, patience


async def whose_thread() -> int:
    return await run_blocking(threading.get_ident)


async def fault() -> None:
    def work() -> None:
        raise OSError("no")

    await run_blocking(work)


def test_without_an_event_loop_work_runs_in_a_thread() -> None:
    assert run_without_loop(whose_thread()) != threading.get_ident()
    with pytest.raises(OSError, match="no"):
        run_without_loop(fault())


async def test_with_an_event_loop_work_runs_in_a_thread() -> None:
    assert await whose_thread() != threading.get_ident()
    with pytest.raises(OSError, match="no"):
        await fault()


def test_interrupt_reaches_the_caller_and_stops_the_work() -> None:
    stop = threading.Event()
    ended: list[bool] = []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        ended.append(stop.wait(PATIENCE_S))

    with pytest.raises(KeyboardInterrupt):
        run_without_loop(run_blocking(work, stop))
    assert ended == [True]


def test_hanging_work_is_abandoned() -> None:
    never = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        never.wait()

    with patience(), pytest.raises(KeyboardInterrupt):
        run_without_loop(run_blocking(work))
    never.set()


async def test_cancelled_work_is_notified_with_an_event_loop() -> None:
    stop = threading.Event()
    task = asyncio.create_task(run_blocking(lambda: stop.wait(PATIENCE_S), stop))
    await asyncio.sleep(0)
    await cancel(task)
    assert stop.is_set()


def test_operations_that_need_an_event_loop_fail_without_one() -> None:
    ended = []

    async def waits() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="needs an event loop"):
        run_without_loop(waits())
    assert ended
