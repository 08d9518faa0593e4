"""One repo of the cache as it lies on disk: refs, snapshots and blobs.

Layout (huggingface_hub 2.4): `refs/<name>` holds a commit; `snapshots/<commit>/` holds links to
`blobs/<etag>`; a blob may itself be a link to the cache-wide store `<cache>/blobs/<xx>/<hash>`.
`reading.py` makes a Repo in one pass over its folder.
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
"""How an unfinished download ends; a word inside a name means nothing."""
Inode = tuple[int, int]
"""Device and inode number: two names of one file have the same."""


@dataclass(frozen=True)
class Blob:
    """A file of `blobs/`."""

    name: str
    path: str
    size: int | None
    """Bytes of the payload, the shared store followed; None when a link leads nowhere."""
    modified: float
    """Seconds since the epoch."""
    shared: str | None = None
    """The payload in the shared store, when the blob is a link to it."""
    problem: FindingCode | None = None
    inode: Inode | None = None
    """Which file on disk holds the payload; None where there is none."""

    @property
    def partial(self) -> bool:
        """Whether this is the rest of a download."""
        return self.name.endswith(PARTIAL_ENDINGS)

    @property
    def target(self) -> str | None:
        """The path that holds the bytes, or None."""
        return None if self.problem else self.shared or self.path


@dataclass(frozen=True)
class SnapshotFile:
    """A file of a snapshot."""

    name: str
    """Path relative to the snapshot, with forward slashes; not yet made safe to show."""
    path: str
    """The entry in the snapshot."""
    target: str | None
    """A regular file inside the repo or cache that holds the bytes; None when there is none."""
    size: int | None
    """Bytes; None when there is no target."""
    etag: str | None
    """Name of the blob, where the file is a link to one."""
    problem: FindingCode | None = None
    inode: Inode | None = None
    """Which file on disk this is, where it is a plain one and no link."""


@dataclass(frozen=True)
class Snapshot:
    """A folder of `snapshots/`."""

    name: str
    """Name of the folder: the commit."""
    path: str
    modified: float
    """Seconds since the epoch."""
    files: tuple[SnapshotFile, ...]
    """Sorted by name."""
    problems: tuple[Finding, ...] = ()

    @property
    def hash(self) -> str | None:
        """The commit, or None where the folder is not named by one."""
        return self.name if COMMIT.fullmatch(self.name) else None

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, each blob once."""
        seen: set[str] = set()
        total = 0
        for file in self.files:
            if file.size is not None and file.target is not None and file.target not in seen:
                seen.add(file.target)
                total += file.size
        return total


@dataclass(frozen=True)
class Repo:
    """Everything that one pass over a repo's folder tells."""

    ref: RepoRef
    linked: bool
    """True when the `models--*` entry is a link; such a repo is read but never deleted."""
    modified: float
    """When the repo's folder changed, in seconds since the epoch."""
    refs: dict[str, str]
    """Ref name (its path below `refs/`, such as `main` or `refs/pr/1`) to the snapshot it names."""
    snapshots: dict[str, Snapshot]
    blobs: dict[str, Blob]
    trees: frozenset[str]
    """Commits whose file list huggingface_hub remembers in `trees/<commit>.json`."""
    problems: tuple[Finding, ...]
    witnesses: tuple[str, ...] = ()
    """Every folder, blob, ref and plain file that the pass looked at: unless one of them changes,
    another pass sees the same. Empty where an unusual link was followed, whose way is not known."""

    @property
    def selected(self) -> Snapshot | None:
        """The snapshot that `refs/main` names; without a usable `refs/main`, the newest."""
        main = self.refs.get("main")
        if main is not None:
            return self.snapshots.get(main)
        return max(self.snapshots.values(), key=lambda snap: (snap.modified, snap.name), default=None)

    @property
    def selected_hash(self) -> str | None:
        """Commit of the selected snapshot, also when `refs/main` names one that is not there."""
        snapshot = self.selected
        name = snapshot.name if snapshot else self.refs.get("main")
        return name if name and COMMIT.fullmatch(name) else None

    @property
    def disk_bytes(self) -> int:
        """Bytes of the whole repo: every payload once, partial and shared ones included.

        Hard links to one file are one payload.
        """
        sizes: dict[Inode | str, int] = {}
        for blob in self.blobs.values():
            sizes[blob.inode or blob.path] = blob.size or 0
        for snapshot in self.snapshots.values():
            for file in snapshot.files:
                if file.target == file.path:
                    sizes[file.inode or file.path] = file.size or 0
        return sum(sizes.values())

    def revision(self, wanted: str | None) -> Snapshot | None:
        """Return the snapshot of a ref name or commit prefix; of None, the selected one.

        Raises:
            OpError: `revision_not_found`, `ambiguous_match` when a prefix fits several commits.
        """
        if wanted is None:
            return self.selected
        if wanted in self.refs and self.refs[wanted] in self.snapshots:
            return self.snapshots[self.refs[wanted]]
        if wanted in self.snapshots:
            return self.snapshots[wanted]
        prefix = wanted.lower()
        hits = [n for n in self.snapshots if n.startswith(prefix)] if _PREFIX.fullmatch(prefix) else []
        if len(hits) == 1:
            return self.snapshots[hits[0]]
        if hits:
            raise OpError(
                ErrorType.AMBIGUOUS_MATCH,
                f"'{printable(wanted)}' fits {len(hits)} cached commits of {self.ref.name}.",
                remedy=Remedy.GIVE_LONGER_COMMIT,
                matches=hits,
            )
        known = ", ".join(sorted({*self.refs, *(name[:12] for name in self.snapshots)})) or "none"
        short = " A commit needs at least 3 hex digits." if len(wanted) < 3 else ""
        raise OpError(
            ErrorType.REVISION_NOT_FOUND,
            f"{self.ref.name} has no cached revision '{printable(wanted)}'.{short} "
            f"Cached: {printable(known)}.",
            available_hashes=list(self.snapshots),
        )
