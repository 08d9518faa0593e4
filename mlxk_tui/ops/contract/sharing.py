"""The JSON contract of `share` and `lock`.

Annotations are objects and not strings, for the reason that `results.py` gives.
"""

from enum import Enum

from pydantic import Field

from mlxk_tui.ops.contract.results import Contract


class NotSharedReason(str, Enum):
    """Why a cached model is not shared."""

    UNHEALTHY = "unhealthy"
    """Files are missing or broken, or a link points outside the cache."""
    RESTRICTED = "restricted"
    """The hub restricts access: the repo is gated or private."""
    UNKNOWN_ACCESS = "unknown_access"
    """Whether the hub restricts access was never recorded."""
    NOT_NAMED = "not_named"
    """Only other models are shared."""


class NotSharedModel(Contract):
    """A cached model that `share` does not offer."""

    name: str
    reason: NotSharedReason
    message: str = Field(description="The reason as a sentence.")


class ShareData(Contract):
    """Data of `share`, printed once it is listening."""

    url: str = Field(description="Base URL on this machine, for HF_ENDPOINT.")
    endpoint: str = Field(description="HF_ENDPOINT for other machines; equals url if they have no access.")
    host: str
    port: int = Field(description="The port in use, also when port 0 was requested.")
    needs_key: bool = Field(description="Clients must send a key of the share as HF_TOKEN.")
    models: list[str] = Field(description="The models that were shared at the start, sorted.")
    not_shared: list[NotSharedModel] = Field(description="The others at the start, sorted by name.")
    pid: int = Field(description="Process id; SIGTERM stops it.")


class LockedModel(Contract):
    """A model in a lock file."""

    name: str
    revision: str | None = Field(description="The revision that was named; null for the selected one.")
    commit: str
    files_count: int
    bytes_total: int


class DifferenceKind(str, Enum):
    """How the cache differs from a lock file."""

    MISSING_MODEL = "missing_model"
    OTHER_COMMIT = "other_commit"
    MISSING_FILE = "missing_file"
    OTHER_SIZE = "other_size"
    OTHER_CONTENT = "other_content"


class LockDifference(Contract):
    """A difference between the cache and a lock file."""

    model: str
    kind: DifferenceKind
    path: str | None = Field(description="The file, or null for the model as a whole.")
    message: str


class LockData(Contract):
    """Data of `lock`: the locked models, or with --check the differences."""

    path: str = Field(description="The lock file, absolute.")
    checked: bool = Field(description="True with --check; otherwise the file was written.")
    models: list[LockedModel] = Field(description="The models in the lock file, sorted by name.")
    differences: list[LockDifference] = Field(description="With --check; otherwise empty.")
    message: str
