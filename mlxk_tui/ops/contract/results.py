"""The JSON contract: pydantic models of most results, the envelope and the spec version.

With `transfers.py`, `inference.py` and `sharing.py` this module is the single source of the contract:
`docs/json-api-schema.json` is generated from them, `mlxk-headless` prints them and the app displays them.

Annotations are objects and not strings, which pydantic would compile at every start.
"""

from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mlxk_tui.ops.contract.matrices import BlasState
from mlxk_tui.ops.contract.terms import (
    BatchingReason as BatchingReason,
    Capability as Capability,
    FindingCode as FindingCode,
    Fix as Fix,
    Framework as Framework,
    Health as Health,
    MemoryFit as MemoryFit,
    Modality as Modality,
    ModelType as ModelType,
    Severity as Severity,
)
from mlxk_tui.ops.core.errors import AccessReason, ErrorType
from mlxk_tui.ops.core.remedies import Remedy

SPEC_VERSION = "0.5.0"
"""Version of the JSON contract, which includes every key of MLX-Knife's JSON API 0.1.5."""


class Command(str, Enum):
    """Values of the envelope's key `command`."""

    LIST = "list"
    SHOW = "show"
    HEALTH = "health"
    RM = "rm"
    CLONE = "clone"
    PRUNE = "prune"
    PULL = "pull"
    UPDATE = "update"
    PUSH = "push"
    SEARCH = "search"
    RUN = "run"
    SERVER = "server"
    SHARE = "share"
    LOCK = "lock"
    VERSION = "version"
    CLI = "cli"
    """No command was recognized."""


class Contract(BaseModel):
    """Base of all contract models: immutable, without additional fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, protected_namespaces=())


class Finding(Contract):
    """A problem of a model, with its cause and its fix."""

    code: FindingCode
    severity: Severity
    path: str | None = Field(description="The file inside the snapshot, or null for the repo as a whole.")
    message: str = Field(description="The cause, one sentence.")
    fix: Fix


class Quantization(Contract):
    """Quantization of an MLX model, as stated in config.json."""

    bits: int
    group_size: int | None


class Model(Contract):
    """A cached repo at its selected snapshot."""

    name: str
    hash: str | None = Field(description="Commit of the selected snapshot, 40 hex digits.")
    size_bytes: int = Field(description="Bytes of the selected snapshot's files, each blob counted once.")
    last_modified: str = Field(
        description="Time of the selected snapshot, else of the repo's folder: ISO 8601, UTC, ending in Z."
    )
    framework: Framework
    model_type: ModelType
    capabilities: list[Capability]
    modalities: list[Modality] = Field(description="Input other than text.")
    health: Health
    runtime_compatible: bool
    reason: str | None = Field(description="The first problem; null if there is none.")
    cached: bool
    quantization: Quantization | None
    context_length: int | None = Field(description="Maximum context, in tokens.")
    revisions: int = Field(description="Number of cached snapshots.")
    disk_bytes: int = Field(description="Bytes of the whole repo on disk, shared payloads included once.")
    memory_bytes: int | None = Field(description="Estimated memory to load and run the model, in bytes.")
    memory_fit: MemoryFit | None
    memory_float32_bytes: int | None = Field(
        default=None, description="The same estimate with float32 weights, which a CPU uses if they fit."
    )

    @property
    def abilities(self) -> list[str]:
        """Capabilities and modalities, as one list for display."""
        return [*(word.value for word in self.capabilities), *(word.value for word in self.modalities)]


class ListData(Contract):
    """Data of `list`: the matching models, sorted by name."""

    models: list[Model]
    count: int


FileType = Literal["config", "weights", "tokenizer", "index", "template", "readme", "code", "other"]
"""Purposes of a model's files."""


class ModelFile(Contract):
    """A file of the selected snapshot."""

    name: str = Field(description="Path relative to the snapshot, with forward slashes.")
    size: str = Field(description="The size for people, such as 1.23GB.")
    type: FileType
    size_bytes: int | None = Field(description="Bytes; null for a broken link.")
    etag: str | None = Field(description="Name of the blob: sha256 for LFS files, git-sha1 for others.")


class Batching(Contract):
    """Whether several requests to a model are processed as one batch; determined at its first load."""

    together: bool = Field(description="Requests are decoded as one batch; otherwise they take turns.")
    reason: BatchingReason | None = Field(description="Why requests take turns; null if they do not.")
    message: str = Field(description="The result as a sentence.")


class ShowData(Contract):
    """Data of `show`: one model in detail."""

    model: Model
    metadata: dict[str, Any] | None = Field(description="config.json, unless --files or --config is given.")
    files: list[ModelFile] = Field(description="With --files; otherwise empty.")
    config: dict[str, Any] | None = Field(description="With --config.")
    findings: list[Finding]
    batching: Batching | None = Field(
        description="For the installed MLX and mlx-lm; null until the model was first loaded for serving."
    )


