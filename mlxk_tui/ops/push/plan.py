"""Compares a folder with a branch by checksums, and plans a push."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlxk_tui.ops.contract.transfers import ChangeSummary, PushData
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.push.files import Digest, FolderListing, LocalFile, hash_files
from mlxk_tui.ops.push.request import HUB_MANAGED_FILES, PushRequest
from mlxk_tui.ops.push.result import format_summary, make_push_data, repo_url


@dataclass(frozen=True)
class PlannedFile:
    """A file to be added, replaced or deleted."""

    path: str
    size: int
    """Size in bytes; of the local file if there is one."""


@dataclass(frozen=True)
class PushChanges:
    """Differences between a folder and a commit."""

    added: tuple[LocalFile, ...] = ()
    modified: tuple[LocalFile, ...] = ()
    deleted: tuple[PlannedFile, ...] = ()
    missing: tuple[PlannedFile, ...] = ()
    """Files of the commit that the folder neither contains nor ignores, whether or not they are deleted."""
    kept_remote_count: int = 0
    """Number of files that only the branch has and that stay."""
    digests: Mapping[str, Digest] = field(default_factory=dict)
    """Checksums by path of all hashed files."""

    @property
    def changed(self) -> tuple[LocalFile, ...]:
        """The files to upload, sorted by path."""
        return tuple(sorted((*self.added, *self.modified), key=lambda file: file.path))

    @property
    def is_empty(self) -> bool:
        """Whether the branch already contains the folder's files."""
        return not (self.added or self.modified or self.deleted)

    @property
    def summary(self) -> ChangeSummary:
        """Numbers of added, modified and deleted files."""
        return ChangeSummary(added=len(self.added), modified=len(self.modified), deleted=len(self.deleted))


@dataclass(frozen=True)
class PushPlan:
    """What a push would change; nothing has been changed yet."""

    request: PushRequest
    endpoint: str
    """The hub's address."""
    commit: str | None
    """Head of the branch, 40 hex digits; None if the branch does not exist."""
    repo_is_public: bool
    """Whether the repo is public; pushes to public repos are refused."""
    would_create_repo: bool
    """Whether the repo does not exist for this account; without `create` the push is refused."""
    would_create_branch: bool
    """Whether the branch does not exist; without `create` the push is refused."""
    local_files_count: int
    added: tuple[PlannedFile, ...]
    modified: tuple[PlannedFile, ...]
    deleted: tuple[PlannedFile, ...]
    """Files to delete; empty unless the request has `delete`."""
    missing: tuple[PlannedFile, ...]
    """Files that only the branch has, whether or not they are deleted."""
    kept_remote_count: int
    """Number of files that only the branch has and that stay."""
    bytes_total: int
    """Bytes to upload; the transfer is smaller if the hub already has some of them."""

    @property
    def no_changes(self) -> bool:
        """Whether the branch already contains the folder's files."""
        return not (self.added or self.modified or self.deleted)

    @property
    def repo_url(self) -> str:
        """Address of the repo's web page."""
        return repo_url(self.endpoint, self.request.repo_id)

    @property
    def message(self) -> str:
        """A short summary of the plan."""
        if self.no_changes:
            return "Dry-run: no changes"
        return f"Dry-run: {format_summary(self.difference)}"

    @property
    def summary(self) -> ChangeSummary:
        """Numbers of files that the push changes."""
        return ChangeSummary(added=len(self.added), modified=len(self.modified), deleted=len(self.deleted))

    @property
    def difference(self) -> ChangeSummary:
        """Numbers of files in which folder and branch differ, as MLX-Knife counts them."""
        return self.summary.model_copy(update={"deleted": len(self.missing)})

    def data(self) -> PushData:
        """Return the plan as the contract's PushData."""
        summary = self.summary
        data = make_push_data(
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


def compare_with_commit(
    listing: FolderListing,
    remote: Sequence[TreeEntry],
    stop: threading.Event,
    on_event: OnEvent,
    *,
    delete: bool,
    hash_all: bool,
) -> PushChanges:
    """Compare a folder with the files of a commit. Blocking; call it in a thread.

    Args:
        listing: the files of the folder.
        remote: the files of the commit; empty if there is none.
        stop: set to stop the work.
        on_event: receives the progress of hashing.
        delete: whether files that only the commit has are deleted.
        hash_all: hash all files, as an upload requires, and not only those of equal size.

    Raises:
        OpError: `upload_failed` if a file cannot be read or changes meanwhile.
        StoppedError: `stop` was set.
    """
    remote_files = {entry.path: entry for entry in remote}
    same_size = [file for file in listing.files if _same_size(file, remote_files.get(file.path))]
    outside_lfs = frozenset(path for path, entry in remote_files.items() if entry.lfs_sha256 is None)
    digests = hash_files(listing.files if hash_all else same_size, stop, on_event, git_paths=outside_lfs)
    added, modified = [], []
    for file in listing.files:
        entry = remote_files.get(file.path)
        if entry is None:
            added.append(file)
        elif file.size != entry.size or not digests[file.path].matches(entry.etag):
            modified.append(file)
    local_paths = {file.path for file in listing.files}
    missing = [
        PlannedFile(entry.path, entry.size)
        for entry in remote
        if entry.path not in local_paths
        and entry.path not in HUB_MANAGED_FILES
        and not listing.ignored.ignores_file(entry.path)
    ]
    others = len(remote_files.keys() - local_paths - HUB_MANAGED_FILES)
    return PushChanges(
        tuple(added),
        tuple(modified),
        tuple(missing) if delete else (),
        tuple(missing),
        others - len(missing) if delete else others,
        digests,
    )


def to_planned_files(files: Sequence[LocalFile]) -> tuple[PlannedFile, ...]:
    """Return local files in the form of a plan."""
    return tuple(PlannedFile(file.path, file.size) for file in files)


def _same_size(file: LocalFile, entry: TreeEntry | None) -> bool:
    return entry is not None and entry.size == file.size
