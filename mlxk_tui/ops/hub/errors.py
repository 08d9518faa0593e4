"""What the errors of the hub, of its client and of the way there mean for the user.

Exceptions are known by the names of their classes: huggingface_hub changed its HTTP library between two
major versions and kept the names, and nothing has to be imported for it. Their own texts are not shown:
they hold addresses, headers and whatever the server says.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_type
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.retry_after import retry_after
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.proxies import proxy_fault

_MAX_WORDS = 200
_TIMEOUTS = frozenset({"TimeoutException", "TimeoutError"})
_UNREACHABLE = frozenset({"ConnectError", "ProxyError", "UnsupportedProtocol"})
_BROKEN = frozenset({"TransportError", "RequestError", "ConnectionError"})
_NOT_UNDERSTOOD = frozenset(
    {
        "AnswerError",
        "DecodingError",
        "JSONDecodeError",
        "RecursionError",
        "TooManyRedirects",
        "UnicodeDecodeError",
    }
)


@dataclass(frozen=True)
class RequestContext:
    """What was asked of the hub, for the messages; never holds a token."""

    endpoint: str
    repo: str = ""
    """The repo, or empty where the request is about none."""
    revision: str | None = None
    with_token: bool = False
    """Whether a token was sent."""
    secret: str | None = None
    """The token, only to strike it out of a server's words."""

    @property
    def host(self) -> str:
        """The hub as people know it, without credentials that an address can hold."""
        return shown_endpoint(self.endpoint).partition("://")[2]

    @property
    def what(self) -> str:
        """The repo, or the hub's host."""
        return printable(self.repo) if self.repo else self.host


def shown_endpoint(endpoint: str) -> str:
    """Return an endpoint without user name and password, safe to show."""
    try:
        parts = urlsplit(endpoint)
        port = f":{parts.port}" if parts.port else ""
        return printable(f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}".rstrip("/"))
    except ValueError:
        return "the hub"


def map_error(error: BaseException, asked: RequestContext) -> OpError:
    """Return the typed error for anything that a request to the hub raised."""
    for link in _chain(error):
        if isinstance(link, OpError):
            return link
        known = _known(link, asked)
        if known is not None:
            return known
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"Talking to {asked.host} failed ({type(error).__name__}).",
        remedy=Remedy.TRY_AGAIN,
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it: huggingface_hub wraps the real reason in 'not found locally'."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _known(error: BaseException, asked: RequestContext) -> OpError | None:
    proxy = proxy_fault(error)
    if proxy is not None:
        return proxy
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OfflineModeIsEnabled" in names:
        return offline(asked)
    if "HFValidationError" in names:
        return OpError(
            ErrorType.VALIDATION_ERROR,
            f"'{asked.what}' is not a name that the hub allows.",
            remedy=Remedy.GIVE_REPO_NAME,
        )
    if "LocalTokenNotFoundError" in names:
        return OpError(
            ErrorType.AUTH_ERROR,
            "This needs a token.",
            remedy=Remedy.LOG_IN,
            reason=AccessReason.UNAUTHORIZED,
        )
    response = getattr(error, "response", None)
    if "HfHubHTTPError" in names and response is not None:
        return _refused(names, response, asked)
    if "LocalEntryNotFoundError" in names:  # its cause says why
        return None
    if names & _TIMEOUTS:
        return timed_out(asked)
    if names & _UNREACHABLE:
        return _unreachable(error, asked)
    if names & _NOT_UNDERSTOOD:
        return not_understood(asked)
    if names & _BROKEN:
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"The connection to {asked.host} broke off.",
            remedy=Remedy.CHECK_NETWORK,
        )
    return _local(error) if isinstance(error, OSError) else None


def offline(asked: RequestContext) -> OpError:
    """Return the error for a request while HF_HUB_OFFLINE is set."""
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"HF_HUB_OFFLINE is set, so {asked.host} is not asked.",
        remedy=Remedy.GO_ONLINE,
    )


def timed_out(asked: RequestContext) -> OpError:
    """Return the error for a hub that does not answer."""
    return OpError(
        ErrorType.NETWORK_ERROR, f"{asked.host} did not answer in time.", remedy=Remedy.CHECK_NETWORK
    )


def not_understood(asked: RequestContext) -> OpError:
    """Return the error for an answer that makes no sense."""
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"The answer of {asked.host} about {asked.what} is not understood.",
        remedy=Remedy.CHECK_ENDPOINT,
    )


