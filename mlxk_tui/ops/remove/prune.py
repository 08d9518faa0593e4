"""Pruning: what the cache holds and nothing needs.

- Detached revisions: snapshots that no ref names. The selected snapshot always stays, and a repo with
  a ref that is malformed or names a missing snapshot keeps all of them: which one is meant is open.
- Orphan blobs: no snapshot of their repo leads to them.
- Stale partials: what killed downloads and deletions left behind.
- Payloads of the shared store that no repo refers to.

A download may run beside it: a repo with a lock that is held is left alone altogether, and so is
whatever changed within the last hour, since a file is downloaded before anything links to it and a
revision that is asked for by its commit never gets a ref. What a pull of ours left unfinished can be
resumed: for a week it counts as wanted, and with it the revision that it belongs to.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.cross_links import find_cross_links
from mlxk_tui.ops.cache.deletion import (
    Folder,
    check_deletion_allowed,
    check_writable,
    freed_by_removal,
    freed_by_unlink,
    open_cache,
)
from mlxk_tui.ops.cache.locks import blob_lock, delete_stale_locks, held_locks_in
from mlxk_tui.ops.cache.repo import Repo
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.cache.shared_store import SharedStore
from mlxk_tui.ops.contract.results import FindingCode, PruneData, PrunedFile, PrunedRevision
from mlxk_tui.ops.core.background import Meter, run_in_thread
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, ignore_event
from mlxk_tui.ops.core.text import plural, printable, size
from mlxk_tui.ops.download.partial_blob import is_resumable
from mlxk_tui.ops.remove.revisions import (
    EMPTY_FOLDERS,
    Payloads,
    RevisionPlan,
    blobs_in_use,
    delete_leftovers,
    delete_revision,
    leftovers,
    plan_revision,
)

GRACE_SECONDS = 3600.0
"""What changed more recently than this may belong to a running download."""
RESUMABLE_SECONDS = 7 * 86_400.0
"""The same for an unfinished file that a pull can go on with."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.(?:shared|new)|tmp_[0-9a-f-]{36}")
"""Temporary names of huggingface_hub 2.4 in `blobs` besides the partial files."""


async def plan_prune(cache: Cache) -> PruneData:
    """Return what `prune` would delete, with the bytes that each frees; nothing is touched.

    Raises:
        OpError: `permission_denied` when the cache cannot be read.
    """
    return await run_in_thread(lambda stop: _prune(cache, Meter("prune", stop), dry_run=True))


async def prune(cache: Cache, *, on_event: OnEvent = ignore_event) -> PruneData:
    """Delete what nothing needs and return what went; a second call finishes what a cancel left.

    Raises:
        OpError: `permission_denied` when the file system refused all of it.
    """
    return await run_in_thread(lambda stop: _prune(cache, Meter("prune", stop, on_event), dry_run=False))


@dataclass(frozen=True)
class _RepoPlan:
    """What goes from one repo."""

    revisions: tuple[RevisionPlan, ...] = ()
    blobs: tuple[tuple[str, int], ...] = ()
    """Orphans: name and bytes freed."""
    partials: tuple[tuple[str, int], ...] = ()
    """Files of `blobs`: name and bytes freed."""
    leftovers: tuple[tuple[str, int], ...] = ()
    """Folders that a killed deletion set aside: name and bytes freed."""

    def __bool__(self) -> bool:
        return bool(self.revisions or self.blobs or self.partials or self.leftovers)


