"""The transfer queue: runs a few jobs at a time, pauses and retries them, and saves them to a file.

Everything runs in one event loop. A runner, one per type of job, gets the job and a callback for progress.
It stops when its task is cancelled, and the same call later resumes where it stopped. Pausing, quitting and
being killed are therefore the same for a runner.

Jobs that ran when the program exited are queued again at the next start; paused ones stay paused. Only one
process at a time runs the queue of a file. Others show it, and one takes over when that process exits.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, Publisher
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.transfers.changes import INTERVAL, Change, ChangeNotifier
from mlxk_tui.transfers.jobs import Failure, Job, Transfer, TransferState
from mlxk_tui.transfers.persistence import QueuePersistence
from mlxk_tui.transfers.progress import apply_progress
from mlxk_tui.transfers.queue_file import StoredQueue, to_document

Runner = Callable[[Any, OnEvent], Awaitable[str]]
"""Runs one job and returns the result as a sentence; it may report progress from any thread."""

RETRYABLE = frozenset({ErrorType.NETWORK_ERROR, ErrorType.DOWNLOAD_FAILED})
"""Errors that are retried; all others need the user."""
RETRY_DELAYS_S = (2.0, 8.0, 30.0, 60.0)
"""Seconds before each retry; after the last one the transfer has failed."""
MAX_FINISHED = 30
"""Number of finished transfers to keep."""
MAX_UNFINISHED = 1_000
"""Maximum number of unfinished transfers."""
_SAVE_SECONDS = 5.0
_STOP_SECONDS = 3.0
READ_ONLY = "Another mlxk-tui runs the transfers. Change them there."
"""Why this process can't change the queue."""


