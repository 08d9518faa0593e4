"""Schedules the threads of a download: which connection requests which range next.

`range_planner` determines the lengths. Received bytes are written and recorded at once, so that a killed
process loses only those on their way. The number of connections grows as long as that increases the rate.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.download.blob_download import BlobDownload
from mlxk_tui.ops.download.completion import CompletionQueue
from mlxk_tui.ops.download.connection_count import ConnectionTuner, initial_connections
from mlxk_tui.ops.download.layout import file_system_error
from mlxk_tui.ops.download.options import DownloadOptions
from mlxk_tui.ops.download.range_planner import PAGE, SMALL_FILE, RangePlanner, RangeTask
from mlxk_tui.ops.download.rate_limit import read_size, wait_for_limits
from mlxk_tui.ops.download.transport.connection import DownloadConnection
from mlxk_tui.ops.download.transport.errors import ConnectionStoppedError
from mlxk_tui.ops.download.transport.range_requests import RangeBody, RangeClient, TransferError

_MIN_READ, _MAX_READ = 4 << 10, 256 << 10
_READ_SHARE = 512
"""A connection reads at most this fraction (1/n) of all bytes at once: a kill would lose them."""
_MAX_UNRECORDED = 1 << 20
_UNRECORDED_SHARE = 1024
"""A connection leaves at most this fraction (1/n) of the received bytes unrecorded: the same."""
_LOCK_POLL_S = 0.2
_COMPLETION_THREADS = 3


class DownloadScheduler:
    """Downloads all jobs: call `start`, then `check` until `ended`, or `stop`."""

    def __init__(
        self, client: RangeClient, jobs: list[BlobDownload], options: DownloadOptions, cache: Path, total: int
    ) -> None:
        """Create a scheduler without threads.

        Args:
            client: sends the requests.
            jobs: the blobs to download.
            options: limits and time-outs.
            cache: the cache folder, for messages.
            total: bytes of the whole repo, of which a small share may be downloaded twice.
        """
        self.jobs = jobs
        self.fetched = 0
        """Bytes received over the network."""
        self.error: BaseException | None = None
        """Why it ended before all jobs were done."""
        self._client = client
        self._options = options
        self._cache = cache
        self._condition = threading.Condition()
        self._pending = deque(self.jobs)
        self._active: list[BlobDownload] = []
        self._left = len(self.jobs)
        self._stopping = False
        self._running: list[RangeTask] = []
        self._unopened = sum(job.size for job in self.jobs)
        self._planner = RangePlanner(total)
        self._read_bytes = min(_MAX_READ, max(_MIN_READ, total // _READ_SHARE))
        self._not_before = 0.0
        self._progress_at = time.monotonic()
        self._connections: list[DownloadConnection] = []
        self._threads: list[threading.Thread] = []
        self._connection_count = initial_connections([job.size for job in jobs], options.connections)
        self._tuner = ConnectionTuner(self._connection_count, options.connections)
        self._completion = CompletionQueue(self._condition, options, lambda: self.ended, self._on_finished)
        self._wake: Callable[[], None] = lambda: None

    @property
    def ended(self) -> bool:
        """Whether all jobs are done, or it was stopped."""
        return self._left == 0 or self._stopping

    def start(self, wake: Callable[[], None]) -> None:
        """Start the threads; `wake` is called in a thread when the download has ended."""
        self._wake = wake
        for number in range(_COMPLETION_THREADS):
            self._spawn(self._completion.run, f"mlxk-worker-{number}")
        self._open_connections()

    def stop(self, error: BaseException | None = None) -> None:
        """Stop soon; files on disk stay. Only the first error is stored."""
        with self._condition:
            if self.ended:
                return
            self._stopping = True
            self.error = error
            self._condition.notify_all()
        for connection in list(self._connections):
            connection.abort()
        self._wake()

    def join(self, seconds: float) -> None:
        """Wait for the threads to end and close their files; blocked ones end by themselves later."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._condition:
            for job in self._active:
                job.close_if_unused()

    def check(self) -> None:
        """Check time-outs and the number of connections; to be called every tenth of a second."""
        now = time.monotonic()
        for connection in self._connections:
            if now > connection.deadline:
                connection.abort(timed_out=True)
        with self._condition:
            if any(job.waiting for job in self._pending) and not any(job.connections for job in self._active):
                self._progress_at = now  # another process is downloading: no time-out
            quiet = now - max(self._progress_at, self._not_before)
            hashing = any(job.complete for job in self._active)
            if quiet < self._options.silence_s or hashing or self.ended:
                self._tune(now)
                return
        self.stop(
            OpError(
                ErrorType.NETWORK_ERROR,
                f"No data from the hub for {quiet:.0f} seconds.",
                remedy=Remedy.PULL_AGAIN,
            )
        )

    def snapshot(self) -> tuple[list[tuple[BlobDownload, int]], list[BlobDownload]]:
        """Return the active jobs with their bytes on disk, and those waiting for another process."""
        with self._condition:
            active = [(job, job.written.total) for job in self._active]
            return active, [job for job in self._pending if job.waiting]

    def _tune(self, now: float) -> None:
        receiving = sum(task.receiving for task in self._running)
        count = self._tuner.measure(now, self.fetched, receiving)
        if count != self._connection_count:
            self._connection_count = count
            self._open_connections()
            self._condition.notify_all()

    def _open_connections(self) -> None:
        while len(self._connections) < self._connection_count:
            connection = self._client.new_connection()
            number = len(self._connections)
            self._connections.append(connection)
            self._spawn(partial(self._run_connection, connection, number), f"mlxk-connection-{number}")

    def _spawn(self, target: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                target()
            except ConnectionStoppedError:
                pass
            except OSError as error:
                self.stop(file_system_error(error, self._cache))
            except BaseException as error:  # noqa: BLE001 - raised again by the awaiting task
                self.stop(error)

        # Daemon threads, because a blocked resolver or disk must not delay the end of the program.
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_connection(self, connection: DownloadConnection, number: int) -> None:
        try:
            while (task := self._next(number)) is not None:
                if isinstance(task, BlobDownload):
                    self._open(task)
                else:
                    self._fetch_range(connection, task)
        finally:
            connection.close()

    def _next(self, number: int) -> BlobDownload | RangeTask | None:
        """Wait for a job to open or a range to download; return None at the end."""
        with self._condition:
            while not self.ended:
                now = time.monotonic()
                if number < self._connection_count and now >= self._not_before:
                    task = self._choose(number, now)
                    if task is not None:
                        return task
                self._condition.wait(self._max_wait(now))
            return None

    def _choose(self, number: int, now: float) -> BlobDownload | RangeTask | None:
        """Choose the next step of a connection: half of them prefer small files, then ranges in order."""
        small = sum(task.job.size <= SMALL_FILE for task in self._running)
        new = self._next_openable(now, SMALL_FILE) if 2 * small < self._connection_count else None
        if new is None:
            for job in self._active:
                task = self._next_range(job, number, now)
                if task is not None:
                    return task
            new = self._next_openable(now)
        if new is not None:
            self._pending.remove(new)
            self._unopened -= new.size
            new.users += 1
            return new
        return self._split_range(number, now)

    def _max_wait(self, now: float) -> float:
        """Return the seconds until a job can change by itself."""
        times = [self._not_before, *(job.retry_at for job in self._active)]
        if self._pending:  # jobs that wait for another process are at its end
            times.append(self._pending[-1].retry_at)
        return min((time - now for time in times if time > now), default=0.5)

    def _next_range(self, job: BlobDownload, number: int, now: float) -> RangeTask | None:
        """Claim the next range of a job, if there is one."""
        if now < job.retry_at or (job.single_connection and job.connections):
            return None
        gap = job.gap()
        if gap is None:
            return None
        start, end = gap
        if job.single_connection:
            end = job.size
        elif end - start > SMALL_FILE:
            unclaimed = self._unopened + sum(one.size - one.claimed.total for one in self._active)
            stop = start + self._planner.length(number, unclaimed, self._running, self._connection_count)
            stop -= stop % PAGE  # so that ranges start at whole pages
            end = stop if end - stop >= PAGE else end
        return self._claim(job, start, end, number, now)

    def _split_range(self, number: int, now: float) -> RangeTask | None:
        """Claim the end of a range that would delay the download; its own connection stops before that."""
        if self._pending or any(job.gap() is not None for job in self._active):
            return None  # there is something to do, but not yet
        split = self._planner.split(number, self._running)
        if split is None:
            return None
        task, border = split
        end, task.end = task.end, border
        return self._claim(task.job, border, end, number, now)

    def _claim(self, job: BlobDownload, start: int, end: int, number: int, now: float) -> RangeTask:
        job.claimed.add(start, end)
        job.connections += 1
        job.users += 1
        task = RangeTask(job, start, end, number, now)
        self._running.append(task)
        return task

    def _next_openable(self, now: float, max_size: float = math.inf) -> BlobDownload | None:
        busy = sum(1 for job in self._active if job.connections or job.gap() is not None)
        if busy >= self._options.files:
            return None
        return next((job for job in self._pending if now >= job.retry_at and job.size <= max_size), None)

    def _open(self, job: BlobDownload) -> None:
        outcome = "failed"
        try:
            outcome = job.open()
        finally:
            with self._condition:
                job.waiting = outcome == "busy"
                if outcome == "open":
                    self._active.append(job)
                    self._progress_at = time.monotonic()
                elif outcome == "present":
                    job.done = True
                    job.reused = job.size
                    self._mark_done()
                elif outcome == "busy":
                    job.retry_at = time.monotonic() + _LOCK_POLL_S
                    self._pending.append(job)
                    self._unopened += job.size
                self._release(job)

    def _fetch_range(self, connection: DownloadConnection, task: RangeTask) -> None:
        job = task.job
        try:
            body = self._client.open(connection, job.path, job.location, task.start, task.end, job.size)
            try:
                with self._condition:
                    self._planner.record_response(body.response_s)
                if self._accept(task, body):
                    self._receive(task, body)
            finally:
                body.close()
        except TransferError as failure:
            self._failed(task, failure)
        finally:
            with self._condition:
                for start, end in job.written.gaps(task.start, task.end):
                    job.claimed.remove(start, end)
                job.connections -= 1
                self._running.remove(task)
                self._release(job)

    def _accept(self, task: RangeTask, body: RangeBody) -> bool:
        """Adapt the task to the response; return False if the response is not usable."""
        if body.start == task.start and body.end <= task.end:
            return True
        with self._condition:  # the whole file, although a range was requested
            job = task.job
            job.single_connection = True
            if job.connections > 1:
                return False
            for start, end in job.written.gaps(0, job.size):
                job.claimed.add(start, end)
            task.start, task.offset, task.end = 0, 0, job.size
            return True

    def _receive(self, task: RangeTask, body: RangeBody) -> None:
        """Write the received bytes to their offsets, and record them in steps.

        Bytes on disk are never overwritten, because they may already be included in the checksum. Those that
        others see in `written` are recorded already, except for less than a step.
        """
        job = task.job
        unfinished = job.partial
        single_connection = job.single_connection  # may change later, but not for this range
        limits = self._options.rate_limits
        offset = marked = body.start
        began = noted = time.monotonic()
        try:
            while offset < task.end and (data := body.read(read_size(limits, self._read_bytes))):
                end = offset + len(data)
                if single_connection:
                    with self._condition:
                        missing = job.written.gaps(offset, end)
                    for first, last in missing:
                        unfinished.write(first, data[first - offset : last - offset])
                        unfinished.record(first, last)
                    marked = end
                else:
                    with self._condition:  # after a split, another connection downloads the rest
                        data = data[: max(0, task.end - offset)]
                        task.offset = end = offset + len(data)
                    unfinished.write(offset, data)
                now = time.monotonic()
                step = min(_MAX_UNRECORDED, self.fetched // _UNRECORDED_SHARE)
                due = end - marked >= step or now - noted > 1
                if due:
                    unfinished.record(marked, end)
                    marked, noted = end, now
                with self._condition:
                    self.fetched += len(data)
                    new = job.written.add(offset, end)
                    if new:
                        self._progress_at = now
                        job.record_progress(new)
                    task.offset = offset = end
                    task.receiving = True
                    if self._stopping:
                        break
                if due:
                    self._completion.schedule(job)
                if limits:
                    wait_for_limits(limits, len(data), self._condition, lambda: self.ended)
                    self._progress_at = time.monotonic()  # a pause of ours is no time-out
        finally:
            unfinished.record(marked, offset)
            with self._condition:
                self._planner.record_range(task.connection, offset - body.start, time.monotonic() - began)

    def _failed(self, task: RangeTask, failure: TransferError) -> None:
        """Schedule another attempt, or raise once there were too many."""
        with self._condition:
            if self._stopping:
                return
            now = time.monotonic()
            if failure.wait_s is not None and failure.wait_s <= self._options.longest_wait_s:
                self._not_before = max(self._not_before, now + failure.wait_s)
            task.job.record_failure(failure, self._options, task.began, now)

    def _on_finished(self, job: BlobDownload) -> None:
        self._progress_at = time.monotonic()
        self._active.remove(job)
        self._mark_done()

    def _mark_done(self) -> None:
        self._left -= 1
        if not self._left:
            self._condition.notify_all()
            self._wake()

    def _release(self, job: BlobDownload) -> None:
        """Release a job's files; the last thread closes them once the download is stopped."""
        job.users -= 1
        if self._stopping:
            job.close_if_unused()
        elif job in self._active:
            self._completion.schedule(job)
        self._condition.notify_all()
