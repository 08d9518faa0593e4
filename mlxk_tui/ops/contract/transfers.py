"""The JSON contract of what moves between the cache and the hub: `pull`, `push` and `search`.

Part of `contract.py`, apart from it so that commands which move nothing start without it. Annotations are
real objects here, for the reason given there.
"""

from enum import Enum
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from mlxk_tui.ops.contract.results import Contract, WorkspaceHealth
from mlxk_tui.ops.contract.terms import MemoryFit


class DownloadStatus(str, Enum):
    """How a pull ended."""

    SUCCESS = "success"
    ALREADY_EXISTS = "already_exists"
    PLANNED = "planned"
    """With --dry-run: nothing was moved."""
    ACCESS_DENIED = "access_denied"
    FAILED = "failed"
    CANCELLED = "cancelled"


class PullData(Contract):
    """`pull`."""

    model: str = Field(description="What was asked for, without the revision.")
    download_status: DownloadStatus
    message: str
    expanded_name: str | None = Field(description="The full name, where a short one was given.")
    revision: str | None = Field(description="The branch, tag or commit that was asked for; null for main.")
    commit_hash: str | None = Field(description="The commit that the revision names on the hub.")
    files_count: int = Field(description="Files of that commit.")
    bytes_total: int = Field(description="Bytes of all its files.")
    bytes_downloaded: int = Field(description="Bytes received over the network; planned ones with --dry-run.")
    bytes_reused: int = Field(description="Bytes that were on disk already, of whole and unfinished files.")
    disk_free_bytes: int | None = Field(description="Free where the cache lies, before the transfer.")
    memory_bytes: int | None = Field(description="Estimate of the memory to load and run it, in bytes.")
    memory_fit: MemoryFit | None
    license: str | None
    gated: bool | None = Field(description="Null where the pull did not come far enough to learn it.")
    warnings: list[str] = Field(description="What could not be checked beforehand, a sentence each.")


class SearchResult(Contract):
    """One model of the hub."""

    name: str
    size_bytes: int | None = Field(description="Bytes of the repo, where the hub tells.")
    downloads: int | None = Field(description="Downloads of the last 30 days.")
    likes: int | None
    last_modified: str | None = Field(description="ISO 8601, UTC, ending in Z.")
    mlx: bool = Field(description="Whether it is made for MLX; such ones come first.")
    task: str | None = Field(description="The hub's pipeline tag, such as text-generation.")
    license: str | None
    gated: bool
    cached: bool


class SearchData(Contract):
    """`search`."""

    query: str
    results: list[SearchResult]
    count: int


class ChangeSummary(Contract):
    """How many files a push changes."""

    added: int
    modified: int
    deleted: int


class PushData(Contract):
    """`push`. Keys that say "with" an option are there with that option only."""

    _WITH_OPTION: ClassVar[tuple[str, ...]] = (
        "workspace_health",
        "dry_run",
        "dry_run_summary",
        "would_create_repo",
        "would_create_branch",
        "added_files",
        "modified_files",
        "deleted_files",
        "bytes_total",
    )

    repo_id: str
    branch: str
    commit_sha: str | None = Field(description="Null when nothing was committed.")
    commit_url: str | None = Field(description="Null when nothing was committed.")
    repo_url: str
    uploaded_files_count: int | None = Field(description="Files that changed; 0 when none did.")
    local_files_count: int | None = Field(description="Files of the folder that count, after ignore rules.")
    no_changes: bool
    created_repo: bool
    change_summary: ChangeSummary
    message: str | None
    hf_logs: list[str] = Field(description="Lines that huggingface_hub logged.")
    experimental: Literal[True] = True
    disclaimer: str
    workspace_health: WorkspaceHealth | None = Field(default=None, description="With --check-only.")
    dry_run: Literal[True] | None = Field(default=None, description="With --dry-run.")
    dry_run_summary: ChangeSummary | None = Field(default=None, description="With --dry-run.")
    would_create_repo: bool | None = Field(default=None, description="With --dry-run.")
    would_create_branch: bool | None = Field(default=None, description="With --dry-run.")
    added_files: list[str] | None = Field(default=None, description="With --dry-run.")
    modified_files: list[str] | None = Field(default=None, description="With --dry-run.")
    deleted_files: list[str] | None = Field(default=None, description="With --dry-run.")
    bytes_total: int | None = Field(default=None, description="With --dry-run: bytes that would be uploaded.")

    @model_serializer(mode="wrap")
    def _only_what_was_asked_for(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {
            key: value for key, value in values.items() if value is not None or key not in self._WITH_OPTION
        }
