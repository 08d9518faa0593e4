"""Listens for the clients of a share."""

from __future__ import annotations

import asyncio
import socket

from mlxk_tui.ops.core.addresses import is_loopback
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.os_errors import error_type
from mlxk_tui.ops.share.shared_models import SharedModels
from mlxk_tui.server.http.connections import WebServer
from mlxk_tui.server.http.security import Guard
from mlxk_tui.server.http.sockets import bind, port_in_use_error
from mlxk_tui.server.options import Address, ServerOptions
from mlxk_tui.server.share.app import ShareApp

DEFAULT_SHARE_PORT = 8200
_CANCEL_GRACE_S = 1.0
"""Seconds that cancelled requests get to end."""


class ShareServer:
    """The HTTP server of a share.

    Args:
        models: the shared models.
        options: address, keys, host names and limits; the options for inference have no effect.
    """

    def __init__(self, models: SharedModels, options: ServerOptions) -> None:
        self.options = options
        self.public = False
        """Whether other machines can reach it."""
        self._app = ShareApp(models, Guard(options), options.write_timeout_s)
        self._web: WebServer | None = None
        self._listeners: list[asyncio.Server] = []

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._web.connections) if self._web is not None else 0

    async def start(self) -> Address:
        """Start listening and return the address.

        Raises:
            OpError: `port_in_use`; `permission_denied` (a port below 1024); `validation_error` (unknown
                host, or a non-loopback address without a key).
        """
        sockets = await bind(self.options)
        addresses = [sock.getsockname() for sock in sockets]
        loop = asyncio.get_running_loop()
        self._web = WebServer(self._app.handle, self.options)
        try:
            for sock in sockets:
                self._listeners.append(await loop.create_server(self._web, sock=sock, backlog=256))
        except BaseException as error:
            self._close(sockets)
            if isinstance(error, OSError) and error_type(error) is ErrorType.PORT_IN_USE:
                raise await port_in_use_error(self.options.host, self.options.port) from None
            raise
        self.public = not all(is_loopback(str(address[0])) for address in addresses)
        return Address(self.options.host, int(addresses[0][1]))

    async def stop(self) -> None:
        """Close the port and end all transfers; clients can resume them."""
        self._close([])
        if self._web is not None:
            web, self._web = self._web, None
            web.close_idle()
            await self._app.cancel_all(_CANCEL_GRACE_S)
            await web.shutdown(_CANCEL_GRACE_S)

    def _close(self, sockets: list[socket.socket]) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for sock in sockets:
            sock.close()
