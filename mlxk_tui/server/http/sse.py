"""Server-sent events: a response stream with keep-alive comments and a write timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType

from aiohttp import web
from aiohttp.client_exceptions import ClientError

COMMENT = b": keep-alive\n\n"
"""A comment, which clients ignore."""


class ClientDisconnectedError(Exception):
    """The client closed the connection."""


class EventStream:
    """A response of server-sent events; use it as an async context manager.

    The headers are sent with the first `write` or keep-alive comment, so an error before that can still
    set the status of the response. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html.

    Args:
        request: the request to respond to.
        headers: headers of the response, besides those of the stream.
        keep_alive_s: seconds without an event after which `keep_alive` is sent.
        write_timeout_s: seconds after which a client that reads nothing is disconnected.
        keep_alive: bytes to send while no event comes; a comment by default.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        headers: Mapping[str, str],
        *,
        keep_alive_s: float,
        write_timeout_s: float,
        keep_alive: bytes = COMMENT,
    ) -> None:
        self.response = web.StreamResponse(
            headers={
                **headers,
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
            }
        )
        self._request = request
        self._keep_alive_s = keep_alive_s
        self._write_timeout_s = write_timeout_s
        self._keep_alive = keep_alive
        self._prepare_lock = asyncio.Lock()
        self._prepared = False
        self._writing_since: float | None = None
        self._last_write = time.monotonic()
        self._monitor_task: asyncio.Task[None] | None = None

    @property
    def headers_sent(self) -> bool:
        """Whether the headers have been sent, so that the status can't change any more."""
        return self._prepared

    async def __aenter__(self) -> EventStream:
        self._monitor_task = asyncio.create_task(self._monitor())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._monitor_task is not None:
            self._monitor_task.cancel()

    async def write(self, data: bytes) -> None:
        """Send complete events.

        Raises:
            ClientDisconnectedError: the client closed the connection.
        """
        try:
            if not self._prepared:
                await self._prepare()
            self._writing_since = time.monotonic()
            await self.response.write(data)
            self._writing_since = None
            self._last_write = time.monotonic()
        except (ConnectionError, ClientError) as error:
            raise ClientDisconnectedError from error

    async def finish(self) -> None:
        """End the response.

        Raises:
            ClientDisconnectedError: the client closed the connection.
        """
        try:
            await self.response.write_eof()
        except (ConnectionError, ClientError) as error:
            raise ClientDisconnectedError from error

    async def _prepare(self) -> None:
        async with self._prepare_lock:
            if not self._prepared:
                await self.response.prepare(self._request)
                self._prepared = True

    async def _monitor(self) -> None:
        """Send keep-alive comments, and disconnect a client that doesn't read."""
        interval = min(self._keep_alive_s, self._write_timeout_s)
        while True:
            await asyncio.sleep(interval)
            now = time.monotonic()
            if self._writing_since is not None:
                transport = self._request.transport
                if now - self._writing_since > self._write_timeout_s and transport is not None:
                    transport.abort()
                    return
            elif now - self._last_write >= self._keep_alive_s * 0.9:
                try:
                    await self.write(self._keep_alive)
                except ClientDisconnectedError:
                    return
