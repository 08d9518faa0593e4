"""Long tasks on the screen: how to stop the latest one, and a notification about the end of each."""

from __future__ import annotations

import time
from typing import Any

from textual.app import App

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.services.tasks import Task, Tasks
from mlxk_tui.ui.widgets.error_text import error_text, fault_text

DIALOG_GROUP = "dialog"
"""Group of the workers that show a dialog; one at a time."""
LONG_SECONDS = 30.0
"""A task that has run longer is stopped only after a confirmation."""


def stop_latest_task(app: App[Any], tasks: Tasks) -> bool:
    """Stop the latest task, a long one after a confirmation; return False if none runs."""
    if not tasks.running:
        return False
    task = tasks.running[-1]
    if time.monotonic() - task.began < LONG_SECONDS:
        tasks.cancel(task)
    elif not app.screen.is_modal and not any(
        worker.group == DIALOG_GROUP and not worker.is_finished for worker in app.workers
    ):
        app.run_worker(_confirm_stop(app, tasks, task), group=DIALOG_GROUP, exit_on_error=False)
    return True


async def _confirm_stop(app: App[Any], tasks: Tasks, task: Task) -> None:
    from mlxk_tui.ui.widgets.dialogs import ConfirmDialog

    text = "Its progress will be lost."
    dialog = ConfirmDialog(f"Stop {task.title}?", text, proceed="Stop", cancel="Keep running")
    if await app.push_screen_wait(dialog):
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
