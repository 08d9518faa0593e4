"""Clones a cached model into a folder as regular files, which share their blocks where possible.

The files are written to a hidden folder beside the target, which is renamed at the end, so that a kill
leaves no incomplete clone at the target.
"""

from __future__ import annotations

import errno
import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.cache.cache import Cache, ResolvedSpec
from mlxk_tui.ops.cache.documents import read_documents
from mlxk_tui.ops.cache.repo import Repo, Snapshot, SnapshotFile
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.contract.results import CloneData, Health
from mlxk_tui.ops.core.background import Meter
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.core.files import free_bytes
from mlxk_tui.ops.core.os_errors import error_type
from mlxk_tui.ops.core.reflink import copy, open_source, reflink
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.staging import staged
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.health.integrity import check_integrity


class BrokenModelError(OpError):
    """The cached model is broken or has no files; pulling it again may help."""


@dataclass(frozen=True)
class _CloneJob:
    """One clone: its source, its target and its files."""

    found: ResolvedSpec
    snapshot: Snapshot
    target: Path
    health: Health | None
    files: tuple[SnapshotFile, ...]
    """The files that can be copied."""

    @property
    def bytes_total(self) -> int:
        """Bytes of all files to copy."""
        return sum(file.size or 0 for file in self.files)

    def data(self, message: str, *, failed: bool, reflinked: bool = False) -> CloneData:
        """Return the result in the contract's form."""
        name = self.found.ref.name
        return CloneData(
            model=printable(self.found.spec.name),
            clone_status="failed" if failed else "success",
            message=message,
            target_dir=printable(str(self.target)),
            expanded_name=None if self.found.exact else name,
            commit_hash=self.snapshot.hash,
            files_count=0 if failed else len(self.files),
            bytes_total=self.bytes_total,
            reflinked=reflinked,
            health=self.health,
        )

    def failed(self, error_type: ErrorType, message: str, remedy: Remedy) -> OpError:
        """Return an error for this clone, with its data."""
        return OpError(error_type, message, remedy=remedy, data=self.data(message, failed=True))


def clone_cached(
    cache: Cache,
    spec: str,
    target: Path,
    *,
    revision: str | None,
    check_health: bool,
    stop: threading.Event,
    on_event: OnEvent,
) -> CloneData:
    """Copy a cached model. Blocking; call it in a thread.

    Raises:
        OpError: the errors of `clone` without a hub; `BrokenModelError` if the cached model is broken.
    """
    found = _find_model(cache, spec)
    if revision is not None and not revision.strip():
        raise OpError(ErrorType.VALIDATION_ERROR, "The revision is empty.", remedy=Remedy.NAME_A_REVISION)
    selected = found.spec.revision if revision is None else revision
    if revision and found.spec.revision and revision != found.spec.revision:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"'{printable(spec)}' and '{printable(revision)}' are two different revisions.",
        )
    target = resolve_target(cache, target)
    repo = read_repo(cache, found.ref)
    job = _make_job(repo, found, repo.find_snapshot(selected), target, check_health=check_health)
    meter = Meter("clone", stop, on_event, bytes_total=job.bytes_total, files_total=len(job.files))
    try:
        with staged(target) as folder:
            reflinked = _copy_all(job, folder, meter)
    except OSError as error:
        raise _to_error(job, error) from None
    meter.finish()
    skipped = len(job.snapshot.files) - len(job.files)
    note = f" {plural(skipped, 'broken file')} left out." if skipped else ""
    shared = ", sharing their blocks with the cache" if reflinked else ""
    message = (
        f"Cloned {found.ref.name} to {printable(str(target))}: "
        f"{plural(len(job.files), 'file')}, {format_size(job.bytes_total)}{shared}.{note}"
    )
    return job.data(message, failed=False, reflinked=reflinked)


def _find_model(cache: Cache, spec: str) -> ResolvedSpec:
    try:
        return cache.find(spec)
    except OpError as error:
        if error.type not in {ErrorType.MODEL_NOT_FOUND, ErrorType.CACHE_NOT_FOUND}:
            raise
        raise OpError(
            ErrorType.MODEL_NOT_FOUND,
            f"'{printable(spec.strip())}' is not in the cache at {printable(str(cache.root))}.",
            remedy=Remedy.PULL_FIRST,
        ) from None


def resolve_target(cache: Cache, target: Path) -> Path:
    """Return the absolute target if it can be created. Blocking.

    Raises:
        OpError: `validation_error`, `permission_denied`.
    """
    try:
        return _check_target(cache, target)
    except OSError as error:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{printable(str(target))[:300]} cannot be used: {error.strerror or error}.",
            remedy=Remedy.NAME_A_NEW_FOLDER,
        ) from None


