"""Maps errors of the hub, of its client and of the connection to the contract's error types.

Exceptions are recognized by their class names: huggingface_hub changed its HTTP library between two major
versions and kept the names, and nothing has to be imported. Their texts are not shown, because they
contain addresses, headers and arbitrary text from the server.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_type
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.retry_after import retry_after
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.proxies import proxy_error

if TYPE_CHECKING:
    from http.client import HTTPMessage

_MAX_MESSAGE = 200
GATED, DISABLED, REPO_NOT_FOUND = "GatedRepo", "Disabled", "RepoNotFound"
REVISION_NOT_FOUND, ENTRY_NOT_FOUND = "RevisionNotFound", "EntryNotFound"
"""Error codes of the hub (`X-Error-Code`). `DISABLED` is our own: the hub sends a message without a code."""
_CODES = {
    "GatedRepoError": GATED,  # first, because it derives from RepositoryNotFoundError
    "DisabledRepoError": DISABLED,
    "RevisionNotFoundError": REVISION_NOT_FOUND,
    "RepositoryNotFoundError": REPO_NOT_FOUND,
    "EntryNotFoundError": ENTRY_NOT_FOUND,
}
_DISABLED_MESSAGE = "Access to this resource is disabled."
_TIMEOUTS = frozenset({"TimeoutException", "TimeoutError"})
_UNREACHABLE = frozenset({"ConnectError", "ProxyError", "UnsupportedProtocol"})
_INTERRUPTED = frozenset({"TransportError", "RequestError", "ConnectionError"})
_INVALID_RESPONSES = frozenset(
    {
        "ResponseError",
        "DecodingError",
        "JSONDecodeError",
        "RecursionError",
        "TooManyRedirects",
        "UnicodeDecodeError",
    }
)


@dataclass(frozen=True)
class RequestContext:
    """The hub, repo and account of a request, for error messages; they never contain a token."""

    endpoint: str
    repo: str = ""
    """The repo; empty if the request is not about a repo."""
    revision: str | None = None
    with_token: bool = False
    """Whether the request carries a token."""
    secret: str | None = None
    """The token, used only to remove it from the server's text."""

    @property
    def host(self) -> str:
        """The hub's host without credentials that an address can contain."""
        return display_endpoint(self.endpoint).partition("://")[2]

    @property
    def subject(self) -> str:
        """The repo, or the hub's host if there is none."""
        return printable(self.repo) if self.repo else self.host


def display_endpoint(endpoint: str) -> str:
    """Return an endpoint without user name and password, escaped for display."""
    try:
        parts = urlsplit(endpoint)
        port = f":{parts.port}" if parts.port else ""
        return printable(f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}".rstrip("/"))
    except ValueError:
        return "the hub"


def map_error(error: BaseException, context: RequestContext) -> OpError:
    """Return the OpError for any exception raised by a request to the hub."""
    for link in _causes(error):
        if isinstance(link, OpError):
            return link
        known = _to_known_error(link, context)
        if known is not None:
            return known
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"The request to {context.host} failed ({type(error).__name__}).",
        remedy=Remedy.TRY_AGAIN,
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes: huggingface_hub wraps the actual one in 'not found locally'."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _to_known_error(error: BaseException, context: RequestContext) -> OpError | None:
    proxy = proxy_error(error)
    if proxy is not None:
        return proxy
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OfflineModeIsEnabled" in names:
        return offline_error(context)
    if "HFValidationError" in names:
        return OpError(
            ErrorType.VALIDATION_ERROR,
            f"'{context.subject}' is not a valid repo name.",
            remedy=Remedy.GIVE_REPO_NAME,
        )
    if "LocalTokenNotFoundError" in names:
        return OpError(
            ErrorType.AUTH_ERROR,
            "This request requires a token.",
            remedy=Remedy.LOG_IN,
            reason=AccessReason.UNAUTHORIZED,
        )
    response = getattr(error, "response", None)
    if "HfHubHTTPError" in names and response is not None:
        return _from_status(names, response, context)
    if "LocalEntryNotFoundError" in names:  # its cause has the reason
        return None
    if names & _TIMEOUTS:
        return timeout_error(context)
    if names & _UNREACHABLE:
        return _unreachable(error, context)
    if names & _INVALID_RESPONSES:
        return invalid_response_error(context)
    if names & _INTERRUPTED:
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"The connection to {context.host} was interrupted.",
            remedy=Remedy.CHECK_NETWORK,
        )
    return _local_error(error) if isinstance(error, OSError) else None


def offline_error(context: RequestContext) -> OpError:
    """Return the error for a request while HF_HUB_OFFLINE is set."""
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"HF_HUB_OFFLINE is set, so {context.host} was not contacted.",
        remedy=Remedy.GO_ONLINE,
    )


def timeout_error(context: RequestContext) -> OpError:
    """Return the error for a hub that does not respond in time."""
    return OpError(
        ErrorType.NETWORK_ERROR, f"{context.host} did not respond in time.", remedy=Remedy.CHECK_NETWORK
    )


def invalid_response_error(context: RequestContext) -> OpError:
    """Return the error for an invalid response."""
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"{context.host} sent an invalid response about {context.subject}.",
        remedy=Remedy.CHECK_ENDPOINT,
    )


def _unreachable(error: BaseException, context: RequestContext) -> OpError:
    if any(isinstance(link, ssl.SSLError) or "CERTIFICATE" in str(link) for link in _causes(error)):
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"The certificate of {context.host} is not trusted.",
            remedy=Remedy.CHECK_CERTIFICATES,
        )
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"{context.host} cannot be reached.",
        remedy=Remedy.CHECK_PROXY,
    )


