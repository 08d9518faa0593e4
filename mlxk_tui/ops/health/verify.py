"""Verifies the content of blobs against their etags, offline.

huggingface_hub names a blob by its etag: the sha256 of an LFS file, or the git-sha1 of another file
(sha1 over `blob <length>\\0` and the content). So bit rot is detected without the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.repo import Repo, Snapshot, SnapshotFile
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.contract.results import Checksums, Finding, FindingCode, Fix, Severity
from mlxk_tui.ops.core.background import Meter, StoppedError, run_in_thread
from mlxk_tui.ops.core.events import OnEvent, ignore_event
from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.text import printable

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_CHUNK = 4_194_304
_MAX_THREADS = 4


@dataclass(frozen=True)
class Verification:
    """Counts of the hashed files, and a finding for each mismatch."""

    checksums: Checksums
    findings: tuple[Finding, ...]


async def verify(cache: Cache, spec: str, *, on_event: OnEvent = ignore_event) -> Verification:
    """Hash all files of `NAME[@REV]` and compare them with their etags.

    When the task is cancelled, each thread stops after at most one chunk of 4 MiB.

    Raises:
        OpError: the errors of `Cache.find` and `Repo.find_snapshot`.
    """

    found = await asyncio.to_thread(cache.find, spec)
    return await verify_ref(cache, found.ref, found.spec.revision, on_event=on_event)


async def verify_ref(
    cache: Cache, ref: RepoRef, revision: str | None = None, *, on_event: OnEvent = ignore_event
) -> Verification:
    """Do the same as `verify` for a repo picked from a list, whose name may not be a valid spec.

    Raises:
        OpError: `model_not_found` if it was removed meanwhile, and the errors of `Repo.find_snapshot`.
    """

    def work(stop: threading.Event) -> Verification:
        repo = read_repo(cache, ref)
        snapshot = repo.find_snapshot(revision)
        if snapshot is None:
            return Verification(Checksums(files=0, bytes=0, mismatched=0, unverifiable=0), ())
        return verify_repo(repo, snapshot, stop, on_event)

    return await run_in_thread(work)


def verify_repo(
    repo: Repo, snapshot: Snapshot, stop: threading.Event, on_event: OnEvent = ignore_event
) -> Verification:
    """Hash the files of a snapshot, each blob once. Blocking; call it in a thread.

    Returns early, with partial results, once `stop` is set.
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
    total = sum(file.size or 0 for file in files.values())
    meter = Meter("verify", stop, on_event, bytes_total=total, files_total=len(files))
    # Large files first, so that the threads finish at about the same time.
    order = sorted(files.values(), key=lambda file: -(file.size or 0))
    threads = max(1, min(_MAX_THREADS, os.cpu_count() or 1, len(order)))
    findings: list[Finding] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        pending = [(file, pool.submit(_check, repo.ref.name, file, meter)) for file in order]
        with contextlib.suppress(StoppedError):
            for file, job in pending:
                if (cause := job.result()) is not None:
                    findings.append(_mismatch(file, cause))
            if order:
                meter.finish()
    return Verification(
        Checksums(
            files=meter.files_done,
            bytes=meter.bytes_done,
            mismatched=len(findings),
            unverifiable=unverifiable,
        ),
        tuple(sorted(findings, key=lambda finding: finding.path or "")),
    )


def _check(name: str, file: SnapshotFile, meter: Meter) -> str | None:
    """Hash one file of the repo `name`; return what is wrong with it, or None.

    Raises:
        StoppedError: the work is to stop.
    """
    digest = hashlib.sha256() if len(file.etag or "") == 64 else hashlib.sha1(usedforsecurity=False)
    if digest.name == "sha1":
        digest.update(b"blob %d\0" % (file.size or 0))
    shown = f"{name}/{printable(file.name)}"
    meter.check()
    try:
        with open(file.target or "", "rb", buffering=0) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                meter.add(shown, len(chunk))
    except OSError as error:
        return f"cannot be read: {error_reason(error)}"
    meter.add(shown, files=1)
    return None if digest.hexdigest() == file.etag else "differs from its checksum: its content has changed"


def _mismatch(file: SnapshotFile, cause: str) -> Finding:
    shown = printable(file.name)
    return Finding(
        code=FindingCode.CHECKSUM_MISMATCH,
        severity=Severity.ERROR,
        path=shown,
        message=f"{shown} {cause}.",
        fix=Fix.PULL,
    )
