"""A connection through a SOCKS5 proxy (RFC 1928, and RFC 1929 for name and password)."""

from __future__ import annotations

import socket
from urllib.parse import SplitResult, unquote

SCHEMES = frozenset({"socks5", "socks5h"})
"""Kinds of proxy that `open_tunnel` speaks to; the proxy looks names up with both, as httpx has it."""
PORT = 1080
"""Where a SOCKS proxy listens unless its address says otherwise."""

_VERSION = 5
_NO_LOGIN, _LOGIN = 0, 2
_CONNECT, _NAME = 1, 3
_ADDRESS_BYTES = {1: 4, 4: 16}
_REFUSALS = {
    2: "it does not allow that connection",
    3: "it cannot reach the network",
    4: "it cannot reach the host",
    5: "the host refused the connection",
}


class SocksError(Exception):
    """The proxy does not make the connection; the text ends a sentence about it."""


class LoginError(SocksError):
    """It wants another name or password."""


def open_tunnel(sock: socket.socket, host: str, port: int, proxy: SplitResult) -> None:
    """Let a proxy connect a socket to a host; what is sent and read afterwards is the host's.

    Args:
        sock: a connection to the proxy, blocking.
        host: a name, which the proxy looks up, or an address.
        port: the host's port.
        proxy: the proxy's address, with name and password where it wants them.

    Raises:
        LoginError: it wants a name and a password, or others.
        SocksError: it refuses, or is no SOCKS5 proxy.
        OSError: the connection broke.
    """
    name = host.encode("idna" if not host.isascii() else "ascii")
    if len(name) > 255:
        raise SocksError("the name of the host is too long for it")
    methods = [_NO_LOGIN] if proxy.username is None else [_NO_LOGIN, _LOGIN]
    sock.sendall(bytes([_VERSION, len(methods), *methods]))
    version, method = _read(sock, 2)
    if version != _VERSION:
        raise SocksError("what listens there is no SOCKS5 proxy")
    if method == _LOGIN and proxy.username is not None:
        _log_in(sock, proxy)
    elif method != _NO_LOGIN:
        raise LoginError("it wants a name and a password")
    sock.sendall(bytes([_VERSION, _CONNECT, 0, _NAME, len(name)]) + name + port.to_bytes(2, "big"))
    version, reply, _, kind = _read(sock, 4)
    if version != _VERSION or reply:
        raise SocksError(_REFUSALS.get(reply, f"it refused the connection ({reply})"))
    length = _ADDRESS_BYTES.get(kind) or _read(sock, 1)[0]
    _read(sock, length + 2)


def _log_in(sock: socket.socket, proxy: SplitResult) -> None:
    user, password = unquote(proxy.username or "").encode(), unquote(proxy.password or "").encode()
    if max(len(user), len(password)) > 255:
        raise LoginError("name and password have at most 255 bytes each")
    sock.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
    if _read(sock, 2)[1]:
        raise LoginError("it does not accept the name and the password")


def _read(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise SocksError("it closed the connection")
        data += piece
    return data
