"""The error types of the JSON contract and the one exception that carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from mlxk_tui.ops.core.remedies import NO_FACTS, ErrorFacts, Remedy, remedy_of

if TYPE_CHECKING:
    from pydantic import BaseModel


class ErrorType(str, Enum):
    """Every value that `error.type` can take; documented with exit code and HTTP status in `ERRORS`."""

    VALIDATION_ERROR = "validation_error"
    COMMAND_ERROR = "command_error"
    MODEL_NOT_FOUND = "model_not_found"
    AMBIGUOUS_MATCH = "ambiguous_match"
    REVISION_NOT_FOUND = "revision_not_found"
    CACHE_NOT_FOUND = "cache_not_found"
    LOCKS_PRESENT = "locks_present"
    CONFIRMATION_REQUIRED = "confirmation_required"
    PERMISSION_DENIED = "permission_denied"
    DISK_FULL = "disk_full"
    ACCESS_DENIED = "access_denied"
    AUTH_ERROR = "auth_error"
    REPO_NOT_FOUND = "repo_not_found"
    BRANCH_CREATE_FAILED = "branch_create_failed"
    NETWORK_ERROR = "network_error"
    DOWNLOAD_FAILED = "download_failed"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    CANCELLED = "cancelled"
    WORKSPACE_NOT_FOUND = "workspace_not_found"
    UPLOAD_FAILED = "upload_failed"
    PUSH_OPERATION_FAILED = "push_operation_failed"
    CLONE_FAILED = "clone_failed"
    DEPENDENCY_MISSING = "dependency_missing"
    FEATURE_DISABLED = "feature_disabled"
    MODEL_NOT_RUNNABLE = "model_not_runnable"
    INSUFFICIENT_MEMORY = "insufficient_memory"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    ENGINE_CRASHED = "engine_crashed"
    PORT_IN_USE = "port_in_use"
    INTERNAL_ERROR = "internal_error"


class AccessReason(str, Enum):
    """Why the hub gives no access to a repo: `error.reason`."""

    GATED = "gated"
    """Its authors give access to those who ask."""
    FORBIDDEN = "forbidden"
    """The hub knows who asks, and refuses."""
    UNAUTHORIZED = "unauthorized"
    """No token, or one that the hub does not accept."""
    NOT_FOUND = "not_found"
    """It does not exist, or is private: the hub answers the same to who may not see it."""
    DISABLED = "disabled"
    """The hub has closed it for everybody."""


class ErrorTypeInfo(NamedTuple):
    """What a front end does with an error type."""

    exit_code: int
    """Exit status of the headless command."""
    http_status: int
    """Status of the OpenAI-compatible server for the same fault."""
    meaning: str
    """One line for the documentation."""


ERRORS: dict[ErrorType, ErrorTypeInfo] = {
    ErrorType.VALIDATION_ERROR: ErrorTypeInfo(1, 400, "A value is malformed; nothing was touched."),
    ErrorType.COMMAND_ERROR: ErrorTypeInfo(2, 400, "The command line is not understood."),
    ErrorType.MODEL_NOT_FOUND: ErrorTypeInfo(1, 404, "No cached model matches the name."),
    ErrorType.AMBIGUOUS_MATCH: ErrorTypeInfo(1, 409, "More than one model matches; `matches` lists them."),
    ErrorType.REVISION_NOT_FOUND: ErrorTypeInfo(1, 404, "The model is cached, the revision is not."),
    ErrorType.CACHE_NOT_FOUND: ErrorTypeInfo(1, 404, "The cache folder does not exist."),
    ErrorType.LOCKS_PRESENT: ErrorTypeInfo(1, 409, "Another process holds locks on the model."),
    ErrorType.CONFIRMATION_REQUIRED: ErrorTypeInfo(1, 409, "The deletion needs `-f` or the exact full name."),
    ErrorType.PERMISSION_DENIED: ErrorTypeInfo(1, 403, "The file system refused."),
    ErrorType.DISK_FULL: ErrorTypeInfo(1, 507, "No space is left on the device."),
    ErrorType.ACCESS_DENIED: ErrorTypeInfo(1, 403, "The hub gives no access to the repo; `reason` says why."),
    ErrorType.AUTH_ERROR: ErrorTypeInfo(1, 401, "No token, or one that the hub does not accept."),
    ErrorType.REPO_NOT_FOUND: ErrorTypeInfo(1, 404, "The repo does not exist on the hub."),
    ErrorType.BRANCH_CREATE_FAILED: ErrorTypeInfo(1, 502, "The hub did not create the branch."),
    ErrorType.NETWORK_ERROR: ErrorTypeInfo(1, 502, "The hub cannot be reached."),
    ErrorType.DOWNLOAD_FAILED: ErrorTypeInfo(1, 502, "A transfer failed; it can be resumed."),
    ErrorType.CHECKSUM_MISMATCH: ErrorTypeInfo(1, 502, "Bytes differ from their checksum."),
    ErrorType.CANCELLED: ErrorTypeInfo(1, 499, "The user stopped it."),
    ErrorType.WORKSPACE_NOT_FOUND: ErrorTypeInfo(1, 404, "The local folder does not exist."),
    ErrorType.UPLOAD_FAILED: ErrorTypeInfo(1, 502, "The hub refused the upload."),
    ErrorType.PUSH_OPERATION_FAILED: ErrorTypeInfo(1, 500, "The push failed unexpectedly."),
    ErrorType.CLONE_FAILED: ErrorTypeInfo(1, 500, "The clone could not be completed."),
    ErrorType.DEPENDENCY_MISSING: ErrorTypeInfo(1, 501, "A package that this needs is not installed."),
    ErrorType.FEATURE_DISABLED: ErrorTypeInfo(1, 403, "The feature is switched off."),
    ErrorType.MODEL_NOT_RUNNABLE: ErrorTypeInfo(1, 422, "The model cannot run here."),
    ErrorType.INSUFFICIENT_MEMORY: ErrorTypeInfo(1, 503, "The model does not fit into memory."),
    ErrorType.CONTEXT_LENGTH_EXCEEDED: ErrorTypeInfo(1, 400, "The prompt is longer than the context."),
    ErrorType.ENGINE_CRASHED: ErrorTypeInfo(
        1, 503, "The inference process ended; it restarts with the next request."
    ),
    ErrorType.PORT_IN_USE: ErrorTypeInfo(1, 409, "Another program listens on the port."),
    ErrorType.INTERNAL_ERROR: ErrorTypeInfo(1, 500, "A fault of this program; please report it."),
}
"""Facts of each error type."""


@dataclass(frozen=True)
class ContextOverflow:
    """Figures of `context_length_exceeded`, for front ends that word it as their clients expect it."""

    prompt_tokens: int
    context_length: int
    at_least: bool = False
    """The prompt was not counted to its end: it has as many tokens, or more."""

    @property
    def counted(self) -> str:
        """Such as `5000 tokens` or `at least 5000 tokens`; clients read the plain number."""
        return f"{'at least ' if self.at_least else ''}{self.prompt_tokens} tokens"


class OpError(Exception):
    """An operation failed for a reason that the user can be told.

    Attributes:
        type: the contract's error type.
        message: the cause, in words that hold for every front end: no key, no option, no command, and
            never a token. No module looks into it.
        remedy: what to do about it; each front end says that in its own words.
        facts: what front ends make use of.
        matches: candidate model names of `ambiguous_match` and `confirmation_required`, sorted.
        available_hashes: cached commit hashes of `revision_not_found`, sorted.
        reason: why the hub gave no access; None for every other fault.
        data: the command's partial result (`data` of the envelope), where the contract has one.
        overflow: the figures of `context_length_exceeded`, where they are known.
    """

    def __init__(
        self,
        type: ErrorType,  # noqa: A002 - the contract's own name
        message: str,
        *,
        remedy: Remedy | None = None,
        facts: ErrorFacts = NO_FACTS,
        matches: Sequence[str] = (),
        available_hashes: Sequence[str] = (),
        reason: AccessReason | None = None,
        data: BaseModel | None = None,
        overflow: ContextOverflow | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.message = message
        self.remedy = remedy
        self.facts = facts
        self.matches = tuple(sorted(matches))
        self.available_hashes = tuple(sorted(available_hashes))
        self.reason = reason
        self.data = data
        self.overflow = overflow

    @property
    def parts(self) -> dict[str, object]:
        """What another process is sent of it: type, message, remedy and facts, as JSON has them."""
        return {
            "type": self.type.value,
            "message": self.message,
            "remedy": self.remedy.value if self.remedy else None,
            "facts": self.facts.as_dict(),
        }

    @classmethod
    def from_parts(cls, parts: Mapping[str, object]) -> OpError:
        """Return the error that `parts` tells of; an unknown or missing remedy is none.

        Raises:
            KeyError, TypeError, ValueError: it tells of no error.
        """
        message = parts["message"]
        if not isinstance(message, str):
            raise TypeError(message)
        return cls(
            ErrorType(parts["type"]),
            message,
            remedy=remedy_of(parts.get("remedy")),
            facts=ErrorFacts.read(parts.get("facts")),
        )

    def as_type(self, kind: ErrorType, message: str | None = None) -> OpError:
        """Return this error as one of another type, without its data: the remedy and the facts stay.

        Args:
            kind: the type.
            message: another cause, such as one that says what it came of; None keeps it.
        """
        return OpError(
            kind,
            self.message if message is None else message,
            remedy=self.remedy,
            facts=self.facts,
            matches=self.matches,
            available_hashes=self.available_hashes,
            reason=self.reason,
            overflow=self.overflow,
        )

    def as_access_denied(self) -> OpError:
        """Return this error, as `access_denied` where the repo is missing, private or needs a valid token.

        A pull does not tell these apart by type, as MLX-Knife does not; `reason` does.
        """
        if self.type in _NO_ACCESS:
            self.reason = self.reason or _NO_ACCESS[self.type]
            self.type = ErrorType.ACCESS_DENIED
        return self


_NO_ACCESS = {
    ErrorType.ACCESS_DENIED: AccessReason.FORBIDDEN,
    ErrorType.AUTH_ERROR: AccessReason.UNAUTHORIZED,
    ErrorType.REPO_NOT_FOUND: AccessReason.NOT_FOUND,
}
"""Error types that mean no access, and the reason where none is known more finely."""
