"""Deletes entries inside one cache folder, and never outside it.

All paths are relative to an open folder (`dir_fd`) and no link is followed, so that replacing a folder
by a link between check and use has no effect.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.core.background import Meter
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.os_errors import IS_LINK
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import printable

SENTINEL = ".mlxk-test-cache"
"""File in the cache folder, or beside it, that marks a cache as a test cache."""
STRICT = "MLXK2_STRICT_TEST_DELETE"
"""Environment variable; with the value 1 only test caches allow deletions."""

REMOVING = ".removing-"
"""Prefix of folders that were renamed out of the way before their deletion."""

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DEPTH = 64
_MAX_ROUNDS = 1000
_EFFECTIVE = os.access in os.supports_effective_ids


@dataclass(frozen=True)
class Folder:
    """An open folder; every `name` is an entry directly inside it."""

    fd: int
    path: str
    """Used in messages only."""

    @contextlib.contextmanager
    def subfolder(self, name: str) -> Iterator[Folder | None]:
        """Open a subfolder; yield None if it does not exist or is a link."""
        fd = _open_folder(name, self.fd)
        if fd is None:
            yield None
            return
        try:
            yield Folder(fd, os.path.join(self.path, name))
        finally:
            os.close(fd)

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""
        return sorted(os.listdir(self.fd))

    def lstat(self, name: str) -> os.stat_result | None:
        """Return the lstat of an entry, or None if it does not exist."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def unlink(self, name: str) -> int:
        """Delete an entry that is not a folder; return the bytes freed, 0 if it does not exist."""
        info = self.lstat(name)
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return 0
        return _freed_bytes(info) if info else 0

    def rmdir(self, name: str) -> bool:
        """Delete an empty folder; return whether it no longer exists."""
        try:
            os.rmdir(name, dir_fd=self.fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                return False
            raise
        return True

    def set_aside(self, name: str, into: Folder) -> str | None:
        """Rename an entry to an unused hidden name in `into`; return that name, or None if it is missing."""
        new = f"{REMOVING}{secrets.token_hex(8)}"
        try:
            os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=into.fd)
        except FileNotFoundError:
            return None
        return new

    def delete_contents(self, meter: Meter, *, prefix: str = "") -> int:
        """Delete all entries; return the bytes freed.

        Raises:
            OSError: the file system refused; another call can delete the rest.
            StoppedError: from the meter.
        """
        freed = 0
        # Folders below the depth limit are moved to the top and deleted in the next round. The bound ends
        # the loop if another process keeps adding entries; the caller's rmdir fails then.
        for _ in range(_MAX_ROUNDS):
            names = self.names()
            if not names:
                break
            freed += self._delete_contents(names, meter, prefix, self, 0)
        return freed

    def _delete_contents(self, names: list[str], meter: Meter, prefix: str, top: Folder, depth: int) -> int:
        freed = 0
        for name in names:
            info = self.lstat(name)
            if info is None:
                continue
            if not stat.S_ISDIR(info.st_mode):
                freed_here = self.unlink(name)
                freed += freed_here
                meter.add(printable(prefix + name), freed_here, files=1)
            elif depth >= _MAX_DEPTH:
                self.set_aside(name, top)
            else:
                with self.subfolder(name) as child:
                    if child is not None:
                        freed += child._delete_contents(
                            child.names(), meter, f"{prefix}{name}/", top, depth + 1
                        )
                self.rmdir(name)
                meter.check()
        return freed


def _freed_bytes(info: os.stat_result) -> int:
    """Return the size of a regular file with one link; other links keep the bytes alive."""
    return info.st_size if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 else 0


def freed_by_unlink(path: str | os.PathLike[str]) -> int:
    """Return the bytes that deleting an entry frees; 0 unless it is a regular file with one link."""
    try:
        return _freed_bytes(os.lstat(path))
    except OSError:
        return 0


def freed_by_removal(folder: str | os.PathLike[str]) -> int:
    """Return the bytes that deleting a folder frees; links are not followed."""
    links: dict[tuple[int, int], int] = {}
    freed = 0
    pending = [os.fspath(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                info = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(info.st_mode):
                    continue
                inode = (info.st_dev, info.st_ino)
                links[inode] = links.get(inode, 0) + 1
                if links[inode] == info.st_nlink:
                    freed += info.st_size
    return freed


def _open_folder(name: str | os.PathLike[str], dir_fd: int | None = None) -> int | None:
    try:
        return os.open(name, _OPEN_FOLDER, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in IS_LINK | {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise


@contextlib.contextmanager
def open_cache(root: Path) -> Iterator[Folder]:
    """Open the cache folder, which may be a link because the user chose it.

    Raises:
        OpError: `cache_not_found`.
    """
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise OpError(
            ErrorType.CACHE_NOT_FOUND, f"The cache at {printable(str(root))} no longer exists."
        ) from None
    try:
        yield Folder(fd, os.fspath(root))
    finally:
        os.close(fd)


def check_deletion_allowed(root: Path, environ: Mapping[str, str] | None = None) -> None:
    """Refuse deletions where the test environment forbids them.

    Raises:
        OpError: `permission_denied` if MLXK2_STRICT_TEST_DELETE=1 and the cache is not a test cache.
    """
    env = os.environ if environ is None else environ
    if env.get(STRICT) == "1" and not any(
        os.path.isfile(folder / SENTINEL) for folder in (root, root.parent)
    ):
        raise OpError(
            ErrorType.PERMISSION_DENIED,
            f"Nothing was deleted: {STRICT}=1 is set and {printable(str(root))} is not a test cache.",
            remedy=Remedy.UNSET_TEST_DELETE,
            facts=ErrorFacts(path=SENTINEL),
        )


def check_writable(folder: Path, root: Path) -> None:
    """Check permissions before a deletion, so that it does not fail half-way.

    Raises:
        OpError: `permission_denied` for a folder that is not writable, or a mount point.
    """
    device = os.lstat(folder).st_dev if os.path.lexists(folder) else 0
    pending = [os.fspath(root), os.fspath(folder)]
    while pending:
        path = pending.pop()
        if not os.access(path, os.W_OK | os.X_OK | os.R_OK, effective_ids=_EFFECTIVE):
            if os.path.lexists(path):
                raise _not_deletable(path, "no permission to change this folder")
            continue
        if path == os.fspath(root):
            continue
        # Errors here (such as a path too long for the system) reappear during the deletion.
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.stat(follow_symlinks=False).st_dev != device:
                        raise _not_deletable(entry.path, "another file system is mounted there")
                    pending.append(entry.path)


def _not_deletable(path: str, why: str) -> OpError:
    return OpError(
        ErrorType.PERMISSION_DENIED,
        f"Nothing was deleted: {printable(path)}: {why}.",
        remedy=Remedy.CHECK_PERMISSIONS,
    )


def deletion_error(error: OSError, path: str) -> OpError:
    """Return the error for a deletion that failed half-way."""
    return OpError(
        ErrorType.PERMISSION_DENIED,
        f"The deletion stopped at {printable(path)}: {error.strerror or error}.",
        remedy=Remedy.DELETE_AGAIN,
    )
