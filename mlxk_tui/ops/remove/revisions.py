"""Removes one revision of a repo: the snapshot, its refs and file list, and blobs that only it uses.

Because of the order of the deletion, a kill at any point leaves a revision that shows as broken, and the
same command finishes:

1. its own blobs: after the first one the snapshot has a broken link, and the remaining links show a
   second run which blobs still have to be deleted;
2. the snapshot folder, first renamed atomically, so that it is never visible half empty;
3. the file list in `trees/`, then the refs: a ref to a missing snapshot leads a second run to the rest.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlxk_tui.ops.cache.access_record import ACCESS_FILE
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.deletion import REMOVING, Folder, freed_by_removal, freed_by_unlink
from mlxk_tui.ops.cache.repo import Repo, Snapshot
from mlxk_tui.ops.cache.repo_scanner import is_macos_metadata
from mlxk_tui.ops.cache.selection import ENDING as SELECTION_ENDING
from mlxk_tui.ops.cache.shared_store import SharedStore
from mlxk_tui.ops.contract.results import FindingCode
from mlxk_tui.ops.core.background import Meter
from mlxk_tui.ops.core.text import printable

REPO_FOLDERS = ("snapshots", "blobs", "trees", "refs")
"""The folders of a repo, which remain empty after its last revision is removed."""


@dataclass
class PayloadTracker:
    """Tracks which payloads of the shared store are freed while blobs are marked for removal."""

    store: SharedStore
    links: Mapping[Path, Collection[Path]]
    """Payload to the blobs in the whole cache that link to it."""
    removing: set[Path] = field(default_factory=set)
    """Blobs marked for removal so far."""

    @classmethod
    def for_cache(cls, cache: Cache) -> PayloadTracker:
        """Create a tracker; reads the cache's links once if there is a shared store."""
        store = SharedStore(cache.root)
        return cls(store, store.links() if store.exists() else {})

    def add_removal(self, blob: str) -> int:
        """Mark a blob for removal and return the bytes that this frees."""
        payload = self.store.payload_for(blob)
        self.removing.add(Path(blob))
        if payload is None:
            return freed_by_unlink(blob)
        return self.store.freed_by(payload, self.removing, self.links.get(payload, ()))

    def delete(self, blobs: Folder, name: str) -> int:
        """Delete a blob and, if nothing else uses it, its payload; return the bytes freed."""
        payload = self.store.payload_for(os.path.join(blobs.path, name))
        if payload is None:
            return blobs.unlink(name)

        def unlink_blob() -> None:
            blobs.unlink(name)

        return self.store.release(payload, remove_link=unlink_blob, links=self.links.get(payload, ()))

    def leftover_payloads(self, repo_folder: str) -> dict[Path, int]:
        """Return the payloads left by a killed deletion of a repo's blobs, with the bytes they occupy."""
        if not self.store.exists():
            return {}
        return {
            payload: self.store.freed_by(payload, (), self.links.get(payload, ()))
            for payload in self.store.payloads_listing(repo_folder)
            if payload not in self.links and self.store.references(payload) == frozenset()
        }


@dataclass(frozen=True)
class RevisionPlan:
    """What the removal of a revision deletes."""

    commit: str
    """Commit, which is the name of the snapshot folder."""
    files: int
    """Number of files in the snapshot."""
    blobs: tuple[str, ...]
    """Names of blobs that no other snapshot uses."""
    refs: tuple[str, ...]
    """Refs that name the commit."""
    freed_bytes: int


def blobs_in_use(
    snapshots: Collection[Snapshot], repo: Repo, cross_links: Mapping[str, Collection[str]]
) -> set[str] | None:
    """Return the names of blobs that these snapshots use; None if that cannot be determined completely.

    Args:
        snapshots: the snapshots that stay.
        repo: their repo.
        cross_links: files that other repos link to, by path inside this repo; they are in use as well.
    """
    if any(problem.code is FindingCode.UNREADABLE for problem in repo.problems):
        return None
    folder = os.path.realpath(os.path.join(repo.ref.path, "blobs"))
    used = {os.path.basename(path) for path in cross_links if path.startswith("blobs/")}
    for snapshot in snapshots:
        if snapshot.problems:
            return None
        for file in snapshot.files:
            if file.etag is not None:
                used.add(file.etag)
            elif file.problem is FindingCode.UNREADABLE:
                return None
            elif file.target is not None:  # not huggingface_hub's own link, but it may still lead to a blob
                target = os.path.realpath(file.target)
                if os.path.dirname(target) == folder:
                    used.add(os.path.basename(target))
    return used


