"""Prunes files in the cache that nothing needs.

- Unreferenced revisions: snapshots without a ref. The selected snapshot always stays, and a repo with a ref
  that is malformed or names a missing snapshot keeps all of them, because the intended one is unknown.
- Orphan blobs: blobs that no snapshot of their repo uses.
- Partial downloads: leftovers of killed downloads and deletions.
- Payloads of the shared store without a reference.

A download may run at the same time: repos with held locks are skipped, and so is everything that changed
within the last hour, because a file is downloaded before anything links to it, and a revision that was
requested by its commit never gets a ref. Resumable files of an unfinished pull, and their revision, stay for
a week.
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
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.download.partial_blob import is_resumable
from mlxk_tui.ops.remove.revisions import (
    REPO_FOLDERS,
    PayloadTracker,
    RevisionPlan,
    blobs_in_use,
    delete_leftovers,
    delete_revision,
    leftover_folders,
    plan_revision,
)

GRACE_SECONDS = 3600.0
"""Entries changed more recently than this may belong to a running download."""
RESUMABLE_SECONDS = 7 * 86_400.0
"""The same period for unfinished files that a pull can resume."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.(?:shared|new)|tmp_[0-9a-f-]{36}")
"""Temporary names in `blobs` of huggingface_hub 2.4, besides partial files."""


async def plan_prune(cache: Cache) -> PruneData:
    """Return what `prune` would delete and the bytes that each item frees; nothing is changed.

    Raises:
        OpError: `permission_denied` if the cache cannot be read.
    """
    return await run_in_thread(lambda stop: _prune(cache, Meter("prune", stop), dry_run=True))


async def prune(cache: Cache, *, on_event: OnEvent = ignore_event) -> PruneData:
    """Delete unneeded files; return what was deleted. After a cancellation a second call finishes.

    Raises:
        OpError: `permission_denied` if the file system refused all deletions.
    """
    return await run_in_thread(lambda stop: _prune(cache, Meter("prune", stop, on_event), dry_run=False))


@dataclass(frozen=True)
class _RepoPlan:
    """What is deleted from one repo."""

    revisions: tuple[RevisionPlan, ...] = ()
    blobs: tuple[tuple[str, int], ...] = ()
    """Orphan blobs: name and bytes freed."""
    partials: tuple[tuple[str, int], ...] = ()
    """Partial files in `blobs`: name and bytes freed."""
    leftover_folders: tuple[tuple[str, int], ...] = ()
    """Folders that a killed deletion set aside: name and bytes freed."""

    def __bool__(self) -> bool:
        return bool(self.revisions or self.blobs or self.partials or self.leftover_folders)


class _PruneResult:
    """Collects deleted items and errors, and creates the contract's result."""

    def __init__(self) -> None:
        self.revisions: list[PrunedRevision] = []
        self.blobs: list[PrunedFile] = []
        self.incomplete: list[PrunedFile] = []
        self.skipped_repos: list[OpError] = []
        """One error for each repo that was left unchanged."""
        self.skipped_payloads: list[OpError] = []
        """One error for each payload of the shared store that was left unchanged."""

    def revision(self, ref: RepoRef, plan: RevisionPlan, freed: int) -> None:
        self.revisions.append(PrunedRevision(name=ref.name, hash=printable(plan.commit), freed_bytes=freed))

    def data(self, *, dry_run: bool) -> PruneData:
        files = [*self.blobs, *self.incomplete]
        freed = sum(file.freed_bytes for file in files) + sum(rev.freed_bytes for rev in self.revisions)
        skipped = [*self.skipped_repos, *self.skipped_payloads]
        if not files and not self.revisions and skipped:
            raise skipped[0]
        counts = [
            plural(len(found), noun)
            for found, noun in (
                (self.revisions, "unreferenced revision"),
                (self.blobs, "orphan blob"),
                (self.incomplete, "partial download"),
            )
            if found
        ]
        if counts:
            verb = "would be freed" if dry_run else "freed"
            message = f"{', '.join(counts)}: {format_size(freed)} {verb}."
        else:
            message = "Nothing to prune."
        if self.skipped_repos:
            message += f" Skipped {plural(len(self.skipped_repos), 'repo')}. {self.skipped_repos[0].message}"
        elif self.skipped_payloads:
            message += f" {self.skipped_payloads[0].message}"
        return PruneData(
            dry_run=dry_run,
            revisions=self.revisions,
            blobs=self.blobs,
            incomplete=self.incomplete,
            freed_bytes=freed,
            message=message,
        )


def _prune(cache: Cache, meter: Meter, *, dry_run: bool) -> PruneData:
    result = _PruneResult()
    try:
        refs = cache.repos()
    except OpError as error:
        if error.type is ErrorType.CACHE_NOT_FOUND:  # like `list`: a missing cache is empty
            return result.data(dry_run=dry_run)
        raise
    if not dry_run:
        check_deletion_allowed(cache.root)
    payloads, cross_links = PayloadTracker.for_cache(cache), find_cross_links(cache)
    with open_cache(cache.root) as root:
        for ref in refs:
            meter.add(ref.name)
            plan = _plan_repo(cache, root, ref, payloads, cross_links.get(ref.folder_name, {}))
            if not plan:
                continue
            if dry_run:
                _record(result, ref, plan)
                continue
            try:
                check_writable(ref.path, cache.root)
                _delete(root, ref, plan, payloads, result, meter)
            except OpError as error:
                result.skipped_repos.append(error)
            except OSError as error:
                message = f"{ref.name}: {error.strerror or error}."
                result.skipped_repos.append(OpError(ErrorType.PERMISSION_DENIED, message))
    _sweep_store(payloads.store, result, meter, dry_run=dry_run)
    meter.finish()
    return result.data(dry_run=dry_run)


