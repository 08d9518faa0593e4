"""Requests ranges of a file from a hub: addresses, redirects, and the meaning of responses."""

from __future__ import annotations

import re
import time
import zlib
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from mlxk_tui import __version__
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.retry_after import retry_after
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.download.options import DownloadSource
from mlxk_tui.ops.download.transport.connection import ConnectionPool, DownloadConnection, Origin
from mlxk_tui.ops.download.transport.errors import (
    ConnectionFailedError,
    ConnectionStoppedError,
    FatalConnectionError,
)
from mlxk_tui.ops.hub.errors import REVISION_NOT_FOUND, RequestContext, access_error, error_code

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_RETRIED = frozenset({408, 416, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_REDIRECT_LIFETIME_S = 300.0
_MAX_DRAINED = 64 << 10
_MAX_SKIPPED = 1 << 20
"""Maximum bytes to discard before a range, if a mirror sends whole blocks."""
_LARGE_PIECE = 32 << 10
_GATHER_S = 0.01
_SAFE_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"


class TransferError(Exception):
    """A request failed, but another attempt can succeed."""

    def __init__(self, kind: ErrorType, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        """The error type once no attempt is left."""
        self.message = message
        """The cause as a clause, without a full stop."""
        self.wait_s = wait_s
        """Seconds that the hub requests to wait (Retry-After)."""


class RedirectCache:
    """Remembers the redirect target of a file; CDN addresses are valid for a limited time."""

    def __init__(self) -> None:
        self._url: SplitResult | None = None
        self._until = 0.0

    def get(self) -> SplitResult | None:
        """Return the target of the last redirect; None if it is unknown or too old."""
        return self._url if time.monotonic() < self._until else None

    def set(self, url: SplitResult | None) -> None:
        """Store an address; None clears it."""
        self._url = url
        self._until = time.monotonic() + _REDIRECT_LIFETIME_S


@dataclass(frozen=True)
class _BodyRange:
    """The useful part of a response body, `[start, end)` of the file."""

    start: int
    end: int
    skip: int = 0
    """Bytes in the body before `start`."""
    has_more: bool = False
    """Whether the body continues after `end`."""
    gzip: bool = False
    """Whether the body is compressed."""


class RangeBody:
    """A response body with the bytes `[start, end)` of a file."""

    def __init__(
        self, connection: DownloadConnection, response: HTTPResponse, origin: Origin, content: _BodyRange
    ) -> None:
        self.start = content.start
        self.end = content.end
        self.response_s = connection.response_s
        """Seconds until the headers arrived: a round trip and the hub's own time."""
        self._left = content.end - content.start
        self._skip = content.skip
        self._has_more = content.has_more
        self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if content.gzip else None
        self._connection = connection
        self._response = response
        self._origin = origin

    def read(self, length: int) -> bytes:
        """Return the next bytes, at most `length`; empty at the end.

        Raises:
            TransferError: the connection was interrupted, or the body is too short.
            ConnectionStoppedError: the connection was aborted.
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
                break  # return the received bytes; the next read raises again
            pieces.append(data)
            room -= len(data)
            # TLS returns 16 KiB at a time, which is too little for one write and its bookkeeping.
            now = time.monotonic()
            if len(data) >= _LARGE_PIECE or (until and now > until):
                break
            until = until or now + _GATHER_S
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, length: int) -> bytes:
        while self._skip:
            self._skip -= len(self._raw(min(self._skip, length)))
        data = self._raw(length) if self._gzip is None else self._decompressed(self._gzip, length)
        self._left -= len(data)
        return data

    def _raw(self, length: int) -> bytes:
        try:
            data = self._connection.read(self._response, length)
        except ConnectionFailedError as error:
            raise TransferError(ErrorType.NETWORK_ERROR, str(error)) from None
        if not data:
            raise TransferError(ErrorType.NETWORK_ERROR, "the connection was closed early")
        return data

    def _decompressed(self, gzip: zlib._Decompress, length: int) -> bytes:
        """Return the next decompressed bytes, at most `length`, however much a malicious body expands to."""
        while True:
            try:
                data = gzip.decompress(gzip.unconsumed_tail or self._raw(length), length)
            except zlib.error:
                raise TransferError(ErrorType.DOWNLOAD_FAILED, "the hub sent invalid gzip data") from None
            if data:
                return data
            if gzip.eof:
                raise TransferError(ErrorType.DOWNLOAD_FAILED, "the hub sent less than the whole file")

    def close(self) -> None:
        """Close the response; its connection is reused only if the body was read completely."""
        unread = self._left or self._has_more or self._gzip is not None
        if unread or self._response.chunked or self._response.will_close:
            self._connection.close(self._origin)
        self._response.close()


class RangeClient:
    """Sends the requests of a download; thread-safe."""

    def __init__(self, source: DownloadSource, pool: ConnectionPool) -> None:
        self._source = source
        self._pool = pool
        self._base = f"{source.endpoint.rstrip('/')}/{source.repo}/resolve/{source.commit}/"
        self._origin = Origin.from_url(urlsplit(self._base))
        self._context = RequestContext(
            source.endpoint, source.repo, source.commit, with_token=bool(source.token), secret=source.token
        )

    def new_connection(self) -> DownloadConnection:
        """Return a connection for the requests of one thread."""
        return self._pool.new_connection()

    def open(
        self,
        connection: DownloadConnection,
        path: str,
        location: RedirectCache,
        start: int,
        end: int,
        size: int,
    ) -> RangeBody:
        """Request bytes `[start, end)` of a file of `size` bytes.

        The body may start at 0 and contain the whole file, if the hub ignores ranges, or end early.

        Raises:
            TransferError: another attempt can help.
            OpError: another attempt cannot help.
            ConnectionStoppedError: the connection was aborted.
        """
        known = location.get()
        try:
            response, url = self._follow(
                connection, path, known, None if end - start == size else (start, end)
            )
            if response.status in {401, 403, 404, 410} and known is not None:  # the address has expired
                self._drain(connection, response, url)
                location.set(None)
                known = None
                response, url = self._follow(
                    connection, path, None, None if end - start == size else (start, end)
                )
        except ConnectionFailedError as error:
            raise TransferError(ErrorType.NETWORK_ERROR, str(error)) from None
        except FatalConnectionError as error:
            raise OpError(
                ErrorType.NETWORK_ERROR,
                f"Nothing was downloaded: {printable(str(error))}.",
                remedy=Remedy.CHECK_NETWORK,
            ) from None
        try:
            content = self._check_range(response, url, path, start, end, size)
        except BaseException:
            connection.close(Origin.from_url(url))
            raise
        if known is None and url.geturl() != self._address(path):
            location.set(url)
        return RangeBody(connection, response, Origin.from_url(url), content)

    def _address(self, path: str) -> str:
        return self._base + quote(path)

    def _follow(
        self,
        connection: DownloadConnection,
        path: str,
        known: SplitResult | None,
        byte_range: tuple[int, int] | None,
    ) -> tuple[HTTPResponse, SplitResult]:
        url = known or urlsplit(self._address(path))
        for _ in range(_MAX_REDIRECTS + 1):
            headers = {
                "User-Agent": f"mlxk-tui/{__version__}",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            }
            if self._source.token and Origin.from_url(url) == self._origin:
                headers["Authorization"] = f"Bearer {self._source.token}"
            if byte_range is not None:
                headers["Range"] = f"bytes={byte_range[0]}-{byte_range[1] - 1}"
            response, _ = connection.request(url, headers)
            if response.status not in _REDIRECTS:
                return response, url
            target = response.headers.get("Location")
            self._drain(connection, response, url)
            url = _redirected(url, target, path)
        raise _file_error(path, f"the hub redirects more than {_MAX_REDIRECTS} times")

    def _drain(self, connection: DownloadConnection, response: HTTPResponse, url: SplitResult) -> None:
        """Read an unneeded short body, so that the connection can be reused."""
        length = response.length
        if response.chunked or response.will_close or length is None or length > _MAX_DRAINED:
            connection.close(Origin.from_url(url))
        else:
            try:
                while length > 0 and (data := connection.read(response, length)):
                    length -= len(data)
            except ConnectionFailedError:
                length = 1
            if length:
                connection.close(Origin.from_url(url))
        response.close()

    def _check_range(
        self, response: HTTPResponse, url: SplitResult, path: str, start: int, end: int, size: int
    ) -> _BodyRange:
        """Return the range of the file to take from the body.

        A mirror may send more than was requested; the rest is ignored.
        """
        headers = response.headers
        if response.status not in {200, 206}:
            raise self._to_error(response.status, headers, Origin.from_url(url), path)
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        gzip = encoding in {"gzip", "x-gzip"} and response.status == 200
        if encoding != "identity" and not gzip:
            raise TransferError(
                ErrorType.DOWNLOAD_FAILED, "the hub sent compressed data, which was not requested"
            )
        length = _number(headers.get("Content-Length"))
        if response.status == 200:
            if length is not None and length != size and not gzip:
                raise TransferError(
                    ErrorType.DOWNLOAD_FAILED, f"the hub sends {length:,} bytes instead of {size:,}"
                )
            return _BodyRange(0, size, gzip=gzip)
        match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if match is None:
            raise TransferError(ErrorType.DOWNLOAD_FAILED, "the hub's response has no valid Content-Range")
        first, last = int(match[1]), int(match[2]) + 1
        if match[3] != "*" and int(match[3]) != size:
            raise TransferError(
                ErrorType.DOWNLOAD_FAILED, f"the hub has {int(match[3]):,} bytes instead of {size:,}"
            )
        whole_start = first == 0 and start > _MAX_SKIPPED  # as if the hub ignored the range
        if (
            not first <= start < last <= size
            or length not in {None, last - first}
            or (start - first > _MAX_SKIPPED and not whole_start)
        ):
            raise TransferError(ErrorType.DOWNLOAD_FAILED, "the hub sent another range than requested")
        if whole_start:
            return _BodyRange(0, last)
        return _BodyRange(start, min(last, end), skip=start - first, has_more=last > end)

    def _to_error(self, status: int, headers: HTTPMessage, origin: Origin, path: str) -> Exception:
        """Return the exception for an error status."""
        if status in _RETRIED or status >= 500:
            reason = "is busy (429)" if status == 429 else f"responded with status {status}"
            return TransferError(ErrorType.DOWNLOAD_FAILED, f"the hub {reason}", retry_after(headers))
        if origin != self._origin:
            return TransferError(
                ErrorType.DOWNLOAD_FAILED, f"the hub's file server responded with status {status}"
            )
        code = error_code(status, headers)
        denied = access_error(status, code, headers.get("X-Error-Message") or "", self._context)
        if denied is not None:
            return denied
        if code == REVISION_NOT_FOUND:
            commit, repo = self._source.commit[:12], self._source.repo
            return _file_error(path, f"the hub no longer has commit {commit} of {repo}")
        if status in {404, 410}:
            return _file_error(path, f"the hub does not have this file ({status})")
        return _file_error(path, f"the hub responded with status {status}")


def _redirected(url: SplitResult, target: str | None, path: str) -> SplitResult:
    try:
        new = urlsplit(urljoin(url.geturl(), quote(target or "", safe=_SAFE_CHARACTERS)))
        Origin.from_url(new)
    except ValueError:
        raise _file_error(path, "the hub redirects to an invalid address") from None
    if not target:
        raise _file_error(path, "the hub sent a redirect without an address")
    if url.scheme == "https" and new.scheme != "https":
        raise _file_error(path, "the hub redirects from https to plain http, which is not followed")
    return new


def _file_error(path: str, why: str) -> OpError:
    return OpError(ErrorType.DOWNLOAD_FAILED, f"{printable(path)}: {why}.")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
