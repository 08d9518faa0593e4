"""Long tasks: what runs, how far it is, and stopping it. One place, so that every pane shows the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from textual.app import App
from textual.worker import Worker

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, Publisher
from mlxk_tui.ui.widgets.error_text import error_text

Work = Callable[[OnEvent], Awaitable[str]]
"""Does the task, reporting progress; returns the sentence to tell when it is done."""
DIALOG_GROUP = "dialog"
"""Group of the workers that ask the user something; one at a time."""
LONG_SECONDS = 30.0
"""A task that has run for longer is not stopped by a key alone."""


@dataclass(eq=False)
class Task:
    """One long task."""

    title: str
    """What runs, safe to show: `Verifying Qwen3-4B`."""
    progress: Progress | None = None
    """The last event; written from any thread, read by the task bar ten times a second."""
    worker: Worker[None] | None = field(default=None, repr=False)
    about: frozenset[str] = frozenset()
    """What it works on, so that the same is not started twice: `verify models--org--name`."""
    began: float = field(default_factory=time.monotonic)
    """When it started, in seconds of the monotonic clock."""
    begun: bool = False
    """Whether its worker has made its first step."""
    unwanted: bool = False
    """Whether it is to be stopped."""


class Tasks:
    """The running tasks of one app."""

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self.running: list[Task] = []
        self.changed: Publisher[None] = Publisher()

    def start(self, title: str, work: Work, *, about: Iterable[str] = ()) -> Task:
        """Start a task; its end, its error or its cancellation is told in a toast."""
        task = Task(title, about=frozenset(about))
        self.running.append(task)
        task.worker = self._app.run_worker(
            self._run(task, work), name=title, group="tasks", exit_on_error=False
        )
        self.changed.publish(None)
        return task

    def works_on(self, about: str) -> bool:
        """Tell whether a running task is about this."""
        return any(about in task.about for task in self.running)

    def stop(self) -> bool:
        """Stop the task that was started last, a long one after a question; False where none runs."""
        if not self.running:
            return False
        task = self.running[-1]
        if time.monotonic() - task.began < LONG_SECONDS:
            self._cancel(task)
        elif not self._app.screen.is_modal and not any(
            worker.group == DIALOG_GROUP and not worker.is_finished for worker in self._app.workers
        ):
            self._app.run_worker(self._ask(task), group=DIALOG_GROUP, exit_on_error=False)
        return True

    async def _ask(self, task: Task) -> None:
        from mlxk_tui.ui.widgets.dialogs import QuestionDialog

        text = "What it has done so far is lost."
        question = QuestionDialog(f"Stop {task.title}?", text, proceed="Stop", cancel="Go on")
        if await self._app.push_screen_wait(question):
            self._cancel(task)

    def _cancel(self, task: Task) -> None:
        task.unwanted = True
        # A worker that is cancelled before its first step never runs: nobody would take the task away.
        if task.begun and task.worker is not None:
            task.worker.cancel()

    async def _run(self, task: Task, work: Work) -> None:
        def report(event: Progress) -> None:
            task.progress = event

        task.begun = True
        try:
            if task.unwanted:
                raise asyncio.CancelledError
            message = await work(report)
        except asyncio.CancelledError:
            self._app.notify(f"{task.title}: stopped.", severity="warning", markup=False)
            raise
        except OpError as error:
            self._app.notify(error_text(error), severity="error", timeout=12, markup=False)
        else:
            if message:
                self._app.notify(message, markup=False)
        finally:
            self.running.remove(task)
            self.changed.publish(None)
