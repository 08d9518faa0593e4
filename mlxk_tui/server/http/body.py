"""Reads request bodies, with limits on their size, their time, and the memory of all bodies together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from mlxk_tui.ops.core.text import format_size
from mlxk_tui.server.errors import BUSY, ApiError, invalid

_SMALL_BYTES = 65_536
"""Bodies up to this size aren't counted: all connections together need little memory for them."""


class BodyBudget:
    """Limits the memory of request bodies, from their arrival to the end of their requests.

    Not thread-safe: use it in one event loop.

    Args:
        max_bytes: maximum bytes of all bodies together; bodies up to 64 KiB aren't counted.
        timeout_s: seconds that a body waits for memory before it is rejected.
    """

    def __init__(self, max_bytes: int, timeout_s: float = 10.0) -> None:
        self.max_bytes = max_bytes
        self._timeout_s = timeout_s
        self.reserved = 0
        """Bytes that are reserved now."""
        self._released: asyncio.Event | None = None

    @contextmanager
    def reserve(self) -> Iterator[BodyReservation]:
        """Yield an empty reservation for one request; it is released when the block ends."""
        reservation = BodyReservation(self)
        try:
            yield reservation
        finally:
            self.reserved -= reservation.bytes
            if reservation.bytes and self._released is not None:
                self._released.set()
                self._released = None

    async def wait(self, count: int) -> None:
        """Wait until `count` more bytes can be reserved.

        Raises:
            ApiError: 429 after `timeout_s` seconds.
        """

        async def fits() -> None:
            while self.reserved + count > self.max_bytes:
                if self._released is None:
                    self._released = asyncio.Event()
                await self._released.wait()

        try:
            await asyncio.wait_for(fits(), self._timeout_s)
        except asyncio.TimeoutError:
            raise _closing(
                ApiError(
                    429,
                    BUSY,
                    f"Other request bodies use all memory for bodies ({format_size(self.reserved)}). "
                    "Try again later.",
                    retry_after_s=5,
                )
            ) from None


class BodyReservation:
    """The share of a `BodyBudget` that one request has reserved."""

    def __init__(self, budget: BodyBudget) -> None:
        self.bytes = 0
        self._budget = budget

    async def grow(self, total: int) -> None:
        """Increase the reservation to `total` bytes; wait if needed.

        Raises:
            ApiError: 429 if the memory isn't free in time.
        """
        more = total - self.bytes
        if total <= _SMALL_BYTES or more <= 0:
            return
        if self._budget.reserved + more > self._budget.max_bytes:
            await self._budget.wait(more)
        self._budget.reserved += more
        self.bytes = total


async def read_body(
    request: web.BaseRequest, max_bytes: int, timeout_s: float, reservation: BodyReservation
) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: 400 if it is truncated, 408 if it takes longer than `timeout_s`, 413 if it is larger than
            `max_bytes`, 415 if it is compressed, 429 if other bodies use all memory.
    """
    _check_headers(request, max_bytes)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if request.content_length is not None:
        # Reserve all of it first: partially received bodies would deadlock waiting for one another.
        await reservation.grow(request.content_length)
    deadline = asyncio.get_running_loop().time() + timeout_s
    body = bytearray()
    try:
        while True:
            remaining = deadline - asyncio.get_running_loop().time()
            chunk = await asyncio.wait_for(request.content.readany(), max(remaining, 0.001))
            if not chunk:
                return bytes(body)
            if len(body) + len(chunk) > max_bytes:
                raise _too_large(max_bytes)
            before = asyncio.get_running_loop().time()
            await reservation.grow(len(body) + len(chunk))
            deadline += asyncio.get_running_loop().time() - before  # the server waited, not the client
            body += chunk
    except asyncio.TimeoutError:
        raise _closing(
            invalid(f"The body did not arrive within {timeout_s:g} seconds. Send it again.", status=408)
        ) from None
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError) as error:
        raise _closing(
            invalid(f"The body doesn't match its headers ({type(error).__name__}). Send all of it.")
        ) from None


def _check_headers(request: web.BaseRequest, max_bytes: int) -> None:
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise _closing(invalid("Compressed bodies are not supported. Send it uncompressed.", status=415))


def _too_large(max_bytes: int) -> ApiError:
    return _closing(
        invalid(f"The body is larger than {format_size(max_bytes)}. Send a smaller one.", status=413)
    )


def _closing(error: ApiError) -> ApiError:
    """Close the connection after the response, without reading the rest of the body."""
    error.headers["Connection"] = "close"
    return error