def _unreachable(error: BaseException, asked: RequestContext) -> OpError:
    if any(isinstance(link, ssl.SSLError) or "CERTIFICATE" in str(link) for link in _chain(error)):
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"The certificate of {asked.host} is not trusted.",
            remedy=Remedy.CHECK_CERTIFICATES,
        )
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"{asked.host} cannot be reached.",
        remedy=Remedy.CHECK_PROXY,
    )


def _refused(names: set[str], response: Any, asked: RequestContext) -> OpError:
    """Return what an answer with an error status means."""
    status = int(getattr(response, "status_code", 0) or 0)
    headers: Mapping[str, str] = getattr(response, "headers", {})
    words = headers.get("X-Error-Message") or ""
    revision = printable(asked.revision or "main")
    if "GatedRepoError" in names:
        return _gated(asked)
    if "DisabledRepoError" in names:
        return OpError(
            ErrorType.ACCESS_DENIED,
            f"{asked.what} is disabled on {asked.host}: nobody can download it now.",
            reason=AccessReason.DISABLED,
        )
    if "RevisionNotFoundError" in names:
        return OpError(
            ErrorType.REVISION_NOT_FOUND,
            f"{asked.what} has no branch, tag or commit '{revision}' on {asked.host}.",
            remedy=Remedy.LOOK_ON_HUB,
        )
    # The hub answers 401 for a repo that does not exist when nobody is logged in, and 404 to those who are:
    # with a token, 401 is about the token, whatever it says besides ("RepoNotFound" of some servers).
    if status == 401 and (asked.with_token or "RepositoryNotFoundError" not in names):
        return _unauthorised(asked)
    if "RepositoryNotFoundError" in names:
        return OpError(
            ErrorType.REPO_NOT_FOUND,
            f"{asked.what} is not on {asked.host}.",
            remedy=Remedy.CHECK_NAME_OR_MEMBERSHIP if asked.with_token else Remedy.CHECK_NAME_OR_LOG_IN,
            reason=AccessReason.NOT_FOUND,
        )
    if "EntryNotFoundError" in names:
        return OpError(
            ErrorType.DOWNLOAD_FAILED,
            f"A file of {asked.what} is no longer on {asked.host}.",
            remedy=Remedy.PULL_AGAIN,
        )
    if status in {403, 451}:
        said = _said(words, asked)
        return OpError(
            ErrorType.ACCESS_DENIED,
            f"{asked.host} refuses access to {asked.what}{said}.",
            remedy=Remedy.CHECK_TOKEN_RIGHTS if asked.with_token else Remedy.LOG_IN,
            reason=AccessReason.FORBIDDEN,
        )
    if status == 429:
        wait = math.ceil(retry_after(headers) or 0)
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"{asked.host} has had too many requests.",
            remedy=Remedy.TRY_LATER if asked.with_token else Remedy.TRY_LATER_OR_LOG_IN,
            facts=ErrorFacts(wait_s=wait or None),
        )
    if status >= 500:
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"{asked.host} has a fault of its own (status {status}).",
            remedy=Remedy.TRY_LATER,
        )
    return OpError(
        ErrorType.NETWORK_ERROR,
        f"{asked.host} refuses the request about {asked.what} (status {status}){_said(words, asked)}.",
        remedy=Remedy.CHECK_ENDPOINT,
    )


def _gated(asked: RequestContext) -> OpError:
    page = f"{shown_endpoint(asked.endpoint)}/{asked.what}"
    yet = ", and the token's account has no access yet" if asked.with_token else ""
    return OpError(
        ErrorType.ACCESS_DENIED,
        f"{asked.what} is gated{yet}.",
        remedy=Remedy.ACCEPT_TERMS if asked.with_token else Remedy.ACCEPT_TERMS_AND_LOG_IN,
        facts=ErrorFacts(name=asked.what, url=page),
        reason=AccessReason.GATED,
    )


def _unauthorised(asked: RequestContext) -> OpError:
    if asked.with_token:
        message = f"{asked.host} does not accept the token: it is wrong or has expired."
    else:
        message = f"{asked.host} wants to know who asks for {asked.what}."
    remedy = Remedy.REPLACE_TOKEN if asked.with_token else Remedy.LOG_IN
    return OpError(ErrorType.AUTH_ERROR, message, remedy=remedy, reason=AccessReason.UNAUTHORIZED)


def _said(words: str, asked: RequestContext) -> str:
    """Return a server's own words as the rest of a sentence, struck of the token and made safe to show."""
    if asked.secret:
        words = words.replace(asked.secret, "…")
    words = printable(words.strip()[:_MAX_WORDS]).rstrip(".")
    return f": {words}" if words else ""


def _local(error: OSError) -> OpError | None:
    """Return what an error of this machine's own means, else None."""
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
