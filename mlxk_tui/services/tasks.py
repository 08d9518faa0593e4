"""Long tasks: what runs, how far it is, how it ended, and cancelling it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from mlxk_tui.ops.core.events import OnEvent, Progress, Publisher

Work = Callable[[OnEvent], Awaitable[str]]
"""Does the task and reports its progress; returns a sentence about the result, empty for none."""
_PATIENCE_SECONDS = 3.0
"""How long tasks may take to end once they were cancelled; operations promise a second."""


@dataclass(eq=False)
class Task:
    """One long task."""

    title: str
    """What runs, safe to show: `Verifying Qwen3-4B`."""
    progress: Progress | None = None
    """The last event; may be written from any thread."""
    about: frozenset[str] = frozenset()
    """What it works on, so that the same work is not started twice: `verify models--org--name`."""
    began: float = field(default_factory=time.monotonic)
    """When it started, in seconds of the monotonic clock."""
    result: str = ""
    """What its work returned."""
    error: BaseException | None = None
    """Why it failed."""
    cancelled: bool = False
    """Whether it ended because it was cancelled."""


class Tasks:
    """The running tasks of one app. It belongs to one event loop."""

    def __init__(self) -> None:
        self.running: list[Task] = []
        """In the order in which they were started."""
        self.changed: Publisher[None] = Publisher()
        """A task started or ended."""
        self.ended: Publisher[Task] = Publisher()
        """A task has ended; `result`, `error` or `cancelled` says how."""
        self._handles: dict[Task, asyncio.Task[str]] = {}

    def start(self, title: str, work: Work, *, about: Iterable[str] = ()) -> Task:
        """Start a task."""
        task = Task(title, about=frozenset(about))
        handle = asyncio.create_task(_run(task, work), name=title)
        self.running.append(task)
        self._handles[task] = handle
        handle.add_done_callback(partial(self._on_done, task))
        self.changed.publish(None)
        return task

    def works_on(self, about: str) -> bool:
        """Tell whether a running task is about this."""
        return any(about in task.about for task in self.running)

    def cancel(self, task: Task) -> None:
        """Cancel a task; it ends soon, or does nothing where it has ended."""
        if (handle := self._handles.get(task)) is not None:
            handle.cancel()

    async def close(self) -> None:
        """Cancel every task and wait until they have ended, for a few seconds at most."""
        handles = list(self._handles.values())
        for handle in handles:
            handle.cancel()
        if handles:
            await asyncio.wait(handles, timeout=_PATIENCE_SECONDS)

    def _on_done(self, task: Task, handle: asyncio.Task[str]) -> None:
        self.running.remove(task)
        del self._handles[task]
        if handle.cancelled():
            task.cancelled = True
        elif (error := handle.exception()) is not None:
            task.error = error
        else:
            task.result = handle.result()
        self.changed.publish(None)
        self.ended.publish(task)


async def _run(task: Task, work: Work) -> str:
    def report(event: Progress) -> None:
        task.progress = event

    return await work(report)
