"""Sends replies of the local hub: applies ranges, rate limits and faults."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from aiohttp import web

from mlxk_tui.demo.hub.blobs import BytesBlob, StoredBlob
from mlxk_tui.demo.hub.context import DropConnection, HandlerContext
from mlxk_tui.demo.hub.replies import HubError, Reply

_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
_SENDFILE_STEP = 4 << 20
_STEP = 256 << 10
_PACED_STEP = 64 << 10


@dataclass
class _Body:
    """The range of a blob to send, and zeros after it."""

    blob: StoredBlob
    start: int
    stop: int
    padding: int = 0
    """Number of zeros after them."""

    @property
    def length(self) -> int:
        return self.stop - self.start + self.padding


async def transmit(context: HandlerContext, reply: Reply) -> web.StreamResponse:
    """Send a reply, with the fault of the request applied.

    Raises:
        DropConnection: the fault closes the connection.
    """
    fault, record = context.fault, context.record
    if fault is not None:
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.kind == "status":
            error = HubError(fault.status, f"Fault {fault.status}", fault.error_code).reply()
            reply = Reply(fault.status, {**error.headers, **fault.headers}, error.body)
            if fault.body:
                reply.body = BytesBlob(fault.body.encode())
            if fault.retry_after is not None:
                reply.headers["Retry-After"] = str(fault.retry_after)
        elif fault.kind in {"cut", "silent"} and fault.after_bytes is None:
            await _interrupt(context)
    body = _apply_range(context, reply)
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = body.length
    record.status = reply.status
    await response.prepare(context.request)
    if context.request.method != "HEAD" and body.length:
        await _send(context, response, body)
    await response.write_eof()
    return response


async def _interrupt(context: HandlerContext) -> None:
    """Close the connection, or leave it open without sending anything."""
    if context.fault is not None and context.fault.kind == "cut":
        raise DropConnection
    await context.state.hang()


def _apply_range(context: HandlerContext, reply: Reply) -> _Body:
    """Apply the request's Range to the reply (RFC 9110, section 14); return the bytes to send."""
    fault, blob = context.fault, reply.body
    size, padding = blob.size, 0
    kind = fault.kind if fault is not None else None
    if fault is not None and kind == "wrong_size" and reply.status < 400:
        if "X-Linked-Size" in reply.headers:
            linked = int(reply.headers["X-Linked-Size"]) + fault.size_delta
            reply.headers["X-Linked-Size"] = str(max(0, linked))
        if reply.ranges:
            size, padding = max(0, size + fault.size_delta), max(0, fault.size_delta)
    span = None if kind == "ignore_range" or not reply.ranges else _range(context, reply, size)
    if span is None:
        return _Body(blob, 0, min(size, blob.size), padding)
    start, stop = span
    if start >= stop:
        reply.status = 416
        reply.headers["Content-Range"] = f"bytes */{size}"
        return _Body(blob, 0, 0)
    if kind == "wrong_range":
        start, stop = min(start + 1, size - 1), min(stop + 1, size)
    reply.status = 206
    reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    inner_start, inner_stop = min(start, blob.size), min(stop, blob.size)
    return _Body(blob, inner_start, inner_stop, stop - start - (inner_stop - inner_start))


def _range(context: HandlerContext, reply: Reply, size: int) -> tuple[int, int] | None:
    """Return start and stop of a single range; start >= stop if it can't be satisfied."""
    match = _RANGE.match(context.request.headers.get("Range", ""))
    condition = context.request.headers.get("If-Range")
    if match is None or match[0] == "bytes=-" or (condition and condition != reply.headers.get("ETag")):
        return None
    first, last = match[1], match[2]
    if not first:
        return (max(0, size - int(last)), size) if int(last) else (size, size)
    stop = min(int(last) + 1, size) if last else size
    if last and int(last) < int(first):
        return None
    return int(first), stop


async def _send(context: HandlerContext, response: web.StreamResponse, body: _Body) -> None:
    record, fault = context.record, context.fault
    kind = fault.kind if fault is not None else None
    end_at = fault.after_bytes if fault is not None and kind in {"cut", "silent"} else None
    wrong_at = (fault.after_bytes or 0) if fault is not None and kind == "corrupt" else None
    whole = end_at is None and wrong_at is None and kind != "slow" and not context.state.rate_per_connection
    if whole and body.blob.path is not None and not body.padding:
        with body.blob.path.open("rb") as file:
            await _sendfile(context, file, body.start, body.stop)
        return
    due = time.monotonic()
    sent = 0
    for piece in _pieces(body):
        at = 0
        while at < len(piece):
            rate = (fault.rate if fault and kind == "slow" else None) or context.state.rate_per_connection
            step = max(1, min(_PACED_STEP, int(rate / 20))) if rate else _STEP
            if end_at is not None:
                if sent >= end_at:
                    await _interrupt(context)
                step = min(step, end_at - sent)
            part: bytes | memoryview = piece[at : at + step]
            if wrong_at is not None and sent <= wrong_at < sent + len(part):
                corrupted = bytearray(part)
                corrupted[wrong_at - sent] ^= 0xFF
                part = bytes(corrupted)
            await _write(context, response, part)
            at += len(part)
            sent += len(part)
            if rate:
                # A slow client can catch up by at most one second.
                due = max(due, time.monotonic() - 1) + len(part) / rate
                if due > time.monotonic():
                    await asyncio.sleep(due - time.monotonic())
    if end_at is not None and sent >= end_at:
        await _interrupt(context)
    record.bytes_sent = sent


async def _write(context: HandlerContext, response: web.StreamResponse, part: bytes | memoryview) -> None:
    """Write one part; bytes that are still in the buffer when the client disconnects don't count as sent."""
    transport = context.request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    context.record.bytes_sent += len(part)
    try:
        await response.write(part)
    except BaseException:
        context.record.bytes_sent -= min(len(part), transport.get_write_buffer_size())
        raise


async def _sendfile(context: HandlerContext, file: BinaryIO, start: int, stop: int) -> None:
    """Send a file with the sendfile system call."""
    transport = context.request.transport
    if transport is None:
        raise ConnectionResetError
    loop = asyncio.get_running_loop()
    while start < stop:
        step = min(_SENDFILE_STEP, stop - start)
        try:
            await loop.sendfile(transport, file, start, step)
        except BaseException:
            context.record.bytes_sent += max(0, file.tell() - start)
            raise
        context.record.bytes_sent += step
        start += step


def _pieces(body: _Body) -> Iterator[bytes | memoryview]:
    yield from body.blob.pieces(body.start, body.stop)
    remaining = body.padding
    while remaining > 0:
        yield bytes(min(remaining, _STEP))
        remaining -= _STEP
