"""Schedules the threads of a download: which connection requests which range next.

The total size of requested ranges stays a small share of the download, so that a killed process loses
little. The number of connections grows as long as that increases the rate.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.ops.download.blob_download import BlobDownload
from mlxk_tui.ops.download.completion import CompletionQueue
from mlxk_tui.ops.download.connection import ConnectionPool, ConnectionStoppedError, DownloadConnection
from mlxk_tui.ops.download.connection_count import ConnectionTuner
from mlxk_tui.ops.download.layout import file_system_error
from mlxk_tui.ops.download.options import DownloadOptions
from mlxk_tui.ops.download.range_requests import RangeBody, RangeClient, TransferError

_READ_BYTES = 256 << 10
_IN_FLIGHT_SHARE = 32
"""At most this fraction (1/n) of all bytes is in flight, which a killed process downloads twice."""
_MIN_IN_FLIGHT = 64 << 10
_SMALLEST_RANGE = 16 << 10
_LARGEST_RANGE = 32 << 20
_RESET_BYTES = 64 << 10
"""New bytes of a file after which its failures no longer count."""
_LOCK_POLL_S = 0.2
_FIRST_CONNECTIONS = 8
"""The same number as huggingface_hub."""
_COMPLETION_THREADS = 3


@dataclass
class _Range:
    """A range that one connection downloads."""

    job: BlobDownload
    start: int
    end: int
    began: float = field(default_factory=time.monotonic)


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
            total: bytes of the whole repo, which limit the bytes in flight.
        """
        self.jobs = jobs
        self.fetched = 0
        """Bytes received over the network."""
        self.error: BaseException | None = None
        """Why it ended before all jobs were done."""
        self._client = client
        self._options = options
        self._cache = cache
        self._pool = ConnectionPool(options.connect_s, options.read_s)
        self._condition = threading.Condition()
        self._pending = deque(self.jobs)
        self._active: list[BlobDownload] = []
        self._left = len(self.jobs)
        self._stopping = False
        self._in_flight = 0
        self._max_in_flight = max(total // _IN_FLIGHT_SHARE, _MIN_IN_FLIGHT)
        self._not_before = 0.0
        self._progress_at = time.monotonic()
        self._connections: list[DownloadConnection] = []
        self._threads: list[threading.Thread] = []
        self._connection_count = min(_FIRST_CONNECTIONS, options.connections)
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
        count = self._tuner.measure(now, self.fetched, busy=self._in_flight > 0)
        if count != self._connection_count:
            self._connection_count = count
            self._open_connections()
            self._condition.notify_all()

    def _open_connections(self) -> None:
        while len(self._connections) < self._connection_count:
            connection = DownloadConnection(self._pool)
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

    def _next(self, number: int) -> BlobDownload | _Range | None:
        """Wait for a job to open or a range to download; return None at the end."""
        with self._condition:
            while not self.ended:
                now = time.monotonic()
                if number < self._connection_count and now >= self._not_before:
                    for job in self._active:
                        claimed = self._claim_range(job, now)
                        if claimed is not None:
                            return claimed
                    new = self._next_openable(now)
                    if new is not None:
                        self._pending.remove(new)
                        new.users += 1
                        return new
                self._condition.wait(self._max_wait(now))
            return None

    def _max_wait(self, now: float) -> float:
        """Return the seconds until a job can change by itself."""
        times = [self._not_before, *(job.retry_at for job in self._active)]
        if self._pending:  # jobs that wait for another process are at its end
            times.append(self._pending[-1].retry_at)
        return min((time - now for time in times if time > now), default=0.5)

    def _claim_range(self, job: BlobDownload, now: float) -> _Range | None:
        """Claim the next range of a job, unless too many bytes are in flight."""
        if now < job.retry_at or (job.single_connection and job.connections):
            return None
        gap = job.gap()
        if gap is None:
            return None
        start, end = gap
        if job.single_connection:
            end = job.size
        else:
            length = min(_LARGEST_RANGE, max(_SMALLEST_RANGE, self._max_in_flight // self._connection_count))
            length -= (start + length) % _SMALLEST_RANGE  # so that ranges start at whole pages
            room = self._max_in_flight - self._in_flight
            end = min(end, start + length)
            if self._in_flight and end - start > room:
                return None
        job.claimed.add(start, end)
        job.connections += 1
        job.users += 1
        self._in_flight += end - start
        return _Range(job, start, end)

    def _next_openable(self, now: float) -> BlobDownload | None:
        busy = sum(1 for job in self._active if job.connections or job.gap() is not None)
        if busy >= self._options.files:
            return None
        return next((job for job in self._pending if now >= job.retry_at), None)

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
                self._release(job)

    def _fetch_range(self, connection: DownloadConnection, task: _Range) -> None:
        job = task.job
        try:
            body = self._client.open(connection, job.path, job.location, task.start, task.end, job.size)
            try:
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
                self._in_flight -= task.end - task.start
                self._release(job)

    def _accept(self, task: _Range, body: RangeBody) -> bool:
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
            self._in_flight += job.size - (task.end - task.start)
            task.start, task.end = 0, job.size
            return True

    def _receive(self, task: _Range, body: RangeBody) -> None:
        """Write the received bytes to their offsets, and record them in steps.

        Bytes on disk are never overwritten, because they may already be included in the checksum.
        """
        job = task.job
        unfinished = job.partial
        single_connection = job.single_connection  # may change later, but not for this range
        step = max(_SMALLEST_RANGE, min(1 << 20, (task.end - task.start) // 4))
        offset = marked = body.start
        noted = time.monotonic()
        try:
            while data := body.read(_READ_BYTES):
                end = offset + len(data)
                if single_connection:
                    with self._condition:
                        missing = job.written.gaps(offset, end)
                    for first, last in missing:
                        unfinished.write(first, data[first - offset : last - offset])
                        unfinished.record(first, last)
                    marked = end
                else:
                    unfinished.write(offset, data)
                now = time.monotonic()
                with self._condition:
                    self.fetched += len(data)
                    new = job.written.add(offset, end)
                    self._record_progress(job, new, now)
                    offset = end
                    if self._stopping:
                        break
                if offset - marked >= step or now - noted > 1:
                    unfinished.record(marked, offset)
                    marked, noted = offset, now
                    self._completion.schedule(job)
        finally:
            unfinished.record(marked, offset)

    def _record_progress(self, job: BlobDownload, new: int, now: float) -> None:
        if new:
            self._progress_at = now
            job.new_bytes += new
            if job.new_bytes >= _RESET_BYTES:
                job.failures = 0

    def _failed(self, task: _Range, failure: TransferError) -> None:
        """Schedule another attempt, or raise once there were too many."""
        job, options = task.job, self._options
        wait = failure.wait_s
        with self._condition:
            if self._stopping:
                return
            now = time.monotonic()
            if task.began >= job.failed_at:  # otherwise it is the same incident on another connection
                job.failures += 1
                job.new_bytes = 0
                job.failed_at = now
                pause = min(options.longest_backoff_s, options.backoff_s * 2 ** (job.failures - 1))
                job.retry_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads the load
            if wait is not None and wait <= options.longest_wait_s:
                self._not_before = max(self._not_before, now + wait)
            enough = job.failures >= options.attempts
        if wait is not None and wait > options.longest_wait_s:
            raise OpError(
                failure.kind,
                f"{printable(job.path)}: {failure.message} and requests a longer pause.",
                remedy=Remedy.PULL_LATER,
                facts=ErrorFacts(wait_s=int(wait)),
            )
        if enough:
            raise OpError(
                failure.kind,
                f"{printable(job.path)}: {failure.message}; stopped after "
                f"{plural(job.failures, 'attempt')} without progress.",
                remedy=Remedy.PULL_LATER,
            )

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
