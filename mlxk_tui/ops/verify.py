"""Checksums: the bytes of every blob against the etag that it is named by, offline.

huggingface_hub names a blob by its etag: the sha256 of an LFS file, or the git-sha1 of a small
one (sha1 over `blob <length>\\0` and the bytes). So bit rot is found without the network.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from mlxk_tui.ops.cache import Cache, RepoRef
from mlxk_tui.ops.contract import Checksums, Finding, FindingCode, Fix, Severity
from mlxk_tui.ops.events import OnEvent, Progress, ignore
from mlxk_tui.ops.format import printable
from mlxk_tui.ops.reading import read_repo
from mlxk_tui.ops.repo import Repo, Snapshot, SnapshotFile

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_CHUNK = 4_194_304
_EVENT_SECONDS = 0.1
_MAX_THREADS = 4


@dataclass(frozen=True)
class Verification:
    """What hashing a snapshot found."""

    checksums: Checksums
    findings: tuple[Finding, ...]


async def verify(cache: Cache, spec: str, *, on_event: OnEvent = ignore) -> Verification:
    """Hash every file of `NAME[@REV]` and compare it with its etag.

    Stops within one chunk of 4 MiB a thread when the task is cancelled.

    Raises:
        OpError: those of `Cache.find` and `Repo.revision`.
    """

    found = await asyncio.to_thread(cache.find, spec)
    return await verify_ref(cache, found.ref, found.spec.revision, on_event=on_event)


async def verify_ref(
    cache: Cache, ref: RepoRef, revision: str | None = None, *, on_event: OnEvent = ignore
) -> Verification:
    """Do as `verify` does, for a repo that was picked from a list: its name need not be one to type.

    Raises:
        OpError: `model_not_found` when it vanished, and those of `Repo.revision`.
    """
    stop = threading.Event()

    def work() -> Verification:
        repo = read_repo(cache, ref)
        snapshot = repo.revision(revision)
        if snapshot is None:
            return Verification(Checksums(files=0, bytes=0, mismatched=0, unverifiable=0), ())
        return verify_repo(repo, snapshot, stop, on_event)

    try:
        return await asyncio.to_thread(work)
    finally:
        stop.set()


def verify_repo(
    repo: Repo, snapshot: Snapshot, stop: threading.Event, on_event: OnEvent = ignore
) -> Verification:
    """Hash the files of a snapshot, each blob once; blocking, for threads.

    Returns early, with what it has, once `stop` is set.
    """
    files: dict[str, SnapshotFile] = {}
    unverifiable = 0
    for file in snapshot.files:
        if file.target is None or file.size is None:
            continue
        if file.etag is None or not (_SHA256.fullmatch(file.etag) or _SHA1.fullmatch(file.etag)):
            unverifiable += 1
        else:
            files.setdefault(file.target, file)
    run = _Run(repo.ref.name, sum(file.size or 0 for file in files.values()), len(files), stop, on_event)
    # Large files first, so that the last thread is not left alone with the largest.
    order = sorted(files.values(), key=lambda file: -(file.size or 0))
    threads = max(1, min(_MAX_THREADS, os.cpu_count() or 1, len(order)))
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        pending: list[tuple[SnapshotFile, Future[str | None]]] = [
            (file, pool.submit(run.check, file)) for file in order
        ]
        findings = [_mismatch(file, cause) for file, job in pending if (cause := job.result()) is not None]
    return Verification(
        Checksums(
            files=run.files_done,
            bytes=run.bytes_done,
            mismatched=len(findings),
            unverifiable=unverifiable,
        ),
        tuple(sorted(findings, key=lambda finding: finding.path or "")),
    )


@dataclass
class _Run:
    """Counters that the hashing threads share."""

    name: str
    bytes_total: int
    files_total: int
    stop: threading.Event
    on_event: OnEvent
    bytes_done: int = 0
    files_done: int = 0
    began: float = field(default_factory=time.monotonic)
    told: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, file: SnapshotFile) -> str | None:
        """Hash one file; return why it is wrong, or None."""
        digest = hashlib.sha256() if len(file.etag or "") == 64 else hashlib.sha1(usedforsecurity=False)
        if digest.name == "sha1":
            digest.update(b"blob %d\0" % (file.size or 0))
        try:
            with open(file.target or "", "rb", buffering=0) as stream:
                while not self.stop.is_set():
                    chunk = stream.read(_CHUNK)
                    if not chunk:
                        break
                    digest.update(chunk)
                    self._count(file, len(chunk))
        except OSError as error:
            return f"cannot be read: {error.strerror or 'input/output error'}"
        if self.stop.is_set():
            return None
        with self.lock:
            self.files_done += 1
        self._count(file, 0, last=self.files_done == self.files_total)
        return (
            None if digest.hexdigest() == file.etag else "differs from its checksum: its bytes have changed"
        )

    def _count(self, file: SnapshotFile, count: int, *, last: bool = False) -> None:
        with self.lock:
            self.bytes_done += count
            now = time.monotonic()
            if now - self.told < _EVENT_SECONDS and not last:
                return
            self.told = now
            rate = self.bytes_done / max(now - self.began, 1e-6)
            event = Progress(
                "verify",
                f"{self.name}/{printable(file.name)}",
                self.bytes_done,
                self.bytes_total,
                rate,
                self.files_done,
                self.files_total,
            )
        self.on_event(event)


def _mismatch(file: SnapshotFile, cause: str) -> Finding:
    shown = printable(file.name)
    return Finding(
        code=FindingCode.CHECKSUM_MISMATCH,
        severity=Severity.ERROR,
        path=shown,
        message=f"{shown} {cause}.",
        fix=Fix.PULL,
    )
