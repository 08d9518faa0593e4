"""`--web`: serves the app to a browser on this machine, but not to other web pages open in it."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

from aiohttp import web
from textual_serve.server import Server

HOST = "127.0.0.1"
_FONT_FROM_ELSEWHERE = re.compile(r"<link\b[^>]*\bfonts\.googleapis\.com[^>]*>")


class LocalServer(Server):
    """textual-serve's server, restricted to this machine.

    The server has no login, and any page in the user's browser could open a WebSocket and press keys. So the
    Host header must be this address, and a WebSocket must come from a page of this server.

    Args:
        command: the shell command that runs for each page.
        port: the port on the loopback interface.
    """

    def __init__(self, command: str, port: int) -> None:
        super().__init__(command, host=HOST, port=port, title="mlxk-tui")
        self._addresses = frozenset({f"{HOST}:{port}", f"localhost:{port}"})
        self._open: set[asyncio.Task[Any]] = set()

    def serve(self, debug: bool = False) -> None:
        """Serve until Ctrl-C.

        Raises:
            OSError: the port is not available; nothing has been printed yet.
        """
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, self.port))
        super().serve(debug)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """Serve the page without external resources, and forbid framing by other pages."""
        self._check(request)
        response = await super().handle_index(request)
        if isinstance(response, web.Response):  # always true, but the decorator's type is wider
            response.text = _FONT_FROM_ELSEWHERE.sub("", response.text or "")
        response.headers["X-Frame-Options"] = "DENY"
        return response

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run the app for a page of this server."""
        self._check(request)
        scheme, _, address = request.headers.get("Origin", "").partition("://")
        if scheme != "http" or address not in self._addresses:
            raise web.HTTPForbidden(text="Forbidden: the WebSocket must come from a page of this server.")
        if (task := asyncio.current_task()) is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        return await super().handle_websocket(request)

    async def on_shutdown(self, app: web.Application) -> None:
        """Stop the running apps; aiohttp would wait a minute for their pages to close."""
        del app
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=5)

    async def handle_download(self, request: web.Request) -> web.StreamResponse:
        """Serve a file that the app offers for download."""
        self._check(request)
        return await super().handle_download(request)

    def _check(self, request: web.Request) -> None:
        """Reject a request with another Host header: DNS rebinding by another page."""
        if request.headers.get("Host") not in self._addresses:
            raise web.HTTPForbidden(text=f"Forbidden: use the address http://{HOST}:{self.port}.")
