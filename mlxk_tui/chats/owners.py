"""Tells whether the process that writes a streaming message still lives.

Such a process holds a lock on a file of its own beside the database. The kernel drops the lock when the
process ends, however that happens, so a lock that can be taken belongs to nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets

_ENDING = ".writer"


class Owner:
    """This process as a writer; it exists for others from the first `name` on."""

    def __init__(self, database: str) -> None:
        self.database = database
        """Path of the database."""
        self._path: str | None = None
        self._descriptor = -1

    def name(self) -> str:
        """Return the name that goes into the messages being written.

        Raises:
            OSError: the file system refuses the lock file.
        """
        if self._path is None:
            name = secrets.token_hex(8)
            path = f"{self.database}-{name}{_ENDING}"
            # Locked before it has the name that others look for, so that none finds it unlocked.
            temporary = f"{path}.new"
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(temporary, path)
            self._path, self._descriptor, self._name = path, descriptor, name
        return self._name

    def leave(self) -> None:
        """Take the file away."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._path = None

    def writes(self, name: str | None) -> bool:
        """Tell whether the writer of that name, this process or another one, still runs."""
        if self._path is not None and name == self._name:
            return True
        return name is not None and _lives(self.database, name)


def _lives(database: str, name: str) -> bool:
    """Tell whether the writer of that name still runs; the file that a dead one left is removed."""
    if not name.isalnum():
        return False
    path = f"{database}-{name}{_ENDING}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # not ours to judge
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


def sweep(database: str) -> None:
    """Remove what writers left that were killed."""
    folder, base = os.path.split(database)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.removeprefix(f"{base}-").removesuffix(_ENDING)
            if entry.name == f"{base}-{name}{_ENDING}":
                _lives(database, name)
