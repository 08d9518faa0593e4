"""Writes the cache layout of a download: the blobs folder, the snapshot's links, and the blobs' locks.

The layout is that of huggingface_hub. Nothing is written through a link inside the repo folder: folders
are opened one by one without following links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from mlxk_tui.ops.cache.locks import LOCKS
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.os_errors import IS_LINK, UNSUPPORTED, error_type
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.download.partial_blob import partial_file_names, remove_files

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = UNSUPPORTED | {errno.EPERM}


class DownloadLayout:
    """The folder of a repo and the snapshot of one commit in it."""

    def __init__(self, repo_folder: Path, commit: str, *, links: bool) -> None:
        self.path = Path(os.path.abspath(repo_folder))
        self.commit = commit
        self._links = links
        self._blobs = -1

    @property
    def cache(self) -> Path:
        """The cache folder, which contains the repo's folder."""
        return self.path.parent

    def close(self) -> None:
        """Close the descriptor of the blobs folder."""
        if self._blobs >= 0:
            os.close(self._blobs)
            self._blobs = -1

    def open_existing(self) -> bool:
        """Open the blobs folder; return whether it exists. Nothing is created.

        Raises:
            OpError: `permission_denied` if it is a link.
        """
        if self._blobs < 0 and os.path.lexists(self.path / "blobs"):
            self._blobs = self._open("blobs")
        return self._blobs >= 0

    @property
    def blobs(self) -> int:
        """Descriptor of the blobs folder, which is created if it does not exist."""
        if self._blobs < 0:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path / "blobs")
            self._blobs = self._open("blobs")
        return self._blobs

    def has_blob(self, etag: str, size: int) -> bool:
        """Return whether a blob exists with this size: a file, or a link to one inside the cache."""
        if not self.open_existing():
            return False
        try:
            info = os.stat(etag, dir_fd=self._blobs, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                target = os.path.realpath(self.path / "blobs" / etag, strict=True)
                if not target.startswith(os.path.join(os.path.realpath(self.cache), "")):
                    return False
                info = os.stat(target)
        except OSError:
            return False
        return stat.S_ISREG(info.st_mode) and info.st_size == size

    def has_file(self, path: str, size: int) -> bool:
        """Return whether the snapshot contains a regular file of this size, as on systems without links."""
        try:
            with self._open_parent(path, make=False) as (folder, name):
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (OSError, OpError):
            return False
        return stat.S_ISREG(info.st_mode) and info.st_size == size

    def place_file(self, path: str, etag: str, *, last: bool, new: bool) -> None:
        """Create a file of the snapshot: a relative link to the blob, or where that is impossible a copy.

        Args:
            path: path in the snapshot.
            etag: name of the blob.
            last: whether no other path needs the blob, so that it may be moved.
            new: whether the blob was created just now; an older one may have other users.
        """
        with self._open_parent(path, make=True) as (folder, name):
            target = "../" * (path.count("/") + 2) + f"blobs/{etag}"
            if not self._links:
                return self._copy_or_move(folder, name, etag, move=last and new)
            try:
                if os.readlink(name, dir_fd=folder) == target:
                    return None
            except OSError:
                pass  # missing, or not a link
            try:
                os.symlink(target, name, dir_fd=folder)
            except FileExistsError:
                self._replace(folder, name, target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._copy_or_move(folder, name, etag, move=last and new)
        return None

    def lock(self, etag: str) -> BaseFileLock | None:
        """Acquire the lock of a blob as huggingface_hub does; return None if another process holds it."""
        folder = self.cache / LOCKS / self.path.name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{etag}.lock"
        lock: BaseFileLock = FileLock(path, mode=0o664, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except NotImplementedError:  # no flock: the existence of the file is the lock
            lock = SoftFileLock(path, thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return None
        return lock

    def remove_partial(self, etag: str) -> None:
        """Remove leftovers of a process that was killed after it finished the blob; requires the lock."""
        if self.open_existing():
            remove_files(self._blobs, partial_file_names(etag))

    def _replace(self, folder: int, name: str, target: str) -> None:
        """Replace an existing entry by the link atomically."""
        aside = f"tmp_{secrets.token_hex(8)}.incomplete"  # in blobs, where a leftover is pruned
        os.symlink(target, aside, dir_fd=self.blobs)
        try:
            os.replace(aside, name, src_dir_fd=self.blobs, dst_dir_fd=folder)
        except BaseException:
            os.unlink(aside, dir_fd=self.blobs)
            raise

    def _copy_or_move(self, folder: int, name: str, etag: str, *, move: bool) -> None:
        if move:
            os.replace(etag, name, src_dir_fd=self.blobs, dst_dir_fd=folder)
            return
        aside = f"{etag}.{secrets.token_hex(4)}.incomplete"
        try:
            with (
                open(os.open(etag, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.blobs), "rb") as source,
                open(
                    os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self.blobs), "wb"
                ) as copy,
            ):
                shutil.copyfileobj(source, copy, 4 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(aside, name, src_dir_fd=self.blobs, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside, dir_fd=self.blobs)
            raise

    @contextlib.contextmanager
    def _open_parent(self, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Open the parent folder of a snapshot's file step by step; yield its descriptor and the name."""
        parts = ["snapshots", self.commit, *path.split("/")]
        name = parts.pop()
        if make:
            self.path.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=fd)
                inner = self._open(part, fd)
                os.close(fd)
                fd = inner
            yield fd, name
        finally:
            os.close(fd)

    def _open(self, name: str, dir_fd: int | None = None) -> int:
        try:
            return os.open(self.path / name if dir_fd is None else name, _FOLDER, dir_fd=dir_fd)
        except OSError as error:
            if error.errno not in IS_LINK | {errno.ENOTDIR}:
                raise
            raise OpError(
                ErrorType.PERMISSION_DENIED,
                f"'{printable(name)}' in {printable(str(self.path))} is a link or a file instead of a "
                "folder; nothing was written.",
                remedy=Remedy.REPLACE_FILE,
            ) from None


def file_system_error(error: OSError, folder: Path) -> OpError:
    """Return the OpError for an error of the file system during a download."""
    shown = printable(str(folder))
    reason = error.strerror or str(error)
    kind = error_type(error)
    if kind is ErrorType.DISK_FULL or error.errno == errno.EFBIG:  # EFBIG: too large for the file system
        return OpError(
            ErrorType.DISK_FULL,
            f"No space left for {shown} ({reason}).",
            remedy=Remedy.FREE_SPACE,
        )
    if kind is ErrorType.PERMISSION_DENIED:
        return OpError(
            ErrorType.PERMISSION_DENIED,
            f"The cache at {shown} is not writable: {reason}.",
            remedy=Remedy.CHECK_PERMISSIONS,
        )
    return OpError(
        ErrorType.DOWNLOAD_FAILED,
        f"The file system failed at {shown}: {reason}.",
        remedy=Remedy.PULL_AGAIN,
    )
