"""The words of the JSON contract: every value that its enumerated keys can take.

They stand apart from the models, so that what only compares them starts without pydantic.
"""

from __future__ import annotations

from enum import Enum


class Framework(str, Enum):
    """What a repo's weights are made for."""

    MLX = "MLX"
    GGUF = "GGUF"
    PYTORCH = "PyTorch"
    UNKNOWN = "Unknown"


class ModelType(str, Enum):
    """What a model is for."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    BASE = "base"
    UNKNOWN = "unknown"


class Capability(str, Enum):
    """What a model can do."""

    TEXT_GENERATION = "text-generation"
    CHAT = "chat"
    EMBEDDINGS = "embeddings"


class Modality(str, Enum):
    """What a model takes in beside text; MLX-Knife's `capabilities` have no word for it."""

    VISION = "vision"
    AUDIO = "audio"


class Health(str, Enum):
    """Integrity of a model's files."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Severity(str, Enum):
    """How much a finding matters."""

    ERROR = "error"
    """The model's files are not sound, or (for runtime findings) it will not run."""
    WARNING = "warning"
    """Worth knowing; the verdict stands."""


class MemoryFit(str, Enum):
    """Whether the memory estimate fits this machine."""

    FITS = "fits"
    TIGHT = "tight"
    TOO_LARGE = "too_large"


class BatchingReason(str, Enum):
    """Why requests to a model take turns instead of being answered together."""

    DIFFERENT = "different_answers"
    """Rows of a batch get other answers than alone."""
    FAILED = "failed"
    """mlx-lm raises an exception."""
    CRASHED = "crashed"
    """The process did not survive the trial."""
    UNFINISHED = "unfinished"
    """The trial before this load did not end; the next load tries again."""
    CACHE = "cache"
    """mlx-lm cannot put caches of this kind together."""


class FindingCode(str, Enum):
    """What a finding is about; a stable word for scripts."""

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
    """What mends a finding."""

    PULL = "pull"
    """Fetch the broken files again."""
    REMOVE = "remove"
    """Remove the repo; nothing in it can be used."""
    PRUNE = "prune"
    """Remove what downloads left behind."""
    UPGRADE = "upgrade"
    """Install a newer mlx-lm."""
    NONE = "none"
    """Nothing to do, or nothing that this program can do."""


class CpuWeights(str, Enum):
    """How weights are held on a CPU."""

    AUTO = "auto"
    """As float32 where the memory allows it, else as stored."""
    STORED = "stored"
    """As in the file; a layer is expanded while many rows are multiplied."""
    FLOAT32 = "float32"
