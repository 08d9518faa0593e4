"""The files of a folder that is pushed: listed without leaving it, and hashed in threads."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.core.background import Meter, StoppedError
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.push.ignore import Ignored

GIT_SHA1_UP_TO = 32_000_000
"""Bytes up to which a file may be kept outside LFS (the hub's own limit is a third of it): of such a file
git's hash is known too."""

_MAX_FILES = 50_000
_MAX_PATH = 1_000
"""Characters of a path that the hub takes."""
_MAX_THREADS = 4
_CHUNK = 1 << 20
Stamp = tuple[int, int, int, int]
"""Size, time of change (nanoseconds), inode and device of a file."""


@dataclass(frozen=True)
class LocalFile:
    """A file of the folder."""

    path: str
    """In the folder and in the repo, with slashes."""
    full: str
    """Where its bytes lie: a link inside the folder is resolved."""
    size: int
    stamp: Stamp

    def changed(self) -> bool:
        """Return whether it is another file than when it was listed; blocking."""
        try:
            return stamp_of(os.lstat(self.full)) != self.stamp
        except OSError:
            return True


@dataclass(frozen=True)
class FolderListing:
    """What a folder holds that counts."""

    root: Path
    files: tuple[LocalFile, ...]
    """Sorted by path."""
    problems: tuple[OpError, ...]
    """What stands in the way of pushing it."""
    ignored: Ignored


@dataclass(frozen=True)
class Digest:
    """What names a file's bytes."""

    sha256: str
    git_sha1: str | None
    """None for a file that can only be in LFS."""

    def is_of(self, etag: str) -> bool:
        """Return whether the hub's checksum of a file is the same."""
        return etag == (self.sha256 if len(etag) == len(self.sha256) else self.git_sha1)


def stamp_of(info: os.stat_result) -> Stamp:
    """Return what tells a file from what it was before."""
    return info.st_size, info.st_mtime_ns, info.st_ino, info.st_dev


def list_files(folder: Path, stop: threading.Event) -> FolderListing:
    """List what of a folder counts; blocking, for threads.

    Links are followed only to files inside the folder; any other link is a problem, for what it stands
    for would be missing on the hub.

    Raises:
        OpError: `workspace_not_found`, `permission_denied`, `validation_error` for an ignore file.
        StoppedError: `stop` was set.
    """
    root = _root(folder)
    ignored = Ignored(Path(root))
    files: list[LocalFile] = []
    problems: list[OpError] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        if stop.is_set():
            raise StoppedError
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(_unreadable(prefix or root, error))
            continue
        for entry in found:
            path = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if ignored(path, folder=is_folder):
                continue
            if len(path) > _MAX_PATH or len(files) >= _MAX_FILES:
                problems.append(_too_much(path))
                return FolderListing(Path(root), tuple(files), tuple(problems), ignored)
            if is_folder:
                pending.append(f"{path}/")
                continue
            file = _file(root, path, entry)
            if isinstance(file, OpError):
                problems.append(file)
            else:
                files.append(file)
    files.sort(key=lambda file: file.path)
    return FolderListing(Path(root), tuple(files), tuple(problems), ignored)


def hash_files(
    files: Iterable[LocalFile], stop: threading.Event, on_event: OnEvent, *, git_too: frozenset[str]
) -> Mapping[str, Digest]:
    """Return the checksums of files by path; blocking, for threads.

    Args:
        files: what to hash.
        stop: set to make it stop.
        on_event: receives progress of the stage `verify`.
        git_too: paths of files that are outside LFS on the hub, whatever their size.

    Raises:
        OpError: `upload_failed` when a file cannot be read or changes meanwhile.
        StoppedError: `stop` was set.
    """
    order = sorted(files, key=lambda file: -file.size)  # so that no thread is left with the largest
    if not order:
        return {}
    meter = Meter("verify", stop, on_event, bytes_total=sum(f.size for f in order), files_total=len(order))
    threads = max(1, min(_MAX_THREADS, os.cpu_count() or 1, len(order)))
    failed = threading.Event()

    def one(file: LocalFile) -> Digest:
        if failed.is_set():
            raise StoppedError
        try:
            return _hash(file, meter, with_git=file.size <= GIT_SHA1_UP_TO or file.path in git_too)
        except OpError:
            failed.set()
            raise

    with ThreadPoolExecutor(threads, thread_name_prefix="push") as pool:
        running = [pool.submit(one, file) for file in order]
    errors = [error for job in running if (error := job.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):
        raise error
    meter.finish()
    return {file.path: job.result() for file, job in zip(order, running, strict=True)}


def _hash(file: LocalFile, meter: Meter, *, with_git: bool) -> Digest:
    sha256 = hashlib.sha256()
    sha1 = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    shown = printable(file.path)
    meter.check()
    try:
        # Whatever took the file's place meanwhile, a link is not followed and a pipe not waited for.
        descriptor = os.open(file.full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as stream:
            before = stamp_of(os.fstat(descriptor))
            while before == file.stamp and (chunk := stream.read(_CHUNK)):
                sha256.update(chunk)
                if with_git:
                    sha1.update(chunk)
                meter.add(shown, len(chunk))
            after = stamp_of(os.fstat(descriptor))
    except OSError as error:
        raise OpError(ErrorType.UPLOAD_FAILED, f"{shown} cannot be read: {error_reason(error)}.") from None
    if not before == after == file.stamp:
        raise changed_meanwhile(file.path)
    meter.add(shown, files=1)
    return Digest(sha256.hexdigest(), sha1.hexdigest() if with_git else None)


def changed_meanwhile(path: str) -> OpError:
    """Return the error for a file that was written to during a push."""
    return OpError(
        ErrorType.UPLOAD_FAILED,
        f"{printable(path)} changed while it was being pushed, so nothing was committed.",
        remedy=Remedy.PUSH_AGAIN,
    )


def _root(folder: Path) -> str:
    shown = printable(str(folder))
    try:
        root = os.path.realpath(os.path.expanduser(folder))
        os.scandir(root).close()
    except PermissionError:
        raise OpError(ErrorType.PERMISSION_DENIED, f"{shown} cannot be read: permission denied.") from None
    except (OSError, ValueError):
        raise OpError(
            ErrorType.WORKSPACE_NOT_FOUND,
            f"There is no folder {shown[:300]}.",
            remedy=Remedy.GIVE_MODEL_FOLDER,
        ) from None
    return root


def _file(root: str, path: str, entry: os.DirEntry[str]) -> LocalFile | OpError:
    """Return a file that can be pushed, or why it cannot."""
    shown = printable(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        return OpError(
            ErrorType.VALIDATION_ERROR,
            f"{shown}: the hub takes UTF-8 names only.",
            remedy=Remedy.LEAVE_FILES_OUT,
        )
    try:
        target = os.path.realpath(entry.path, strict=True) if entry.is_symlink() else entry.path
        info = os.lstat(target)
    except PermissionError as error:
        return _unreadable(path, error)
    except OSError:  # dangling, or a loop
        return _refused(f"{shown} is a link that leads nowhere.")
    if not target.startswith(os.path.join(root, "")):
        return _refused(f"{shown} is a link that leads out of the folder, and such are never followed.")
    if not stat.S_ISREG(info.st_mode):
        return _refused(f"{shown} is no regular file.")
    if entry.is_symlink():
        inside = target[len(os.path.join(root, "")) :]
        if any(part in {".git", ".cache"} for part in inside.split(os.sep)):
            return _refused(f"{shown} is a link to something that is never pushed.")
    return LocalFile(path, target, info.st_size, stamp_of(info))


def _refused(what: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, f"{what}", remedy=Remedy.LEAVE_FILES_OUT)


def _unreadable(path: str, error: OSError) -> OpError:
    return OpError(
        ErrorType.PERMISSION_DENIED, f"{printable(path)} cannot be read: {error.strerror or 'refused'}."
    )


def _too_much(path: str) -> OpError:
    return OpError(
        ErrorType.VALIDATION_ERROR,
        f"The folder holds more than {_MAX_FILES:,} files, or paths that are too long "
        f"({printable(path)[:60]}…).",
        remedy=Remedy.LEAVE_FILES_OUT,
    )
