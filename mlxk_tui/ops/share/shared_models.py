"""Decides which repos of the cache other machines may read, and finds their snapshots.

A repo is shared if it is healthy and public. Gated and private repos are shared only if they are named, and
so are repos of which it is not known: only a pull of this program records it (`ops/cache/access_record.py`).
Whoever shares a repo takes on the hub's duty to check who may read it.

Nothing is cached across changes: every call compares the stats of the repo's files with those of the last
scan, and scans again if any differ.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from mlxk_tui.ops.cache.access_record import RepoAccess, read_access
from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.documents import Json, read_documents
from mlxk_tui.ops.cache.names import is_valid_repo_name
from mlxk_tui.ops.cache.repo import COMMIT, Repo, Snapshot
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.catalog.catalog import list_repos
from mlxk_tui.ops.contract.sharing import NotSharedReason
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.health.integrity import read_tree
from mlxk_tui.ops.health.verdict_cache import RACY_NS, stamp_paths
from mlxk_tui.ops.share.files import SharedFile, find_problem, is_inside, list_shared_files

MAIN = "main"
"""The branch that clients request if the user names no revision."""


class NotSharedError(Exception):
    """A cached repo is not shared.

    Attributes:
        reason: the reason for programs.
        message: the reason as a sentence.
    """

    def __init__(self, reason: NotSharedReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class SharedSnapshot:
    """A healthy snapshot of a shared repo."""

    name: str
    """Full name of the repo."""
    commit: str
    """40 hex digits."""
    modified: float
    """Seconds since the epoch."""
    files: tuple[SharedFile, ...]
    """The files that are in the cache, sorted by path."""
    left_out: frozenset[str]
    """Paths of other files of the commit, as far as known: programs may download only some."""
    card: Json
    """Front matter of the model card; untrusted."""
    access: RepoAccess | None
    """Whether the repo is gated or private on the hub; None if unknown."""
    disk_bytes: int
    """Bytes of the whole repo on disk."""

    def find_file(self, path: str) -> SharedFile | None:
        """Return the file with exactly this path, or None."""
        return next((file for file in self.files if file.path == path), None)


@dataclass
class _Scan:
    """The last scan of a repo, and the snapshots that have been checked since."""

    repo: Repo
    paths: tuple[str, ...]
    """What the scan read, relative to the repo; empty if changes cannot be detected."""
    stamp: int
    checked: dict[str, SharedSnapshot | NotSharedError] = field(default_factory=dict)


class SharedModels:
    """The shared repos of a cache. Its methods block; it can be used in several threads.

    Args:
        cache: the cache; it is only read.
        names: full names of the repos to share, also gated and private ones; empty shares all public ones.
    """

    def __init__(self, cache: Cache, names: Collection[str] = ()) -> None:
        self.cache = cache
        self._names = frozenset(names)
        self._scans: dict[str, _Scan] = {}
        self._lock = threading.Lock()

    def find(self, name: str, revision: str | None = None) -> SharedSnapshot:
        """Return a snapshot of the repo with exactly this name.

        Args:
            name: full name.
            revision: a branch, a tag or a full commit; None for the selected snapshot.

        Raises:
            OpError: `model_not_found` if it is not cached or not shared, `revision_not_found`.
        """
        ref = self._find_ref(name)
        if ref is None:
            raise _not_found(name)
        try:
            self._check_access(ref)
            return self._snapshot(ref, revision)
        except NotSharedError as error:
            if error.reason is not NotSharedReason.UNHEALTHY:
                raise _not_found(name) from None  # do not reveal whether it is cached
            raise OpError(ErrorType.MODEL_NOT_FOUND, f"{name} is not shared: {error.message}") from None

    def all(self) -> list[SharedSnapshot]:
        """Return the selected snapshot of each shared repo, sorted by name.

        Raises:
            OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
        """
        return [found for found in self._try_all().values() if isinstance(found, SharedSnapshot)]

    def not_shared(self) -> dict[str, NotSharedError]:
        """Return why repos are not shared, by name; with `names` only of those.

        Raises:
            OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
        """
        return {
            name: found
            for name, found in self._try_all().items()
            if isinstance(found, NotSharedError) and found.reason is not NotSharedReason.NOT_NAMED
        }

    def _try_all(self) -> dict[str, SharedSnapshot | NotSharedError]:
        results: dict[str, SharedSnapshot | NotSharedError] = {}
        for ref in list_repos(self.cache):
            if not is_valid_repo_name(ref.name):
                continue
            try:
                self._check_access(ref)
                results[ref.name] = self._snapshot(ref, None)
            except NotSharedError as error:
                results[ref.name] = error
            except OpError:
                continue  # removed meanwhile
        return results

    def _find_ref(self, name: str) -> RepoRef | None:
        if not is_valid_repo_name(name):
            return None
        return next((ref for ref in list_repos(self.cache) if ref.name == name), None)

    def _check_access(self, ref: RepoRef) -> RepoAccess | None:
        """Return what is known about a repo's access.

        Raises:
            NotSharedError: the repo must not be shared, or is a link out of the cache.
        """
        if not is_inside(self.cache, os.path.realpath(ref.folder)):
            raise NotSharedError(NotSharedReason.UNHEALTHY, "Its folder is a link out of the cache.")
        access = read_access(ref.folder)
        if self._names:
            if ref.name not in self._names:
                raise NotSharedError(NotSharedReason.NOT_NAMED, "It is not one of the named models.")
        elif access is None:
            raise NotSharedError(
                NotSharedReason.UNKNOWN_ACCESS, "It is not known whether the hub restricts access to it."
            )
        elif not access.public:
            kind = "gated" if access.gated else "private"
            raise NotSharedError(NotSharedReason.RESTRICTED, f"It is {kind} on the hub.")
        return access

    def _snapshot(self, ref: RepoRef, revision: str | None) -> SharedSnapshot:
        with self._lock:
            scan = self._scan(ref)
            snapshot = _find_snapshot(scan.repo, revision)
            found = scan.checked.get(snapshot.name)
            if found is None:
                found = scan.checked[snapshot.name] = _check(self.cache, scan.repo, snapshot)
        if isinstance(found, NotSharedError):
            raise found
        return found

    def _scan(self, ref: RepoRef) -> _Scan:
        known = self._scans.get(ref.folder_name)
        if known is not None and known.paths and known.stamp == _stamp(ref, known.paths):
            return known
        began = time.time_ns()
        repo = read_repo(self.cache, ref)
        paths = tuple(os.path.relpath(path, ref.folder) for path in repo.fingerprint_paths)
        try:
            stamp, newest = stamp_paths(ref.folder, paths)
        except OSError:  # removed meanwhile
            stamp, newest = 0, began
        if newest > began - RACY_NS:
            paths = ()  # a change during the scan would not be noticed
        scan = self._scans[ref.folder_name] = _Scan(repo, paths, stamp)
        return scan


def _stamp(ref: RepoRef, paths: tuple[str, ...]) -> int | None:
    try:
        return stamp_paths(ref.folder, paths)[0]
    except OSError:
        return None


def _find_snapshot(repo: Repo, revision: str | None) -> Snapshot:
    """Return the snapshot of a revision.

    Unlike the commands, `main` means only what `refs/main` names: the client will record it as main.

    Raises:
        NotSharedError: nothing complete is cached.
        OpError: `revision_not_found`.
    """
    snapshot = repo.selected if revision is None else repo.snapshots.get(repo.refs.get(revision, revision))
    if snapshot is not None and snapshot.hash is not None:
        return snapshot
    if revision is None or revision in repo.refs:
        raise NotSharedError(NotSharedReason.UNHEALTHY, "It is not downloaded completely.")
    cached = sorted({*repo.refs, *(name for name in repo.snapshots if COMMIT.fullmatch(name))})
    raise OpError(
        ErrorType.REVISION_NOT_FOUND,
        f"{repo.ref.name} is not shared at '{printable(revision or MAIN)[:100]}'. "
        f"Shared: {printable(', '.join(cached[:5]))}.",
    )


def _check(cache: Cache, repo: Repo, snapshot: Snapshot) -> SharedSnapshot | NotSharedError:
    """Return a snapshot if its files are healthy, or else why it is not shared."""
    documents = read_documents(snapshot)
    problem = find_problem(repo, snapshot, documents)
    if problem is not None:
        return NotSharedError(NotSharedReason.UNHEALTHY, problem)
    try:
        files = list_shared_files(snapshot)
        outside = [file for file in files if not is_inside(cache, os.path.realpath(file.target))]
    except OSError:
        return NotSharedError(NotSharedReason.UNHEALTHY, "A file cannot be read.")
    if outside:
        return NotSharedError(
            NotSharedReason.UNHEALTHY,
            f"{printable(outside[0].path)} is a link out of the cache.",
        )
    return SharedSnapshot(
        name=repo.ref.name,
        commit=snapshot.name,
        modified=snapshot.modified,
        files=files,
        left_out=frozenset(read_tree(repo, snapshot) or ()) - {file.path for file in files},
        card=documents.card,
        access=read_access(repo.ref.folder),
        disk_bytes=repo.disk_bytes,
    )


def _not_found(name: str) -> OpError:
    return OpError(ErrorType.MODEL_NOT_FOUND, f"{printable(name)[:200]} is not shared here.")
