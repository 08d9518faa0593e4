"""Creates a folder atomically: fills a hidden folder beside the target, then renames it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

_ABANDONED_SECONDS = 60.0
"""A younger hidden folder may belong to a process that has not locked it yet."""


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `target` when the block succeeds.

    When the block fails, the folder and the parents created for it are removed. Leftovers of killed
    processes beside the same target are removed first; a running process holds a lock on its folder.

    Args:
        target: a path that does not exist, or an empty folder.

    Raises:
        OSError: the file system refused, or something else appeared at the target meanwhile.
    """
    # A checksum instead of the name, which may be as long as the file system allows.
    prefix = f".mlxk-staging-{zlib.crc32(os.fsencode(target.name)):08x}-"
    with _created(target.parent):
        _remove_abandoned(target.parent, prefix)
        aside = target.parent / f"{prefix}{secrets.token_hex(8)}"
        aside.mkdir()
        try:
            fd = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with contextlib.suppress(OSError):  # without flock only the folder's age protects it
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield aside
                os.rename(aside, target)
            finally:
                os.close(fd)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; remove the created ones when the block fails."""
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    created: list[Path] = []
    try:
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                created.append(path)
        yield
    except BaseException:
        for path in reversed(created):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _remove_abandoned(parent: Path, prefix: str) -> None:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix) or not entry.is_dir(follow_symlinks=False):
                continue
            if time.time() - entry.stat(follow_symlinks=False).st_mtime < _ABANDONED_SECONDS:
                continue
            fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
            except OSError:  # locked: another process is using it
                continue
            finally:
                os.close(fd)
