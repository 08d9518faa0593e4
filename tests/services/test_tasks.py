"""Tasks without a screen: how they end, and that each end is published once."""

from __future__ import annotations

import asyncio

import pytest

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress
from mlxk_tui.services.tasks import Task, Tasks
from tests.support.waiting import until

STEP = Progress("verify", "a.safetensors", 1, 2, 0.0)


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


@pytest.fixture
def ended(tasks: Tasks) -> list[Task]:
    """Return the tasks that have ended, as they are published."""
    seen: list[Task] = []
    tasks.ended.subscribe(seen.append)
    return seen


async def endless(_: OnEvent) -> str:
    await asyncio.Event().wait()
    return ""


async def test_a_task_reports_progress_and_a_result(tasks: Tasks, ended: list[Task]) -> None:
    async def work(on_event: OnEvent) -> str:
        on_event(STEP)
        return "2 files compared."

    changes: list[int] = []
    tasks.changed.subscribe(lambda _: changes.append(len(tasks.running)))
    task = tasks.start("Verifying", work, about=["verify a"])
    assert tasks.running == [task]
    assert tasks.works_on("verify a")
    assert not tasks.works_on("verify b")
    await until(lambda: bool(ended))
    assert (ended, tasks.running, changes) == ([task], [], [1, 0])
    assert (task.progress, task.result) == (STEP, "2 files compared.")
    assert (task.error, task.cancelled) == (None, False)
    assert not tasks.works_on("verify a")


@pytest.mark.parametrize(
    "error", [OpError(ErrorType.DISK_FULL, "The disk is full."), ZeroDivisionError()], ids=["typed", "fault"]
)
async def test_a_failure_is_kept_with_its_task(tasks: Tasks, ended: list[Task], error: Exception) -> None:
    async def work(_: OnEvent) -> str:
        raise error

    task = tasks.start("Cloning", work)
    await until(lambda: bool(ended))
    assert (task.error, task.cancelled, tasks.running) == (error, False, [])


@pytest.mark.parametrize("begun", [False, True], ids=["before its first step", "at work"])
async def test_a_cancelled_task_ends(tasks: Tasks, ended: list[Task], begun: bool) -> None:
    task, other = tasks.start("Waiting", endless), tasks.start("Waiting too", endless)
    if begun:
        await asyncio.sleep(0)
    tasks.cancel(task)
    await until(lambda: bool(ended))
    assert ended == [task]
    assert (task.cancelled, task.error) == (True, None)
    assert tasks.running == [other]
    tasks.cancel(task)  # once more does no harm
    await tasks.close()
    assert (ended, tasks.running) == ([task, other], [])


async def test_closing_without_a_task_does_nothing(tasks: Tasks) -> None:
    await tasks.close()
