"""Noticing that the cache changed on disk, cheaply: a few time stamps a repo, and no file is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.core.errors import ErrorType, OpError

Fingerprint = tuple[tuple[int, int], ...]
"""(modification time in ns, size) of everything that moves when a repo is written to."""

_PARTS = ("", "refs", "refs/main", "snapshots", "blobs", "trees")


@dataclass(frozen=True)
class Changes:
    """What differs from the last look."""

    changed: tuple[RepoRef, ...] = ()
    """Repos that are new or were written to."""
    removed: tuple[str, ...] = ()
    """Folder names of repos that are gone."""

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.changed or self.removed)


@dataclass
class Watcher:
    """Compares the cache with how it last looked. Blocking; meant for a thread."""

    cache: Cache
    _seen: dict[str, Fingerprint] = field(default_factory=dict)

    def poll(self) -> Changes:
        """Return what changed since the last call; the first call reports every repo.

        Raises:
            OpError: the cache is there but is no folder, or cannot be read. One that is not there is empty.
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
        """Let the next poll report every repo that is there as changed."""
        self._seen = dict.fromkeys(self._seen, ())

    def touched_since(self, epoch_ns: int) -> frozenset[str]:
        """Return the folder names of repos that, as last seen, were written to after a moment."""
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
    # A file that appears in a snapshot moves only that folder's time stamp.
    marks.extend(_mark(f"{path}/snapshots/{name}") for name in names[:64])
    return tuple(marks)


def _mark(path: str) -> tuple[int, int]:
    try:
        status = os.lstat(path)
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
