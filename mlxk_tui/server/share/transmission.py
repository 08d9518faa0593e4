"""Sends a file or a range of it with the kernel's sendfile, at the speed at which the client reads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import BinaryIO

from aiohttp import web

from mlxk_tui.server.share.replies import ShareError

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE | re.ASCII)
_PIECE = 1 << 20
"""Bytes that a client must read within the time-out."""


def parse_range(header: str | None, size: int) -> range | None:
    """Return the bytes that a `Range` header requests; None for the whole file (RFC 9110, section 14.2).

    Several ranges and other units are ignored, which the RFC allows.

    Raises:
        ShareError: 416 if the file has no such bytes.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(int(found[2]) if found[2] else size - 1, size - 1)
        if found[2] and int(found[2]) < first:
            return None  # not a valid range
    if first > last:
        raise ShareError(
            416, f"The file has only {size:,} bytes.", headers={"Content-Range": f"bytes */{size}"}
        )
    return range(first, last + 1)


def requested_range(request: web.BaseRequest, etag: str, size: int) -> range | None:
    """Return the bytes that a request wants; None for the whole file.

    `If-Range` with another etag asks for the whole file.

    Raises:
        ShareError: 416 if the file has no such bytes.
    """
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() != f'"{etag}"':
        return None
    return parse_range(request.headers.get("Range"), size)


def head_response(headers: Mapping[str, str], size: int, part: range | None) -> web.StreamResponse:
    """Return the response without its body; `part` of None means the whole file of `size` bytes."""
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    response.content_length = size if part is None else len(part)
    if part is not None:
        response.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return response


async def send(
    request: web.BaseRequest, response: web.StreamResponse, stream: BinaryIO, part: range, stall_s: float
) -> bool:
    """Send a response with bytes of a file; return whether all were sent.

    Otherwise the connection is aborted, so that the client does not take the part for the whole: the file was
    truncated, the client is gone, or it reads too slowly.

    Args:
        request: the request.
        response: a response whose Content-Length is that of `part`.
        stream: the file, unbuffered.
        part: the bytes to send.
        stall_s: seconds after which a client that does not read is disconnected.
    """
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    position, transport = part.start, request.transport
    try:
        while position < part.stop:
            if transport is None:
                raise ConnectionResetError
            count = min(_PIECE, part.stop - position)
            sent = await asyncio.wait_for(loop.sendfile(transport, stream, position, count), stall_s)
            if sent < count:
                raise ConnectionResetError  # the file was truncated meanwhile
            position += sent
        await response.write_eof()
    except (OSError, RuntimeError, asyncio.TimeoutError):  # RuntimeError: the transport is closing
        if transport is not None:
            transport.abort()
        return False
    return True
