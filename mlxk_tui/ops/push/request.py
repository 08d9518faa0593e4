"""The request of a push, its limits, and shared constants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.cache.names import is_valid_repo_name
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import printable

ENABLE_VARIABLE = "MLXK2_ENABLE_EXPERIMENTAL_PUSH"
"""Environment variable that enables push."""
DEFAULT_MESSAGE = "mlx-knife push"
"""Default commit message; scripts written for MLX-Knife look for it."""
DISCLAIMER = "Experimental feature (M0: upload only). No validation/filters; review results on the Hub."
"""The value of `data.disclaimer`, with MLX-Knife's wording."""
MAIN = "main"
HUB_MANAGED_FILES = frozenset({".gitattributes"})
"""Files that the hub creates and changes itself; a push with `delete` leaves them."""
XET_MIN_BYTES = 50_000_000_000
"""Size in bytes above which a file can only be uploaded through Xet."""

_MAX_MESSAGE = 10_000
_MAX_BRANCH = 244
_INVALID_BRANCH = re.compile(
    r"[\x00-\x20\x7f-\x9f~^:?*\[\\\ud800-\udfff]|\.\.|//|@\{|/\.|^[./-]|[./]$|\.lock(/|$)"
)
"""Characters and sequences that git does not allow in a branch name."""


def push_disabled() -> OpError:
    """Return the error for a push that is not enabled."""
    return OpError(
        ErrorType.FEATURE_DISABLED,
        "Push is experimental and switched off.",
        remedy=Remedy.ENABLE_PUSH,
        facts=ErrorFacts(variable=ENABLE_VARIABLE),
    )


def push_enabled(setting: bool, environ: Mapping[str, str]) -> bool:
    """Return whether push is enabled by the setting `push` or by MLXK2_ENABLE_EXPERIMENTAL_PUSH=1."""
    return setting or environ.get(ENABLE_VARIABLE) == "1"


@dataclass(frozen=True)
class PushRequest:
    """A folder to push, and the repo and branch to push it to."""

    folder: Path
    """Folder of the model."""
    repo_id: str
    """Full name, such as `org/name`."""
    branch: str = MAIN
    message: str = DEFAULT_MESSAGE
    """Commit message."""
    create: bool = False
    """Whether to create a missing repo (as private) and branch."""
    private: bool = True
    """Confirmation that the repo is private; without it a push is refused."""
    delete: bool = False
    """Whether to delete files that only the branch has."""
    xet: bool = False
    """Whether huggingface_hub may use Xet, which reports progress only for whole files."""

    def check(self) -> None:
        """Check all values.

        Raises:
            OpError: `validation_error`, naming the invalid value.
        """
        name = printable(self.repo_id[:120])
        if "/" not in self.repo_id or not is_valid_repo_name(self.repo_id):
            raise _invalid(f"'{name}' is not the full name of a repo.", Remedy.GIVE_REPO_NAME)
        branch = printable(self.branch[:120])
        if not self.branch or len(self.branch) > _MAX_BRANCH or _INVALID_BRANCH.search(self.branch):
            raise _invalid(f"'{branch}' is not a valid branch name, such as 'main' or 'feat/x'.")
        if not self.message.strip() or len(self.message) > _MAX_MESSAGE:
            raise _invalid(
                f"The commit message is empty or longer than {_MAX_MESSAGE:,} characters.",
                Remedy.GIVE_COMMIT_MESSAGE,
            )
        if not self.private:
            raise _invalid(
                "A push is allowed to private repos only, which must be confirmed.", Remedy.CONFIRM_PRIVATE
            )


@dataclass(frozen=True)
class PushLimits:
    """Time-outs of an upload, in seconds."""

    connect_s: float = 10.0
    """To establish a connection."""
    read_s: float = 60.0
    """To receive or send the next bytes."""
    stall_s: float = 240.0
    """Without any progress; not applied with Xet, which reports too little."""


def _invalid(message: str, remedy: Remedy | None = None) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message, remedy=remedy)
