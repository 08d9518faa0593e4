"""Long tasks on the screen: stopping the latest one, and a toast about the end of each."""

from __future__ import annotations

import time
from typing import Any

from textual.app import App

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.services.tasks import Task, Tasks
from mlxk_tui.ui.widgets.error_text import error_text, fault_text

DIALOG_GROUP = "dialog"
"""Group of the workers that ask the user something; one at a time."""
LONG_SECONDS = 30.0
"""A task that has run for longer is not stopped by a key alone."""


def stop_latest_task(app: App[Any], tasks: Tasks) -> bool:
    """Stop the task that was started last, a long one after a question; False where none runs."""
    if not tasks.running:
        return False
    task = tasks.running[-1]
    if time.monotonic() - task.began < LONG_SECONDS:
        tasks.cancel(task)
    elif not app.screen.is_modal and not any(
        worker.group == DIALOG_GROUP and not worker.is_finished for worker in app.workers
    ):
        app.run_worker(_ask(app, tasks, task), group=DIALOG_GROUP, exit_on_error=False)
    return True


async def _ask(app: App[Any], tasks: Tasks, task: Task) -> None:
    from mlxk_tui.ui.widgets.dialogs import QuestionDialog

    text = "What it has done so far is lost."
    question = QuestionDialog(f"Stop {task.title}?", text, proceed="Stop", cancel="Go on")
    if await app.push_screen_wait(question):
        tasks.cancel(task)


def notify_end(app: App[Any], task: Task) -> None:
    """Show how a task ended."""
    if task.cancelled:
        app.notify(f"{task.title}: stopped.", severity="warning", markup=False)
    elif isinstance(task.error, OpError):
        app.notify(error_text(task.error), severity="error", timeout=12, markup=False)
    elif task.error is not None:
        app.notify(fault_text(task.title, task.error), severity="error", timeout=20, markup=False)
    elif task.result:
        app.notify(task.result, markup=False)