class Checksums(Contract):
    """Counts of the blobs that `--verify` hashed."""

    files: int = Field(description="Blobs hashed.")
    bytes: int = Field(description="Bytes hashed.")
    mismatched: int = Field(description="Blobs whose content differs from their etag.")
    unverifiable: int = Field(description="Files whose blob is not named by a checksum.")


class HealthEntry(Contract):
    """Health of one model, with its first problem as reason."""

    name: str
    status: Health
    reason: str
    findings: list[Finding]
    checksums: Checksums | None = Field(description="Present with --verify.")


class HealthSummary(Contract):
    """Numbers of checked, healthy and unhealthy models."""

    total: int
    healthy_count: int
    unhealthy_count: int


class HealthData(Contract):
    """Data of `health`: all checked models by their status."""

    healthy: list[HealthEntry]
    unhealthy: list[HealthEntry]
    summary: HealthSummary


class RmData(Contract):
    """Data of `rm`: what was deleted, or why nothing was."""

    model: str
    revision: str | None = Field(description="The commit to remove; null for the whole model.")
    action: Literal["deleted", "requires_confirmation", "ambiguous"]
    message: str
    freed_bytes: int = Field(description="Bytes freed on disk, or that a deletion would free.")
    lock_files_cleaned: int
    matches: list[str]
    lock_files: list[str] = Field(description="Locks held by other processes that prevent the deletion.")


class CloneData(Contract):
    """Data of `clone`: the copied model and its target folder."""

    model: str
    clone_status: Literal["success", "failed"]
    message: str
    target_dir: str
    expanded_name: str | None
    commit_hash: str | None
    files_count: int
    bytes_total: int
    reflinked: bool = Field(description="True if the file system shares the bytes (copy on write).")
    health: Health | None


class PrunedRevision(Contract):
    """A snapshot that no ref names."""

    name: str
    hash: str
    freed_bytes: int


class PrunedFile(Contract):
    """An unneeded file: an orphan blob, or a leftover of an aborted download."""

    name: str = Field(description="Name of the repo, or `shared` for the cache's shared store.")
    path: str = Field(description="Relative to the cache.")
    freed_bytes: int


class PruneData(Contract):
    """Data of `prune`: the deleted items, or with --dry-run those to delete."""

    dry_run: bool
    revisions: list[PrunedRevision]
    blobs: list[PrunedFile]
    incomplete: list[PrunedFile]
    freed_bytes: int
    message: str


class BlasData(Contract):
    """The BLAS library that MLX uses on Linux without a GPU."""

    state: BlasState
    library: str | None
    path: str | None
    gain: float | None = Field(description="Speed relative to MLX's own product.")
    message: str


class System(Contract):
    """The machine and the versions of installed packages."""

    platform: str
    python: str
    memory_bytes: int
    mlx: str | None
    mlx_lm: str | None
    huggingface_hub: str | None
    cache_dir: str
    blas: BlasData | None = Field(description="Null except on Linux with MLX's build for the CPU.")


class VersionData(Contract):
    """Data of `version`: versions of the program, the contract and the system."""

    cli_version: str
    json_api_spec_version: str
    system: System | None


class WorkspaceAnomaly(Contract):
    """A problem of a local folder to be pushed."""

    severity: Literal["error", "warn"]
    code: str
    message: str
    path: str | None


class WorkspaceConfig(Contract):
    """Whether a workspace has a valid config.json."""

    exists: bool
    valid_json: bool
    path: str | None


class WorkspaceIndex(Contract):
    """The weight index of a workspace, and the shards it lists that are missing."""

    has_index: bool
    missing: list[str]


class WorkspaceWeights(Contract):
    """Number, formats and completeness of a workspace's weight files."""

    count: int
    formats: list[str]
    index: WorkspaceIndex
    pattern_complete: bool


class WorkspaceHealth(Contract):
    """`workspace_health` of `push --check-only`: the state of the local folder."""

    files_count: int
    total_bytes: int
    config: WorkspaceConfig
    weights: WorkspaceWeights
    tokenizer: bool
    anomalies: list[WorkspaceAnomaly]
    healthy: bool


class ErrorInfo(Contract):
    """`error` of the envelope. Keys beyond type and message are present only for the types that have them."""

    type: ErrorType
    message: str = Field(description="The cause and the remedy, worded for the command line.")
    remedy: Remedy | None = Field(
        default=None, description="The remedy for programs; later versions may add values."
    )
    matches: list[str] | None = None
    available_hashes: list[str] | None = None
    reason: AccessReason | None = None


class Envelope(Contract):
    """The one object that every command prints, always with these four keys."""

    status: Literal["success", "error"]
    command: Command
    data: Contract | None
    error: ErrorInfo | None
