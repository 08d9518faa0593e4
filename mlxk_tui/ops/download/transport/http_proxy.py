"""HTTP proxies: logins, and tunnels for TLS."""

from __future__ import annotations

import base64
import http.client
import socket
from urllib.parse import SplitResult, unquote

from mlxk_tui.ops.download.transport.errors import ConnectionFailedError, FatalConnectionError


def proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    """Return the header with the login of a proxy; empty if its address has none."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def open_http_tunnel(sock: socket.socket, name: str, port: int, proxy: SplitResult) -> None:
    """Ask the proxy at the other end of a socket for a tunnel to a host (RFC 9110, CONNECT).

    Raises:
        FatalConnectionError: the proxy requires a login.
        ConnectionFailedError: it refused for another reason.
    """
    host = f"[{name}]" if ":" in name else name
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    lines += [f"{name}: {value}" for name, value in proxy_credentials(proxy).items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    response = http.client.HTTPResponse(sock, method="CONNECT")
    response.begin()
    if response.status != 200:
        if response.status == 407:
            raise FatalConnectionError("the proxy requires a user name and password")
        raise ConnectionFailedError(f"the proxy responded with status {response.status}")
