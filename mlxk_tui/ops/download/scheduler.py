"""The threads of a download and what they share: which range is fetched next, by which connection.

A range is asked for only while the bytes under way stay a small share of the whole, so that a killed
process loses little. The number of connections grows as long as more of them bring more bytes.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.ops.download.completion import Workers
from mlxk_tui.ops.download.connection import ConnectionPool, ConnectionStoppedError, DownloadConnection
from mlxk_tui.ops.download.connection_count import Probe
from mlxk_tui.ops.download.job import Job
from mlxk_tui.ops.download.layout import refused_by_system
from mlxk_tui.ops.download.range_requests import Body, Fetcher, TransferError
from mlxk_tui.ops.download.terms import DownloadOptions

_READ_BYTES = 256 << 10
_SHARE_UNDER_WAY = 32
"""At most one part in so many of all bytes is under way: a killed process fetches no more than that twice."""
_LEAST_UNDER_WAY = 64 << 10
_SMALLEST_RANGE = 16 << 10
_LARGEST_RANGE = 32 << 20
_RENEWED_BY = 64 << 10
"""New bytes of a file after which its failures are forgotten."""
_LOCK_POLL_S = 0.2
_FIRST_CONNECTIONS = 8
"""As many as huggingface_hub has."""
_WORKERS = 3


@dataclass
class _Range:
    """What one connection shall fetch."""

    job: Job
    start: int
    end: int
    began: float = field(default_factory=time.monotonic)


class DownloadScheduler:
    """Fetches all jobs; `start`, then watch until `ended`, or `stop`."""

    def __init__(
        self, fetcher: Fetcher, jobs: Iterable[Job], options: DownloadOptions, cache: Path, total: int
    ) -> None:
        """Prepare.

        Args:
            fetcher: makes the requests.
            jobs: what is to be fetched.
            options: how.
            cache: the cache folder, for messages.
            total: bytes of the whole repo, of which a share may be under way.
        """
        self.jobs = list(jobs)
        self.fetched = 0
        """Bytes that came over the network."""
        self.error: BaseException | None = None
        """Why it ended, when not all is done."""
        self._fetcher = fetcher
        self._options = options
        self._cache = cache
        self._wires = ConnectionPool(options.connect_s, options.read_s)
        self._condition = threading.Condition()
        self._pending = deque(self.jobs)
        self._active: list[Job] = []
        self._left = len(self.jobs)
        self._stopping = False
        self._under_way = 0
        self._most_under_way = max(total // _SHARE_UNDER_WAY, _LEAST_UNDER_WAY)
        self._not_before = 0.0
        self._moved_at = time.monotonic()
        self._lines: list[DownloadConnection] = []
        self._threads: list[threading.Thread] = []
        self._width = min(_FIRST_CONNECTIONS, options.connections)
        self._probe = Probe(self._width, options.connections)
        self._workers = Workers(self._condition, options, lambda: self.ended, self._finished)
        self._wake: Callable[[], None] = lambda: None

    @property
    def ended(self) -> bool:
        """Whether everything is done, or nothing more will be."""
        return self._left == 0 or self._stopping

    def start(self, wake: Callable[[], None]) -> None:
        """Begin; `wake` is called from a thread when it has ended."""
        self._wake = wake
        for number in range(_WORKERS):
            self._spawn(self._workers.run, f"mlxk-worker-{number}")
        self._widen()

    def stop(self, error: BaseException | None = None) -> None:
        """End soon; what is on disk stays. The first error given is the one that counts."""
        with self._condition:
            if self.ended:
                return
            self._stopping = True
            self.error = error
            self._condition.notify_all()
        for line in list(self._lines):
            line.abort()
        self._wake()

    def leave(self, seconds: float) -> None:
        """Wait for the threads to leave and close what they used; what hangs longer ends by itself."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._condition:
            for job in self._active:
                job.close_if_unused()

    def watch(self) -> None:
        """Look after time-outs and the number of connections; to be called every tenth of a second."""
        now = time.monotonic()
        for line in self._lines:
            if now > line.deadline:
                line.abort(overdue=True)
        with self._condition:
            if any(job.waiting for job in self._pending) and not any(job.lanes for job in self._active):
                self._moved_at = now  # another process is at it: nothing is late
            quiet = now - max(self._moved_at, self._not_before)
            hashing = any(job.complete for job in self._active)
            if quiet < self._options.silence_s or hashing or self.ended:
                self._adapt(now)
                return
        self.stop(
            OpError(
                ErrorType.NETWORK_ERROR,
                f"The hub has sent nothing for {quiet:.0f} seconds.",
                remedy=Remedy.PULL_AGAIN,
            )
        )

    def snapshot(self) -> tuple[list[tuple[Job, int]], list[Job]]:
        """Return the jobs at work with their bytes on disk, and those that wait for another process."""
        with self._condition:
            active = [(job, job.have.total) for job in self._active]
            return active, [job for job in self._pending if job.waiting]

    def _adapt(self, now: float) -> None:
        width = self._probe.measure(now, self.fetched, busy=self._under_way > 0)
        if width != self._width:
            self._width = width
            self._widen()
            self._condition.notify_all()

    def _widen(self) -> None:
        while len(self._lines) < self._width:
            line = DownloadConnection(self._wires)
            number = len(self._lines)
            self._lines.append(line)
            self._spawn(partial(self._lane, line, number), f"mlxk-lane-{number}")

    def _spawn(self, target: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                target()
            except ConnectionStoppedError:
                pass
            except OSError as error:
                self.stop(refused_by_system(error, self._cache))
            except BaseException as error:  # noqa: BLE001 - raised again where the download is awaited
                self.stop(error)

        # Daemons: one that a name server or a dying disk holds up must not hold up the program's end.
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _lane(self, line: DownloadConnection, number: int) -> None:
        try:
            while (task := self._next(number)) is not None:
                if isinstance(task, Job):
                    self._open(task)
                else:
                    self._serve(line, task)
        finally:
            line.close()

    def _next(self, number: int) -> Job | _Range | None:
        """Wait for something to do: a job to open or a range to fetch; None at the end."""
        with self._condition:
            while not self.ended:
                now = time.monotonic()
                if number < self._width and now >= self._not_before:
                    for job in self._active:
                        piece = self._piece(job, now)
                        if piece is not None:
                            return piece
                    new = self._openable(now)
                    if new is not None:
                        self._pending.remove(new)
                        new.users += 1
                        return new
                self._condition.wait(self._patience(now))
            return None

    def _patience(self, now: float) -> float:
        """Return how many seconds nothing can change by itself."""
        times = [self._not_before, *(job.retry_at for job in self._active)]
        if self._pending:  # those that wait for another process are at its end
            times.append(self._pending[-1].retry_at)
        return min((time - now for time in times if time > now), default=0.5)

    def _piece(self, job: Job, now: float) -> _Range | None:
        """Claim the next range of a job, unless enough bytes are under way."""
        if now < job.retry_at or (job.alone and job.lanes):
            return None
        gap = job.gap()
        if gap is None:
            return None
        start, end = gap
        if job.alone:
            end = job.size
        else:
            length = min(_LARGEST_RANGE, max(_SMALLEST_RANGE, self._most_under_way // self._width))
            length -= (start + length) % _SMALLEST_RANGE  # so that ranges begin at whole pages
            room = self._most_under_way - self._under_way
            end = min(end, start + length)
            if self._under_way and end - start > room:
                return None
        job.claimed.add(start, end)
        job.lanes += 1
        job.users += 1
        self._under_way += end - start
        return _Range(job, start, end)

    def _openable(self, now: float) -> Job | None:
        busy = sum(1 for job in self._active if job.lanes or job.gap() is not None)
        if busy >= self._options.files:
            return None
        return next((job for job in self._pending if now >= job.retry_at), None)

    def _open(self, job: Job) -> None:
        outcome = "failed"
        try:
            outcome = job.open()
        finally:
            with self._condition:
                job.waiting = outcome == "busy"
                if outcome == "open":
                    self._active.append(job)
                    self._moved_at = time.monotonic()
                elif outcome == "present":
                    job.done = True
                    job.reused = job.size
                    self._one_less()
                elif outcome == "busy":
                    job.retry_at = time.monotonic() + _LOCK_POLL_S
                    self._pending.append(job)
                self._leave(job)

    def _serve(self, line: DownloadConnection, task: _Range) -> None:
        job = task.job
        try:
            body = self._fetcher.open(line, job.path, job.location, task.start, task.end, job.size)
            try:
                if self._accept(task, body):
                    self._receive(task, body)
            finally:
                body.close()
        except TransferError as failure:
            self._failed(task, failure)
        finally:
            with self._condition:
                for start, end in job.have.gaps(task.start, task.end):
                    job.claimed.remove(start, end)
                job.lanes -= 1
                self._under_way -= task.end - task.start
                self._leave(job)

    def _accept(self, task: _Range, body: Body) -> bool:
        """Fit the task to what the hub sends; False when this answer is of no use."""
        if body.start == task.start and body.end <= task.end:
            return True
        with self._condition:  # all of the file, although a range was asked for
            job = task.job
            job.alone = True
            if job.lanes > 1:
                return False
            for start, end in job.have.gaps(0, job.size):
                job.claimed.add(start, end)
            self._under_way += job.size - (task.end - task.start)
            task.start, task.end = 0, job.size
            return True

    def _receive(self, task: _Range, body: Body) -> None:
        """Write what comes to its place, and note it in steps.

        Bytes that are there already are never written again: the checksum may have passed them.
        """
        job = task.job
        unfinished = job.partial
        alone = job.alone  # what others see later is not what this range was cut for
        step = max(_SMALLEST_RANGE, min(1 << 20, (task.end - task.start) // 4))
        offset = marked = body.start
        noted = time.monotonic()
        try:
            while data := body.read(_READ_BYTES):
                end = offset + len(data)
                if alone:
                    with self._condition:
                        missing = job.have.gaps(offset, end)
                    for first, last in missing:
                        unfinished.write(first, data[first - offset : last - offset])
                        unfinished.record(first, last)
                    marked = end
                else:
                    unfinished.write(offset, data)
                now = time.monotonic()
                with self._condition:
                    self.fetched += len(data)
                    new = job.have.add(offset, end)
                    self._gain(job, new, now)
                    offset = end
                    if self._stopping:
                        break
                if offset - marked >= step or now - noted > 1:
                    unfinished.record(marked, offset)
                    marked, noted = offset, now
                    self._workers.look_at(job)
        finally:
            unfinished.record(marked, offset)

    def _gain(self, job: Job, new: int, now: float) -> None:
        if new:
            self._moved_at = now
            job.gained += new
            if job.gained >= _RENEWED_BY:
                job.failures = 0

    def _failed(self, task: _Range, failure: TransferError) -> None:
        """Plan another attempt, or give up."""
        job, options = task.job, self._options
        wait = failure.wait_s
        with self._condition:
            if self._stopping:
                return
            now = time.monotonic()
            if task.began >= job.failed_at:  # else the same incident, seen by another connection
                job.failures += 1
                job.gained = 0
                job.failed_at = now
                pause = min(options.longest_backoff_s, options.backoff_s * 2 ** (job.failures - 1))
                job.retry_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads the load
            if wait is not None and wait <= options.longest_wait_s:
                self._not_before = max(self._not_before, now + wait)
            enough = job.failures >= options.attempts
        if wait is not None and wait > options.longest_wait_s:
            raise OpError(
                failure.kind,
                f"{printable(job.path)}: {failure.message} and asks to wait.",
                remedy=Remedy.PULL_LATER,
                facts=ErrorFacts(wait_s=int(wait)),
            )
        if enough:
            raise OpError(
                failure.kind,
                f"{printable(job.path)}: {failure.message}; given up after "
                f"{plural(job.failures, 'attempt')} without progress.",
                remedy=Remedy.PULL_LATER,
            )

    def _finished(self, job: Job) -> None:
        self._moved_at = time.monotonic()
        self._active.remove(job)
        self._one_less()

    def _one_less(self) -> None:
        self._left -= 1
        if not self._left:
            self._condition.notify_all()
            self._wake()

    def _leave(self, job: Job) -> None:
        """Let go of a job's files; the last one out closes them when all is over."""
        job.users -= 1
        if self._stopping:
            job.close_if_unused()
        elif job in self._active:
            self._workers.look_at(job)
        self._condition.notify_all()
