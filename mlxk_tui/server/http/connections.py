"""Connection handling on top of aiohttp: a header timeout, a connection limit, and errors as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.options import ServerOptions

SERVER = "mlxk-tui"
"""The `Server` header, without version numbers."""
_MAX_LINE_BYTES = 16_384
_RESERVE = 32
"""Connections above the limit that are accepted, so that they get an error response."""
_OTHER_FILES = 128
"""File descriptors reserved for everything else: the cache, pipes to other processes, the chats."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def common_headers(request_headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of every response: `X-Request-ID` and `Server`.

    Args:
        request_headers: headers of the request; a valid `X-Request-ID` in them is reused.
    """
    given = request_headers.get("X-Request-ID", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
    return {"X-Request-ID": request_id, "Server": SERVER}


def connection_limit(connections: int) -> int:
    """Return how many connections can be open at once: `connections`, or fewer.

    Each needs a file descriptor, so this raises the soft limit of the process (256 on macOS) if needed.
    """
    needed = connections + _RESERVE + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        connections = max(1, min(connections, soft - _RESERVE - _OTHER_FILES))
    return connections


class HttpConnection(web.RequestHandler):
    """One connection. Request headers must arrive in time; invalid HTTP gets an error in JSON."""

    def __init__(self, manager: web.Server, *, header_timeout_s: float, **more: Any) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **more)
        self._header_timeout_s = header_timeout_s
        self._handling = False
        self._header_timer: asyncio.TimerHandle | None = None
        self.idle_since = asyncio.get_running_loop().time()
        """Since when it has had no complete request, in seconds of the loop's clock."""
        self.over_limit = False
        """Whether it exceeds the connection limit: only quiet routes, such as `/health`, respond then."""

    @property
    def handling(self) -> bool:
        """Whether a request with complete headers is in progress."""
        return self._handling

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the header timeout."""
        self._start_header_timeout()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Start the header timeout with the first bytes of a request."""
        if not self._handling and data:
            self._start_header_timeout()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the header timeout."""
        self._cancel_header_timeout()
        super().connection_lost(exc)

    def begin(self) -> None:
        """Mark that the headers of a request have arrived."""
        self._handling = True
        self._cancel_header_timeout()

    def end(self) -> None:
        """Mark that the request has finished and the connection is idle."""
        self._handling = False
        self.idle_since = asyncio.get_running_loop().time()

    def close_if_idle(self) -> None:
        """Close the connection, unless a request is in progress."""
        if not self._handling:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Respond to invalid HTTP with an error in JSON, like every other error."""
        del exc
        if status >= 500:
            error = ApiError(status, "internal_error", "An internal error occurred. Please report it.")
        else:
            # aiohttp's message quotes the bytes; its first line names the error.
            lines = (message or "").strip().splitlines()
            error = invalid(f"The request is not valid HTTP: {lines[0] if lines else 'bad request'}.")
        response = error.response()
        response.headers.update(common_headers(request.headers))
        response.force_close()
        return response

    def _start_header_timeout(self) -> None:
        if self._header_timer is None:
            loop = asyncio.get_running_loop()
            self._header_timer = loop.call_later(self._header_timeout_s, self._on_header_timeout)

    def _cancel_header_timeout(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _on_header_timeout(self) -> None:
        self._header_timer = None
        if self._handling or self.transport is None:
            return
        response = invalid("The request did not arrive in time. Send it again.", status=408).response()
        body = response.body if isinstance(response.body, bytes) else b""
        headers = "".join(f"{name}: {value}\r\n" for name, value in common_headers({}).items())
        self.transport.write(
            b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"%bContent-Length: %d\r\n\r\n%b" % (headers.encode("ascii"), len(body), body)
        )
        self.force_close()


class WebServer(web.Server):
    """Creates a `HttpConnection` for each client. `handler` must raise nothing but cancellation."""

    def __init__(self, handler: Handler, options: ServerOptions) -> None:
        super().__init__(handler, request_factory=self._request, handler_cancellation=True)
        self._options = options
        self._max_connections = connection_limit(options.max_connections)

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return HttpConnection(
            self,
            header_timeout_s=self._options.header_timeout_s,
            keepalive_timeout=self._options.idle_timeout_s,
            access_log=None,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            lingering_time=1.0,
            auto_decompress=False,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Accept a connection; at the limit, close another one.

        The connection that has been idle the longest is closed. If all have requests in progress, a few
        more are accepted, to respond with an error or to `/health`.
        """
        super().connection_made(handler, transport)
        if len(self.connections) <= self._max_connections:
            return
        others = [
            other for other in self.connections if isinstance(other, HttpConnection) and other is not handler
        ]
        idle = [other for other in others if not other.handling]
        if idle:
            min(idle, key=lambda other: other.idle_since).force_close()
        elif len(others) >= self._max_connections + _RESERVE:
            transport.abort()
        elif isinstance(handler, HttpConnection):
            handler.over_limit = True

    def close_idle(self) -> None:
        """Close idle connections now, and the others after their response."""
        self.pre_shutdown()
        for connection in self.connections:
            if isinstance(connection, HttpConnection):
                connection.close_if_idle()

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.Request:
        return web.Request(
            message,
            payload,
            protocol,
            writer,
            task,
            asyncio.get_running_loop(),
            client_max_size=self._options.max_body_bytes,
        )
