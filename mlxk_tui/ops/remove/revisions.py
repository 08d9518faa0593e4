"""Removing one revision of a repo: the snapshot, its refs and listing, and the blobs only it uses.

The order of the deletion is such that a kill at any point leaves a revision that shows as broken, and
that the same command finishes:

1. its own blobs: from the first one on the snapshot has a link that leads nowhere, and the links that
   are left tell a second run which blobs still have to go;
2. the snapshot folder, renamed out of sight in one step, so that it is never seen half empty;
3. the listing in `trees/`, then the refs: a ref that names a missing snapshot still leads a second
   run to the rest.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.deletion import REMOVING, Folder, freed_by_removal, freed_by_unlink
from mlxk_tui.ops.cache.repo import Repo, Snapshot
from mlxk_tui.ops.cache.repo_scanner import is_macos_metadata
from mlxk_tui.ops.cache.shared_store import SharedStore
from mlxk_tui.ops.contract.results import FindingCode
from mlxk_tui.ops.core.background import Meter
from mlxk_tui.ops.core.text import printable

EMPTY_FOLDERS = ("snapshots", "blobs", "trees", "refs")
"""What is left of a repo whose last revision went."""


@dataclass
class Payloads:
    """What the shared store would free, while blobs are picked one after the other."""

    store: SharedStore
    links: Mapping[Path, Collection[Path]]
    """Payload to the blobs that link to it, over the whole cache."""
    removing: set[Path] = field(default_factory=set)
    """Blobs picked so far."""

    @classmethod
    def of(cls, cache: Cache) -> Payloads:
        """Look over the cache once; costs nothing where there is no store."""
        store = SharedStore(cache.root)
        return cls(store, store.links() if store.exists() else {})

    def pick(self, blob: str) -> int:
        """Count a blob as going and return the bytes that this frees."""
        payload = self.store.payload_for(blob)
        self.removing.add(Path(blob))
        if payload is None:
            return freed_by_unlink(blob)
        return self.store.freed_by(payload, self.removing, self.links.get(payload, ()))

    def delete(self, blobs: Folder, name: str) -> int:
        """Delete a blob and, where nothing else uses it, its payload; return the bytes freed."""
        payload = self.store.payload_for(os.path.join(blobs.path, name))
        if payload is None:
            return blobs.unlink(name)

        def unlink_blob() -> None:
            blobs.unlink(name)

        return self.store.release(payload, remove_link=unlink_blob, links=self.links.get(payload, ()))

    def abandoned(self, repo_folder: str) -> dict[Path, int]:
        """Return the payloads that a killed deletion of a repo's blobs left, with the bytes they free."""
        if not self.store.exists():
            return {}
        return {
            payload: self.store.freed_by(payload, (), self.links.get(payload, ()))
            for payload in self.store.payloads_listing(repo_folder)
            if payload not in self.links and self.store.references(payload) == frozenset()
        }


@dataclass(frozen=True)
class RevisionPlan:
    """What goes with one revision."""

    commit: str
    """Name of the snapshot folder."""
    files: int
    """Files of the snapshot."""
    blobs: tuple[str, ...]
    """Blobs that no other snapshot uses, by name."""
    refs: tuple[str, ...]
    """Refs that name the commit."""
    freed_bytes: int


def blobs_in_use(
    snapshots: Collection[Snapshot], repo: Repo, foreign: Mapping[str, Collection[str]]
) -> set[str] | None:
    """Return the blobs that these snapshots lead to, by name; None where one cannot be read in full.

    Args:
        snapshots: those that stay.
        repo: their repo.
        foreign: what other repos link to, by path inside this one; it is in use as well.
    """
    if any(problem.code is FindingCode.UNREADABLE for problem in repo.problems):
        return None
    folder = os.path.realpath(os.path.join(repo.ref.path, "blobs"))
    used = {os.path.basename(path) for path in foreign if path.startswith("blobs/")}
    for snapshot in snapshots:
        if snapshot.problems:
            return None
        for file in snapshot.files:
            if file.etag is not None:
                used.add(file.etag)
            elif file.problem is FindingCode.UNREADABLE:
                return None
            elif file.target is not None:  # an unusual link that may lead to a blob all the same
                target = os.path.realpath(file.target)
                if os.path.dirname(target) == folder:
                    used.add(os.path.basename(target))
    return used


