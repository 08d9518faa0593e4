"""Enumerations of the JSON contract.

They are separate from the models, so that code that only compares values starts without pydantic.
"""

from __future__ import annotations

from enum import Enum


class Framework(str, Enum):
    """The framework that a repo's weights are made for."""

    MLX = "MLX"
    GGUF = "GGUF"
    PYTORCH = "PyTorch"
    UNKNOWN = "Unknown"


class ModelType(str, Enum):
    """The purpose of a model, as detected from its files and name."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    BASE = "base"
    UNKNOWN = "unknown"


class Capability(str, Enum):
    """The tasks of a model, with MLX-Knife's values."""

    TEXT_GENERATION = "text-generation"
    CHAT = "chat"
    EMBEDDINGS = "embeddings"


class Modality(str, Enum):
    """Input other than text; MLX-Knife's `capabilities` have no value for it."""

    VISION = "vision"
    AUDIO = "audio"


class Health(str, Enum):
    """Integrity of a model's files; compatibility is separate."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Severity(str, Enum):
    """Severity of a finding: only errors affect the status."""

    ERROR = "error"
    """The model's files are broken, or (for runtime findings) it cannot run."""
    WARNING = "warning"
    """Worth knowing; the model still counts as healthy."""


class MemoryFit(str, Enum):
    """How a model's memory estimate compares with this machine's memory."""

    FITS = "fits"
    TIGHT = "tight"
    TOO_LARGE = "too_large"


class BatchingReason(str, Enum):
    """Why requests to a model take turns instead of being decoded as a batch."""

    DIFFERENT = "different_answers"
    """Requests in a batch get different answers than alone."""
    FAILED = "failed"
    """mlx-lm raises an exception."""
    CRASHED = "crashed"
    """The trial crashed the process."""
    UNFINISHED = "unfinished"
    """The trial before this load did not finish; the next load repeats it."""
    CACHE = "cache"
    """mlx-lm cannot batch this kind of cache."""


class FindingCode(str, Enum):
    """Stable codes of findings, for scripts."""

    NO_SNAPSHOT = "no_snapshot"
    MAIN_SNAPSHOT_MISSING = "main_snapshot_missing"
    REF_INVALID = "ref_invalid"
    CONFIG_MISSING = "config_missing"
    CONFIG_INVALID = "config_invalid"
    INDEX_INVALID = "index_invalid"
    INDEX_UNSAFE_PATH = "index_unsafe_path"
    SHARD_MISSING = "shard_missing"
    SHARD_WITHOUT_INDEX = "shard_without_index"
    WEIGHTS_MISSING = "weights_missing"
    WEIGHTS_EMPTY = "weights_empty"
    WEIGHTS_TRUNCATED = "weights_truncated"
    WEIGHTS_CORRUPT = "weights_corrupt"
    LFS_POINTER = "lfs_pointer"
    BROKEN_LINK = "broken_link"
    LINK_OUTSIDE_CACHE = "link_outside_cache"
    PARTIAL_FILE = "partial_file"
    DOWNLOAD_UNFINISHED = "download_unfinished"
    FILE_EMPTY = "file_empty"
    FILE_MISSING = "file_missing"
    PARTIAL_SNAPSHOT = "partial_snapshot"
    """Only some files were requested (`pull --include`, `--exclude`)."""
    SIZE_MISMATCH = "size_mismatch"
    UNREADABLE = "unreadable"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    FRAMEWORK_UNSUPPORTED = "framework_unsupported"
    MLX_LM_MISSING = "mlx_lm_missing"
    WEIGHTS_NOT_LOADABLE = "weights_not_loadable"
    ARCHITECTURE_UNKNOWN = "architecture_unknown"
    CUSTOM_CODE = "custom_code"
    TOKENIZER_MISSING = "tokenizer_missing"
    MEMORY_TIGHT = "memory_tight"
    MEMORY_TOO_LARGE = "memory_too_large"


class Fix(str, Enum):
    """The action that fixes a finding."""

    PULL = "pull"
    """Download the broken files again."""
    REMOVE = "remove"
    """Remove the repo, which is unusable."""
    PRUNE = "prune"
    """Remove leftovers of downloads."""
    UPGRADE = "upgrade"
    """Install a newer mlx-lm."""
    NONE = "none"
    """Nothing to do, or nothing that this program can do."""


class CpuWeights(str, Enum):
    """How a CPU stores weights in memory."""

    AUTO = "auto"
    """As float32 if the memory suffices, otherwise as stored."""
    STORED = "stored"
    """As in the file; a layer is dequantized while many rows are multiplied."""
    FLOAT32 = "float32"


class UpdateStatus(str, Enum):
    """How a cached model compares with the hub, or the outcome of its update."""

    CURRENT = "current"
    """The hub has the cached commit."""
    AVAILABLE = "available"
    """The hub has another commit."""
    UPDATED = "updated"
    """The hub's commit was downloaded."""
    FAILED = "failed"
    """The hub's commit could not be downloaded; the cached one is unchanged."""
    UNKNOWN = "unknown"
    """It could not be compared."""


class UpdateReason(str, Enum):
    """Why a cached model could not be compared with the hub."""

    NOT_FOUND = "not_found"
    """The hub has no such repo, or it is private."""
    ACCESS_DENIED = "access_denied"
    """The hub refuses the account or the token."""
    REVISION_NOT_FOUND = "revision_not_found"
    """The hub no longer has the branch or tag."""
    NO_REF = "no_ref"
    """No branch or tag names the cached commit, so nothing can be newer."""
    NETWORK_ERROR = "network_error"
    """The hub did not answer."""
    OFFLINE = "offline"
    """HF_HUB_OFFLINE is set."""