class _Result:
    """Collects what went."""

    def __init__(self) -> None:
        self.revisions: list[PrunedRevision] = []
        self.blobs: list[PrunedFile] = []
        self.incomplete: list[PrunedFile] = []
        self.refused: list[OpError] = []
        """Why a repo stayed as it was."""
        self.store_refused: list[OpError] = []
        """Why a payload of the shared store stayed."""

    def revision(self, ref: RepoRef, plan: RevisionPlan, freed: int) -> None:
        self.revisions.append(PrunedRevision(name=ref.name, hash=printable(plan.commit), freed_bytes=freed))

    def data(self, *, dry_run: bool) -> PruneData:
        files = [*self.blobs, *self.incomplete]
        freed = sum(file.freed_bytes for file in files) + sum(rev.freed_bytes for rev in self.revisions)
        refused = [*self.refused, *self.store_refused]
        if not files and not self.revisions and refused:
            raise refused[0]
        counts = [
            plural(len(found), noun)
            for found, noun in (
                (self.revisions, "detached revision"),
                (self.blobs, "orphan blob"),
                (self.incomplete, "stale partial"),
            )
            if found
        ]
        if counts:
            verb = "would be freed" if dry_run else "freed"
            message = f"{', '.join(counts)}: {size(freed)} {verb}."
        else:
            message = "Nothing to prune."
        if self.refused:
            message += f" {plural(len(self.refused), 'repo')} stayed as it was. {self.refused[0].message}"
        elif self.store_refused:
            message += f" {self.store_refused[0].message}"
        return PruneData(
            dry_run=dry_run,
            revisions=self.revisions,
            blobs=self.blobs,
            incomplete=self.incomplete,
            freed_bytes=freed,
            message=message,
        )


def _prune(cache: Cache, meter: Meter, *, dry_run: bool) -> PruneData:
    result = _Result()
    try:
        refs = cache.repos()
    except OpError as error:
        if error.type is ErrorType.CACHE_NOT_FOUND:  # as `list`: a cache that is not there yet is empty
            return result.data(dry_run=dry_run)
        raise
    if not dry_run:
        check_deletion_allowed(cache.root)
    payloads, uses = Payloads.of(cache), find_cross_links(cache)
    with open_cache(cache.root) as root:
        for ref in refs:
            meter.add(ref.name)
            plan = _plan_repo(cache, root, ref, payloads, uses.get(ref.folder_name, {}))
            if not plan:
                continue
            if dry_run:
                _record(result, ref, plan)
                continue
            try:
                check_writable(ref.path, cache.root)
                _delete(root, ref, plan, payloads, result, meter)
            except OpError as error:
                result.refused.append(error)
            except OSError as error:
                told = f"{ref.name}: {error.strerror or error}."
                result.refused.append(OpError(ErrorType.PERMISSION_DENIED, told))
    _sweep_store(payloads.store, result, meter, dry_run=dry_run)
    meter.finish()
    return result.data(dry_run=dry_run)


def _plan_repo(
    cache: Cache, root: Folder, ref: RepoRef, payloads: Payloads, foreign: Mapping[str, Collection[str]]
) -> _RepoPlan:
    try:
        repo = read_repo(cache, ref)
    except OpError:  # vanished
        return _RepoPlan()
    if repo.is_link or any(os.path.islink(ref.path / inner) for inner in EMPTY_FOLDERS):
        return _RepoPlan()
    used = blobs_in_use(list(repo.snapshots.values()), repo, foreign)
    if not set(repo.refs.values()) <= repo.snapshots.keys():
        used = None  # a ref names a snapshot that is not there: what it would use cannot be known
    detached = _detached(repo) if used is not None and not foreign else []
    orphans = [
        blob
        for name, blob in sorted(repo.blobs.items())
        if used is not None and name not in used and _is_orphan(blob.name, blob.path, payloads.store)
    ]
    partials = [
        blob
        for name, blob in sorted(repo.blobs.items())
        if (blob.is_partial or _TEMPORARY.fullmatch(name)) and _settled(blob.path)
    ]
    aside = leftovers(ref.path)
    if not (detached or orphans or partials or aside) or held_locks_in(root, ref.folder_name):
        return _RepoPlan()
    return _RepoPlan(
        tuple(
            plan_revision(repo, commit, payloads, gone=detached[:position], foreign=foreign)
            for position, commit in enumerate(detached)
        ),
        tuple((blob.name, payloads.pick(blob.path)) for blob in orphans),
        tuple((blob.name, freed_by_unlink(blob.path)) for blob in partials),
        tuple((name, freed_by_removal(ref.path / name)) for name in aside),
    )