def plan_revision(
    repo: Repo,
    commit: str,
    payloads: PayloadTracker,
    removed: Collection[str] = (),
    *,
    cross_links: Mapping[str, Collection[str]],
) -> RevisionPlan:
    """Return what the removal of a revision deletes and frees.

    Args:
        repo: the current state of the repo.
        commit: name of a snapshot folder, or a commit that only a ref still names.
        payloads: the shared store; the revision's blobs are marked for removal in it.
        removed: other snapshots that are removed as well, by name.
        cross_links: files that other repos link to, by path inside this repo.
    """
    snapshot = repo.snapshots.get(commit)
    files = snapshot.files if snapshot else ()
    others = [snap for name, snap in repo.snapshots.items() if name != commit and name not in removed]
    used = blobs_in_use(others, repo, cross_links)
    own_blobs = sorted({file.etag for file in files if file.etag is not None})
    blobs = tuple(etag for etag in own_blobs if etag not in used) if used is not None else ()
    refs = tuple(sorted(name for name, named in repo.refs.items() if named == commit))
    freed = sum(payloads.add_removal(repo.blobs[etag].path) for etag in blobs if etag in repo.blobs)
    if snapshot is not None:
        freed += freed_by_removal(snapshot.path)
    for name in (f"{commit}.json", commit + SELECTION_ENDING):
        freed += freed_by_unlink(os.path.join(repo.ref.path, "trees", name))
    freed += sum(freed_by_unlink(os.path.join(repo.ref.path, "refs", name)) for name in refs)
    return RevisionPlan(commit, len(files), blobs, refs, freed)


def delete_revision(folder: Folder, plan: RevisionPlan, payloads: PayloadTracker, meter: Meter) -> int:
    """Delete a revision of the repo whose folder is open; return the bytes freed.

    Raises:
        OSError: the file system refused; a second run can finish.
        StoppedError: raised by the meter.
    """
    freed = 0
    with folder.subfolder("blobs") as blobs:
        for name in plan.blobs:
            freed_here = payloads.delete(blobs, name) if blobs is not None else 0
            freed += freed_here
            meter.add(printable(name), freed_here, files=1)
    with folder.subfolder("snapshots") as snapshots:
        if snapshots is not None and snapshots.lstat(plan.commit) is not None:
            snapshots.set_aside(plan.commit, folder)
    freed += delete_leftovers(folder, meter)
    for name in (f"{plan.commit}.json", plan.commit + SELECTION_ENDING):
        freed += _unlink(folder, ("trees", name))
    for ref in plan.refs:
        freed += _unlink(folder, ("refs", *ref.split("/")))
    return freed


def leftover_folders(path: Path) -> list[str]:
    """Return the names of folders that a killed deletion left inside a repo's folder."""
    try:
        return sorted(name for name in os.listdir(path) if name.startswith(REMOVING))
    except OSError:
        return []


def delete_leftovers(folder: Folder, meter: Meter) -> int:
    """Delete folders that this or an earlier deletion set aside; return the bytes freed."""
    freed = 0
    for name in folder.names():
        if not name.startswith(REMOVING):
            continue
        with folder.subfolder(name) as aside:
            if aside is None:
                freed += folder.unlink(name)
                continue
            freed += aside.delete_contents(meter)
        folder.rmdir(name)
    return freed


def delete_if_empty(root: Folder, folder: Folder, name: str) -> bool:
    """Delete the folder of a repo without content; return whether it no longer exists."""
    for inner in folder.names():
        if is_macos_metadata(inner):
            folder.unlink(inner)
        elif inner != ACCESS_FILE and (inner not in REPO_FOLDERS or not _only_litter(folder, inner)):
            return False
    folder.unlink(ACCESS_FILE)
    for inner in REPO_FOLDERS:
        folder.rmdir(inner)
    return root.rmdir(name)


def _only_litter(folder: Folder, name: str) -> bool:
    """Delete macOS metadata in a subfolder; return whether there was nothing else."""
    with folder.subfolder(name) as child:
        if child is None or not all(map(is_macos_metadata, child.names())):
            return False
        for litter in child.names():
            child.unlink(litter)
    return True


def _unlink(folder: Folder, parts: tuple[str, ...]) -> int:
    """Delete a file by its path, and folders that become empty, except the first one."""
    if len(parts) == 1:
        return folder.unlink(parts[0])
    with folder.subfolder(parts[0]) as child:
        if child is None:
            return 0
        freed = _unlink(child, parts[1:])
        if len(parts) > 2:
            child.rmdir(parts[1])
        return freed
