"""Reads the bytes of a request's body, within limits of size, time, and of what all bodies take together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from mlxk_tui.ops.core.text import size
from mlxk_tui.server.errors import BUSY, ApiError, invalid

_SMALL_BYTES = 65_536
"""Bodies up to this size are not counted: all connections together hold little of them."""


class BodyBudget:
    """How many bytes of bodies are held at once, from their arrival to the end of their requests.

    Belongs to one event loop.

    Args:
        max_bytes: most bytes of all bodies together, those up to 64 KiB not counted.
        patience_s: how long a body waits for others to end before it is refused.
    """

    def __init__(self, max_bytes: int, patience_s: float = 10.0) -> None:
        self.max_bytes = max_bytes
        self._patience_s = patience_s
        self.held = 0
        """Bytes at present."""
        self._freed: asyncio.Event | None = None

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """Give what a request holds; it is free when the block ends."""
        held = Held(self)
        try:
            yield held
        finally:
            self.held -= held.bytes
            if held.bytes and self._freed is not None:
                self._freed.set()
                self._freed = None

    async def wait(self, count: int) -> None:
        """Wait until so many bytes more can be held.

        Raises:
            ApiError: 429: others did not end in time.
        """

        async def fits() -> None:
            while self.held + count > self.max_bytes:
                if self._freed is None:
                    self._freed = asyncio.Event()
                await self._freed.wait()

        try:
            await asyncio.wait_for(fits(), self._patience_s)
        except asyncio.TimeoutError:
            raise _closing(
                ApiError(
                    429,
                    BUSY,
                    f"The bodies of other requests take {size(self.held)}, which is all that this server "
                    "holds at once. Try again a little later.",
                    retry_after_s=5,
                )
            ) from None


class Held:
    """What one request holds of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self.bytes = 0
        self._budget = budget

    async def grow(self, total: int) -> None:
        """Hold `total` bytes from now on.

        Raises:
            ApiError: 429.
        """
        more = total - self.bytes
        if total <= _SMALL_BYTES or more <= 0:
            return
        if self._budget.held + more > self._budget.max_bytes:
            await self._budget.wait(more)
        self._budget.held += more
        self.bytes = total


async def read_body(request: web.BaseRequest, max_bytes: int, timeout_s: float, held: Held) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: 400 cut off, 408 too slow, 413 too large, 415 an encoding that is not read, 429 too many
            large ones at once.
    """
    _check_head(request, max_bytes)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if request.content_length is not None:
        # All of it before the first byte: bodies that each have a part would wait for one another.
        await held.grow(request.content_length)
    deadline = asyncio.get_running_loop().time() + timeout_s
    body = bytearray()
    try:
        while True:
            left = deadline - asyncio.get_running_loop().time()
            chunk = await asyncio.wait_for(request.content.readany(), max(left, 0.001))
            if not chunk:
                return bytes(body)
            if len(body) + len(chunk) > max_bytes:
                raise _too_large(max_bytes)
            before = asyncio.get_running_loop().time()
            await held.grow(len(body) + len(chunk))
            deadline += asyncio.get_running_loop().time() - before  # it was us who did not read
            body += chunk
    except asyncio.TimeoutError:
        raise _closing(
            invalid(f"The body did not arrive within {timeout_s:g} seconds. Send it faster.", status=408)
        ) from None
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError) as error:
        raise _closing(
            invalid(f"The body is not what its headers promise ({type(error).__name__}). Send it whole.")
        ) from None


def _check_head(request: web.BaseRequest, max_bytes: int) -> None:
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise _closing(invalid("A compressed body is not read here. Send it as it is.", status=415))


def _too_large(max_bytes: int) -> ApiError:
    return _closing(invalid(f"The body is larger than {size(max_bytes)}. Send less.", status=413))


def _closing(error: ApiError) -> ApiError:
    """Let the connection end with the answer: the rest of the body is not waited for."""
    error.headers["Connection"] = "close"
    return error
