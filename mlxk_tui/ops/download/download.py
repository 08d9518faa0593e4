"""Downloads the files of a commit into the cache; resumable, and each file verified before it appears.

Threads with blocking sockets transfer the bytes (`scheduler`); the caller's event loop only supervises
them. Every byte on disk counts for the next attempt, also one by another process (`partial_blob`). A file
appears in the snapshot only after its checksum was verified.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mlxk_tui.ops.core.background import StoppedError, run_in_thread
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, ignore_event
from mlxk_tui.ops.core.files import free_bytes
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.ops.download.blob_download import BlobDownload
from mlxk_tui.ops.download.file_names import check_files, check_source
from mlxk_tui.ops.download.layout import DownloadLayout, file_system_error
from mlxk_tui.ops.download.options import DownloadOptions, DownloadResult, DownloadSource
from mlxk_tui.ops.download.partial_blob import partial_file_names, remove_files, resumable_bytes
from mlxk_tui.ops.download.scheduler import DownloadScheduler
from mlxk_tui.ops.download.transport.connection import ConnectionPool
from mlxk_tui.ops.download.transport.range_requests import RangeClient
from mlxk_tui.ops.hub.remote_files import RemoteFile

__all__ = ["DownloadOptions", "DownloadResult", "DownloadSource", "discard_partial", "download"]

_TICK_S = 0.1
_LEAVE_S = 0.8
"""Seconds that a cancelled download waits for its threads; blocked ones end by themselves later."""
_RATE_S = 3.0
"""Time constant of the displayed rate, in seconds."""


async def download(
    source: DownloadSource,
    files: Sequence[RemoteFile],
    repo_folder: Path,
    *,
    options: DownloadOptions | None = None,
    pool: ConnectionPool | None = None,
    on_event: OnEvent = ignore_event,
) -> DownloadResult:
    """Download files of a commit into `blobs` and link them into the snapshot.

    Existing blobs, and parts that an earlier call left, are not downloaded again. Waits for other downloads
    of the same blob, also those of huggingface_hub. When the task is cancelled or fails, the files on disk
    stay and the same call resumes.

    Args:
        source: the commit.
        files: its files, from the hub's file list; validated here.
        repo_folder: `<cache>/models--org--name`; created if it does not exist.
        options: limits and time-outs.
        pool: connections that were prepared; by default it creates its own.
        on_event: called in the event loop's thread for each file, at most ten times a second and once when it
            is in the snapshot. The stage is `pull`, `verify` while only checksums remain, or `wait` while
            another process holds the lock.

    Raises:
        OpError: `validation_error` (names, sizes), `disk_full`, `permission_denied`, `network_error`,
            `download_failed`, `checksum_mismatch`, `auth_error`, `access_denied`, `repo_not_found`.
    """
    options = options or DownloadOptions()
    pool = pool or ConnectionPool(options.connect_s, options.read_s)
    check_source(source)
    check_files(files)
    layout = DownloadLayout(repo_folder, source.commit, links=options.links)
    try:
        jobs = await run_in_thread(lambda stop: _prepare(files, layout, options, stop))
        todo = [job for job in jobs if not job.done]
        total = sum(job.size for job in jobs)
        scheduler = DownloadScheduler(RangeClient(source, pool), todo, options, layout.cache, total)
        await _run(scheduler, _Reporter(jobs, scheduler, on_event))
    except OSError as error:
        raise file_system_error(error, layout.cache) from None
    finally:
        layout.close()
    return DownloadResult(scheduler.fetched, sum(job.reused for job in jobs), len(files))


async def discard_partial(repo_folder: Path, etags: Sequence[str]) -> int:
    """Delete the files of unfinished downloads of these blobs; return the bytes freed.

    Downloads that another process is running are skipped.
    """
    layout = DownloadLayout(repo_folder, "", links=True)

    def work(stop: threading.Event) -> int:
        freed = 0
        if layout.open_existing():
            for etag in etags:
                lock = None if stop.is_set() else layout.lock(etag)
                if lock is not None:
                    try:
                        freed += remove_files(layout.blobs, partial_file_names(etag))
                    finally:
                        lock.release()
        return freed

    try:
        return await run_in_thread(work)
    except OSError as error:
        raise file_system_error(error, layout.cache) from None
    finally:
        layout.close()


def _prepare(
    files: Sequence[RemoteFile], layout: DownloadLayout, options: DownloadOptions, stop: threading.Event
) -> list[BlobDownload]:
    """Create a job for each blob; link existing blobs into the snapshot.

    Raises:
        OpError: `disk_full` if the missing bytes do not fit, before anything is downloaded.
    """
    by_etag: dict[str, list[RemoteFile]] = {}
    for file in files:
        by_etag.setdefault(file.etag, []).append(file)
    jobs = [
        BlobDownload(group, layout, redownload=etag in options.redownload) for etag, group in by_etag.items()
    ]
    left = (
        {name.split(".", 1)[0] for name in os.listdir(layout.blobs) if "." in name}
        if layout.open_existing()
        else ()
    )
    missing = 0
    for job in jobs:
        if stop.is_set():
            raise StoppedError
        if job.etag not in left and job.is_present():  # leftovers are handled under the blob's lock
            job.link(new=False)
            job.done, job.reused = True, job.size
        elif job.is_present():
            continue
        else:
            missing += job.size - (
                resumable_bytes(layout.blobs, job.etag, job.size) if layout.open_existing() else 0
            )
    free = free_bytes(layout.path)
    if free is not None and missing > free:
        raise OpError(
            ErrorType.DISK_FULL,
            f"{format_size(missing)} more are needed, and {printable(str(layout.cache))} has "
            f"{format_size(free)} free.",
            remedy=Remedy.FREE_SPACE,
        )
    return jobs


async def _run(scheduler: DownloadScheduler, reporter: _Reporter) -> None:
    """Run the scheduler until it ends; its threads have ended when this returns."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(ended.set)

    try:
        scheduler.start(wake)
        while not scheduler.ended:
            reporter.report()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), _TICK_S)
            scheduler.check()
    finally:
        scheduler.stop()
        await run_in_thread(lambda _: scheduler.join(_LEAVE_S))
    reporter.report(last=scheduler.error is None)
    if scheduler.error is not None:
        raise scheduler.error


