"""What a push is asked to do, and the words and bounds that its parts share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.cache.names import is_valid_repo_name
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import printable

GATE = "MLXK2_ENABLE_EXPERIMENTAL_PUSH"
"""Environment variable that switches push on."""
DEFAULT_MESSAGE = "mlx-knife push"
"""Commit message where none is given; scripts made for MLX-Knife look for it."""
DISCLAIMER = "Experimental feature (M0: upload only). No validation/filters; review results on the Hub."
"""What `data.disclaimer` says, in MLX-Knife's own words."""
MAIN = "main"
KEPT = frozenset({".gitattributes"})
"""Files that the hub itself makes and adds to; a push with `delete` leaves them there."""
XET_OVER = 50_000_000_000
"""Bytes over which a file can only go by Xet."""

_MAX_MESSAGE = 10_000
_MAX_BRANCH = 244
_BAD_BRANCH = re.compile(
    r"[\x00-\x20\x7f-\x9f~^:?*\[\\\ud800-\udfff]|\.\.|//|@\{|/\.|^[./-]|[./]$|\.lock(/|$)"
)
"""What git does not allow in the name of a branch."""


def push_disabled() -> OpError:
    """Return what is wrong where push is not switched on."""
    return OpError(
        ErrorType.FEATURE_DISABLED,
        "Push is experimental and switched off.",
        remedy=Remedy.ENABLE_PUSH,
        facts=ErrorFacts(variable=GATE),
    )


def push_enabled(setting: bool, environ: Mapping[str, str]) -> bool:
    """Return whether push may be used: the setting `push`, or MLXK2_ENABLE_EXPERIMENTAL_PUSH=1."""
    return setting or environ.get(GATE) == "1"


@dataclass(frozen=True)
class PushRequest:
    """What to push where."""

    folder: Path
    """The folder with the model."""
    repo_id: str
    """`org/name`."""
    branch: str = MAIN
    message: str = DEFAULT_MESSAGE
    """The commit's message."""
    create: bool = False
    """Whether repo and branch are made where they do not exist; a repo is made private."""
    private: bool = True
    """Whether only a private repo will do, which is the only way: a push without it is refused."""
    delete: bool = False
    """Whether files of the branch that the folder lacks are deleted there."""
    xet: bool = False
    """Whether huggingface_hub may use Xet, which tells of progress by whole files only."""

    def check(self) -> None:
        """Look at every value.

        Raises:
            OpError: `validation_error`, saying which and why.
        """
        name = printable(self.repo_id[:120])
        if "/" not in self.repo_id or not is_valid_repo_name(self.repo_id):
            raise _invalid(f"'{name}' is not a repo to push to.", Remedy.GIVE_REPO_NAME)
        branch = printable(self.branch[:120])
        if not self.branch or len(self.branch) > _MAX_BRANCH or _BAD_BRANCH.search(self.branch):
            raise _invalid(f"'{branch}' is not the name of a branch such as 'main' or 'feat/x'.")
        if not self.message.strip() or len(self.message) > _MAX_MESSAGE:
            raise _invalid("The commit message is empty or very long.", Remedy.GIVE_COMMIT_MESSAGE)
        if not self.private:
            raise _invalid("A push goes to private repos only, and has to say so.", Remedy.CONFIRM_PRIVATE)


@dataclass(frozen=True)
class PushLimits:
    """Bounds on waiting while bytes move, in seconds."""

    connect_s: float = 10.0
    """For a connection."""
    read_s: float = 60.0
    """For the next bytes of an answer, or for room to send."""
    stall_s: float = 240.0
    """Without a byte moved or a step done; not with Xet, which tells too little."""


def _invalid(message: str, remedy: Remedy | None = None) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message, remedy=remedy)
