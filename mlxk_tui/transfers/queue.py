"""The transfer queue: starts jobs a few at a time, stops them, tries them again, and never forgets one.

Everything here happens on one event loop. A job is done by a runner, one for each kind, that is given the
job and somewhere to send progress; it stops when its task is cancelled and leaves a state that the same
call can finish. So pausing, quitting and being killed are the same to it: the next attempt goes on.

Jobs that ran when the program ended wait again at its next start and go on by themselves; paused ones
stay paused. One process at a time runs the queue of a file; others show what it does and take over when
it has ended.
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
from mlxk_tui.transfers.keeper import QueuePersistence
from mlxk_tui.transfers.progress import take_in
from mlxk_tui.transfers.store import Stored, document_of

Runner = Callable[[Any, OnEvent], Awaitable[str]]
"""Does one job and returns what came of it, in a sentence; progress may be sent from any thread."""

RETRIED = frozenset({ErrorType.NETWORK_ERROR, ErrorType.DOWNLOAD_FAILED})
"""Failures that waiting may mend; every other one is for the user to mend."""
DELAYS = (2.0, 8.0, 30.0, 60.0)
"""Seconds before each further attempt; after the last the job has failed."""
KEPT = 30
"""Finished transfers that are remembered."""
LIMIT = 1_000
"""Transfers that can wait."""
_SAVE_SECONDS = 5.0
_STOP_SECONDS = 3.0
ELSEWHERE = "Another mlxk-tui runs the transfers; they are changed there."
"""Why this process cannot change anything."""


class TransferQueue:
    """Pulls and pushes, in the order in which they are to be done.

    Args:
        path: the file that keeps the queue; see `store.state_file`.
        runners: what does each kind of job.
        parallel: how many run at once.
        clock: seconds since the epoch.
        monotonic: seconds that only go forward.
        delays: seconds before each further attempt after a failure of the network.
    """

    def __init__(
        self,
        path: Path,
        runners: Mapping[type[Job], Runner],
        *,
        parallel: int = 2,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        delays: tuple[float, ...] = DELAYS,
    ) -> None:
        self.transfers: list[Transfer] = []
        """All of them: what is to be done in its order, then what is finished, the latest first."""
        self.problem: str | None = None
        """What is wrong with the file, as a sentence; the queue works on without it."""
        self.locked: str | None = None
        """Why nothing can be changed here, as a sentence."""
        self.ready = False
        """Whether the file has been read."""
        self.changed: Publisher[Change] = Publisher()
        """What changed, on the event loop."""
        self.monotonic = monotonic
        self._keeper = QueuePersistence(
            path, take=self._take, document=lambda: document_of(self.transfers), trouble=self._trouble
        )
        self._runners = runners
        self._parallel = parallel
        self._clock = clock
        self._delays = delays
        self._notifier = ChangeNotifier(self.changed)
        self._tasks: dict[str, asyncio.Task[str]] = {}
        self._sinks: dict[str, deque[Progress]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._closed = False

    # -- beginning and end -----------------------------------------------------------------------

    async def start(self) -> None:
        """Read the file and go on with what is in it; where another process runs it, follow that one."""
        await self._keeper.open()

    def _take(self, stored: Stored, owner: bool) -> None:
        known = {transfer.id: transfer for transfer in self.transfers}
        self.transfers = list(stored.transfers)
        self.locked = None if owner else ELSEWHERE
        for transfer in self.transfers:
            if transfer.state is not TransferState.RUNNING:
                continue
            if owner:  # it ran when its program ended
                transfer.state = TransferState.WAITING
            else:  # its rate is not in the file, but can be seen
                before = known.get(transfer.id)
                transfer.rates = before.rates if before is not None else transfer.rates
                transfer.rates.add(self.monotonic(), transfer.bytes_done)
        self._sort()
        self.ready = True
        self.problem = stored.problem or self.problem
        self._publish_soon(structure=True)
        if owner:
            self._pump()
        if owner and self.transfers:
            self._keeper.save()

    def _trouble(self, text: str) -> None:
        self.problem = text
        self._publish_soon(structure=True)

    async def close(self) -> None:
        """Stop what runs, keep everything for the next start, and let another process have the queue."""
        if self._closed:
            return
        self._closed = True
        self._notifier.close()
        for later in (self._alarm, self._ticking):
            if later is not None:
                later.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        for transfer in self.running:
            self._drain(transfer)
            if self._keeper.owner:
                transfer.state = TransferState.WAITING
        await self._keeper.close()

    # -- what there is ---------------------------------------------------------------------------

    def get(self, identity: str) -> Transfer | None:
        """Return a transfer by its id."""
        return next((transfer for transfer in self.transfers if transfer.id == identity), None)

    def find(self, key: str) -> Transfer | None:
        """Return the transfer of this key that is not finished."""
        return next((t for t in self.transfers if t.key == key and not t.state.finished), None)

    @property
    def running(self) -> list[Transfer]:
        """The transfers that run now, here or in the process that runs the queue."""
        return [transfer for transfer in self.transfers if transfer.state is TransferState.RUNNING]

    @property
    def unfinished(self) -> list[Transfer]:
        """The transfers that are not finished, in their order."""
        return [transfer for transfer in self.transfers if not transfer.state.finished]

    @property
    def at_work(self) -> list[Transfer]:
        """The transfers that ending the program would interrupt."""
        going = {TransferState.RUNNING, TransferState.WAITING}
        return [t for t in self.transfers if t.state in going] if self._keeper.owner else []

    # -- what can be asked for -------------------------------------------------------------------

    def add(self, job: Job) -> tuple[Transfer, bool]:
        """Queue a job; returns its transfer and whether it is new.

        The same job is not queued twice: one that is paused or has failed goes on instead.

        Raises:
            OpError: `locks_present` where another process runs the queue; `validation_error` where too
                many wait.
        """
        self._own()
        key = job.key
        same = self.find(key)
        if same is not None:
            if same.state in {TransferState.PAUSED, TransferState.FAILED}:
                same.job = job
                self.resume(same.id)
            return same, False
        if len(self.unfinished) >= LIMIT:
            raise OpError(
                ErrorType.VALIDATION_ERROR, f"{LIMIT:,} transfers wait already. Let some of them end first."
            )
        self.transfers = [t for t in self.transfers if t.key != key]
        transfer = Transfer(uuid.uuid4().hex[:12], job, added=self._clock())
        self.transfers.append(transfer)
        self._sort()
        self._changed()
        return transfer, True

    def pause(self, identity: str) -> None:
        """Stop a transfer until `resume`; what it has stays on disk."""
        transfer = self._own(identity)
        if transfer is not None and transfer.state in {TransferState.WAITING, TransferState.RUNNING}:
            self._leave(transfer, TransferState.PAUSED)

    def resume(self, identity: str) -> None:
        """Let a transfer that is paused, failed, cancelled or waiting for another attempt go on."""
        transfer = self._own(identity)
        if transfer is None or transfer.state in {TransferState.RUNNING, TransferState.DONE}:
            return
        transfer.state, transfer.ended, transfer.retry_at = TransferState.WAITING, None, None
        transfer.failure, transfer.attempts = None, 0
        self._sort()
        self._changed()

    retry = resume

    def cancel(self, identity: str) -> None:
        """Stop a transfer for good; what it has stays on disk and a later pull goes on from there."""
        transfer = self._own(identity)
        if transfer is not None and not transfer.state.finished:
            transfer.ended = self._clock()
            self._leave(transfer, TransferState.CANCELLED)

    def remove(self, identity: str) -> None:
        """Take a transfer out of the list, stopped if it runs."""
        transfer = self._own(identity)
        if transfer is not None:
            self.transfers.remove(transfer)
            self._leave(transfer, TransferState.CANCELLED)

    def clear_finished(self) -> int:
        """Take every finished transfer out of the list and return how many there were."""
        self._own()
        before = len(self.transfers)
        self.transfers = self.unfinished
        if len(self.transfers) < before:
            self._changed()
        return before - len(self.transfers)

    def move(self, identity: str, by: int) -> bool:
        """Move a transfer that is not finished `by` places down (up if negative); False at the ends."""
        transfer = self._own(identity)
        order = self.unfinished
        if transfer is None or transfer not in order:
            return False
        place = order.index(transfer)
        goal = max(0, min(len(order) - 1, place + by))
        if goal == place:
            return False
        order.insert(goal, order.pop(place))
        self.transfers = [*order, *(t for t in self.transfers if t.state.finished)]
        self._changed()
        return True

    def _own(self, identity: str = "") -> Transfer | None:
        if not self.ready:
            raise OpError(ErrorType.LOCKS_PRESENT, "The list of transfers is still being read.")
        if self.locked is not None:
            raise OpError(ErrorType.LOCKS_PRESENT, self.locked)
        return self.get(identity) if identity else None

    def _leave(self, transfer: Transfer, state: TransferState) -> None:
        """Put a transfer into a state in which it does not run."""
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
        self.transfers = [*self.unfinished, *done[:KEPT]]

    # -- running ---------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start what can start now."""
        if not self._keeper.owner or self._closed:
            return
        now = self.monotonic()
        due: list[float] = []
        for transfer in self.transfers:
            if transfer.state is not TransferState.WAITING or transfer.id in self._tasks:
                continue
            if transfer.retry_at is not None and transfer.retry_at > now:
                due.append(transfer.retry_at)
            elif len(self._tasks) < self._parallel:
                self._begin(transfer)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due:
            self._alarm = asyncio.get_running_loop().call_later(max(0.01, min(due) - now), self._pump)

    def _begin(self, transfer: Transfer) -> None:
        transfer.state, transfer.retry_at, transfer.stage = TransferState.RUNNING, None, ""
        transfer.files.clear()
        transfer.rates.begin()
        sink: deque[Progress] = deque()
        runner = self._runners[type(transfer.job)]

        async def run() -> str:
            return await runner(transfer.job, sink.append)

        task = asyncio.create_task(run(), name=f"transfer {transfer.id}")
        self._tasks[transfer.id], self._sinks[transfer.id] = task, sink
        task.add_done_callback(lambda ended: self._finish(transfer, ended))
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())
        self._publish_soon([transfer.id], structure=True)

    def _finish(self, transfer: Transfer, task: asyncio.Task[str]) -> None:
        """Note how an attempt ended; called by the loop whichever way that was."""
        self._drain(transfer)
        self._tasks.pop(transfer.id, None)
        self._sinks.pop(transfer.id, None)
        if transfer not in self.transfers:  # taken out of the list meanwhile
            transfer.state = TransferState.CANCELLED
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or (isinstance(error, OpError) and error.type is ErrorType.CANCELLED):
            # Whoever stopped it said what it is now. Nobody did: the program ends.
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
            failure = Failure.of(error)
        else:
            failure = Failure(ErrorType.INTERNAL_ERROR, f"It failed unexpectedly: {error!r}.", Remedy.REPORT)
        transfer.failure = failure
        if transfer.bytes_done > transfer.furthest:  # the line is bad, but it gets on: patience starts anew
            transfer.furthest, transfer.attempts = transfer.bytes_done, 0
        transfer.attempts += 1
        if failure.type in RETRIED and transfer.attempts <= len(self._delays):
            transfer.state = TransferState.WAITING
            transfer.retry_at = self.monotonic() + self._delays[transfer.attempts - 1]
        else:
            transfer.state, transfer.ended = TransferState.FAILED, self._clock()
            self._publish_soon(ended=[transfer])

    async def _tick(self) -> None:
        """Take what the runners reported a few times a second, for as long as any runs."""
        saved = self.monotonic()
        while self._tasks:
            await asyncio.sleep(INTERVAL)
            now = self.monotonic()
            for transfer in self.running:
                self._drain(transfer)
                if transfer.bytes_total:
                    transfer.rates.add(now, transfer.bytes_done)
                if transfer.failure is not None and transfer.rates.rate(now) > 0:
                    transfer.failure = None  # bytes move again: why the last attempt ended is of no interest
            self._publish_soon(transfer.id for transfer in self.running)
            if now - saved >= _SAVE_SECONDS:
                saved = now
                self._keeper.save()

    def _drain(self, transfer: Transfer) -> None:
        """Take in what the runner of a transfer reported since the last time."""
        if (events := self._sinks.get(transfer.id)) is not None:
            take_in(transfer, events)

    # -- publishing and saving -------------------------------------------------------------------

    def _changed(self) -> None:
        """Start what can start now, publish the change, and save it."""
        self._pump()
        self._publish_soon(structure=True)
        self._keeper.save()

    def _publish_soon(
        self, ids: Iterable[str] = (), *, structure: bool = False, ended: Iterable[Transfer] = ()
    ) -> None:
        if not self._closed:
            self._notifier.publish_soon(ids, structure=structure, ended=ended)