class _Reporter:
    """Sends events about the state of a download."""

    def __init__(self, jobs: Sequence[BlobDownload], scheduler: DownloadScheduler, on_event: OnEvent) -> None:
        self._jobs = jobs
        self._scheduler = scheduler
        self._on_event = on_event
        self._bytes_total = sum(job.size for job in jobs)
        self._files_total = sum(len(job.paths) for job in jobs)
        self._unfinished = scheduler.jobs
        self._rate = 0.0
        self._at = time.monotonic()
        self._fetched = 0

    def report(self, *, last: bool = False) -> None:
        """Send an event for each finished or active file; with `last` also one about the whole download."""
        now = time.monotonic()
        self._measure(now)
        active, waiting = self._scheduler.snapshot()
        done = sum(job.size for job in self._jobs if job.done) + sum(written for _, written in active)
        files = sum(len(job.paths) for job in self._jobs if job.done)
        ended = [job for job in self._unfinished if job.done]
        if ended:
            self._unfinished = [job for job in self._unfinished if not job.done]
        for job in ended:
            for path in job.paths:
                self._send("pull", job, job.size, done, files, path)
        reported = bool(ended)
        for job, written in active:
            if job.connections or job.complete:
                self._send("verify" if job.complete else "pull", job, written, done, files)
                reported = True
        if not reported and waiting:
            self._send("wait", waiting[0], 0, done, files)
        if last:
            self._on_event(
                Progress("pull", "", done, self._bytes_total, self._rate, files, self._files_total)
            )

    def _send(
        self, stage: str, job: BlobDownload, written: int, done: int, files: int, path: str = ""
    ) -> None:
        self._on_event(
            Progress(
                stage=stage,
                file=printable(path or job.path),
                bytes_done=done,
                bytes_total=self._bytes_total,
                rate=self._rate,
                files_done=files,
                files_total=self._files_total,
                file_bytes_done=job.hashed if stage == "verify" else written,
                file_bytes_total=job.size,
            )
        )

    def _measure(self, now: float) -> None:
        """Update the rate, an exponential moving average."""
        passed = now - self._at
        if passed <= 0:
            return
        fetched = self._scheduler.fetched
        weight = 1 - math.exp(-passed / _RATE_S)
        self._rate += weight * ((fetched - self._fetched) / passed - self._rate)
        self._at, self._fetched = now, fetched
