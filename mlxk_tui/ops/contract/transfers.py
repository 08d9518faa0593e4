"""The JSON contract of `pull`, `push` and `search`.

A module of its own, so that commands that transfer nothing start without it. Annotations are objects and
not strings, for the reason that `results.py` gives.
"""

from enum import Enum
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from mlxk_tui.ops.contract.results import Contract, WorkspaceHealth
from mlxk_tui.ops.contract.terms import MemoryFit


class DownloadStatus(str, Enum):
    """Outcome of a pull; `planned` only with --dry-run."""

    SUCCESS = "success"
    ALREADY_EXISTS = "already_exists"
    PLANNED = "planned"
    """With --dry-run: nothing was transferred."""
    ACCESS_DENIED = "access_denied"
    FAILED = "failed"
    CANCELLED = "cancelled"


class PullData(Contract):
    """Data of `pull`: the commit and what was transferred."""

    model: str = Field(description="The requested name, without the revision.")
    download_status: DownloadStatus
    message: str
    expanded_name: str | None = Field(description="The full name, if a short one was given.")
    revision: str | None = Field(description="The requested branch, tag or commit; null for main.")
    commit_hash: str | None = Field(description="The commit of the revision on the hub.")
    files_count: int = Field(description="Number of requested files of that commit.")
    partial: bool = Field(description="Whether --include or --exclude left out files of the commit.")
    bytes_total: int = Field(description="Bytes of the requested files.")
    bytes_downloaded: int = Field(description="Bytes received; with --dry-run, bytes to download.")
    bytes_reused: int = Field(description="Bytes already on disk, in complete and partial files.")
    disk_free_bytes: int | None = Field(description="Free bytes on the cache's disk before the transfer.")
    memory_bytes: int | None = Field(description="Estimated memory to load and run the model, in bytes.")
    memory_fit: MemoryFit | None
    license: str | None
    gated: bool | None = Field(description="Null if the pull failed before this was known.")
    warnings: list[str] = Field(description="Checks that could not be made beforehand, a sentence each.")


class PullBatchData(Contract):
    """Data of `pull` for several models, or with --file: the result of each, in the given order."""

    model: str = Field(description="The requested names, separated by spaces.")
    download_status: DownloadStatus = Field(
        description="That of a model that was not pulled, else success, planned or already_exists."
    )
    expanded_name: None = None
    models: list[PullData]
    count: int
    failed_count: int = Field(description="Number of models that were not pulled.")
    bytes_downloaded: int = Field(description="Sum over all models; with --dry-run, bytes to download.")
    disk_free_bytes: int | None = Field(description="Free bytes on the cache's disk before the transfer.")
    message: str


class SearchResult(Contract):
    """A model that a search found on the hub."""

    name: str
    size_bytes: int | None = Field(description="Bytes of the repo, if the hub reports them.")
    downloads: int | None = Field(description="Downloads of the last 30 days.")
    likes: int | None
    last_modified: str | None = Field(description="ISO 8601, UTC, ending in Z.")
    mlx: bool = Field(description="Whether the model is made for MLX; these come first.")
    task: str | None = Field(description="The hub's pipeline tag, such as text-generation.")
    license: str | None
    gated: bool
    cached: bool


class SearchData(Contract):
    """Data of `search`: the results, MLX models first."""

    query: str
    results: list[SearchResult]
    count: int


class ChangeSummary(Contract):
    """Numbers of files that a push changes."""

    added: int
    modified: int
    deleted: int


class PushData(Contract):
    """Data of `push`. Keys described as "With" an option are present only with that option."""

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
    commit_sha: str | None = Field(description="Null if nothing was committed.")
    commit_url: str | None = Field(description="Null if nothing was committed.")
    repo_url: str
    uploaded_files_count: int | None = Field(description="Number of changed files; 0 if there were none.")
    local_files_count: int | None = Field(description="Number of local files, without ignored ones.")
    no_changes: bool
    created_repo: bool
    change_summary: ChangeSummary
    message: str | None
    hf_logs: list[str] = Field(description="Log lines of huggingface_hub.")
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
    bytes_total: int | None = Field(default=None, description="With --dry-run: bytes to upload.")

    @model_serializer(mode="wrap")
    def _omit_absent_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {
            key: value for key, value in values.items() if value is not None or key not in self._WITH_OPTION
        }
