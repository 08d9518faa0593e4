"""Blocking work beside an event loop, and without one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mlxk_tui.ops.blocking import blocking, finish


async def whose_thread() -> int:
    return await blocking(threading.get_ident)


async def fault() -> None:
    def work() -> None:
        raise OSError("no")

    await blocking(work)


def test_without_a_loop_the_work_is_done_by_who_asks() -> None:
    assert finish(whose_thread()) == threading.get_ident()
    with pytest.raises(OSError, match="no"):
        finish(fault())


async def test_beside_a_loop_it_is_done_in_a_thread() -> None:
    assert await whose_thread() != threading.get_ident()
    with pytest.raises(OSError, match="no"):
        await fault()


def test_what_needs_a_loop_is_not_run_without_one() -> None:
    ended = []

    async def waits() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="needs an event loop"):
        finish(waits())
    assert ended
