"""A queue whose jobs are controlled by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from mlxk_tui.ops.core.events import OnEvent, Progress
from mlxk_tui.transfers.jobs import Pull, Push, Transfer
from mlxk_tui.transfers.queue import TransferQueue


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Works:
    """A runner of jobs: records them, and each waits until the test ends it."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.stopped: list[str] = []
        self._on_event: dict[str, OnEvent] = {}
        self._ends: dict[str, asyncio.Future[str]] = {}

    async def __call__(self, job: Any, on_event: OnEvent) -> str:
        name = job.name
        self.began.append(name)
        self._on_event[name] = on_event
        self._ends[name] = asyncio.get_running_loop().create_future()
        try:
            return await self._ends[name]
        except asyncio.CancelledError:
            self.stopped.append(name)
            raise

    def report(
        self, name: str, done: int, total: int, *, file: str = "", files: tuple[int, int] = (0, 0)
    ) -> None:
        """Send progress of a job; with a file, also that of the file."""
        sized = (done, total) if file else (0, 0)
        self._on_event[name](Progress("pull", file, done, total, 0.0, *files, *sized))

    def end(self, name: str, how: str | Exception = "Done.") -> None:
        """End a job."""
        if isinstance(how, Exception):
            self._ends[name].set_exception(how)
        else:
            self._ends[name].set_result(how)


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
def clock() -> Clock:
    return Clock()


QueueMaker = Callable[..., TransferQueue]


@pytest.fixture
async def make_queue(tmp_path: Path, works: Works, clock: Clock) -> AsyncIterator[QueueMaker]:
    """Return a function that creates a queue with this test's file; it is closed after the test."""
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> TransferQueue:
            path = options.pop("path", tmp_path / "state" / "transfers.json")
            options.setdefault("clock", clock)
            queue = TransferQueue(path, {Pull: works, Push: works}, **options)
            stack.push_async_callback(queue.close)
            return queue

        yield make


@pytest.fixture
async def queue(make_queue: QueueMaker) -> TransferQueue:
    """Return a started queue with an empty file."""
    queue = make_queue()
    await queue.start()
    return queue


def states(queue: TransferQueue) -> list[tuple[str, str]]:
    """Return name and state of every transfer, top to bottom."""
    return [(transfer.job.name, transfer.state.value) for transfer in queue.transfers]


def put(queue: TransferQueue, *specs: str) -> list[Transfer]:
    """Add pulls to the queue."""
    return [queue.add(Pull(spec))[0] for spec in specs]
