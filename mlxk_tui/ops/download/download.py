"""The downloader: files of one commit into the cache, resumable, and each checked before it appears.

Threads with blocking sockets move the bytes (`download_engine`), so the caller's event loop only
watches. Every byte that reached the disk counts for the next attempt, also one of another process
(`partial`), and a file appears in the snapshot only after its checksum matched.
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
from mlxk_tui.ops.core.text import printable, size
from mlxk_tui.ops.download.file_names import check_files, check_source
from mlxk_tui.ops.download.job import Job
from mlxk_tui.ops.download.layout import DownloadLayout, refused_by_system
from mlxk_tui.ops.download.partial_blob import names, remove, resumable
from mlxk_tui.ops.download.range_requests import Fetcher
from mlxk_tui.ops.download.scheduler import DownloadScheduler
from mlxk_tui.ops.download.terms import Downloaded, DownloadOptions, DownloadSource
from mlxk_tui.ops.hub.remote_files import RemoteFile

__all__ = ["DownloadOptions", "DownloadSource", "Downloaded", "download", "forget"]

_TICK_S = 0.1
_LEAVE_S = 0.8
"""Seconds that a cancelled download waits for its threads; what hangs longer ends by itself."""
_RATE_S = 3.0
"""Time constant of the rate that is shown."""


async def download(
    source: DownloadSource,
    files: Sequence[RemoteFile],
    repo_folder: Path,
    *,
    options: DownloadOptions | None = None,
    on_event: OnEvent = ignore_event,
) -> Downloaded:
    """Fetch files of a commit into `blobs` and link them into the snapshot.

    What is there already (blobs, and parts that an earlier call left) is not fetched again. Another
    download of the same blob, also one of huggingface_hub, is waited for. When the task is cancelled
    or fails, what is on disk stays and the same call goes on from there.

    Args:
        source: the commit.
        files: its files, as the hub's tree names them; checked here.
        repo_folder: `<cache>/models--org--name`; made when it is missing.
        options: how to go about it.
        on_event: told about each file at most ten times a second, and once more when it is in the
            snapshot, from the event loop's thread; stage `pull`, `verify` while only checksums are left,
            `wait` while another process has the lock.

    Raises:
        OpError: `validation_error` (names, sizes), `disk_full`, `permission_denied`, `network_error`,
            `download_failed`, `checksum_mismatch`, `auth_error`, `access_denied`, `repo_not_found`.
    """
    options = options or DownloadOptions()
    check_source(source)
    check_files(files)
    place = DownloadLayout(repo_folder, source.commit, links=options.links)
    try:
        jobs = await run_in_thread(lambda stop: _prepare(files, place, options, stop))
        todo = [job for job in jobs if not job.done]
        total = sum(job.size for job in jobs)
        engine = DownloadScheduler(Fetcher(source), todo, options, place.cache, total)
        await _run(engine, _Reporter(jobs, engine, on_event))
    except OSError as error:
        raise refused_by_system(error, place.cache) from None
    finally:
        place.close()
    return Downloaded(engine.fetched, sum(job.reused for job in jobs), len(files))


async def forget(repo_folder: Path, etags: Sequence[str]) -> int:
    """Delete what unfinished downloads of these blobs left and return the bytes freed.

    One that another process is at work on stays.
    """
    place = DownloadLayout(repo_folder, "", links=True)

    def work(stop: threading.Event) -> int:
        freed = 0
        if place.look():
            for etag in etags:
                lock = None if stop.is_set() else place.lock(etag)
                if lock is not None:
                    try:
                        freed += remove(place.blobs, names(etag))
                    finally:
                        lock.release()
        return freed

    try:
        return await run_in_thread(work)
    except OSError as error:
        raise refused_by_system(error, place.cache) from None
    finally:
        place.close()


def _prepare(
    files: Sequence[RemoteFile], place: DownloadLayout, options: DownloadOptions, stop: threading.Event
) -> list[Job]:
    """Make a job for every blob and put those that are there into the snapshot.

    Raises:
        OpError: `disk_full` when what is missing does not fit, before anything is fetched.
    """
    by_etag: dict[str, list[RemoteFile]] = {}
    for file in files:
        by_etag.setdefault(file.etag, []).append(file)
    jobs = [Job(group, place, distrusted=etag in options.distrust) for etag, group in by_etag.items()]
    left = {name.split(".", 1)[0] for name in os.listdir(place.blobs) if "." in name} if place.look() else ()
    missing = 0
    for job in jobs:
        if stop.is_set():
            raise StoppedError
        if job.etag not in left and job.present():  # what is left of it is looked at under its lock
            job.link(new=False)
            job.done, job.reused = True, job.size
        elif job.present():
            continue
        else:
            missing += job.size - (resumable(place.blobs, job.etag, job.size) if place.look() else 0)
    free = free_bytes(place.path)
    if free is not None and missing > free:
        raise OpError(
            ErrorType.DISK_FULL,
            f"{size(missing)} are missing and {printable(str(place.cache))} has {size(free)} free.",
            remedy=Remedy.FREE_SPACE,
        )
    return jobs


async def _run(engine: DownloadScheduler, reporter: _Reporter) -> None:
    """Let the engine work until it ends, and make sure that it has ended when this does."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    try:
        engine.start(wake)
        while not engine.ended:
            reporter.report()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), _TICK_S)
            engine.watch()
    finally:
        engine.stop()
        await run_in_thread(lambda _: engine.leave(_LEAVE_S))
    reporter.report(last=engine.error is None)
    if engine.error is not None:
        raise engine.error


