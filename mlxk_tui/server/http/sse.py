"""A stream of server-sent events: one write per piece, comments while nothing comes, gone clients noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType

from aiohttp import web
from aiohttp.client_exceptions import ClientError

COMMENT = b": keep-alive\n\n"
"""Means nothing to any client."""


class GoneError(Exception):
    """The client does not read any more."""


class EventStream:
    """The answer to one request; an async context.

    Nothing is sent before the first `write` or the first comment, so that a request that turns out to
    be impossible can still be refused with a status of its own.

    Args:
        request: the request.
        headers: headers of the answer.
        keep_alive_s: seconds of silence after which a comment is sent.
        write_timeout_s: seconds that the client may leave everything unread.
        keep_alive: what is sent in silence; a comment by default.
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
        self._opening = asyncio.Lock()
        self._open = False
        self._writing_since: float | None = None
        self._wrote = time.monotonic()
        self._ticker: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether the client has seen the headers: too late for another status."""
        return self._open

    async def __aenter__(self) -> EventStream:
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()

    async def write(self, data: bytes) -> None:
        """Send whole events.

        Raises:
            GoneError: nobody reads them.
        """
        try:
            if not self._open:
                await self._begin()
            self._writing_since = time.monotonic()
            await self.response.write(data)
            self._writing_since = None
            self._wrote = time.monotonic()
        except (ConnectionError, ClientError) as error:
            raise GoneError from error

    async def finish(self) -> None:
        """End the answer."""
        try:
            await self.response.write_eof()
        except (ConnectionError, ClientError) as error:
            raise GoneError from error

    async def _begin(self) -> None:
        async with self._opening:
            if not self._open:
                await self.response.prepare(self._request)
                self._open = True

    async def _tick(self) -> None:
        """Speak up in silence, and give up on a client that does not read."""
        step = min(self._keep_alive_s, self._write_timeout_s)
        while True:
            await asyncio.sleep(step)
            now = time.monotonic()
            if self._writing_since is not None:
                transport = self._request.transport
                if now - self._writing_since > self._write_timeout_s and transport is not None:
                    transport.abort()
                    return
            elif now - self._wrote >= self._keep_alive_s * 0.9:
                try:
                    await self.write(self._keep_alive)
                except GoneError:
                    return
