"""huggingface_hub's lock files: checks which are held, and deletes stale ones.

Each download locks `<cache>/.locks/<repo folder>/<etag>.lock` with flock (through filelock) and leaves
the file behind. So a file alone means nothing; only an attempt to lock it shows whether it is held. The
check creates no lock file and follows no link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Collection, Iterator

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.deletion import Folder, open_cache
from mlxk_tui.ops.core.background import Meter
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.os_errors import IS_LINK, error_type

LOCKS = ".locks"
_ENDING = ".lock"


@contextlib.contextmanager
def lock_folder(root: Folder, repo_folder: str) -> Iterator[Folder | None]:
    """Open the folder with a repo's locks; yield None if it does not exist."""
    with root.subfolder(LOCKS) as locks:
        if locks is None:
            yield None
            return
        with locks.subfolder(repo_folder) as folder:
            yield folder


def held_locks(cache: Cache, ref: RepoRef) -> tuple[str, ...]:
    """Return the held locks of a repo, as paths relative to the cache, sorted.

    Raises:
        OpError: `cache_not_found`.
    """
    with open_cache(cache.root) as root:
        return held_locks_in(root, ref.folder_name)


def held_locks_in(root: Folder, repo_folder: str) -> tuple[str, ...]:
    """Return the same as `held_locks`, for an open cache folder."""
    with lock_folder(root, repo_folder) as folder:
        if folder is None:
            return ()
        return tuple(
            f"{LOCKS}/{repo_folder}/{name}"
            for name in folder.names()
            if name.endswith(_ENDING) and _is_held(folder, name)
        )


def delete_stale_locks(root: Folder, repo_folder: str, etags: Collection[str]) -> int:
    """Delete the unheld lock files of deleted blobs; return their number.

    A lock file that cannot be deleted (such as another user's) stays; it blocks nothing.
    """
    cleaned = 0
    with lock_folder(root, repo_folder) as folder:
        if folder is None:
            return 0
        for etag in etags:
            name = etag + _ENDING
            if folder.lstat(name) is not None and not _is_held(folder, name):
                with contextlib.suppress(PermissionError):
                    folder.unlink(name)
                    cleaned += 1
    return cleaned


def delete_locks(root: Folder, repo_folder: str, meter: Meter) -> int:
    """Delete the lock folder of a repo that is being removed; return the number of lock files deleted.

    A lock file that cannot be deleted (such as another user's) stays; it blocks nothing.
    """
    with root.subfolder(LOCKS) as locks:
        if locks is None:
            return 0
        with locks.subfolder(repo_folder) as folder:
            if folder is None:
                return 0
            before = _count(folder)
            with contextlib.suppress(PermissionError):
                folder.delete_contents(meter)
            cleaned = before - _count(folder)
        with contextlib.suppress(PermissionError):
            locks.rmdir(repo_folder)
    return cleaned


def _count(folder: Folder) -> int:
    return sum(name.endswith(_ENDING) for name in folder.names())


@contextlib.contextmanager
def blob_lock(root: Folder, repo_folder: str, etag: str) -> Iterator[bool]:
    """Hold an existing lock of a blob; yield False if another process holds it."""
    with lock_folder(root, repo_folder) as folder:
        if folder is None:
            yield True
            return
        with _try_lock(folder, etag + _ENDING) as free:
            yield free


def _is_held(folder: Folder, name: str) -> bool:
    with _try_lock(folder, name) as free:
        return not free


@contextlib.contextmanager
def _try_lock(folder: Folder, name: str) -> Iterator[bool]:
    """Try to lock an existing lock file without waiting; yield whether no other process holds it."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            fd = os.open(name, os.O_RDWR | flags, dir_fd=folder.fd)
        except OSError as error:  # another user's file or a read-only disk; flock needs no write access
            if error_type(error) is not ErrorType.PERMISSION_DENIED:
                raise
            fd = os.open(name, os.O_RDONLY | flags, dir_fd=folder.fd)
    except OSError as error:
        # Missing, or a link, folder or pipe: not a lock. Any other error counts as held.
        yield error.errno in IS_LINK | {errno.ENOENT, errno.EISDIR, errno.ENXIO}
        return
    try:
        yield _acquire_flock(fd)
    finally:
        os.close(fd)


def _acquire_flock(fd: int) -> bool:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Held, or a file system without flock, where filelock treats the existence of the file as the
        # lock. In doubt it counts as held; `--force` overrides that.
        return False
    return True
