"""A temporary folder that is removed when its process exits or, after a kill, at the next start."""

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
"""File that the owning process locks (flock); the kernel releases the lock when the process exits."""
_UNLOCKED_S = 3600.0
"""Age in seconds at which a folder without a lock file is abandoned: a new one has none for a moment."""
_ATTEMPTS = 3


class ScratchFolder:
    """A private folder in the system's temporary folder.

    Attributes:
        path: its path, with symlinks resolved.
    """

    def __init__(self) -> None:
        """Create the folder, and remove abandoned ones.

        Raises:
            OSError: the folder can't be created.
        """
        remove_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        # Lock the file before renaming it, so that an unlocked lock file means that its owner has exited.
        temporary = self.path / f"{_LOCK}.new"
        self._lock = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.suppress(OSError):  # without locks, no folder is considered abandoned
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(temporary, self.path / _LOCK)

    def remove(self) -> None:
        """Remove the folder and its content. Calling it twice is allowed."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        for attempt in range(_ATTEMPTS):  # an exiting process may still write into it
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                break
            time.sleep(0.05 * attempt)
        os.close(lock)


def remove_abandoned() -> None:
    """Remove the folders of killed processes of this user.

    Only folders (not links) of this user, with our prefix and an unlocked lock file, are removed.
    """
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            return
        try:
            lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            if time.time() - status.st_mtime < _UNLOCKED_S:
                return
        else:
            stack.callback(os.close, lock)
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                return
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its owner is running
        shutil.rmtree(path, ignore_errors=True)
