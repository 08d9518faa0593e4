"""Unexpected exceptions end in an error response or a clean end of the stream, never a traceback."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.server import app
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import api_error
from mlxk_tui.server.options import ServerOptions
from mlxk_tui.server.server import Server
from tests.support.waiting import PATIENCE_S


async def broken(call: Call) -> Any:
    """Raise an unexpected exception."""
    raise ZeroDivisionError(call.entry.id)


async def hanging(call: Call) -> Any:
    """Never answer."""
    del call
    await asyncio.Event().wait()


@pytest.mark.slow
async def test_unexpected_exception_is_a_500_without_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        app, "APIS", ((Route("GET", "/broken", broken, ""), Route("GET", "/hang", hanging, "")),)
    )
    server = Server(Engine(), Cache(tmp_path), ServerOptions(port=0))
    address = await server.start()
    try:
        async with aiohttp.ClientSession(address.url) as client:
            async with client.get("/broken", headers={"X-Request-ID": "a"}) as response:
                told = await response.json()
            assert (response.status, response.headers["X-Request-ID"]) == (500, "a")
            assert told["error"]["type"] == "internal_error"
            assert "Traceback" not in str(told)
            asking = asyncio.create_task(client.get("/hang"))
            changed = asyncio.Event()
            unsubscribe = server.log.changed.subscribe(lambda entry: changed.set())
            while not server.log.live:
                changed.clear()
                await asyncio.wait_for(changed.wait(), PATIENCE_S)
            unsubscribe()
            # A hanging handler is cancelled with its connection.
            await asyncio.wait_for(server.stop(grace_s=0.05), PATIENCE_S)
            with pytest.raises(aiohttp.ClientError):
                await asking
        assert not server.log.live
    finally:
        await server.stop()


def test_every_error_type_has_a_response() -> None:
    for kind in ErrorType:
        told = api_error(OpError(kind, "What happened. What to do."))
        assert 400 <= told.status < 600
        assert told.body()["error"]["code"] == kind.value
    assert api_error(OSError(24, "Too many open files")).status == 503
    many = api_error(OpError(ErrorType.AMBIGUOUS_MATCH, "Two.", matches=["b/x", "a/x"]))
    assert "a/x, b/x" in many.message