class TransferQueue:
    """The queue of pulls and pushes.

    Args:
        path: the file of the queue; see `queue_file.state_file`.
        runners: the runner of each type of job.
        parallel: maximum number of running transfers.
        clock: returns seconds since the epoch.
        monotonic: returns seconds of a monotonic clock.
        delays: seconds before each retry after a network error.
    """

    def __init__(
        self,
        path: Path,
        runners: Mapping[type[Job], Runner],
        *,
        parallel: int = 2,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        delays: tuple[float, ...] = RETRY_DELAYS_S,
    ) -> None:
        self.transfers: list[Transfer] = []
        """Unfinished transfers in their order, then finished ones, latest first."""
        self.problem: str | None = None
        """An error message about the file; the queue works without it."""
        self.read_only_reason: str | None = None
        """Why this process can't change the queue, as a message; None if it can."""
        self.ready = False
        """Whether the file has been read."""
        self.changed: Publisher[Change] = Publisher()
        """Published in the event loop when transfers change."""
        self.monotonic = monotonic
        self._persistence = QueuePersistence(
            path, on_load=self._on_load, document=lambda: to_document(self.transfers), on_error=self._on_error
        )
        self._runners = runners
        self._parallel = parallel
        self._clock = clock
        self._delays = delays
        self._notifier = ChangeNotifier(self.changed)
        self._tasks: dict[str, asyncio.Task[str]] = {}
        self._events: dict[str, deque[Progress]] = {}
        self._retry_timer: asyncio.TimerHandle | None = None
        self._update_task: asyncio.Task[None] | None = None
        self._closed = False

    # -- start and close -------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the file and resume its transfers, or follow the process that runs the queue."""
        await self._persistence.open()

    def _on_load(self, stored: StoredQueue, owner: bool) -> None:
        known = {transfer.id: transfer for transfer in self.transfers}
        self.transfers = list(stored.transfers)
        self.read_only_reason = None if owner else READ_ONLY
        for transfer in self.transfers:
            if transfer.state is not TransferState.RUNNING:
                continue
            if owner:  # it was running when the program exited
                transfer.state = TransferState.WAITING
            else:  # the rate isn't in the file, so measure it
                before = known.get(transfer.id)
                transfer.rates = before.rates if before is not None else transfer.rates
                transfer.rates.add(self.monotonic(), transfer.bytes_done)
        self._sort()
        self.ready = True
        self.problem = stored.problem or self.problem
        self._publish_soon(structure=True)
        if owner:
            self._start_due()
        if owner and self.transfers:
            self._persistence.save()

    def _on_error(self, message: str) -> None:
        self.problem = message
        self._publish_soon(structure=True)

    async def close(self) -> None:
        """Stop running transfers, save the queue, and release it for other processes."""
        if self._closed:
            return
        self._closed = True
        self._notifier.close()
        for scheduled in (self._retry_timer, self._update_task):
            if scheduled is not None:
                scheduled.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        for transfer in self.running:
            self._apply_events(transfer)
            if self._persistence.owner:
                transfer.state = TransferState.WAITING
        await self._persistence.close()

    # -- queries ---------------------------------------------------------------------------------

    def get(self, transfer_id: str) -> Transfer | None:
        """Return a transfer by its id."""
        return next((transfer for transfer in self.transfers if transfer.id == transfer_id), None)

    def find(self, key: str) -> Transfer | None:
        """Return the unfinished transfer with this key."""
        return next((t for t in self.transfers if t.key == key and not t.state.finished), None)

    @property
    def running(self) -> list[Transfer]:
        """The running transfers, in this process or in the one that runs the queue."""
        return [transfer for transfer in self.transfers if transfer.state is TransferState.RUNNING]

    @property
    def unfinished(self) -> list[Transfer]:
        """The unfinished transfers, in their order."""
        return [transfer for transfer in self.transfers if not transfer.state.finished]

    @property
    def interruptible(self) -> list[Transfer]:
        """The running and waiting transfers that quitting would interrupt."""
        states = {TransferState.RUNNING, TransferState.WAITING}
        return [t for t in self.transfers if t.state in states] if self._persistence.owner else []

    # -- changes ---------------------------------------------------------------------------------

    def add(self, job: Job) -> tuple[Transfer, bool]:
        """Add a job; return its transfer and whether it is new.

        The same job is not added twice: if its transfer is paused or has failed, it is resumed.

        Raises:
            OpError: `locks_present` if another process runs the queue; `validation_error` if it is full.
        """
        self._check_writable()
        key = job.key
        existing = self.find(key)
        if existing is not None:
            if existing.state in {TransferState.PAUSED, TransferState.FAILED}:
                existing.job = job
                self.resume(existing.id)
            return existing, False
        if len(self.unfinished) >= MAX_UNFINISHED:
            message = f"The queue is full ({MAX_UNFINISHED:,} transfers). Cancel some of them first."
            raise OpError(ErrorType.VALIDATION_ERROR, message)
        self.transfers = [t for t in self.transfers if t.key != key]
        transfer = Transfer(uuid.uuid4().hex[:12], job, added=self._clock())
        self.transfers.append(transfer)
        self._sort()
        self._changed()
        return transfer, True

    def pause(self, transfer_id: str) -> None:
        """Stop a transfer until `resume`; downloaded bytes stay on disk."""
        transfer = self._find_writable(transfer_id)
        if transfer is not None and transfer.state in {TransferState.WAITING, TransferState.RUNNING}:
            self._stop(transfer, TransferState.PAUSED)

    def resume(self, transfer_id: str) -> None:
        """Resume a paused, failed or cancelled transfer, or start the next attempt now."""
        transfer = self._find_writable(transfer_id)
        if transfer is None or transfer.state in {TransferState.RUNNING, TransferState.DONE}:
            return
        transfer.state, transfer.ended, transfer.retry_at = TransferState.WAITING, None, None
        transfer.failure, transfer.attempts = None, 0
        self._sort()
        self._changed()

    def cancel(self, transfer_id: str) -> None:
        """Cancel a transfer; downloaded bytes stay on disk, and a later pull resumes from them."""
        transfer = self._find_writable(transfer_id)
        if transfer is not None and not transfer.state.finished:
            transfer.ended = self._clock()
            self._stop(transfer, TransferState.CANCELLED)

    def remove(self, transfer_id: str) -> None:
        """Remove a transfer from the queue, and stop it if it is running."""
        transfer = self._find_writable(transfer_id)
        if transfer is not None:
            self.transfers.remove(transfer)
            self._stop(transfer, TransferState.CANCELLED)

    def clear_finished(self) -> int:
        """Remove all finished transfers and return their number."""
        self._check_writable()
        before = len(self.transfers)
        self.transfers = self.unfinished
        if len(self.transfers) < before:
            self._changed()
        return before - len(self.transfers)

    def move(self, transfer_id: str, by: int) -> bool:
        """Move an unfinished transfer down by `by` positions (up if negative); return whether it moved."""
        transfer = self._find_writable(transfer_id)
        order = self.unfinished
        if transfer is None or transfer not in order:
            return False
        position = order.index(transfer)
        target = max(0, min(len(order) - 1, position + by))
        if target == position:
            return False
        order.insert(target, order.pop(position))
        self.transfers = [*order, *(t for t in self.transfers if t.state.finished)]
        self._changed()
        return True

    def replace_job(self, transfer_id: str, job: Job) -> None:
        """Change the options of a transfer's job."""
        if (transfer := self._find_writable(transfer_id)) is not None:
            transfer.job = job
            self._changed()

    def _check_writable(self) -> None:
        if not self.ready:
            raise OpError(ErrorType.LOCKS_PRESENT, "The transfer queue is still loading.")
        if self.read_only_reason is not None:
            raise OpError(ErrorType.LOCKS_PRESENT, self.read_only_reason)

    def _find_writable(self, transfer_id: str) -> Transfer | None:
        self._check_writable()
        return self.get(transfer_id)

    def _stop(self, transfer: Transfer, state: TransferState) -> None:
        """Set a state in which the transfer doesn't run, and cancel its task."""
        transfer.state, transfer.retry_at = state, None
        if state is TransferState.CANCELLED:
            transfer.failure = None
        if (task := self._tasks.get(transfer.id)) is not None:
            task.cancel()
        self._sort()
        self._changed()

    def _sort(self) -> None:
        done = [transfer for transfer in self.transfers if transfer.state.finished]
        done.sort(key=lambda transfer: -(transfer.ended or 0))
        self.transfers = [*self.unfinished, *done[:MAX_FINISHED]]

    # -- running ---------------------------------------------------------------------------------

    def _start_due(self) -> None:
        """Start the transfers that can run now, and schedule the next retry."""
        if not self._persistence.owner or self._closed:
            return
        now = self.monotonic()
        due: list[float] = []
        for transfer in self.transfers:
            if transfer.state is not TransferState.WAITING or transfer.id in self._tasks:
                continue
            if transfer.retry_at is not None and transfer.retry_at > now:
                due.append(transfer.retry_at)
            elif len(self._tasks) < self._parallel:
                self._start(transfer)
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        if due:
            delay = max(0.01, min(due) - now)
            self._retry_timer = asyncio.get_running_loop().call_later(delay, self._start_due)

    def _start(self, transfer: Transfer) -> None:
        transfer.state, transfer.retry_at, transfer.stage = TransferState.RUNNING, None, ""
        transfer.files.clear()
        transfer.rates.reset()
        events: deque[Progress] = deque()
        runner = self._runners[type(transfer.job)]

        async def run() -> str:
            return await runner(transfer.job, events.append)

        task = asyncio.create_task(run(), name=f"transfer {transfer.id}")
        self._tasks[transfer.id], self._events[transfer.id] = task, events
        task.add_done_callback(lambda ended: self._finish(transfer, ended))
        if self._update_task is None or self._update_task.done():
            self._update_task = asyncio.create_task(self._update_regularly())
        self._publish_soon([transfer.id], structure=True)

    def _finish(self, transfer: Transfer, task: asyncio.Task[str]) -> None:
        """Set the state after an attempt has ended, in whatever way."""
        self._apply_events(transfer)
        self._tasks.pop(transfer.id, None)
        self._events.pop(transfer.id, None)
        if transfer not in self.transfers:  # removed meanwhile
            transfer.state = TransferState.CANCELLED
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or (isinstance(error, OpError) and error.type is ErrorType.CANCELLED):
            # `_stop` has set the state. If not, the program is exiting or the runner cancelled itself.
            if transfer.state is TransferState.RUNNING:
                transfer.state = TransferState.WAITING if self._closed else TransferState.PAUSED
        elif error is None:
            self._succeed(transfer, task.result())
        elif transfer.state is TransferState.RUNNING:
            self._fail(transfer, error)
        self._sort()
        self._changed()

    def _succeed(self, transfer: Transfer, result: str) -> None:
        transfer.state, transfer.result, transfer.failure = TransferState.DONE, result, None
        transfer.ended, transfer.attempts = self._clock(), 0
        transfer.bytes_done = transfer.bytes_total or transfer.bytes_done
        transfer.files_done = transfer.files_total or transfer.files_done
        for file in transfer.files.values():
            file.done = file.total
        self._publish_soon(ended=[transfer])

    def _fail(self, transfer: Transfer, error: BaseException) -> None:
        if isinstance(error, OpError):
            failure = Failure.from_error(error)
        else:
            failure = Failure(ErrorType.INTERNAL_ERROR, f"Unexpected error: {error!r}.", Remedy.REPORT)
        transfer.failure = failure
        if transfer.bytes_done > transfer.furthest:  # there was progress, so count attempts from the start
            transfer.furthest, transfer.attempts = transfer.bytes_done, 0
        transfer.attempts += 1
        if failure.type in RETRYABLE and transfer.attempts <= len(self._delays):
            transfer.state = TransferState.WAITING
            transfer.retry_at = self.monotonic() + self._delays[transfer.attempts - 1]
        else:
            transfer.state, transfer.ended = TransferState.FAILED, self._clock()
            self._publish_soon(ended=[transfer])

    async def _update_regularly(self) -> None:
        """Apply the progress of runners a few times a second while any is running."""
        saved = self.monotonic()
        while self._tasks:
            await asyncio.sleep(INTERVAL)
            now = self.monotonic()
            for transfer in self.running:
                self._apply_events(transfer)
                if transfer.bytes_total:
                    transfer.rates.add(now, transfer.bytes_done)
                if transfer.failure is not None and transfer.rates.rate(now) > 0:
                    transfer.failure = None  # there is progress again, so the last error is obsolete
            self._publish_soon(transfer.id for transfer in self.running)
            if now - saved >= _SAVE_SECONDS:
                saved = now
                self._persistence.save()

    def _apply_events(self, transfer: Transfer) -> None:
        """Apply the progress that a runner has reported since the last call."""
        if (events := self._events.get(transfer.id)) is not None:
            apply_progress(transfer, events)

    def _changed(self) -> None:
        """Start due transfers, notify subscribers and save, after a change of state or order."""
        self._start_due()
        self._publish_soon(structure=True)
        self._persistence.save()

    def _publish_soon(
        self, ids: Iterable[str] = (), *, structure: bool = False, ended: Iterable[Transfer] = ()
    ) -> None:
        if not self._closed:
            self._notifier.publish_soon(ids, structure=structure, ended=ended)
