"""The JSON contract of `update`.

A module of its own, so that the other commands start without it. Annotations are objects and not strings, for
the reason that `results.py` gives.
"""

from pydantic import Field

from mlxk_tui.ops.contract.results import Contract
from mlxk_tui.ops.contract.terms import UpdateReason, UpdateStatus
from mlxk_tui.ops.core.errors import ErrorType


class ModelUpdate(Contract):
    """A cached model compared with the hub, and the outcome of its update."""

    name: str
    revision: str | None = Field(description="The compared branch or tag; null if the model has none.")
    status: UpdateStatus
    commit_hash: str | None = Field(description="The commit that was cached at the start.")
    latest_hash: str | None = Field(description="The commit on the hub; null if unknown.")
    last_modified: str | None = Field(description="Last change on the hub: ISO 8601, UTC, ending in Z.")
    bytes_to_download: int | None = Field(description="Bytes of the update; null if there is none.")
    bytes_downloaded: int = Field(description="Bytes received.")
    reason: UpdateReason | None = Field(description="Why the status is `unknown`; otherwise null.")
    error_type: ErrorType | None = Field(
        description="Why the update failed, or with --dry-run why it would; otherwise null."
    )
    message: str | None = Field(description="The cause of `reason` or `error_type`, one sentence.")


class UpdateSummary(Contract):
    """Numbers of models by status."""

    total: int
    current: int
    available: int
    updated: int
    failed: int
    unknown: int


class UpdateData(Contract):
    """Data of `update`: all compared models, sorted by name."""

    dry_run: bool
    models: list[ModelUpdate]
    summary: UpdateSummary
    bytes_to_download: int = Field(description="Bytes of all updates, at the start.")
    bytes_downloaded: int = Field(description="Bytes received.")
    disk_free_bytes: int | None = Field(
        description="Free bytes on the cache's disk at the start; null if there is nothing to download."
    )
    message: str
