"""Event streams: keep-alive comments, and clients that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from mlxk_tui.server.http.sse import ClientDisconnectedError, EventStream
from tests.support.waiting import PATIENCE_S

Work = Callable[[EventStream], Awaitable[None]]


@asynccontextmanager
async def streaming(work: Work) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a server that answers with the output of `work`."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        async with EventStream(request, {}, keep_alive_s=0.05, write_timeout_s=0.1) as out:
            await work(out)
        return out.response

    web_server = web.Server(handle, handler_cancellation=True)
    listener = await asyncio.get_running_loop().create_server(web_server, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    try:
        yield reader, writer
    finally:
        writer.close()
        listener.close()
        await web_server.shutdown(1)


async def test_waiting_stream_gets_comments() -> None:
    said = asyncio.Event()

    async def work(out: EventStream) -> None:
        await said.wait()
        await out.write(b"data: 1\n\n")
        await out.finish()

    async with streaming(work) as (reader, _):
        got = await reader.readuntil(b": keep-alive\n\n")
        assert b"text/event-stream" in got
        said.set()
        assert b"data: 1" in await reader.read()


async def test_client_that_does_not_read_is_disconnected() -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work(out: EventStream) -> None:
        try:
            while True:
                await out.write(b"data: " + b"x" * 1_000_000 + b"\n\n")
        except ClientDisconnectedError:
            ended.set_result("gone")
        except asyncio.CancelledError:
            ended.set_result("cancelled")
            raise

    async with streaming(work):
        assert await asyncio.wait_for(ended, PATIENCE_S) in {"gone", "cancelled"}


async def test_nothing_is_sent_before_the_first_event() -> None:
    begun: list[bool] = []

    async def work(out: EventStream) -> None:
        begun.append(out.headers_sent)
        await out.write(b"data: 1\n\n")
        begun.append(out.headers_sent)
        await out.finish()

    async with streaming(work) as (reader, _):
        assert (await reader.read()).endswith(b"0\r\n\r\n")
    assert begun == [False, True]
