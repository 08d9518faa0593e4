"""Where a download puts things: the blobs folder, the snapshot's links, and the lock of each blob.

The layout is huggingface_hub's. Inside the repo folder nothing is written through a link: folders are
opened one by one without following any.
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
from mlxk_tui.ops.download.partial_blob import names, remove

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = UNSUPPORTED | {errno.EPERM}


class DownloadLayout:
    """The folder of one repo and the snapshot of one commit in it."""

    def __init__(self, repo_folder: Path, commit: str, *, links: bool) -> None:
        self.path = Path(os.path.abspath(repo_folder))
        self.commit = commit
        self._links = links
        self._blobs = -1

    @property
    def cache(self) -> Path:
        """The folder that holds all repos."""
        return self.path.parent

    def close(self) -> None:
        """Close the blobs folder."""
        if self._blobs >= 0:
            os.close(self._blobs)
            self._blobs = -1

    def look(self) -> bool:
        """Open the blobs folder when it is there; nothing is made.

        Raises:
            OpError: `permission_denied` when it is a link.
        """
        if self._blobs < 0 and os.path.lexists(self.path / "blobs"):
            self._blobs = self._open("blobs")
        return self._blobs >= 0

    @property
    def blobs(self) -> int:
        """Descriptor of the blobs folder, which is made when it is missing."""
        if self._blobs < 0:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path / "blobs")
            self._blobs = self._open("blobs")
        return self._blobs

    def has_blob(self, etag: str, size: int) -> bool:
        """Return whether a blob is there with its size: a file, or a link to one inside the cache."""
        if not self.look():
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
        """Return whether the snapshot holds a file itself, as it does where links are impossible."""
        try:
            with self._folder_of(path, make=False) as (folder, name):
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (OSError, OpError):
            return False
        return stat.S_ISREG(info.st_mode) and info.st_size == size

    def put(self, path: str, etag: str, *, last: bool, new: bool) -> None:
        """Let a snapshot's file be the blob: a relative link, or where that is impossible the file.

        Args:
            path: path in the snapshot.
            etag: name of the blob.
            last: whether no other path needs the blob, so that it may be moved.
            new: whether the blob was made just now; one that was there may have other users.
        """
        with self._folder_of(path, make=True) as (folder, name):
            target = "../" * (path.count("/") + 2) + f"blobs/{etag}"
            if not self._links:
                return self._put_file(folder, name, etag, move=last and new)
            try:
                if os.readlink(name, dir_fd=folder) == target:
                    return None
            except OSError:
                pass  # nothing there, or no link
            try:
                os.symlink(target, name, dir_fd=folder)
            except FileExistsError:
                self._replace(folder, name, target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._put_file(folder, name, etag, move=last and new)
        return None

    def lock(self, etag: str) -> BaseFileLock | None:
        """Take the lock of a blob as huggingface_hub does; None when another process holds it."""
        folder = self.cache / LOCKS / self.path.name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{etag}.lock"
        lock: BaseFileLock = FileLock(path, mode=0o664, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except NotImplementedError:  # no flock here: the file itself is the lock
            lock = SoftFileLock(path, thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return None
        return lock

    def clean(self, etag: str) -> None:
        """Remove what a process left that was killed after its blob was finished; with the lock held."""
        if self.look():
            remove(self._blobs, names(etag))

    def _replace(self, folder: int, name: str, target: str) -> None:
        """Swap what is in the link's place for the link, at once."""
        aside = f"tmp_{secrets.token_hex(8)}.incomplete"  # in blobs: nobody looks for files there
        os.symlink(target, aside, dir_fd=self.blobs)
        try:
            os.replace(aside, name, src_dir_fd=self.blobs, dst_dir_fd=folder)
        except BaseException:
            os.unlink(aside, dir_fd=self.blobs)
            raise

    def _put_file(self, folder: int, name: str, etag: str, *, move: bool) -> None:
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
    def _folder_of(self, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Open the folder that a snapshot's file lies in, one step after the other."""
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
                f"'{printable(name)}' in {printable(str(self.path))} is a link or a file where a folder "
                "should be; nothing is written through it.",
                remedy=Remedy.REPLACE_FILE,
            ) from None


def refused_by_system(error: OSError, place: Path) -> OpError:
    """Return the error for what the file system said while bytes were written."""
    shown = printable(str(place))
    reason = error.strerror or str(error)
    kind = error_type(error)
    if kind is ErrorType.DISK_FULL or error.errno == errno.EFBIG:  # the file system holds none of that size
        return OpError(
            ErrorType.DISK_FULL,
            f"No space is left for {shown} ({reason}).",
            remedy=Remedy.FREE_SPACE,
        )
    if kind is ErrorType.PERMISSION_DENIED:
        return OpError(
            ErrorType.PERMISSION_DENIED,
            f"The cache at {shown} cannot be written: {reason}.",
            remedy=Remedy.CHECK_PERMISSIONS,
        )
    return OpError(
        ErrorType.DOWNLOAD_FAILED,
        f"The file system failed at {shown}: {reason}.",
        remedy=Remedy.PULL_AGAIN,
    )
