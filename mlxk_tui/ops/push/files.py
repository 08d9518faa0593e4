"""Lists and hashes the files of a folder to be pushed."""

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
from mlxk_tui.ops.push.ignore import IgnoreRules

GIT_SHA1_MAX_BYTES = 32_000_000
"""Size in bytes up to which a file's git hash is computed too, because it may be stored outside LFS; the
hub's own limit is a third of it."""

_MAX_FILES = 50_000
_MAX_PATH = 1_000
"""Longest path that the hub accepts, in characters."""
_MAX_THREADS = 4
_CHUNK = 1 << 20
Stamp = tuple[int, int, int, int]
"""Size, modification time (nanoseconds), inode and device of a file."""


@dataclass(frozen=True)
class LocalFile:
    """A file of the folder to be pushed."""

    path: str
    """Path in the folder and in the repo, with forward slashes."""
    full: str
    """Absolute path of the content, with links resolved."""
    size: int
    stamp: Stamp

    def has_changed(self) -> bool:
        """Return whether the file has changed since it was listed. Blocking."""
        try:
            return file_stamp(os.lstat(self.full)) != self.stamp
        except OSError:
            return True


@dataclass(frozen=True)
class FolderListing:
    """The files of a folder that are not ignored."""

    root: Path
    files: tuple[LocalFile, ...]
    """Sorted by path."""
    problems: tuple[OpError, ...]
    """Problems that prevent the push."""
    ignored: IgnoreRules


@dataclass(frozen=True)
class Digest:
    """Checksums of a file in the forms that the hub uses."""

    sha256: str
    git_sha1: str | None
    """None for a file that can only be stored in LFS."""

    def matches(self, etag: str) -> bool:
        """Return whether the hub's checksum of a file is equal."""
        return etag == (self.sha256 if len(etag) == len(self.sha256) else self.git_sha1)


def file_stamp(info: os.stat_result) -> Stamp:
    """Return the attributes by which a change of a file is detected."""
    return info.st_size, info.st_mtime_ns, info.st_ino, info.st_dev


def list_files(folder: Path, stop: threading.Event) -> FolderListing:
    """List the files of a folder that are not ignored. Blocking; call it in a thread.

    Links are followed only to files inside the folder. Any other link is a problem, because its target would
    be missing on the hub.

    Raises:
        OpError: `workspace_not_found`, `permission_denied`, `validation_error` for an invalid ignore file.
        StoppedError: `stop` was set.
    """
    root = _resolve_root(folder)
    ignored = IgnoreRules(Path(root))
    files: list[LocalFile] = []
    problems: list[OpError] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(_unreadable(prefix or root, error))
            continue
        for entry in found:
            if stop.is_set():
                raise StoppedError
            path = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if ignored(path, folder=is_folder):
                continue
            if len(path) > _MAX_PATH or len(files) >= _MAX_FILES:
                problems.append(_too_many_files(path))
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
    files: Iterable[LocalFile], stop: threading.Event, on_event: OnEvent, *, git_paths: frozenset[str]
) -> Mapping[str, Digest]:
    """Return the checksums of files by path. Blocking; call it in a thread.

    Args:
        files: the files to hash.
        stop: set to stop the work.
        on_event: receives progress events with the stage `verify`.
        git_paths: paths of files that the hub stores outside LFS, whatever their size.

    Raises:
        OpError: `upload_failed` if a file cannot be read or changes meanwhile.
        StoppedError: `stop` was set.
    """
    order = sorted(files, key=lambda file: -file.size)  # so that the threads end at about the same time
    if not order:
        return {}
    meter = Meter("verify", stop, on_event, bytes_total=sum(f.size for f in order), files_total=len(order))
    threads = max(1, min(_MAX_THREADS, os.cpu_count() or 1, len(order)))
    failed = threading.Event()

    def hash_one(file: LocalFile) -> Digest:
        if failed.is_set():
            raise StoppedError
        try:
            return _hash(file, meter, with_git=file.size <= GIT_SHA1_MAX_BYTES or file.path in git_paths)
        except OpError:
            failed.set()
            raise

    with ThreadPoolExecutor(threads, thread_name_prefix="push") as pool:
        running = [pool.submit(hash_one, file) for file in order]
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
        # If the file was replaced meanwhile, links are not followed and pipes do not block.
        descriptor = os.open(file.full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as stream:
            before = file_stamp(os.fstat(descriptor))
            while before == file.stamp and (chunk := stream.read(_CHUNK)):
                sha256.update(chunk)
                if with_git:
                    sha1.update(chunk)
                meter.add(shown, len(chunk))
            after = file_stamp(os.fstat(descriptor))
    except OSError as error:
        raise OpError(ErrorType.UPLOAD_FAILED, f"{shown} cannot be read: {error_reason(error)}.") from None
    if not before == after == file.stamp:
        raise changed_file_error(file.path)
    meter.add(shown, files=1)
    return Digest(sha256.hexdigest(), sha1.hexdigest() if with_git else None)


def changed_file_error(path: str) -> OpError:
    """Return the error for a file that changed during a push."""
    return OpError(
        ErrorType.UPLOAD_FAILED,
        f"{printable(path)} changed during the push; nothing was committed.",
        remedy=Remedy.PUSH_AGAIN,
    )


def _resolve_root(folder: Path) -> str:
    shown = printable(str(folder))
    try:
        root = os.path.realpath(os.path.expanduser(folder))
        os.scandir(root).close()
    except PermissionError:
        raise OpError(ErrorType.PERMISSION_DENIED, f"{shown} cannot be read: permission denied.") from None
    except (OSError, ValueError):
        raise OpError(
            ErrorType.WORKSPACE_NOT_FOUND,
            f"The folder {shown[:300]} does not exist.",
            remedy=Remedy.GIVE_MODEL_FOLDER,
        ) from None
    return root


def _file(root: str, path: str, entry: os.DirEntry[str]) -> LocalFile | OpError:
    """Return a file to push, or the error that prevents it."""
    shown = printable(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        return OpError(
            ErrorType.VALIDATION_ERROR,
            f"The name of {shown} is not valid UTF-8, which the hub requires.",
            remedy=Remedy.LEAVE_FILES_OUT,
        )
    try:
        target = os.path.realpath(entry.path, strict=True) if entry.is_symlink() else entry.path
        info = os.lstat(target)
    except PermissionError as error:
        return _unreadable(path, error)
    except OSError:  # a dangling link, or a loop
        return _invalid_file(f"{shown} is a broken link.")
    if not target.startswith(os.path.join(root, "")):
        return _invalid_file(f"{shown} is a link to a target outside the folder, which is never followed.")
    if not stat.S_ISREG(info.st_mode):
        return _invalid_file(f"{shown} is not a regular file.")
    if entry.is_symlink():
        inside = target[len(os.path.join(root, "")) :]
        if any(part in {".git", ".cache"} for part in inside.split(os.sep)):
            return _invalid_file(f"{shown} is a link to a file that is never pushed.")
    return LocalFile(path, target, info.st_size, file_stamp(info))


def _invalid_file(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message, remedy=Remedy.LEAVE_FILES_OUT)


def _unreadable(path: str, error: OSError) -> OpError:
    return OpError(
        ErrorType.PERMISSION_DENIED, f"{printable(path)} cannot be read: {error.strerror or 'refused'}."
    )


def _too_many_files(path: str) -> OpError:
    return OpError(
        ErrorType.VALIDATION_ERROR,
        f"The folder contains more than {_MAX_FILES:,} files, or paths that are too long "
        f"({printable(path)[:60]}…).",
        remedy=Remedy.LEAVE_FILES_OUT,
    )
