"""The lock files of huggingface_hub: which are held, and which are only left over.

Each download takes `<cache>/.locks/<repo folder>/<etag>.lock` with flock (through the filelock
package) and leaves the file behind, so a file alone says nothing: it is asked whether somebody holds
it. Asking makes no lock file and follows no link.
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
    """Open the folder with a repo's locks; None where there is none."""
    with root.inner(LOCKS) as locks:
        if locks is None:
            yield None
            return
        with locks.inner(repo_folder) as folder:
            yield folder


def held_locks(cache: Cache, ref: RepoRef) -> tuple[str, ...]:
    """Return the locks of a repo that a process holds now, as paths relative to the cache, sorted.

    Raises:
        OpError: `cache_not_found`.
    """
    with open_cache(cache.root) as root:
        return held_in(root, ref.folder_name)


def held_in(root: Folder, repo_folder: str) -> tuple[str, ...]:
    """Return what `held_locks` does, for a cache that is open already."""
    with lock_folder(root, repo_folder) as folder:
        if folder is None:
            return ()
        return tuple(
            f"{LOCKS}/{repo_folder}/{name}"
            for name in folder.names()
            if name.endswith(_ENDING) and _is_held(folder, name)
        )


def clean_locks(root: Folder, repo_folder: str, etags: Collection[str]) -> int:
    """Delete the left-over lock files of blobs that are gone and return how many there were.

    A lock file that may not be deleted (it is another user's) is left: it stops nobody.
    """
    cleaned = 0
    with lock_folder(root, repo_folder) as folder:
        if folder is None:
            return 0
        for etag in etags:
            name = etag + _ENDING
            if folder.info(name) is not None and not _is_held(folder, name):
                with contextlib.suppress(PermissionError):
                    folder.unlink(name)
                    cleaned += 1
    return cleaned


def delete_locks(root: Folder, repo_folder: str, meter: Meter) -> int:
    """Delete the lock folder of a repo that goes and return how many lock files it held.

    A lock file that may not be deleted (it is another user's) is left: it stops nobody.
    """
    with root.inner(LOCKS) as locks:
        if locks is None:
            return 0
        with locks.inner(repo_folder) as folder:
            if folder is None:
                return 0
            before = _count(folder)
            with contextlib.suppress(PermissionError):
                folder.empty(meter)
            cleaned = before - _count(folder)
        with contextlib.suppress(PermissionError):
            locks.rmdir(repo_folder)
    return cleaned


def _count(folder: Folder) -> int:
    return sum(name.endswith(_ENDING) for name in folder.names())


@contextlib.contextmanager
def blob_lock(root: Folder, repo_folder: str, etag: str) -> Iterator[bool]:
    """Hold the lock of a blob, without making one; yields False when another process holds it."""
    with lock_folder(root, repo_folder) as folder:
        if folder is None:
            yield True
            return
        with _try(folder, etag + _ENDING) as free:
            yield free


def _is_held(folder: Folder, name: str) -> bool:
    with _try(folder, name) as free:
        return not free


@contextlib.contextmanager
def _try(folder: Folder, name: str) -> Iterator[bool]:
    """Take a lock whose file is there, without waiting; yields whether nobody else holds it."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            fd = os.open(name, os.O_RDWR | flags, dir_fd=folder.fd)
        except OSError as error:  # another user's file, or a read-only disk; for flock reading is enough
            if error_type(error) is not ErrorType.PERMISSION_DENIED:
                raise
            fd = os.open(name, os.O_RDONLY | flags, dir_fd=folder.fd)
    except OSError as error:
        # None there, or a link, folder or pipe, which is no lock; anything else is taken for held.
        yield error.errno in IS_LINK | {errno.ENOENT, errno.EISDIR, errno.ENXIO}
        return
    try:
        yield _flock(fd)
    finally:
        os.close(fd)


def _flock(fd: int) -> bool:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Held; or a file system without flock, where filelock takes the existence of the file for the
        # lock. In doubt it is held: `--force` is there for that.
        return False
    return True