def _detached(repo: Repo) -> list[str]:
    """Return the snapshots that nothing names, oldest first; none where there is doubt."""
    if any(is_resumable(blob.name) and not _settled(blob.path) for blob in repo.blobs.values()):
        return []  # a pull writes the ref last
    if any(problem.code is FindingCode.REF_INVALID for problem in repo.problems):
        return []
    named = set(repo.refs.values())
    if not named <= repo.snapshots.keys():
        return []
    selected = repo.selected
    return [
        snapshot.name
        for snapshot in sorted(repo.snapshots.values(), key=lambda snap: (snap.modified, snap.name))
        if snapshot.name not in named and snapshot is not selected and _settled(snapshot.path)
    ]


def _is_orphan(name: str, path: str, store: SharedStore) -> bool:
    if name.startswith((".", "tmp_")) or name.endswith((".incomplete", ".partial", ".tmp")):
        return False
    if os.path.islink(path) and store.payload_for(path) is None:  # nobody knows whose link that is
        return False
    return _settled(path)


def _settled(path: str) -> bool:
    """Return whether an entry has not changed for so long that no download is at work on it."""
    grace = RESUMABLE_SECONDS if is_resumable(os.path.basename(path)) else GRACE_SECONDS
    try:
        return time.time() - os.lstat(path).st_mtime > grace
    except OSError:
        return False


def _record(result: _Result, ref: RepoRef, plan: _RepoPlan) -> None:
    for revision in plan.revisions:
        result.revision(ref, revision, revision.freed_bytes)
    result.blobs += [_file(ref, f"blobs/{name}", freed) for name, freed in plan.blobs]
    result.incomplete += [_file(ref, f"blobs/{name}", freed) for name, freed in plan.partials]
    result.incomplete += [_file(ref, name, freed) for name, freed in plan.leftovers]


def _delete(
    root: Folder, ref: RepoRef, plan: _RepoPlan, payloads: Payloads, result: _Result, meter: Meter
) -> None:
    folder_name = ref.folder_name
    with root.subfolder(folder_name) as folder:
        if folder is None:
            return
        if plan.leftovers:
            delete_leftovers(folder, meter)
            result.incomplete += [_file(ref, name, freed) for name, freed in plan.leftovers]
        for revision in plan.revisions:
            freed = delete_revision(folder, revision, payloads, meter)
            result.revision(ref, revision, freed)
            delete_stale_locks(root, folder_name, revision.blobs)
        with folder.subfolder("blobs") as blobs:
            if blobs is None:
                return
            for found, kept_in in ((plan.blobs, result.blobs), (plan.partials, result.incomplete)):
                for name, _ in found:
                    with blob_lock(root, folder_name, _etag(name)) as free:
                        if not free or not _settled(os.path.join(blobs.path, name)):
                            continue
                        freed = payloads.delete(blobs, name)
                    kept_in.append(_file(ref, f"blobs/{name}", freed))
                    meter.add(ref.name, freed, files=1)


def _etag(name: str) -> str:
    """Return the blob that a partial belongs to: `<etag>.<8 hex digits>.incomplete`, `<etag>.partial`."""
    return name.split(".", 1)[0]


def _sweep_store(store: SharedStore, result: _Result, meter: Meter, *, dry_run: bool) -> None:
    links = {} if dry_run else store.links() if store.exists() else {}
    for payload, expected in store.unreferenced().items():
        freed = expected if dry_run else store.release(payload, links=links.get(payload, ()))
        if dry_run or not os.path.lexists(payload):
            path = os.path.relpath(payload, store.root)
            result.blobs.append(PrunedFile(name="shared", path=printable(path), freed_bytes=freed))
        else:
            try:
                check_writable(payload.parent, store.root)
            except OpError as error:
                result.store_refused.append(error)
        meter.add("shared", freed, files=1)


def _file(ref: RepoRef, path: str, freed: int) -> PrunedFile:
    return PrunedFile(name=ref.name, path=printable(f"{ref.folder_name}/{path}"), freed_bytes=freed)
