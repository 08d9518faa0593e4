"""`--web` as a process: serves the app only to its own pages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.waiting import PATIENCE_S


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[str, Process]]:
    """Start a server with the demo; return its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlxk_tui", "--web", "--demo", "--web-port", str(port)]
    environment = {**os.environ, "MLXK_CONFIG": str(tmp_path / "config.toml")}
    with (tmp_path / "log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        async with aiohttp.ClientSession() as client:
            for _ in range(600):
                try:
                    await client.get(f"http://127.0.0.1:{port}/static/css/xterm.css")
                    break
                except aiohttp.ClientConnectorError:
                    assert server.returncode is None, (tmp_path / "log").read_text()
                    await asyncio.sleep(0.05)
        yield f"127.0.0.1:{port}", server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        await server.wait()


@pytest.mark.slow
async def test_web_serves_only_its_own_pages_and_ctrl_c_stops_it(
    served: tuple[str, Process],
) -> None:
    address, server = served
    async with aiohttp.ClientSession() as client:
        page = await client.get(f"http://{address}/")
        assert page.status == 200
        assert page.headers["X-Frame-Options"] == "DENY"
        html = await page.text()
        assert f"ws://{address}/ws" in html
        assert "googleapis" not in html

        for origin in ("https://example.org", f"https://{address}", "null", None):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(f"ws://{address}/ws", origin=origin)
            assert refused.value.status == 403
        rebound = {"Host": "example.org"}
        for path in ("/", "/ws", "/download/x"):
            assert (await client.get(f"http://{address}{path}", headers=rebound)).status == 403

        async with client.ws_connect(
            f"ws://{address}/ws?width=100&height=30", origin=f"http://{address}"
        ) as terminal:
            drawn = b""
            while b"Health" not in drawn:
                message = await terminal.receive(timeout=PATIENCE_S)
                assert message.type in {aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT}, message
                drawn += message.data if isinstance(message.data, bytes) else message.data.encode()
            server.send_signal(signal.SIGINT)
            async for _ in terminal:  # until the server closes it
                pass
            assert await asyncio.wait_for(server.wait(), PATIENCE_S) == 0
