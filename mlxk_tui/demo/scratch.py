"""A temporary folder that goes with its process: when that ends, or, after a kill, with the next start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

PREFIX = "mlxk-demo-"
_LOCK = ".owner"
"""Locked (flock) by the process that owns the folder; the system unlocks it however that ends."""
_UNLOCKED_S = 3600.0
"""Age from which a folder without a lock file is nobody's: one that is being made has none for a moment."""
_TRIES = 3


class ScratchFolder:
    """A private folder in the system's temporary one.

    Attributes:
        path: where it is, links resolved.
    """

    def __init__(self) -> None:
        """Make it, and remove those whose processes are gone.

        Raises:
            OSError: no folder can be made.
        """
        remove_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        # It is locked before it has its name: whoever finds a lock that is free knows that its owner is gone.
        fresh = self.path / f"{_LOCK}.new"
        self._lock = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.suppress(OSError):  # where nothing can be locked, nothing is taken for abandoned
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(fresh, self.path / _LOCK)

    def remove(self) -> None:
        """Remove it with all that is in it; a second call does nothing."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        for attempt in range(_TRIES):  # something that is just ending may still write into it
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                break
            time.sleep(0.05 * attempt)
        os.close(lock)


def remove_abandoned() -> None:
    """Remove what killed processes of this user left in the temporary folder.

    Only real folders of this user's with our name and a lock that nobody holds are touched; what another
    user put there, or a link, is not followed.
    """
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        about = os.fstat(folder)
        if about.st_uid != os.geteuid():
            return
        try:
            lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            if time.time() - about.st_mtime < _UNLOCKED_S:
                return
        else:
            stack.callback(os.close, lock)
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                return
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its owner lives
        shutil.rmtree(path, ignore_errors=True)
