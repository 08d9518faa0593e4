"""Error types of the JSON contract, and the exception that carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from mlxk_tui.ops.core.remedies import NO_FACTS, ErrorFacts, Remedy, to_remedy

if TYPE_CHECKING:
    from pydantic import BaseModel


class ErrorType(str, Enum):
    """Values of `error.type`; `ERRORS` has the exit code and the HTTP status of each."""

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
    """Why the hub denies access to a repo: values of `error.reason`."""

    GATED = "gated"
    """The repo's authors grant access on request."""
    FORBIDDEN = "forbidden"
    """The hub knows the account and refuses."""
    UNAUTHORIZED = "unauthorized"
    """No token, or a token that the hub rejects."""
    NOT_FOUND = "not_found"
    """The repo does not exist or is private; the hub does not distinguish the two without access."""
    DISABLED = "disabled"
    """The hub has disabled the repo for everyone."""


class ErrorTypeInfo(NamedTuple):
    """How front ends report an error type."""

    exit_code: int
    """Exit status of `mlxk-headless`."""
    http_status: int
    """Status of the HTTP server's response."""
    meaning: str
    """Description in `docs/json-api.md`."""


ERRORS: dict[ErrorType, ErrorTypeInfo] = {
    ErrorType.VALIDATION_ERROR: ErrorTypeInfo(1, 400, "A value is malformed; nothing was changed."),
    ErrorType.COMMAND_ERROR: ErrorTypeInfo(2, 400, "The command line is invalid."),
    ErrorType.MODEL_NOT_FOUND: ErrorTypeInfo(1, 404, "No cached model matches the name."),
    ErrorType.AMBIGUOUS_MATCH: ErrorTypeInfo(1, 409, "More than one model matches; `matches` lists them."),
    ErrorType.REVISION_NOT_FOUND: ErrorTypeInfo(1, 404, "The model is cached, the revision is not."),
    ErrorType.CACHE_NOT_FOUND: ErrorTypeInfo(1, 404, "The cache folder does not exist."),
    ErrorType.LOCKS_PRESENT: ErrorTypeInfo(1, 409, "Another process holds locks on the model."),
    ErrorType.CONFIRMATION_REQUIRED: ErrorTypeInfo(1, 409, "The deletion needs `-f` or the exact full name."),
    ErrorType.PERMISSION_DENIED: ErrorTypeInfo(1, 403, "The file system refused access."),
    ErrorType.DISK_FULL: ErrorTypeInfo(1, 507, "No space is left on the device."),
    ErrorType.ACCESS_DENIED: ErrorTypeInfo(1, 403, "The hub gives no access to the repo; `reason` says why."),
    ErrorType.AUTH_ERROR: ErrorTypeInfo(1, 401, "No token, or a token that the hub rejects."),
    ErrorType.REPO_NOT_FOUND: ErrorTypeInfo(1, 404, "The repo does not exist on the hub."),
    ErrorType.BRANCH_CREATE_FAILED: ErrorTypeInfo(1, 502, "The hub did not create the branch."),
    ErrorType.NETWORK_ERROR: ErrorTypeInfo(1, 502, "The hub cannot be reached."),
    ErrorType.DOWNLOAD_FAILED: ErrorTypeInfo(1, 502, "A transfer failed; it can be resumed."),
    ErrorType.CHECKSUM_MISMATCH: ErrorTypeInfo(1, 502, "Bytes differ from their checksum."),
    ErrorType.CANCELLED: ErrorTypeInfo(1, 499, "The user cancelled the operation."),
    ErrorType.WORKSPACE_NOT_FOUND: ErrorTypeInfo(1, 404, "The local folder does not exist."),
    ErrorType.UPLOAD_FAILED: ErrorTypeInfo(1, 502, "The hub refused the upload."),
    ErrorType.PUSH_OPERATION_FAILED: ErrorTypeInfo(1, 500, "The push failed unexpectedly."),
    ErrorType.CLONE_FAILED: ErrorTypeInfo(1, 500, "The clone could not be completed."),
    ErrorType.DEPENDENCY_MISSING: ErrorTypeInfo(1, 501, "A required package is not installed."),
    ErrorType.FEATURE_DISABLED: ErrorTypeInfo(1, 403, "The feature is disabled."),
    ErrorType.MODEL_NOT_RUNNABLE: ErrorTypeInfo(1, 422, "The model cannot run here."),
    ErrorType.INSUFFICIENT_MEMORY: ErrorTypeInfo(1, 503, "The model does not fit into memory."),
    ErrorType.CONTEXT_LENGTH_EXCEEDED: ErrorTypeInfo(1, 400, "The prompt is longer than the context."),
    ErrorType.ENGINE_CRASHED: ErrorTypeInfo(
        1, 503, "The inference process ended; it restarts with the next request."
    ),
    ErrorType.PORT_IN_USE: ErrorTypeInfo(1, 409, "Another program listens on the port."),
    ErrorType.INTERNAL_ERROR: ErrorTypeInfo(1, 500, "A bug in this program; please report it."),
}
"""Exit code, HTTP status and meaning of each error type."""


@dataclass(frozen=True)
class ContextOverflow:
    """Token counts of `context_length_exceeded`; front ends word them as their clients expect."""

    prompt_tokens: int
    context_length: int
    at_least: bool = False
    """The prompt was not counted to its end, so `prompt_tokens` is a lower bound."""

    @property
    def counted(self) -> str:
        """The prompt's length, such as `5000 tokens` or `at least 5000 tokens`; clients parse the number."""
        return f"{'at least ' if self.at_least else ''}{self.prompt_tokens} tokens"


class OpError(Exception):
    """An operation failed, for a reason that users can understand.

    Attributes:
        type: the contract's error type.
        message: the cause, worded for every front end: without keys, options, commands or tokens. No
            module searches it.
        remedy: what the user can do; each front end words it.
        facts: values that front ends fill into the remedy's text.
        matches: candidate model names of `ambiguous_match` and `confirmation_required`, sorted.
        available_hashes: cached commit hashes of `revision_not_found`, sorted.
        reason: why the hub denied access; None for every other error.
        data: the command's partial result (`data` of the envelope), where the contract has one.
        overflow: the token counts of `context_length_exceeded`, where they are known.
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

    def to_dict(self) -> dict[str, object]:
        """Return type, message, remedy and facts as JSON values, to send to another process."""
        return {
            "type": self.type.value,
            "message": self.message,
            "remedy": self.remedy.value if self.remedy else None,
            "facts": self.facts.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> OpError:
        """Return the error that `to_dict` described; an unknown or missing remedy becomes None.

        Raises:
            KeyError, TypeError, ValueError: `values` do not describe an error.
        """
        message = values["message"]
        if not isinstance(message, str):
            raise TypeError(message)
        return cls(
            ErrorType(values["type"]),
            message,
            remedy=to_remedy(values.get("remedy")),
            facts=ErrorFacts.from_dict(values.get("facts")),
        )

    def as_type(self, kind: ErrorType, message: str | None = None) -> OpError:
        """Return a copy of this error with another type, without its data.

        Args:
            kind: the new type.
            message: a new message, such as one that names the consequence; None keeps the message.
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
        """Change the type to `access_denied` where the repo is missing, private or needs a valid token.

        A pull reports all of these as one type, as MLX-Knife does; `reason` distinguishes them.

        Returns:
            This error.
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
"""Error types that mean no access, and the reason to report where none is set."""
