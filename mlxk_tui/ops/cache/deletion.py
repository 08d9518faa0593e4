"""Deleting inside one cache folder, so that nothing outside it can be reached.

Everything is opened and named relative to an open folder (`dir_fd`) and no link is followed, so that
a folder which is swapped for a link between a check and its use leads nowhere else.
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
"""File in the cache folder, or beside it, that marks a cache as one that tests may delete from."""
STRICT = "MLXK2_STRICT_TEST_DELETE"
"""Set to 1, deletes are refused outside a marked cache."""

REMOVING = ".removing-"
"""How the name of a folder begins that was taken out of sight, to be deleted."""

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DEPTH = 64
_MAX_ROUNDS = 1000
_EFFECTIVE = os.access in os.supports_effective_ids


@dataclass(frozen=True)
class Folder:
    """An open folder; every name is an entry directly inside it."""

    fd: int
    path: str
    """For messages only."""

    @contextlib.contextmanager
    def inner(self, name: str) -> Iterator[Folder | None]:
        """Open a folder inside this one; None where there is none, or where it is a link."""
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

    def info(self, name: str) -> os.stat_result | None:
        """Return lstat of an entry, None where there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def unlink(self, name: str) -> int:
        """Delete an entry that is no folder and return the bytes freed; one that is gone frees 0."""
        info = self.info(name)
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return 0
        return _freed(info) if info else 0

    def rmdir(self, name: str) -> bool:
        """Delete an empty folder and return whether it is gone now."""
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
        """Rename an entry to a name in `into` that nobody reads; return it, or None where it is gone."""
        new = f"{REMOVING}{secrets.token_hex(8)}"
        try:
            os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=into.fd)
        except FileNotFoundError:
            return None
        return new

    def empty(self, meter: Meter, *, prefix: str = "") -> int:
        """Delete everything inside and return the bytes freed.

        Raises:
            OSError: the file system refused something; what is left can be deleted by a second call.
            StoppedError: from the meter.
        """
        freed = 0
        # A folder too deep to descend into is moved up to here and met again in the next round; the
        # bound is for somebody who adds entries as fast as they go: the caller's rmdir will tell.
        for _ in range(_MAX_ROUNDS):
            names = self.names()
            if not names:
                break
            freed += self._empty(names, meter, prefix, self, 0)
        return freed

    def _empty(self, names: list[str], meter: Meter, prefix: str, top: Folder, depth: int) -> int:
        freed = 0
        for name in names:
            info = self.info(name)
            if info is None:
                continue
            if not stat.S_ISDIR(info.st_mode):
                gone = self.unlink(name)
                freed += gone
                meter.add(printable(prefix + name), gone, files=1)
            elif depth >= _MAX_DEPTH:
                self.set_aside(name, top)
            else:
                with self.inner(name) as child:
                    if child is not None:
                        freed += child._empty(child.names(), meter, f"{prefix}{name}/", top, depth + 1)
                self.rmdir(name)
                meter.check()
        return freed


def _freed(info: os.stat_result) -> int:
    """Only the last name of an inode frees its bytes."""
    return info.st_size if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 else 0


def freed_by_unlink(path: str | os.PathLike[str]) -> int:
    """Return the bytes that deleting one entry frees: those of a regular file without a second name."""
    try:
        return _freed(os.lstat(path))
    except OSError:
        return 0


def freed_by_removal(folder: str | os.PathLike[str]) -> int:
    """Return the bytes that deleting a folder frees; no link is followed."""
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
    """Open the cache folder itself, which may be reached over a link: the user chose it.

    Raises:
        OpError: `cache_not_found`.
    """
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise OpError(
            ErrorType.CACHE_NOT_FOUND, f"There is no cache at {printable(str(root))} any more."
        ) from None
    try:
        yield Folder(fd, os.fspath(root))
    finally:
        os.close(fd)


def check_allowed(root: Path, environ: Mapping[str, str] | None = None) -> None:
    """Refuse to delete where tests forbade it.

    Raises:
        OpError: `permission_denied` when MLXK2_STRICT_TEST_DELETE=1 and the cache is not marked.
    """
    env = os.environ if environ is None else environ
    if env.get(STRICT) == "1" and not any(
        os.path.isfile(folder / SENTINEL) for folder in (root, root.parent)
    ):
        raise OpError(
            ErrorType.PERMISSION_DENIED,
            f"{STRICT}=1 and {printable(str(root))} is not a test cache: nothing was deleted.",
            remedy=Remedy.UNSET_TEST_DELETE,
            facts=ErrorFacts(path=SENTINEL),
        )


def check_writable(folder: Path, root: Path) -> None:
    """Refuse before anything is touched what the file system would refuse half-way.

    Raises:
        OpError: `permission_denied` for a folder that may not be changed, or is a mount point.
    """
    device = os.lstat(folder).st_dev if os.path.lexists(folder) else 0
    pending = [os.fspath(root), os.fspath(folder)]
    while pending:
        path = pending.pop()
        if not os.access(path, os.W_OK | os.X_OK | os.R_OK, effective_ids=_EFFECTIVE):
            if os.path.lexists(path):
                raise _refused(path, "you may not change that folder")
            continue
        if path == os.fspath(root):
            continue
        # What cannot be looked at here (a path too long for the system) is met again by the deletion.
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.stat(follow_symlinks=False).st_dev != device:
                        raise _refused(entry.path, "another file system is mounted there")
                    pending.append(entry.path)


def _refused(path: str, why: str) -> OpError:
    return OpError(
        ErrorType.PERMISSION_DENIED,
        f"Nothing was deleted: {printable(path)}: {why}.",
        remedy=Remedy.CHECK_PERMISSIONS,
    )


def refused(error: OSError, path: str) -> OpError:
    """Return the error for a deletion that the file system refused half-way."""
    return OpError(
        ErrorType.PERMISSION_DENIED,
        f"The deletion stopped at {printable(path)}: {error.strerror or error}.",
        remedy=Remedy.DELETE_AGAIN,
    )
