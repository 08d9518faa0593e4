"""Writes `models.lock` from the cache, and compares the cache with it. Neither needs the network."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.documents import read_documents
from mlxk_tui.ops.cache.names import is_valid_repo_name
from mlxk_tui.ops.cache.repo import Snapshot
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.catalog.catalog import list_repos
from mlxk_tui.ops.contract.sharing import DifferenceKind, LockData, LockDifference, LockedModel
from mlxk_tui.ops.core.background import Meter, run_in_thread
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, ignore_event
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.share.files import SharedFile, find_problem, hash_file, list_shared_files
from mlxk_tui.ops.share.lock_file import LockedFile, LockEntry, read_lock, write_lock


async def lock_models(
    cache: Cache, specs: Sequence[str], path: Path, *, on_event: OnEvent = ignore_event
) -> LockData:
    """Write a lock file with models of the cache.

    The checksum of an LFS file is the name of its blob, which is not read; `health --verify` compares both.
    Small files, which git names by another checksum, are read.

    Args:
        cache: the cache.
        specs: `NAME[@REV]` of each model; empty means all models.
        path: the lock file, which is replaced.
        on_event: receives the progress of hashing, in a thread.

    Raises:
        OpError: `model_not_runnable` if a model is unhealthy (nothing is written then), `model_not_found`
            (also if the cache is empty) and the other errors of `Cache.find` and `Repo.find_snapshot`,
            `permission_denied`, `disk_full`.
    """

    def work(stop: threading.Event) -> LockData:
        meter = Meter("lock", stop, on_event)
        chosen = _find_models(cache, specs)
        problems: list[str] = []
        ready: list[tuple[str, str | None, Snapshot]] = []
        for ref, revision in chosen:
            repo = read_repo(cache, ref)
            snapshot = repo.find_snapshot(revision)
            problem = find_problem(repo, snapshot, read_documents(snapshot))
            if problem is not None or snapshot is None:
                problems.append(f"{ref.name}: {problem}")
            else:
                ready.append((ref.name, revision, snapshot))
        if problems:
            raise OpError(
                ErrorType.MODEL_NOT_RUNNABLE,
                f"{plural(len(problems), 'model')} cannot be locked, because files are missing or broken. "
                + " ".join(problems[:3]),
                remedy=Remedy.CHECK_HEALTH,
            )
        entries = [_lock_entry(name, revision, snapshot, meter) for name, revision, snapshot in ready]
        write_lock(path, entries)
        total = format_size(sum(entry.bytes_total for entry in entries))
        return _data(path, entries, f"{plural(len(entries), 'model')} locked, {total}.")

    return await run_in_thread(work)


async def check_lock(
    cache: Cache, path: Path, *, verify: bool = False, on_event: OnEvent = ignore_event
) -> LockData:
    """Compare the cache with a lock file.

    Args:
        cache: the cache.
        path: the lock file.
        verify: read the large files, too, instead of trusting the names of their blobs.
        on_event: receives the progress of hashing, in a thread.

    Raises:
        OpError: `validation_error` if the lock file is missing or invalid; `permission_denied`,
            `cache_not_found`.
    """

    def work(stop: threading.Event) -> LockData:
        entries = read_lock(path)
        meter = Meter("lock", stop, on_event)
        refs = {ref.name: ref for ref in list_repos(cache)}
        differences = [
            difference
            for entry in entries
            for difference in _compare(cache, refs.get(entry.name), entry, meter, verify=verify)
        ]
        if differences:
            message = f"The cache differs from the lock file: {plural(len(differences), 'difference')}."
        else:
            message = f"{plural(len(entries), 'model')} as locked."
        return _data(path, entries, message, differences, checked=True)

    return await run_in_thread(work)


def _find_models(cache: Cache, specs: Sequence[str]) -> list[tuple[RepoRef, str | None]]:
    if not specs:
        everything: list[tuple[RepoRef, str | None]] = [
            (ref, None) for ref in cache.repos() if is_valid_repo_name(ref.name)
        ]
        if not everything:
            raise OpError(ErrorType.MODEL_NOT_FOUND, "There are no models in the cache.")
        return everything
    found = [cache.find(spec) for spec in specs]
    unique = {(one.ref.name, one.spec.revision): (one.ref, one.spec.revision) for one in found}
    return list(unique.values())


def _lock_entry(name: str, revision: str | None, snapshot: Snapshot, meter: Meter) -> LockEntry:
    files = [
        LockedFile(file.path, file.size, _sha256(file, meter, name)) for file in list_shared_files(snapshot)
    ]
    return LockEntry(name, revision, snapshot.name, tuple(files))


def _sha256(file: SharedFile, meter: Meter, name: str, *, verify: bool = False) -> str:
    """Return the sha256 of a file; read it only if its blob is not named by it, or with `verify`."""
    if file.sha256 is not None and not verify:
        return file.sha256
    shown = f"{name}/{printable(file.path)}"
    digest = hash_file(file.target, "sha256", check=lambda count: meter.add(shown, count))
    meter.add(shown, files=1)
    return digest


def _compare(
    cache: Cache, ref: RepoRef | None, entry: LockEntry, meter: Meter, *, verify: bool
) -> list[LockDifference]:
    shown = printable(entry.spec)
    if ref is None:
        return [_difference(entry, DifferenceKind.MISSING_MODEL, f"{shown} is not in the cache.")]
    repo = read_repo(cache, ref)
    try:
        snapshot = repo.find_snapshot(entry.revision)
    except OpError:
        snapshot = None
    if snapshot is None or snapshot.name != entry.commit:
        found = f"the cache has {printable(snapshot.name[:12])}" if snapshot else "it is not in the cache"
        message = f"{shown} is locked at {entry.commit[:12]}, but {found}."
        return [_difference(entry, DifferenceKind.OTHER_COMMIT, message)]
    found_files = {file.path: file for file in list_shared_files(snapshot)}
    return [
        difference
        for locked in entry.files
        if (difference := _compare_file(entry, locked, found_files.get(locked.path), meter, verify=verify))
    ]


def _compare_file(
    entry: LockEntry, locked: LockedFile, found: SharedFile | None, meter: Meter, *, verify: bool
) -> LockDifference | None:
    shown = printable(locked.path)
    if found is None:
        return _difference(entry, DifferenceKind.MISSING_FILE, f"{shown} is missing.", shown)
    if found.size != locked.size:
        message = f"{shown} has {found.size:,} instead of {locked.size:,} bytes."
        return _difference(entry, DifferenceKind.OTHER_SIZE, message, shown)
    try:
        same = _sha256(found, meter, entry.name, verify=verify) == locked.sha256
    except OSError:
        return _difference(entry, DifferenceKind.MISSING_FILE, f"{shown} cannot be read.", shown)
    if same:
        return None
    return _difference(entry, DifferenceKind.OTHER_CONTENT, f"{shown} has other content.", shown)


def _difference(
    entry: LockEntry, kind: DifferenceKind, message: str, path: str | None = None
) -> LockDifference:
    return LockDifference(model=printable(entry.name), kind=kind, path=path, message=message)


def _data(
    path: Path,
    entries: Sequence[LockEntry],
    message: str,
    differences: Sequence[LockDifference] = (),
    *,
    checked: bool = False,
) -> LockData:
    return LockData(
        path=os.path.abspath(path),
        checked=checked,
        models=[
            LockedModel(
                name=printable(entry.name),
                revision=printable(entry.revision) if entry.revision else None,
                commit=entry.commit,
                files_count=len(entry.files),
                bytes_total=entry.bytes_total,
            )
            for entry in sorted(entries, key=lambda one: (one.name, one.revision or ""))
        ],
        differences=list(differences),
        message=message,
    )
