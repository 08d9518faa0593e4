"""What aiohttp leaves open about connections: time for the headers, how many there are, errors in JSON."""

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
"""What the answers say of the program: no versions."""
_MAX_LINE_BYTES = 16_384
_RESERVE = 32
"""Connections beyond the most that are let in to be told so."""
_OTHER_FILES = 128
"""Descriptors that are kept for everything else: the cache, pipes to other processes, the chats."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def common_headers(given: Mapping[str, str]) -> dict[str, str]:
    """Return what every answer carries: the id of the request, and nothing of versions.

    Args:
        given: headers of the request; its own id is kept where it is a sane one.
    """
    own = given.get("X-Request-ID", "")
    number = own if _REQUEST_ID.fullmatch(own) else f"req-{secrets.token_hex(12)}"
    return {"X-Request-ID": number, "Server": SERVER}


def room_for(connections: int) -> int:
    """Return how many connections can be open at once, at most so many.

    Each takes a file descriptor, of which macOS gives a process 256 at first: more are asked for.
    """
    wanted = connections + _RESERVE + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        connections = max(1, min(connections, soft - _RESERVE - _OTHER_FILES))
    return connections


class HttpConnection(web.RequestHandler):
    """One connection: a request has to arrive within a time, and nonsense is answered in JSON."""

    def __init__(self, manager: web.Server, *, header_timeout_s: float, **more: Any) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **more)
        self._header_timeout_s = header_timeout_s
        self._answering = False
        self._deadline: asyncio.TimerHandle | None = None
        self.rests_since = asyncio.get_running_loop().time()
        """Since when it has had no whole request, on the loop's clock."""
        self.one_too_many = False
        """Whether there was no room for it: it may only ask how the server is."""

    @property
    def answering(self) -> bool:
        """Whether a request with all its headers is here and has not been answered."""
        return self._answering

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect a request from now on."""
        self._expect_headers()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Expect the rest of a request whose first bytes are here."""
        if not self._answering and data:
            self._expect_headers()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the deadline."""
        self._have_headers()
        super().connection_lost(exc)

    def begin(self) -> None:
        """A request with its headers is here."""
        self._answering = True
        self._have_headers()

    def end(self) -> None:
        """It has been answered; the connection may rest."""
        self._answering = False
        self.rests_since = asyncio.get_running_loop().time()

    def close_if_idle(self) -> None:
        """Close it, unless a request is being answered."""
        if not self._answering:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP in the shape of every other error."""
        del exc
        if status >= 500:
            error = ApiError(status, "internal_error", "A fault of this program; please report it.")
        else:
            # aiohttp's message quotes the bytes; its first line names the fault.
            lines = (message or "").strip().splitlines()
            error = invalid(f"This is not HTTP that can be read: {lines[0] if lines else 'bad request'}.")
        response = error.response()
        response.headers.update(common_headers(request.headers))
        response.force_close()
        return response

    def _expect_headers(self) -> None:
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._header_timeout_s, self._give_up)

    def _have_headers(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._answering or self.transport is None:
            return
        response = invalid("The request did not arrive in time. Send it faster.", status=408).response()
        body = response.body if isinstance(response.body, bytes) else b""
        headers = "".join(f"{name}: {value}\r\n" for name, value in common_headers({}).items())
        self.transport.write(
            b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"%bContent-Length: %d\r\n\r\n%b" % (headers.encode("ascii"), len(body), body)
        )
        self.force_close()


class WebServer(web.Server):
    """Makes the connections. Its `handler` answers requests and raises nothing but cancellation."""

    def __init__(self, handler: Handler, options: ServerOptions) -> None:
        super().__init__(handler, request_factory=self._request, handler_cancellation=True)
        self._options = options
        self._most = room_for(options.max_connections)

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
        """Take a connection in, for another one where there are too many.

        The one that has waited longest without a whole request goes. Where all are being answered, a few
        more are let in, to be told so and to ask how the server is.
        """
        super().connection_made(handler, transport)
        if len(self.connections) <= self._most:
            return
        others = [one for one in self.connections if isinstance(one, HttpConnection) and one is not handler]
        waiting = [one for one in others if not one.answering]
        if waiting:
            min(waiting, key=lambda one: one.rests_since).force_close()
        elif len(others) >= self._most + _RESERVE:
            transport.abort()
        elif isinstance(handler, HttpConnection):
            handler.one_too_many = True

    def close_idle(self) -> None:
        """Close the connections that rest, and each other one after its answer."""
        self.pre_shutdown()
        for connection in self.connections:
            if isinstance(connection, HttpConnection):
                connection.close_if_idle()

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            asyncio.get_running_loop(),
            client_max_size=self._options.max_body_bytes,
        )
