"""Asking a hub for a range of a file: addresses, redirects, and what the answers mean."""

from __future__ import annotations

import re
import time
from http.client import HTTPMessage, HTTPResponse
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from mlxk_tui import __version__
from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.retry_after import retry_after
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.download.connection import (
    ConnectionStoppedError,
    DownloadConnection,
    Origin,
    TrustError,
    WireError,
)
from mlxk_tui.ops.download.terms import DownloadSource
from mlxk_tui.ops.hub.errors import display_endpoint

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_RETRIED = frozenset({408, 416, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_KEEP_LOCATION_S = 300.0
_MAX_DRAINED = 64 << 10
_LARGE_PIECE = 32 << 10
_GATHER_S = 0.01
_IN_ADDRESS = "%/:=&?~#+!$,;'@()*[]"


class TransferError(Exception):
    """A request failed in a way that another attempt may mend."""

    def __init__(self, kind: ErrorType, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        """What it is when no attempt is left."""
        self.message = message
        """A clause that says what happened, without a full stop."""
        self.wait_s = wait_s
        """Seconds that the hub asks to wait."""


class Location:
    """Where the hub sends requests for one file; its CDN addresses hold for a while."""

    def __init__(self) -> None:
        self._url: SplitResult | None = None
        self._until = 0.0

    def get(self) -> SplitResult | None:
        """Return the address that the last redirect led to, None when it is old or unknown."""
        return self._url if time.monotonic() < self._until else None

    def keep(self, url: SplitResult | None) -> None:
        """Remember an address, or forget it."""
        self._url = url
        self._until = time.monotonic() + _KEEP_LOCATION_S


class Body:
    """The bytes `[start, end)` of a file as they come."""

    def __init__(
        self, line: DownloadConnection, response: HTTPResponse, origin: Origin, start: int, end: int
    ) -> None:
        self.start = start
        self.end = end
        self._left = end - start
        self._line = line
        self._response = response
        self._origin = origin

    def read(self, length: int) -> bytes:
        """Return the next bytes, at most `length`; empty at the end.

        Raises:
            TransferError: the connection broke or the body is too short.
            StoppedError: the line was stopped.
        """
        pieces: list[bytes] = []
        room = min(length, self._left)
        until = 0.0
        while room > 0:
            try:
                data = self._piece(room)
            except (TransferError, ConnectionStoppedError):
                if not pieces:
                    raise
                break  # what came is kept; the next read meets the fault again
            pieces.append(data)
            room -= len(data)
            # TLS hands out 16 KiB at a time, too little for a write and all that follows it.
            now = time.monotonic()
            if len(data) >= _LARGE_PIECE or (until and now > until):
                break
            until = until or now + _GATHER_S
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, length: int) -> bytes:
        try:
            data = self._line.read(self._response, length)
        except WireError as error:
            raise TransferError(ErrorType.NETWORK_ERROR, str(error)) from None
        if not data:
            raise TransferError(ErrorType.NETWORK_ERROR, "the connection was cut")
        self._left -= len(data)
        return data

    def close(self) -> None:
        """End the answer: its connection is kept only when nothing of it is left to come."""
        if self._left or self._response.chunked or self._response.will_close:
            self._line.close(self._origin)
        self._response.close()


class Fetcher:
    """Makes the requests of one download; used by several threads."""

    def __init__(self, source: DownloadSource) -> None:
        self._source = source
        self._base = f"{source.endpoint.rstrip('/')}/{source.repo}/resolve/{source.commit}/"
        self._origin = Origin.of(urlsplit(self._base))

    def open(
        self, line: DownloadConnection, path: str, location: Location, start: int, end: int, size: int
    ) -> Body:
        """Ask for bytes `[start, end)` of a file of `size` bytes.

        The body may begin at 0 and hold all, where the hub ignores ranges, or end early.

        Raises:
            TransferError: worth another attempt.
            OpError: not worth one.
            StoppedError: the line was stopped.
        """
        known = location.get()
        try:
            response, url = self._follow(line, path, known, None if end - start == size else (start, end))
            if response.status in {401, 403, 404, 410} and known is not None:  # the address grew old
                self._drain(line, response, url)
                location.keep(None)
                known = None
                response, url = self._follow(line, path, None, None if end - start == size else (start, end))
        except WireError as error:
            raise TransferError(ErrorType.NETWORK_ERROR, str(error)) from None
        except TrustError as error:
            raise OpError(
                ErrorType.NETWORK_ERROR,
                f"Nothing is fetched: {printable(str(error))}.",
                remedy=Remedy.CHECK_NETWORK,
            ) from None
        try:
            first, last = self._judge(response, url, path, start, end, size)
        except BaseException:
            line.close(Origin.of(url))
            raise
        if known is None and url.geturl() != self._address(path):
            location.keep(url)
        return Body(line, response, Origin.of(url), first, last)

    def _address(self, path: str) -> str:
        return self._base + quote(path)

    def _follow(
        self, line: DownloadConnection, path: str, known: SplitResult | None, span: tuple[int, int] | None
    ) -> tuple[HTTPResponse, SplitResult]:
        url = known or urlsplit(self._address(path))
        for _ in range(_MAX_REDIRECTS + 1):
            headers = {
                "User-Agent": f"mlxk-tui/{__version__}",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            }
            if self._source.token and Origin.of(url) == self._origin:
                headers["Authorization"] = f"Bearer {self._source.token}"
            if span is not None:
                headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
            response, _ = line.request(url, headers)
            if response.status not in _REDIRECTS:
                return response, url
            target = response.headers.get("Location")
            self._drain(line, response, url)
            url = _redirected(url, target, path)
        raise _failed(path, f"the hub redirects more than {_MAX_REDIRECTS} times")

    def _drain(self, line: DownloadConnection, response: HTTPResponse, url: SplitResult) -> None:
        """Read a short body that nobody needs, so that the connection can be used again."""
        length = response.length
        if response.chunked or response.will_close or length is None or length > _MAX_DRAINED:
            line.close(Origin.of(url))
        else:
            try:
                while length > 0 and (data := line.read(response, length)):
                    length -= len(data)
            except WireError:
                length = 1
            if length:
                line.close(Origin.of(url))
        response.close()

    def _judge(
        self, response: HTTPResponse, url: SplitResult, path: str, start: int, end: int, size: int
    ) -> tuple[int, int]:
        """Return which bytes the body holds."""
        headers = response.headers
        if response.status not in {200, 206}:
            raise self._refusal(response.status, headers, Origin.of(url), path)
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise TransferError(
                ErrorType.DOWNLOAD_FAILED, "the hub sent it compressed, which nobody asked for"
            )
        length = _number(headers.get("Content-Length"))
        if response.status == 200:
            if length is not None and length != size:
                raise TransferError(
                    ErrorType.DOWNLOAD_FAILED, f"the hub sends {length:,} bytes instead of {size:,}"
                )
            return 0, size
        match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if match is None:
            raise TransferError(ErrorType.DOWNLOAD_FAILED, "the hub does not say which range it sends")
        first, last = int(match[1]), int(match[2]) + 1
        if match[3] != "*" and int(match[3]) != size:
            raise TransferError(
                ErrorType.DOWNLOAD_FAILED, f"the hub has {int(match[3]):,} bytes instead of {size:,}"
            )
        if first != start or not first < last <= end or length not in {None, last - first}:
            raise TransferError(ErrorType.DOWNLOAD_FAILED, "the hub sends another range than was asked for")
        return first, last

    def _refusal(self, status: int, headers: HTTPMessage, origin: Origin, path: str) -> Exception:
        """Return what an error status means."""
        repo = self._source.repo
        if status in _RETRIED or status >= 500:
            reason = "is busy (429)" if status == 429 else f"answered {status}"
            return TransferError(ErrorType.DOWNLOAD_FAILED, f"the hub {reason}", retry_after(headers))
        if origin != self._origin:
            return TransferError(ErrorType.DOWNLOAD_FAILED, f"the hub's file server answered {status}")
        code = headers.get("X-Error-Code", "")
        if code == "GatedRepo":
            return OpError(
                ErrorType.ACCESS_DENIED,
                f"{repo} is gated.",
                remedy=Remedy.ACCEPT_TERMS if self._source.token else Remedy.ACCEPT_TERMS_AND_LOG_IN,
                facts=ErrorFacts(name=repo, url=f"{display_endpoint(self._source.endpoint)}/{repo}"),
                reason=AccessReason.GATED,
            )
        if (code == "RepoNotFound" or (status == 401 and not code)) and (
            status != 401 or not self._source.token
        ):
            return OpError(
                ErrorType.REPO_NOT_FOUND,
                f"The hub has no repo {repo}, or it is private.",
                remedy=Remedy.CHECK_NAME_OR_LOG_IN,
                reason=AccessReason.NOT_FOUND,
            )
        if status == 401:
            return OpError(
                ErrorType.AUTH_ERROR,
                f"The hub does not accept the token for {repo}.",
                remedy=Remedy.REPLACE_TOKEN,
                reason=AccessReason.UNAUTHORIZED,
            )
        if status == 403:
            return OpError(
                ErrorType.ACCESS_DENIED,
                f"The hub refuses access to {repo}.",
                remedy=Remedy.CHECK_TOKEN_RIGHTS,
                reason=AccessReason.FORBIDDEN,
            )
        if code == "RevisionNotFound":
            return _failed(path, f"the hub has no commit {self._source.commit[:12]} of {repo} any more")
        if status in {404, 410}:
            return _failed(path, f"the hub does not have it ({status})")
        return _failed(path, f"the hub answered {status}")


def _redirected(url: SplitResult, target: str | None, path: str) -> SplitResult:
    try:
        new = urlsplit(urljoin(url.geturl(), quote(target or "", safe=_IN_ADDRESS)))
        Origin.of(new)
    except ValueError:
        raise _failed(path, "the hub redirects to something that is no http address") from None
    if not target:
        raise _failed(path, "the hub redirects to nowhere")
    if url.scheme == "https" and new.scheme != "https":
        raise _failed(path, "the hub redirects from https to plain http, which is not followed")
    return new


def _failed(path: str, why: str) -> OpError:
    return OpError(ErrorType.DOWNLOAD_FAILED, f"{printable(path)}: {why}.")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