def _plan_repo(
    cache: Cache,
    root: Folder,
    ref: RepoRef,
    payloads: PayloadTracker,
    cross_links: Mapping[str, Collection[str]],
) -> _RepoPlan:
    try:
        repo = read_repo(cache, ref)
    except OpError:  # removed meanwhile
        return _RepoPlan()
    if repo.is_link or any(os.path.islink(ref.path / inner) for inner in REPO_FOLDERS):
        return _RepoPlan()
    used = blobs_in_use(list(repo.snapshots.values()), repo, cross_links)
    if not set(repo.refs.values()) <= repo.snapshots.keys():
        used = None  # a ref names a missing snapshot, whose blobs are unknown
    unreferenced = _unreferenced(repo) if used is not None and not cross_links else []
    orphans = [
        blob
        for name, blob in sorted(repo.blobs.items())
        if used is not None and name not in used and _is_orphan(blob.name, blob.path, payloads.store)
    ]
    partials = [
        blob
        for name, blob in sorted(repo.blobs.items())
        if (blob.is_partial or _TEMPORARY.fullmatch(name)) and _is_idle(blob.path)
    ]
    aside = leftover_folders(ref.path)
    if not (unreferenced or orphans or partials or aside) or held_locks_in(root, ref.folder_name):
        return _RepoPlan()
    return _RepoPlan(
        tuple(
            plan_revision(repo, commit, payloads, removed=unreferenced[:position], cross_links=cross_links)
            for position, commit in enumerate(unreferenced)
        ),
        tuple((blob.name, payloads.add_removal(blob.path)) for blob in orphans),
        tuple((blob.name, freed_by_unlink(blob.path)) for blob in partials),
        tuple((name, freed_by_removal(ref.path / name)) for name in aside),
    )


def _unreferenced(repo: Repo) -> list[str]:
    """Return the unreferenced snapshots, oldest first; none in case of doubt."""
    if any(is_resumable(blob.name) and not _is_idle(blob.path) for blob in repo.blobs.values()):
        return []  # a pull writes the ref last
    if any(problem.code is FindingCode.REF_INVALID for problem in repo.problems):
        return []
    referenced = set(repo.refs.values())
    if not referenced <= repo.snapshots.keys():
        return []
    selected = repo.selected
    return [
        snapshot.name
        for snapshot in sorted(repo.snapshots.values(), key=lambda snap: (snap.modified, snap.name))
        if snapshot.name not in referenced and snapshot is not selected and _is_idle(snapshot.path)
    ]


def _is_orphan(name: str, path: str, store: SharedStore) -> bool:
    if name.startswith((".", "tmp_")) or name.endswith((".incomplete", ".partial", ".tmp")):
        return False
    if os.path.islink(path) and store.payload_for(path) is None:  # a link of unknown origin
        return False
    return _is_idle(path)


def _is_idle(path: str) -> bool:
    """Return whether an entry is old enough that no download can be using it."""
    grace = RESUMABLE_SECONDS if is_resumable(os.path.basename(path)) else GRACE_SECONDS
    try:
        return time.time() - os.lstat(path).st_mtime > grace
    except OSError:
        return False


def _record(result: _PruneResult, ref: RepoRef, plan: _RepoPlan) -> None:
    for revision in plan.revisions:
        result.revision(ref, revision, revision.freed_bytes)
    result.blobs += [_file(ref, f"blobs/{name}", freed) for name, freed in plan.blobs]
    result.incomplete += [_file(ref, f"blobs/{name}", freed) for name, freed in plan.partials]
    result.incomplete += [_file(ref, name, freed) for name, freed in plan.leftover_folders]


def _delete(
    root: Folder, ref: RepoRef, plan: _RepoPlan, payloads: PayloadTracker, result: _PruneResult, meter: Meter
) -> None:
    folder_name = ref.folder_name
    with root.subfolder(folder_name) as folder:
        if folder is None:
            return
        if plan.leftover_folders:
            delete_leftovers(folder, meter)
            result.incomplete += [_file(ref, name, freed) for name, freed in plan.leftover_folders]
        for revision in plan.revisions:
            freed = delete_revision(folder, revision, payloads, meter)
            result.revision(ref, revision, freed)
            delete_stale_locks(root, folder_name, revision.blobs)
        with folder.subfolder("blobs") as blobs:
            if blobs is None:
                return
            for found, results in ((plan.blobs, result.blobs), (plan.partials, result.incomplete)):
                for name, _ in found:
                    with blob_lock(root, folder_name, _etag(name)) as free:
                        if not free or not _is_idle(os.path.join(blobs.path, name)):
                            continue
                        freed = payloads.delete(blobs, name)
                    results.append(_file(ref, f"blobs/{name}", freed))
                    meter.add(ref.name, freed, files=1)


def _etag(name: str) -> str:
    """Return the etag in a partial file's name: `<etag>.<8 hex digits>.incomplete` or `<etag>.partial`."""
    return name.split(".", 1)[0]


def _sweep_store(store: SharedStore, result: _PruneResult, meter: Meter, *, dry_run: bool) -> None:
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
                result.skipped_payloads.append(error)
        meter.add("shared", freed, files=1)


def _file(ref: RepoRef, path: str, freed: int) -> PrunedFile:
    return PrunedFile(name=ref.name, path=printable(f"{ref.folder_name}/{path}"), freed_bytes=freed)