def error_code(status: int, headers: Mapping[str, str] | HTTPMessage) -> str:
    """Return the error code of a response, or ""; for requests that are not made by huggingface_hub.

    The rules are those of huggingface_hub's `hf_raise_for_status`.
    """
    code = headers.get("X-Error-Code") or ""
    if code in {REVISION_NOT_FOUND, ENTRY_NOT_FOUND, GATED}:
        return code
    if headers.get("X-Error-Message") == _DISABLED_MESSAGE:
        return DISABLED
    return code or (REPO_NOT_FOUND if status == 401 else "")


def access_error(status: int, code: str, server_text: str, context: RequestContext) -> OpError | None:
    """Return the error for a repo that is missing or not accessible with this token; None for other errors.

    Args:
        status: HTTP status.
        code: see `error_code`.
        server_text: the response's `X-Error-Message`, or "".
        context: the request.
    """
    if code == GATED:
        return _gated_error(context)
    if code == DISABLED:
        return OpError(
            ErrorType.ACCESS_DENIED,
            f"{context.subject} is disabled on {context.host} and cannot be downloaded.",
            reason=AccessReason.DISABLED,
        )
    # Without a token the hub answers 401 for a missing repo, and 404 otherwise. With a token, 401 is about
    # the token, whatever the error code ("RepoNotFound" on some servers).
    if status == 401 and (context.with_token or code != REPO_NOT_FOUND):
        return _unauthorized_error(context)
    if code == REPO_NOT_FOUND:
        return OpError(
            ErrorType.REPO_NOT_FOUND,
            f"{context.subject} is not on {context.host}.",
            remedy=Remedy.CHECK_NAME_OR_MEMBERSHIP if context.with_token else Remedy.CHECK_NAME_OR_LOG_IN,
            reason=AccessReason.NOT_FOUND,
        )
    if status in {403, 451}:
        detail = _server_message(server_text, context)
        return OpError(
            ErrorType.ACCESS_DENIED,
            f"{context.host} denies access to {context.subject}{detail}.",
            remedy=Remedy.CHECK_TOKEN_RIGHTS if context.with_token else Remedy.LOG_IN,
            reason=AccessReason.FORBIDDEN,
        )
    return None


def _from_status(names: set[str], response: Any, context: RequestContext) -> OpError:
    """Return the error for a response with an error status."""
    status = int(getattr(response, "status_code", 0) or 0)
    headers: Mapping[str, str] = getattr(response, "headers", {})
    server_text = headers.get("X-Error-Message") or ""
    code = next((code for name, code in _CODES.items() if name in names), "")
    if code == REVISION_NOT_FOUND:
        revision = printable(context.revision or "main")
        return OpError(
            ErrorType.REVISION_NOT_FOUND,
            f"{context.subject} has no branch, tag or commit '{revision}' on {context.host}.",
            remedy=Remedy.LOOK_ON_HUB,
        )
    denied = access_error(status, code, server_text, context)
    if denied is not None:
        return denied
    if code == ENTRY_NOT_FOUND:
        return OpError(
            ErrorType.DOWNLOAD_FAILED,
            f"A file of {context.subject} is no longer on {context.host}.",
            remedy=Remedy.PULL_AGAIN,
        )
    if status == 429:
        wait = math.ceil(retry_after(headers) or 0)
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"{context.host} has received too many requests.",
            remedy=Remedy.TRY_LATER if context.with_token else Remedy.TRY_LATER_OR_LOG_IN,
            facts=ErrorFacts(wait_s=wait or None),
        )
    if status >= 500:
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"{context.host} reported a server error (status {status}).",
            remedy=Remedy.TRY_LATER,
        )
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"{context.host} rejected the request about {context.subject} (status {status})"
        f"{_server_message(server_text, context)}.",
        remedy=Remedy.CHECK_ENDPOINT,
    )


def _gated_error(context: RequestContext) -> OpError:
    page = f"{display_endpoint(context.endpoint)}/{context.subject}"
    yet = ", and the token's account has no access yet" if context.with_token else ""
    return OpError(
        ErrorType.ACCESS_DENIED,
        f"{context.subject} is gated{yet}.",
        remedy=Remedy.ACCEPT_TERMS if context.with_token else Remedy.ACCEPT_TERMS_AND_LOG_IN,
        facts=ErrorFacts(name=context.subject, url=page),
        reason=AccessReason.GATED,
    )


def _unauthorized_error(context: RequestContext) -> OpError:
    if context.with_token:
        message = f"{context.host} rejected the token: it is invalid or has expired."
    else:
        message = f"{context.host} requires a token for {context.subject}."
    remedy = Remedy.REPLACE_TOKEN if context.with_token else Remedy.LOG_IN
    return OpError(ErrorType.AUTH_ERROR, message, remedy=remedy, reason=AccessReason.UNAUTHORIZED)


def _server_message(server_text: str, context: RequestContext) -> str:
    """Return a server's text as the end of a sentence, without the token and escaped for display."""
    if context.secret:
        server_text = server_text.replace(context.secret, "…")
    server_text = printable(server_text.strip()[:_MAX_MESSAGE]).rstrip(".")
    return f": {server_text}" if server_text else ""


def _local_error(error: OSError) -> OpError | None:
    """Return the OpError for an error of this machine's file system, else None."""
    kind = error_type(error)
    if kind is ErrorType.DISK_FULL:
        return OpError(ErrorType.DISK_FULL, "The disk is full.", remedy=Remedy.FREE_SPACE)
    if kind is ErrorType.PERMISSION_DENIED:
        return OpError(
            ErrorType.PERMISSION_DENIED,
            f"The file system refused: {error.strerror}.",
            remedy=Remedy.CHECK_PERMISSIONS,
        )
    return None