class _Reporter:
    """Turns the state of a download into events."""

    def __init__(self, jobs: Sequence[Job], engine: DownloadScheduler, on_event: OnEvent) -> None:
        self._jobs = jobs
        self._engine = engine
        self._on_event = on_event
        self._bytes_total = sum(job.size for job in jobs)
        self._files_total = sum(len(job.paths) for job in jobs)
        self._unfinished = engine.jobs
        self._rate = 0.0
        self._at = time.monotonic()
        self._fetched = 0

    def report(self, *, last: bool = False) -> None:
        """Send an event for each file that ended or is at work; the last one is about the whole."""
        now = time.monotonic()
        self._measure(now)
        active, waiting = self._engine.snapshot()
        done = sum(job.size for job in self._jobs if job.done) + sum(have for _, have in active)
        files = sum(len(job.paths) for job in self._jobs if job.done)
        ended = [job for job in self._unfinished if job.done]
        if ended:
            self._unfinished = [job for job in self._unfinished if not job.done]
        for job in ended:
            for path in job.paths:
                self._send("pull", job, job.size, done, files, path)
        told = bool(ended)
        for job, have in active:
            if job.lanes or job.complete:
                self._send("verify" if job.complete else "pull", job, have, done, files)
                told = True
        if not told and waiting:
            self._send("wait", waiting[0], 0, done, files)
        if last:
            self._on_event(
                Progress("pull", "", done, self._bytes_total, self._rate, files, self._files_total)
            )

    def _send(self, stage: str, job: Job, have: int, done: int, files: int, path: str = "") -> None:
        self._on_event(
            Progress(
                stage=stage,
                file=printable(path or job.path),
                bytes_done=done,
                bytes_total=self._bytes_total,
                rate=self._rate,
                files_done=files,
                files_total=self._files_total,
                file_bytes_done=job.hashed if stage == "verify" else have,
                file_bytes_total=job.size,
            )
        )

    def _measure(self, now: float) -> None:
        """Keep the recent rate: an average in which the last seconds weigh most."""
        passed = now - self._at
        if passed <= 0:
            return
        fetched = self._engine.fetched
        weight = 1 - math.exp(-passed / _RATE_S)
        self._rate += weight * ((fetched - self._fetched) / passed - self._rate)
        self._at, self._fetched = now, fetched
