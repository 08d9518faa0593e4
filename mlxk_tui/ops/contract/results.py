"""The JSON contract: pydantic models of every result, the envelope and the spec version.

This file is the single source, with `transfer_contract.py` and `run_contract.py` for what moves and runs
models. `docs/json-api-schema.json` is generated from it, the headless
output prints it and the app draws from it.

Annotations are real objects here, not strings: pydantic would compile each string at every start.
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
"""Version of the JSON contract; it keeps every key of MLX-Knife's JSON API 0.1.5."""


class Command(str, Enum):
    """Values of the envelope's `command`."""

    LIST = "list"
    SHOW = "show"
    HEALTH = "health"
    RM = "rm"
    CLONE = "clone"
    PRUNE = "prune"
    PULL = "pull"
    PUSH = "push"
    SEARCH = "search"
    RUN = "run"
    SERVER = "server"
    VERSION = "version"
    CLI = "cli"
    """No command was recognised."""


class Contract(BaseModel):
    """Base of every model of the contract: closed, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, protected_namespaces=())


class Finding(Contract):
    """One thing that is wrong with a model, with its cause and its fix."""

    code: FindingCode
    severity: Severity
    path: str | None = Field(description="The file inside the snapshot, or null for the repo as a whole.")
    message: str = Field(description="The plain cause, one sentence.")
    fix: Fix


class Quantization(Contract):
    """Quantisation of an MLX model as its config.json states it."""

    bits: int
    group_size: int | None


class Model(Contract):
    """One cached repo at its selected snapshot."""

    name: str
    hash: str | None = Field(description="Commit of the selected snapshot, 40 hex digits.")
    size_bytes: int = Field(description="Files of the selected snapshot, each blob once, in bytes.")
    last_modified: str = Field(
        description="Of the selected snapshot, else of the repo's folder: ISO 8601, UTC, ending in Z."
    )
    framework: Framework
    model_type: ModelType
    capabilities: list[Capability]
    modalities: list[Modality] = Field(description="What it takes in beside text.")
    health: Health
    runtime_compatible: bool
    reason: str | None = Field(description="The first problem; null when there is none.")
    cached: bool
    quantization: Quantization | None
    context_length: int | None = Field(description="Tokens.")
    revisions: int = Field(description="How many snapshots are cached.")
    disk_bytes: int = Field(description="The whole repo on disk, shared payload included once, in bytes.")
    memory_bytes: int | None = Field(description="Estimate of the memory to load and run it, in bytes.")
    memory_fit: MemoryFit | None
    memory_float32_bytes: int | None = Field(
        default=None, description="The same with weights as float32, as a CPU runs them where they fit."
    )

    @property
    def abilities(self) -> list[str]:
        """Capabilities and modalities, as people are shown them."""
        return [*(word.value for word in self.capabilities), *(word.value for word in self.modalities)]


class ListData(Contract):
    """`list`."""

    models: list[Model]
    count: int


FileType = Literal["config", "weights", "tokenizer", "index", "template", "readme", "code", "other"]
"""What a file of a model is for."""


class ModelFile(Contract):
    """One file of a snapshot."""

    name: str = Field(description="Path relative to the snapshot, with forward slashes.")
    size: str = Field(description="The size for people, such as 1.23GB.")
    type: FileType
    size_bytes: int | None = Field(description="Bytes; null when the link leads nowhere.")
    etag: str | None = Field(description="Name of the blob: sha256 of LFS files, git-sha1 of small ones.")


class Batching(Contract):
    """Whether several requests to a model are answered together; tried when it is first loaded."""

    together: bool = Field(description="They are decoded as one batch; otherwise they take turns.")
    reason: BatchingReason | None = Field(description="Why they take turns; null where they do not.")
    message: str = Field(description="The same as a sentence.")


class ShowData(Contract):
    """`show`."""

    model: Model
    metadata: dict[str, Any] | None = Field(description="config.json, when neither flag is given.")
    files: list[ModelFile] = Field(description="With --files; empty without.")
    config: dict[str, Any] | None = Field(description="With --config.")
    findings: list[Finding]
    batching: Batching | None = Field(
        description="With these versions of MLX and mlx-lm; null before the model was first loaded to serve."
    )


class Checksums(Contract):
    """What `--verify` hashed."""

    files: int = Field(description="Blobs hashed.")
    bytes: int = Field(description="Bytes hashed.")
    mismatched: int = Field(description="Blobs whose bytes differ from their etag.")
    unverifiable: int = Field(description="Files without a blob name that is a checksum.")


class HealthEntry(Contract):
    """Verdict on one model."""

    name: str
    status: Health
    reason: str
    findings: list[Finding]
    checksums: Checksums | None = Field(description="Present with --verify.")


class HealthSummary(Contract):
    """Counts of `health`."""

    total: int
    healthy_count: int
    unhealthy_count: int


class HealthData(Contract):
    """`health`."""

    healthy: list[HealthEntry]
    unhealthy: list[HealthEntry]
    summary: HealthSummary


class RmData(Contract):
    """`rm`."""

    model: str
    revision: str | None = Field(description="The commit that is removed; null for the whole model.")
    action: Literal["deleted", "requires_confirmation", "ambiguous"]
    message: str
    freed_bytes: int = Field(description="Bytes freed on disk, or that would be.")
    lock_files_cleaned: int
    matches: list[str]
    lock_files: list[str] = Field(description="Locks that another process holds, when that stops it.")


class CloneData(Contract):
    """`clone`."""

    model: str
    clone_status: Literal["success", "failed"]
    message: str
    target_dir: str
    expanded_name: str | None
    commit_hash: str | None
    files_count: int
    bytes_total: int
    reflinked: bool = Field(description="True when the file system shares the bytes (copy on write).")
    health: Health | None


class PrunedRevision(Contract):
    """A snapshot that no ref names."""

    name: str
    hash: str
    freed_bytes: int


class PrunedFile(Contract):
    """A file that nothing needs: an orphan blob or the rest of a dead download."""

    name: str = Field(description="The repo, or `shared` for the cache's shared store.")
    path: str = Field(description="Relative to the cache.")
    freed_bytes: int


class PruneData(Contract):
    """`prune`."""

    dry_run: bool
    revisions: list[PrunedRevision]
    blobs: list[PrunedFile]
    incomplete: list[PrunedFile]
    freed_bytes: int
    message: str


class BlasData(Contract):
    """How MLX multiplies matrices on Linux without a GPU."""

    state: BlasState
    library: str | None
    path: str | None
    gain: float | None = Field(description="How many times faster than MLX's own.")
    message: str


class System(Contract):
    """The machine and what is installed on it."""

    platform: str
    python: str
    memory_bytes: int
    mlx: str | None
    mlx_lm: str | None
    huggingface_hub: str | None
    cache_dir: str
    blas: BlasData | None = Field(description="Null except on Linux with MLX's build for the CPU.")


class VersionData(Contract):
    """`version`."""

    cli_version: str
    json_api_spec_version: str
    system: System | None


class WorkspaceAnomaly(Contract):
    """One thing that is wrong with a local folder that is meant to be pushed."""

    severity: Literal["error", "warn"]
    code: str
    message: str
    path: str | None


class WorkspaceConfig(Contract):
    """config.json of a workspace."""

    exists: bool
    valid_json: bool
    path: str | None


class WorkspaceIndex(Contract):
    """Weight index of a workspace."""

    has_index: bool
    missing: list[str]


class WorkspaceWeights(Contract):
    """Weights of a workspace."""

    count: int
    formats: list[str]
    index: WorkspaceIndex
    pattern_complete: bool


class WorkspaceHealth(Contract):
    """`workspace_health` of `push --check-only`."""

    files_count: int
    total_bytes: int
    config: WorkspaceConfig
    weights: WorkspaceWeights
    tokenizer: bool
    anomalies: list[WorkspaceAnomaly]
    healthy: bool


class ErrorInfo(Contract):
    """`error` of the envelope. Keys beyond type and message appear with the types that have them."""

    type: ErrorType
    message: str = Field(description="The cause and, in words for the command line, what to do about it.")
    remedy: Remedy | None = Field(
        default=None, description="What to do about it, for programs; later versions may add values."
    )
    matches: list[str] | None = None
    available_hashes: list[str] | None = None
    reason: AccessReason | None = None


class Envelope(Contract):
    """What every command prints: always these four keys, exactly one object."""

    status: Literal["success", "error"]
    command: Command
    data: Contract | None
    error: ErrorInfo | None
