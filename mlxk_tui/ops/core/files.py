"""Files read within bounds, written whole or not at all, and what a file system has left."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

_ENDING = ".tmp"
_MAX_STEM = 40
"""Characters of a file's name in that of its unfinished copy, which has to stay within 255 bytes."""


def read_bytes(path: str, limit: int) -> bytes | None:
    """Return at most `limit + 1` bytes of a regular file, or None where it cannot be read.

    More than `limit` bytes means that the file is longer. Never waits: a pipe is read as empty.
    """
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        parts: list[bytes] = []
        left = limit + 1
        while left > 0:
            part = os.read(fd, left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(fd)


def replace_file(
    path: str | os.PathLike[str],
    content: bytes | str,
    *,
    mode: int = 0o600,
    exact_mode: bool = False,
    durable: bool = True,
    scratch: str | os.PathLike[str] | None = None,
) -> None:
    """Write a file in one step: whoever opens it meets the old content or the new, never a part.

    It is written under a hidden name first, which goes when that fails. The folder has to be there.

    Args:
        path: the file; a link is replaced, not followed.
        content: the bytes, or text that is written as UTF-8.
        mode: its permissions, less those that the umask takes away.
        exact_mode: do not ask the umask.
        durable: whether it outlives a loss of power once this returns; costs a few milliseconds.
        scratch: another folder of the same file system for the unfinished file.

    Raises:
        OSError: the file system refused; what was there before is still there.
        UnicodeEncodeError: the text has a lone surrogate.
    """
    data = content.encode() if isinstance(content, str) else content
    folder, name = os.path.split(os.path.abspath(path))
    token = os.urandom(8).hex()  # the module secrets costs a command 3 ms to import
    unfinished = os.path.join(scratch or folder, f"{_prefix(name)}{token}{_ENDING}")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as stream:
            if exact_mode:
                os.fchmod(fd, mode)
            stream.write(data)
            stream.flush()
            if durable:
                sync(fd)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
    if durable:
        sync_folder(folder)


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what processes left that were killed while they wrote a file; nobody may write it now."""
    folder, name = os.path.split(os.path.abspath(path))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            rest = entry.name.removeprefix(_prefix(name)).removesuffix(_ENDING)
            if entry.name == f"{_prefix(name)}{rest}{_ENDING}" and "-" not in rest:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def sync(fd: int, *, full: bool = False) -> None:
    """Bring a file's bytes to the device; `full` also empties the drive's own cache on macOS."""
    if sys.platform == "darwin":
        if full:
            import fcntl

            with contextlib.suppress(OSError):  # network and foreign file systems do not know it
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
                return
        os.fsync(fd)
    else:
        os.fdatasync(fd)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Bring the names in a folder to the device; some file systems cannot."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def free_bytes(folder: str | os.PathLike[str]) -> int | None:
    """Return what the file system takes where a folder lies or will lie; None where that is unknown."""
    import shutil  # costs 3 ms; `list` does without

    place = Path(folder)
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _prefix(name: str) -> str:
    return f".{os.path.splitext(name)[0][:_MAX_STEM]}-"