def _check_target(cache: Cache, target: Path) -> Path:
    """Return the absolute target if it is outside the cache and missing or empty."""
    text = os.fspath(target)
    if not text.strip() or "\0" in text:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            "The name of the target folder is empty.",
            remedy=Remedy.NAME_A_NEW_FOLDER,
        )
    path = Path(os.path.abspath(os.path.expanduser(text)))
    shown = printable(str(path))
    real = Path(os.path.realpath(path))
    # Compared by identity, because file systems differ in which names are equal.
    if cache.root.exists() and any(
        folder.exists() and folder.samefile(cache.root) for folder in (real, *real.parents)
    ):
        raise OpError(
            ErrorType.VALIDATION_ERROR, f"{shown} is inside the cache.", remedy=Remedy.NAME_A_NEW_FOLDER
        )
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{shown} exists and is not a folder.",
            remedy=Remedy.NAME_A_NEW_FOLDER,
        )
    if not path.exists():
        return path
    try:
        if os.listdir(path):
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                f"{shown} is not empty.",
                remedy=Remedy.NAME_A_NEW_FOLDER,
            )
    except PermissionError:
        raise OpError(ErrorType.PERMISSION_DENIED, f"{shown} cannot be read: permission denied.") from None
    # The folder is replaced by a rename, after which the current folder would no longer exist.
    if os.path.samefile(path, os.curdir):
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{shown} is the folder you are in.",
            remedy=Remedy.NAME_A_NEW_FOLDER,
        )
    return path


def _make_job(
    repo: Repo, found: ResolvedSpec, snapshot: Snapshot | None, target: Path, *, check_health: bool
) -> _CloneJob:
    integrity = check_integrity(repo, snapshot, read_documents(snapshot))
    reason = error.message if (error := integrity.first_error) is not None else None
    if snapshot is None:
        raise BrokenModelError(
            ErrorType.CLONE_FAILED,
            f"{repo.ref.name} cannot be cloned: {reason}",
            remedy=Remedy.PULL_FIRST,
        )
    health = (Health.UNHEALTHY if reason else Health.HEALTHY) if check_health else None
    files = tuple(file for file in snapshot.files if file.target is not None and file.problem is None)
    job = _CloneJob(found, snapshot, target, health, files)
    if check_health and reason:
        raise _broken_model_error(
            job,
            f"{repo.ref.name} is broken: {reason}",
            Remedy.PULL_OR_CLONE_UNCHECKED,
        )
    if not files:
        raise _broken_model_error(job, f"{repo.ref.name} has no files to clone.", Remedy.PULL_FIRST)
    return job


def _broken_model_error(job: _CloneJob, message: str, remedy: Remedy) -> BrokenModelError:
    data = job.data(message, failed=True)
    return BrokenModelError(ErrorType.CLONE_FAILED, message, remedy=remedy, data=data)


def _copy_all(job: _CloneJob, aside: Path, meter: Meter) -> bool:
    shares = True
    # The largest file first: whether its blocks can be shared determines whether space is needed.
    for number, file in enumerate(sorted(job.files, key=lambda file: -(file.size or 0))):
        copy_to = os.path.join(aside, *file.name.split("/"))
        os.makedirs(os.path.dirname(copy_to), exist_ok=True)
        source, length = open_source(file.target or "")
        try:
            if length != file.size:
                raise _changed_error(job, file)
            if shares and reflink(source, copy_to):
                meter.add(printable(file.name), length)
            else:
                shares = False
                if number == 0:
                    _check_space(job)
                copied = copy(source, copy_to, functools.partial(meter.add, printable(file.name)))
                if copied != length:
                    raise _changed_error(job, file)
        finally:
            os.close(source)
        meter.add(printable(file.name), files=1)
    return shares


def _check_space(job: _CloneJob) -> None:
    free = free_bytes(job.target.parent)
    if free is not None and free < job.bytes_total:
        raise job.failed(
            ErrorType.DISK_FULL,
            f"{job.found.ref.name} needs {format_size(job.bytes_total)}, but only {format_size(free)} is "
            f"free at {printable(str(job.target.parent))}.",
            Remedy.FREE_SPACE,
        )


def _changed_error(job: _CloneJob, file: SnapshotFile) -> OpError:
    return job.failed(
        ErrorType.CLONE_FAILED,
        f"{printable(file.name)} of {job.found.ref.name} changed while it was copied; another program "
        "is modifying the model.",
        Remedy.TRY_AGAIN,
    )


def _to_error(job: _CloneJob, error: OSError) -> OpError:
    """Return the OpError for an error of the file system."""
    where = printable(str(job.target))
    kind = error_type(error)
    if kind is ErrorType.DISK_FULL:
        return job.failed(
            ErrorType.DISK_FULL,
            f"The disk is full; nothing was left at {where}.",
            Remedy.FREE_SPACE,
        )
    if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
        return job.failed(
            ErrorType.CLONE_FAILED, f"Another program created {where} meanwhile.", Remedy.NAME_A_NEW_FOLDER
        )
    if kind is ErrorType.PERMISSION_DENIED:
        return job.failed(
            ErrorType.PERMISSION_DENIED,
            f"{where} cannot be written: {error.strerror}.",
            Remedy.CHECK_PERMISSIONS,
        )
    return job.failed(
        ErrorType.CLONE_FAILED,
        f"The clone to {where} failed: {error.strerror or error}.",
        Remedy.TRY_AGAIN,
    )
