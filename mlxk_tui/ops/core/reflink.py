"""Copies a file: by sharing its blocks where the file system can (copy on write), else byte by byte."""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import sys
from collections.abc import Callable

_FICLONE = 0x40049409
"""Linux ioctl (linux/fs.h) that shares all blocks of a file; btrfs, XFS, bcachefs, ZFS, NFS 4.2."""
_CHUNK = 4 << 20


def open_source(path: str) -> tuple[int, int]:
    """Open a regular file for reading without following links; return its descriptor and size in bytes.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise OSError(0, "not a regular file", path)
    return fd, info.st_size


def reflink(source: int, target: str) -> bool:
    """Create `target` sharing the blocks of an open file; return False where that is unsupported."""
    if sys.platform == "darwin":
        return _clonefile(source, target)
    else:  # noqa: RET505 - so that mypy sees both systems
        return _ficlone(source, target)


def copy(source: int, target: str, on_bytes: Callable[[int], None]) -> int:
    """Copy an open file to the new file `target` and return the number of bytes copied.

    Args:
        source: a file descriptor, read from the start.
        target: a path that does not exist.
        on_bytes: called with the number of new bytes, at least every 4 MiB; may raise to stop the copy.
    """
    copied = 0
    os.lseek(source, 0, os.SEEK_SET)
    buffer = memoryview(bytearray(_CHUNK))
    with open(target, "xb", buffering=0) as file:
        while count := os.readv(source, [buffer]):
            done = 0
            while done < count:
                done += os.write(file.fileno(), buffer[done:count])
            copied += count
            on_bytes(count)
    return copied


def _ficlone(source: int, target: str) -> bool:
    with open(target, "xb") as file:
        try:
            fcntl.ioctl(file.fileno(), _FICLONE, source)
        except OSError:
            os.unlink(target)
            return False
    return True


def _clonefile(source: int, target: str) -> bool:
    """Clone with macOS's fclonefileat(2), which also copies the mode (cached payloads are 0444)."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "fclonefileat", None)
    if function is None:
        return False
    at_fdcwd = -2  # sys/fcntl.h of macOS
    if function(source, at_fdcwd, os.fsencode(target), 0) != 0:
        return False
    # The new parent folder shows which permissions the umask leaves.
    os.chmod(target, os.stat(os.path.dirname(target)).st_mode & 0o666)
    return True
