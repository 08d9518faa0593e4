"""Opens a connection through a SOCKS5 proxy (RFC 1928; RFC 1929 for user name and password)."""

from __future__ import annotations

import socket
from urllib.parse import SplitResult, unquote

SCHEMES = frozenset({"socks5", "socks5h"})
"""Schemes that `open_tunnel` supports; the proxy resolves names for both, as in httpx."""
PORT = 1080
"""Default port of a SOCKS proxy."""

_VERSION = 5
_NO_LOGIN, _LOGIN = 0, 2
_CONNECT, _NAME = 1, 3
_ADDRESS_BYTES = {1: 4, 4: 16}
_REFUSALS = {
    2: "it does not allow the connection",
    3: "it cannot reach the network",
    4: "it cannot reach the host",
    5: "the host refused the connection",
}


class SocksError(Exception):
    """The proxy did not open the connection; the text is a clause about the proxy."""


class LoginError(SocksError):
    """The proxy requires a user name and password, or rejected them."""


def open_tunnel(sock: socket.socket, host: str, port: int, proxy: SplitResult) -> None:
    """Open a tunnel through a proxy; the socket is then connected to the host.

    Args:
        sock: a blocking socket that is connected to the proxy.
        host: a name, which the proxy resolves, or an address.
        port: the host's port.
        proxy: the proxy's address, with user name and password if it requires them.

    Raises:
        LoginError: the proxy requires a user name and password, or rejected them.
        SocksError: the proxy refused, or is not a SOCKS5 proxy.
        OSError: the connection was interrupted.
    """
    name = host.encode("idna" if not host.isascii() else "ascii")
    if len(name) > 255:
        raise SocksError("the host name is too long")
    methods = [_NO_LOGIN] if proxy.username is None else [_NO_LOGIN, _LOGIN]
    sock.sendall(bytes([_VERSION, len(methods), *methods]))
    version, method = _read(sock, 2)
    if version != _VERSION:
        raise SocksError("it is not a SOCKS5 proxy")
    if method == _LOGIN and proxy.username is not None:
        _log_in(sock, proxy)
    elif method != _NO_LOGIN:
        raise LoginError("it requires a user name and password")
    sock.sendall(bytes([_VERSION, _CONNECT, 0, _NAME, len(name)]) + name + port.to_bytes(2, "big"))
    version, reply, _, kind = _read(sock, 4)
    if version != _VERSION or reply:
        raise SocksError(_REFUSALS.get(reply, f"it refused the connection ({reply})"))
    length = _ADDRESS_BYTES.get(kind) or _read(sock, 1)[0]
    _read(sock, length + 2)


def _log_in(sock: socket.socket, proxy: SplitResult) -> None:
    user, password = unquote(proxy.username or "").encode(), unquote(proxy.password or "").encode()
    if max(len(user), len(password)) > 255:
        raise LoginError("user name and password are limited to 255 bytes each")
    sock.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
    if _read(sock, 2)[1]:
        raise LoginError("it rejected the user name and password")


def _read(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise SocksError("it closed the connection")
        data += piece
    return data
