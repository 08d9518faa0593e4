"""Bounded reads, atomic writes, and the free space of a file system."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

_ENDING = ".tmp"
_MAX_STEM = 40
"""Characters of the target's name in the temporary file's name, which must stay within 255 bytes."""


def read_bytes(path: str, limit: int) -> bytes | None:
    """Return at most `limit + 1` bytes of a file, or None when it cannot be read.

    A result longer than `limit` means that the file is longer. Never blocks: a pipe is read as empty.
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
    """Write a file atomically: readers see either the old content or the new one.

    The content goes to a hidden file first, which is removed if that fails. The folder must exist.

    Args:
        path: the file; a link is replaced, not followed.
        content: the bytes, or text that is written as UTF-8.
        mode: its permissions, before the umask is applied.
        exact_mode: ignore the umask.
        durable: sync the file and its folder, so that it survives a loss of power; a few milliseconds.
        scratch: another folder on the same file system for the temporary file.

    Raises:
        OSError: the file system refused; the previous file is intact.
        UnicodeEncodeError: the text contains a lone surrogate.
    """
    data = content.encode() if isinstance(content, str) else content
    folder, name = os.path.split(os.path.abspath(path))
    token = os.urandom(8).hex()  # importing `secrets` costs 3 ms
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
    """Remove temporary files of killed writers of `path`; no process may be writing it now."""
    folder, name = os.path.split(os.path.abspath(path))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            rest = entry.name.removeprefix(_prefix(name)).removesuffix(_ENDING)
            if entry.name == f"{_prefix(name)}{rest}{_ENDING}" and "-" not in rest:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def sync(fd: int, *, full: bool = False) -> None:
    """Flush a file's bytes to the device; `full` also flushes the drive's cache on macOS."""
    if sys.platform == "darwin":
        if full:
            import fcntl

            with contextlib.suppress(OSError):  # network and foreign file systems do not support it
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
                return
        os.fsync(fd)
    else:
        os.fdatasync(fd)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to the device; does nothing where that is unsupported."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def free_bytes(folder: str | os.PathLike[str]) -> int | None:
    """Return the free bytes of the file system that a folder is on or will be on; None if unknown."""
    import shutil  # costs 3 ms, which `list` avoids

    place = Path(folder)
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _prefix(name: str) -> str:
    return f".{os.path.splitext(name)[0][:_MAX_STEM]}-"
