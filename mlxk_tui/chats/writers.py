"""Detects whether the process that writes a streaming message is still running.

Each such process holds a lock (flock) on its own file next to the database. The kernel releases the lock
when the process exits, so if a lock can be acquired, its process is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets

_SUFFIX = ".writer"


class WriterLock:
    """The lock file of this process; it is created by the first `acquire`."""

    def __init__(self, database: str) -> None:
        self.database = database
        """Path of the database."""
        self._path: str | None = None
        self._descriptor = -1

    def acquire(self) -> str:
        """Create and lock the file if needed, and return the name of this writer for the `owner` column.

        Raises:
            OSError: the lock file can't be created.
        """
        if self._path is None:
            name = secrets.token_hex(8)
            path = f"{self.database}-{name}{_SUFFIX}"
            # Lock the file before renaming it, so that other processes never find it unlocked.
            temporary = f"{path}.new"
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(temporary, path)
            self._path, self._descriptor, self._name = path, descriptor, name
        return self._name

    def release(self) -> None:
        """Remove the lock file and release the lock, if acquired."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._path = None

    def is_running(self, name: str | None) -> bool:
        """Return whether the process with this writer name is running."""
        if self._path is not None and name == self._name:
            return True
        return name is not None and _is_locked(self.database, name)


def _is_locked(database: str, name: str) -> bool:
    """Return whether another process holds a lock file; an unlocked one is removed."""
    if not name.isalnum():
        return False
    path = f"{database}-{name}{_SUFFIX}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # unreadable, so assume that it is locked
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return False
    finally:
        os.close(descriptor)


def remove_stale_locks(database: str) -> None:
    """Remove the lock files of killed processes."""
    folder, base = os.path.split(database)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.removeprefix(f"{base}-").removesuffix(_SUFFIX)
            if entry.name == f"{base}-{name}{_SUFFIX}":
                _is_locked(database, name)
