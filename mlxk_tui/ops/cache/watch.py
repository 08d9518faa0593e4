"""Detects changes of the cache by a few time stamps of each repo; opens no file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.core.errors import ErrorType, OpError

Fingerprint = tuple[tuple[int, int], ...]
"""(modification time in ns, size) of the entries that change when a repo is written to."""

_PARTS = ("", "refs", "refs/main", "snapshots", "blobs", "trees")


@dataclass(frozen=True)
class Changes:
    """Differences between two polls of a cache."""

    changed: tuple[RepoRef, ...] = ()
    """Repos that are new or were modified."""
    removed: tuple[str, ...] = ()
    """Folder names of repos that were removed."""

    def __bool__(self) -> bool:
        """Return whether any repo was changed or removed."""
        return bool(self.changed or self.removed)


@dataclass
class Watcher:
    """Compares the cache with its previous state. Blocking; call it in a thread."""

    cache: Cache
    _seen: dict[str, Fingerprint] = field(default_factory=dict)

    def poll(self) -> Changes:
        """Return the changes since the last call; the first call reports all repos.

        Raises:
            OpError: the cache exists but is not a folder, or cannot be read. A missing cache is empty.
        """
        try:
            refs = self.cache.repos()
        except OpError as error:
            if error.type is not ErrorType.CACHE_NOT_FOUND or self.cache.root.exists():
                raise
            refs = []
        now = {ref.folder_name: _fingerprint(ref.folder) for ref in refs}
        changed = tuple(ref for ref in refs if self._seen.get(ref.folder_name) != now[ref.folder_name])
        removed = tuple(name for name in self._seen if name not in now)
        self._seen = now
        return Changes(changed, removed)

    def reset(self) -> None:
        """Make the next poll report all existing repos as changed."""
        self._seen = dict.fromkeys(self._seen, ())

    def touched_since(self, epoch_ns: int) -> frozenset[str]:
        """Return the folder names of repos that were modified since a time, as of the last poll."""
        return frozenset(
            name for name, marks in self._seen.items() if any(changed >= epoch_ns for changed, _ in marks)
        )


def _fingerprint(path: str) -> Fingerprint:
    marks = [_mark(f"{path}/{part}" if part else path) for part in _PARTS]
    try:
        with os.scandir(f"{path}/snapshots") as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        names = []
    # A new file in a snapshot changes only the time stamp of that snapshot's folder.
    marks.extend(_mark(f"{path}/snapshots/{name}") for name in names[:64])
    return tuple(marks)


def _mark(path: str) -> tuple[int, int]:
    try:
        status = os.lstat(path)
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