def plan_revision(
    repo: Repo,
    commit: str,
    payloads: Payloads,
    gone: Collection[str] = (),
    *,
    foreign: Mapping[str, Collection[str]],
) -> RevisionPlan:
    """Return what removing a revision takes away and frees.

    Args:
        repo: the repo as it is now.
        commit: name of a snapshot folder, or a commit that only a ref names any more.
        payloads: the shared store; its picks are added to.
        gone: other snapshots that go as well, by name.
        foreign: what other repos link to, by path inside this one.
    """
    snapshot = repo.snapshots.get(commit)
    files = snapshot.files if snapshot else ()
    others = [snap for name, snap in repo.snapshots.items() if name != commit and name not in gone]
    used = blobs_in_use(others, repo, foreign)
    own = sorted({file.etag for file in files if file.etag is not None})
    blobs = tuple(etag for etag in own if etag not in used) if used is not None else ()
    refs = tuple(sorted(name for name, named in repo.refs.items() if named == commit))
    freed = sum(payloads.pick(repo.blobs[etag].path) for etag in blobs if etag in repo.blobs)
    if snapshot is not None:
        freed += freed_by_removal(snapshot.path)
    freed += freed_by_unlink(os.path.join(repo.ref.path, "trees", f"{commit}.json"))
    freed += sum(freed_by_unlink(os.path.join(repo.ref.path, "refs", name)) for name in refs)
    return RevisionPlan(commit, len(files), blobs, refs, freed)


def delete_revision(folder: Folder, plan: RevisionPlan, payloads: Payloads, meter: Meter) -> int:
    """Delete a revision of the repo whose folder is open and return the bytes freed.

    Raises:
        OSError: the file system refused something; a second run can finish.
        StoppedError: from the meter.
    """
    freed = 0
    with folder.subfolder("blobs") as blobs:
        for name in plan.blobs:
            gone = payloads.delete(blobs, name) if blobs is not None else 0
            freed += gone
            meter.add(printable(name), gone, files=1)
    with folder.subfolder("snapshots") as snapshots:
        if snapshots is not None and snapshots.lstat(plan.commit) is not None:
            snapshots.set_aside(plan.commit, folder)
    freed += delete_leftovers(folder, meter)
    freed += _unlink(folder, ("trees", f"{plan.commit}.json"))
    for ref in plan.refs:
        freed += _unlink(folder, ("refs", *ref.split("/")))
    return freed


def leftovers(path: Path) -> list[str]:
    """Return the folders that a killed deletion left inside a repo's folder, by name."""
    try:
        return sorted(name for name in os.listdir(path) if name.startswith(REMOVING))
    except OSError:
        return []


def delete_leftovers(folder: Folder, meter: Meter) -> int:
    """Delete what was set aside, by this deletion or a killed one, and return the bytes freed."""
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
    """Delete the shell of a repo that holds nothing any more and return whether it is gone."""
    for inner in folder.names():
        if is_macos_metadata(inner):
            folder.unlink(inner)
        elif inner not in EMPTY_FOLDERS or not _only_litter(folder, inner):
            return False
    for inner in EMPTY_FOLDERS:
        folder.rmdir(inner)
    return root.rmdir(name)


def _only_litter(folder: Folder, name: str) -> bool:
    """Take macOS's own files out of a folder inside `folder` and return whether nothing else was there."""
    with folder.subfolder(name) as child:
        if child is None or not all(map(is_macos_metadata, child.names())):
            return False
        for litter in child.names():
            child.unlink(litter)
    return True


def _unlink(folder: Folder, parts: tuple[str, ...]) -> int:
    """Delete a file some levels down and the folders that this empties, the first excepted."""
    if len(parts) == 1:
        return folder.unlink(parts[0])
    with folder.subfolder(parts[0]) as child:
        if child is None:
            return 0
        freed = _unlink(child, parts[1:])
        if len(parts) > 2:
            child.rmdir(parts[1])
        return freed
