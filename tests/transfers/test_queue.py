"""The queue: order, pausing, retries and notifications."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.transfers.changes import Change
from mlxk_tui.transfers.jobs import Pull, Push, TransferState
from mlxk_tui.transfers.queue import MAX_FINISHED, TransferQueue
from tests.support.waiting import until
from tests.transfers.conftest import QueueMaker, Works, put, states


async def test_number_of_running_transfers_is_limited(queue: TransferQueue, works: Works) -> None:
    put(queue, "o/a", "o/b", "o/c")
    await until(lambda: works.began == ["o/a", "o/b"])
    assert states(queue)[2] == ("o/c", "waiting")
    works.end("o/a", "Got it.")
    await until(lambda: works.began == ["o/a", "o/b", "o/c"])
    assert states(queue) == [("o/b", "running"), ("o/c", "running"), ("o/a", "done")]
    assert queue.transfers[2].result == "Got it."


async def test_job_is_not_queued_twice(queue: TransferQueue) -> None:
    first, new = queue.add(Pull("Org/Model"))
    assert new
    assert queue.add(Pull("org/model@main")) == (first, False)
    assert queue.add(Pull("org/model@v2"))[1]
    assert queue.add(Push("/folder", "org/model"))[1]
    assert len(queue.transfers) == 3


async def test_adding_a_paused_job_again_resumes_it(queue: TransferQueue, works: Works) -> None:
    (transfer,) = put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    queue.pause(transfer.id)
    await until(lambda: works.stopped == ["o/a"])
    assert queue.add(Pull("o/a")) == (transfer, False)
    await until(lambda: works.began == ["o/a", "o/a"])


async def test_finished_job_can_be_added_again(queue: TransferQueue, works: Works) -> None:
    put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    works.end("o/a")
    await until(lambda: states(queue) == [("o/a", "done")])
    put(queue, "o/a")
    await until(lambda: states(queue) == [("o/a", "running")])


async def test_pausing_stops_a_job_and_starts_the_next(make_queue: QueueMaker, works: Works) -> None:
    queue = make_queue(parallel=1)
    await queue.start()
    first, _ = put(queue, "o/a", "o/b")
    await until(lambda: works.began == ["o/a"])
    queue.pause(first.id)
    assert states(queue)[0] == ("o/a", "paused")
    await until(lambda: works.began == ["o/a", "o/b"])
    assert works.stopped == ["o/a"]
    queue.resume(first.id)
    assert states(queue)[0] == ("o/a", "waiting")  # first in the order, but no slot is free
    works.end("o/b")
    await until(lambda: works.began == ["o/a", "o/b", "o/a"])


async def test_job_resumed_right_after_pausing_restarts_once_it_has_stopped(
    queue: TransferQueue, works: Works
) -> None:
    (transfer,) = put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    queue.pause(transfer.id)
    queue.resume(transfer.id)
    assert works.began == ["o/a"]
    await until(lambda: works.began == ["o/a", "o/a"])
    assert works.stopped == ["o/a"]
    assert transfer.state is TransferState.RUNNING


async def test_job_paused_before_its_first_step_does_not_run(queue: TransferQueue, works: Works) -> None:
    (transfer,) = put(queue, "o/a")
    queue.pause(transfer.id)
    put(queue, "o/b")
    await until(lambda: works.began == ["o/b"])
    assert transfer.state is TransferState.PAUSED


async def test_cancelled_job_can_be_retried(queue: TransferQueue, works: Works) -> None:
    (transfer,) = put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    queue.cancel(transfer.id)
    await until(lambda: works.stopped == ["o/a"])
    assert transfer.state is TransferState.CANCELLED
    queue.resume(transfer.id)
    await until(lambda: works.began == ["o/a", "o/a"])


async def test_removing_stops_and_deletes_a_job(queue: TransferQueue, works: Works) -> None:
    (transfer,) = put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    queue.remove(transfer.id)
    assert not queue.transfers
    await until(lambda: works.stopped == ["o/a"])
    put(queue, "o/b")
    await until(lambda: states(queue) == [("o/b", "running")])


async def test_moving_changes_the_order(make_queue: QueueMaker, works: Works) -> None:
    queue = make_queue(parallel=1)
    await queue.start()
    first, second, third = put(queue, "o/a", "o/b", "o/c")
    assert queue.move(third.id, -1)
    assert [t.job.name for t in queue.transfers] == ["o/a", "o/c", "o/b"]
    assert not queue.move(first.id, -1)
    assert not queue.move(second.id, 1)
    await until(lambda: works.began == ["o/a"])
    works.end("o/a")
    await until(lambda: works.began == ["o/a", "o/c"])


async def test_network_errors_are_retried_a_limited_number_of_times(
    make_queue: QueueMaker, works: Works
) -> None:
    queue = make_queue(delays=(0.01, 0.02))
    await queue.start()
    (transfer,) = put(queue, "o/a")
    for attempt in (1, 2, 3):
        await until(lambda attempt=attempt: len(works.began) == attempt)  # type: ignore[misc]  # mypy 1.x
        works.end("o/a", OpError(ErrorType.NETWORK_ERROR, "The hub cannot be reached."))
    await until(lambda: transfer.state is TransferState.FAILED)
    assert len(works.began) == 3
    assert transfer.failure is not None
    assert transfer.failure.type is ErrorType.NETWORK_ERROR
    assert transfer.ended is not None


async def test_retries_are_unlimited_while_bytes_arrive(make_queue: QueueMaker, works: Works) -> None:
    queue = make_queue(delays=(0.01,))
    await queue.start()
    (transfer,) = put(queue, "o/a")
    for attempt in range(1, 6):
        await until(lambda attempt=attempt: len(works.began) == attempt)  # type: ignore[misc]  # as above
        works.report("o/a", attempt * 100, 1_000)
        works.end("o/a", OpError(ErrorType.DOWNLOAD_FAILED, "The line broke."))
    await until(lambda: len(works.began) == 6)
    assert transfer.state is TransferState.RUNNING


async def test_errors_that_need_the_user_are_not_retried(queue: TransferQueue, works: Works) -> None:
    (transfer,) = put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    works.end("o/a", OpError(ErrorType.DISK_FULL, "No space is left. Free some."))
    await until(lambda: transfer.state is TransferState.FAILED)
    assert transfer.attempts == 1
    assert transfer.failure is not None
    assert transfer.failure.message == "No space is left. Free some."


async def test_unexpected_exception_fails_only_its_job(queue: TransferQueue, works: Works) -> None:
    first, _, _ = put(queue, "o/a", "o/b", "o/c")
    await until(lambda: len(works.began) == 2)
    works.end("o/a", RuntimeError("nobody expected this"))
    await until(lambda: len(works.began) == 3)
    assert first.failure is not None
    assert first.failure.type is ErrorType.INTERNAL_ERROR
    assert first.failure.remedy is Remedy.REPORT


async def test_progress_is_stored_per_file_and_in_total(queue: TransferQueue, works: Works) -> None:
    (transfer,) = put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    works.report("o/a", 10, 100, file="x.safetensors", files=(1, 3))
    works.report("o/a", 30, 100, file="y.safetensors", files=(1, 3))
    works.report("o/a", 40, 100, file="x.safetensors", files=(2, 3))
    await until(lambda: transfer.bytes_done == 40)
    assert (transfer.bytes_total, transfer.files_done, transfer.files_total) == (100, 2, 3)
    assert {name: (file.done, file.total) for name, file in transfer.files.items()} == {
        "x.safetensors": (40, 100),
        "y.safetensors": (30, 100),
    }
    assert transfer.fraction == 0.4


async def test_progress_is_published_at_most_five_times_per_second(
    queue: TransferQueue, works: Works
) -> None:
    told: list[tuple[float, Change]] = []
    loop = asyncio.get_running_loop()
    leave = queue.changed.subscribe(lambda change: told.append((loop.time(), change)))
    (transfer,) = put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    number = 0
    while len(told) < 4:
        number += 1
        works.report("o/a", number, 1_000_000)
        await asyncio.sleep(0)
    works.end("o/a")
    await until(lambda: any(change.ended for _, change in told))
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(told)]
    assert all(gap > 0.19 for gap in gaps[:-1])
    assert told[-1][1].ended == (transfer,)
    leave()
    count = len(told)
    put(queue, "o/b")
    await until(lambda: works.began == ["o/a", "o/b"])
    works.end("o/b")
    await until(lambda: len(queue.running) == 0)
    assert len(told) == count


async def test_only_the_last_finished_transfers_are_kept(make_queue: QueueMaker, works: Works) -> None:
    queue = make_queue(parallel=MAX_FINISHED + 10)
    await queue.start()
    names = [f"o/m{number}" for number in range(MAX_FINISHED + 5)]
    put(queue, *names)
    await until(lambda: len(works.began) == len(names))
    for name in names:
        works.end(name)
    await until(lambda: not queue.running)
    assert len(queue.transfers) == MAX_FINISHED
    assert queue.clear_finished() == MAX_FINISHED
    assert not queue.transfers


@pytest.mark.slow
async def test_at_most_five_hundred_jobs_wait(queue: TransferQueue, works: Works) -> None:
    put(queue, *(f"o/m{number}" for number in range(500)))
    assert [state for _, state in states(queue)].count("waiting") == 498
    with pytest.raises(OpError, match="queue is full"):
        put(queue, *(f"o/n{number}" for number in range(501)))


async def test_failure_is_cleared_once_bytes_arrive_again(make_queue: QueueMaker, works: Works) -> None:
    queue = make_queue(delays=(0.01,))
    await queue.start()
    (transfer,) = put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])
    works.end("o/a", OpError(ErrorType.NETWORK_ERROR, "The line is cut."))
    await until(lambda: len(works.began) == 2)
    assert transfer.failure is not None
    works.report("o/a", 10, 1_000)
    await until(lambda: transfer.bytes_done == 10)
    works.report("o/a", 500, 1_000)
    await until(lambda: transfer.failure is None)
    assert transfer.state is TransferState.RUNNING
