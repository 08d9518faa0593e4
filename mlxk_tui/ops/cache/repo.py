"""A cached repo: refs, snapshots and blobs.

Layout (huggingface_hub 2.4): `refs/<name>` contains a commit; `snapshots/<commit>/` contains links to
`blobs/<etag>`; a blob may itself be a link to the cache-wide store `<cache>/blobs/<xx>/<hash>`.
`repo_scanner.py` creates a Repo in one pass over its folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlxk_tui.ops.cache.cache import RepoRef
from mlxk_tui.ops.contract.results import Finding, FindingCode
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A full commit hash."""
_PREFIX = re.compile(r"[0-9a-f]{3,40}")
PARTIAL_ENDINGS = (".incomplete", ".partial", ".tmp")
"""Endings of unfinished downloads; the same words inside a name mean nothing."""
Inode = tuple[int, int]
"""Device and inode number, equal for hard links to one file."""


@dataclass(frozen=True)
class Blob:
    """An entry of `blobs/`: a complete or partial file, or a link to the shared store."""

    name: str
    path: str
    size: int | None
    """Bytes of the payload, with links to the shared store followed; None for a broken link."""
    modified: float
    """Seconds since the epoch."""
    shared: str | None = None
    """Path of the payload in the shared store, if the blob is a link to it."""
    problem: FindingCode | None = None
    inode: Inode | None = None
    """The file that holds the payload; None if there is none."""

    @property
    def is_partial(self) -> bool:
        """Whether this is an unfinished download."""
        return self.name.endswith(PARTIAL_ENDINGS)

    @property
    def target(self) -> str | None:
        """Path of the file with the bytes, or None."""
        return None if self.problem else self.shared or self.path


@dataclass(frozen=True)
class SnapshotFile:
    """An entry of a snapshot: a link to a blob, or a regular file."""

    name: str
    """Path relative to the snapshot, with forward slashes; not escaped."""
    path: str
    """Path of the entry in the snapshot."""
    target: str | None
    """Path of the regular file with the bytes, inside the repo or cache; None if there is none."""
    size: int | None
    """Bytes; None without a target."""
    etag: str | None
    """Name of the blob, if the file is a link to one."""
    problem: FindingCode | None = None
    inode: Inode | None = None
    """The file on disk, if the entry is a regular file and not a link."""


@dataclass(frozen=True)
class Snapshot:
    """A folder of `snapshots/`, with the files of one commit."""

    name: str
    """Name of the folder, which is the commit."""
    path: str
    modified: float
    """Seconds since the epoch."""
    files: tuple[SnapshotFile, ...]
    """Sorted by name."""
    problems: tuple[Finding, ...] = ()

    @property
    def hash(self) -> str | None:
        """The commit; None if the folder's name is not a commit."""
        return self.name if COMMIT.fullmatch(self.name) else None

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, each blob counted once."""
        seen: set[str] = set()
        total = 0
        for file in self.files:
            if file.size is not None and file.target is not None and file.target not in seen:
                seen.add(file.target)
                total += file.size
        return total


@dataclass(frozen=True)
class Repo:
    """Contents of a repo's folder, as of one scan."""

    ref: RepoRef
    is_link: bool
    """True if the `models--*` entry is a link; such a repo is read but never deleted."""
    modified: float
    """Modification time of the repo's folder, in seconds since the epoch."""
    refs: dict[str, str]
    """Ref name (its path below `refs/`, such as `main` or `refs/pr/1`) to commit."""
    snapshots: dict[str, Snapshot]
    blobs: dict[str, Blob]
    trees: frozenset[str]
    """Commits with a file list of huggingface_hub in `trees/<commit>.json`."""
    problems: tuple[Finding, ...]
    fingerprint_paths: tuple[str, ...] = ()
    """All folders, blobs, refs and regular files that the scan read: while they are unchanged, another scan
    has the same result. Empty if a link of unknown origin was followed, whose path cannot be tracked."""
    selections: frozenset[str] = frozenset()
    """Commits of which only some files were requested (`selection`)."""

    @property
    def selected(self) -> Snapshot | None:
        """The snapshot of `refs/main`; without a usable `refs/main` the newest."""
        main = self.refs.get("main")
        if main is not None:
            return self.snapshots.get(main)
        return max(self.snapshots.values(), key=lambda snap: (snap.modified, snap.name), default=None)

    @property
    def selected_hash(self) -> str | None:
        """Commit of the selected snapshot, also if `refs/main` names a missing snapshot."""
        snapshot = self.selected
        name = snapshot.name if snapshot else self.refs.get("main")
        return name if name and COMMIT.fullmatch(name) else None

    @property
    def disk_bytes(self) -> int:
        """Bytes of the whole repo on disk, including partial and shared blobs.

        Hard links to one file are counted once.
        """
        sizes: dict[Inode | str, int] = {}
        for blob in self.blobs.values():
            sizes[blob.inode or blob.path] = blob.size or 0
        for snapshot in self.snapshots.values():
            for file in snapshot.files:
                if file.target == file.path:
                    sizes[file.inode or file.path] = file.size or 0
        return sum(sizes.values())

    def find_snapshot(self, revision: str | None) -> Snapshot | None:
        """Return the snapshot of a ref name or commit prefix; for None, the selected snapshot.

        Raises:
            OpError: `revision_not_found`, or `ambiguous_match` if a prefix matches several commits.
        """
        if revision is None:
            return self.selected
        if revision in self.refs and self.refs[revision] in self.snapshots:
            return self.snapshots[self.refs[revision]]
        if revision in self.snapshots:
            return self.snapshots[revision]
        prefix = revision.lower()
        hits = [n for n in self.snapshots if n.startswith(prefix)] if _PREFIX.fullmatch(prefix) else []
        if len(hits) == 1:
            return self.snapshots[hits[0]]
        if hits:
            raise OpError(
                ErrorType.AMBIGUOUS_MATCH,
                f"'{printable(revision)}' matches {len(hits)} cached commits of {self.ref.name}.",
                remedy=Remedy.GIVE_LONGER_COMMIT,
                matches=hits,
            )
        known = ", ".join(sorted({*self.refs, *(name[:12] for name in self.snapshots)})) or "none"
        short = " A commit needs at least 3 hex digits." if len(revision) < 3 else ""
        raise OpError(
            ErrorType.REVISION_NOT_FOUND,
            f"{self.ref.name} has no cached revision '{printable(revision)}'.{short} "
            f"Cached: {printable(known)}.",
            available_hashes=list(self.snapshots),
        )
