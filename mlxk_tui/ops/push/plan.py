"""What a push would change: the folder compared with a branch by checksums, exactly."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlxk_tui.ops.contract.transfers import ChangeSummary, PushData
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.push.files import Digest, FolderListing, LocalFile, hash_files
from mlxk_tui.ops.push.result import repo_url, result, words
from mlxk_tui.ops.push.terms import KEPT, PushRequest


@dataclass(frozen=True)
class PlannedFile:
    """A file that would be added, replaced or deleted."""

    path: str
    size: int
    """Bytes, of the folder's file where there is one."""


@dataclass(frozen=True)
class PushChanges:
    """How a folder differs from a commit."""

    added: tuple[LocalFile, ...] = ()
    modified: tuple[LocalFile, ...] = ()
    deleted: tuple[PlannedFile, ...] = ()
    missing: tuple[PlannedFile, ...] = ()
    """Files of the commit that the folder neither has nor ignores, whether they are to go or not."""
    only_there: int = 0
    """Files of the branch that the folder lacks and that stay."""
    digests: Mapping[str, Digest] = field(default_factory=dict)
    """By path, of every file that was hashed."""

    @property
    def changed(self) -> tuple[LocalFile, ...]:
        """What would be uploaded."""
        return tuple(sorted((*self.added, *self.modified), key=lambda file: file.path))

    @property
    def none(self) -> bool:
        """Whether the branch holds the folder as it is."""
        return not (self.added or self.modified or self.deleted)

    @property
    def summary(self) -> ChangeSummary:
        """The numbers of files."""
        return ChangeSummary(added=len(self.added), modified=len(self.modified), deleted=len(self.deleted))


@dataclass(frozen=True)
class PushPlan:
    """What a push would do; nothing has been changed anywhere."""

    request: PushRequest
    endpoint: str
    """The hub's address."""
    commit: str | None
    """Head of the branch, 40 hex digits; None where there is no such branch yet."""
    repo_is_public: bool
    """A push to it is refused."""
    would_create_repo: bool
    """The repo does not exist, or not for this account; without `create` a push is refused."""
    would_create_branch: bool
    """The branch does not exist; without `create` a push is refused."""
    local_files_count: int
    added: tuple[PlannedFile, ...]
    modified: tuple[PlannedFile, ...]
    deleted: tuple[PlannedFile, ...]
    """Empty unless the request has `delete`: files that only the branch has stay."""
    missing: tuple[PlannedFile, ...]
    """Files that only the branch has, whether they are deleted or not."""
    only_there: int
    """Files that only the branch has, and that stay."""
    bytes_total: int
    """Bytes of what would be uploaded; less moves where the hub has some of the bytes already."""

    @property
    def no_changes(self) -> bool:
        """Whether the branch holds every file as the folder does."""
        return not (self.added or self.modified or self.deleted)

    @property
    def repo_url(self) -> str:
        """Where people look at the repo."""
        return repo_url(self.endpoint, self.request.repo_id)

    @property
    def message(self) -> str:
        """The plan in a few words."""
        if self.no_changes:
            return "Dry-run: no changes"
        return f"Dry-run: {words(self.difference)}"

    @property
    def summary(self) -> ChangeSummary:
        """The numbers of files that the push changes."""
        return ChangeSummary(added=len(self.added), modified=len(self.modified), deleted=len(self.deleted))

    @property
    def difference(self) -> ChangeSummary:
        """The numbers of files by which folder and branch differ, as MLX-Knife counts them."""
        return self.summary.model_copy(update={"deleted": len(self.missing)})

    def data(self) -> PushData:
        """Return the plan as the contract has it."""
        summary = self.summary
        data = result(
            self.request,
            endpoint=self.endpoint,
            local_files=self.local_files_count,
            no_changes=self.no_changes,
            summary=summary,
            message=self.message,
        )
        return data.model_copy(
            update={
                "dry_run": True,
                "dry_run_summary": self.difference,
                "would_create_repo": self.would_create_repo,
                "would_create_branch": self.would_create_branch,
                "added_files": [file.path for file in self.added],
                "modified_files": [file.path for file in self.modified],
                "deleted_files": [file.path for file in self.missing],
                "bytes_total": self.bytes_total,
            }
        )


def compare(
    listing: FolderListing,
    remote: Sequence[TreeEntry],
    stop: threading.Event,
    on_event: OnEvent,
    *,
    delete: bool,
    hash_all: bool,
) -> PushChanges:
    """Compare a folder with the files of a commit; blocking, for threads.

    Args:
        listing: the folder.
        remote: files of the commit; empty where there is none.
        stop: set to make it stop.
        on_event: receives progress of hashing.
        delete: whether what only the commit has is to go.
        hash_all: hash also what differs in any case, as an upload needs it.

    Raises:
        OpError: `upload_failed` when a file cannot be read or changes meanwhile.
        StoppedError: `stop` was set.
    """
    there = {entry.path: entry for entry in remote}
    doubtful = [file for file in listing.files if _same_size(file, there.get(file.path))]
    outside_lfs = frozenset(path for path, entry in there.items() if entry.lfs_sha256 is None)
    digests = hash_files(listing.files if hash_all else doubtful, stop, on_event, git_too=outside_lfs)
    added, modified = [], []
    for file in listing.files:
        entry = there.get(file.path)
        if entry is None:
            added.append(file)
        elif file.size != entry.size or not digests[file.path].is_of(entry.etag):
            modified.append(file)
    here = {file.path for file in listing.files}
    missing = [
        PlannedFile(entry.path, entry.size)
        for entry in remote
        if entry.path not in here and entry.path not in KEPT and not listing.ignored.anywhere(entry.path)
    ]
    others = len(there.keys() - here - KEPT)
    return PushChanges(
        tuple(added),
        tuple(modified),
        tuple(missing) if delete else (),
        tuple(missing),
        others - len(missing) if delete else others,
        digests,
    )


def planned(files: Sequence[LocalFile]) -> tuple[PlannedFile, ...]:
    """Return local files as a plan names them."""
    return tuple(PlannedFile(file.path, file.size) for file in files)


def _same_size(file: LocalFile, entry: TreeEntry | None) -> bool:
    return entry is not None and entry.size == file.size
