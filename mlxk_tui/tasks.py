"""Long tasks: what runs, how far it is, and stopping it. One place, so that every pane shows the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from textual.app import App
from textual.signal import Signal
from textual.worker import Worker

from mlxk_tui.ops.errors import OpError
from mlxk_tui.ops.events import OnEvent, Progress
from mlxk_tui.ops.format import printable

Work = Callable[[OnEvent], Awaitable[str]]
"""Does the task, reporting progress; returns the sentence to tell when it is done."""


@dataclass(eq=False)
class Task:
    """One long task."""

    title: str
    """What runs, safe to show: `Verifying Qwen3-4B`."""
    progress: Progress | None = None
    """The last event; written from any thread, read by the task bar ten times a second."""
    worker: Worker[None] | None = field(default=None, repr=False)


class Tasks:
    """The running tasks of one app."""

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self.running: list[Task] = []
        self.changed: Signal[None] = Signal(app, "tasks-changed")

    def start(self, title: str, work: Work) -> Task:
        """Start a task; its end, its error or its cancellation is told in a toast."""
        task = Task(title)
        self.running.append(task)
        task.worker = self._app.run_worker(
            self._run(task, work), name=title, group="tasks", exit_on_error=False
        )
        self.changed.publish(None)
        return task

    def cancel(self) -> bool:
        """Stop the task that was started last; False where none runs."""
        if not self.running:
            return False
        worker = self.running[-1].worker
        if worker is not None:
            worker.cancel()
        return True

    async def _run(self, task: Task, work: Work) -> None:
        def report(event: Progress) -> None:
            task.progress = event

        try:
            message = await work(report)
        except asyncio.CancelledError:
            self._app.notify(f"{task.title}: stopped.", severity="warning", markup=False)
            raise
        except OpError as error:
            self._app.notify(printable(error.message), severity="error", timeout=12, markup=False)
        else:
            if message:
                self._app.notify(message, markup=False)
        finally:
            self.running.remove(task)
            self.changed.publish(None)
