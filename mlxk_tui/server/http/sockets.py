"""Binds the listening sockets; non-loopback addresses require an API key."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import psutil

from mlxk_tui.ops.core.addresses import is_loopback
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_type
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.http.keys import missing_key_error
from mlxk_tui.server.options import ServerOptions, parse_port

_MAX_PORTS_TRIED = 100


async def bind(options: ServerOptions) -> list[socket.socket]:
    """Return bound sockets for all addresses of the host, at least one; all have the same port.

    Raises:
        OpError: `port_in_use`; `permission_denied`; `validation_error` if the host is unknown or doesn't
            belong to this machine, or is not loopback and there is no API key.
    """
    host, port = options.host.strip().strip("[]"), parse_port(options.port)
    addresses = await _resolve(host, port)
    if not options.api_keys and not all(is_loopback(address[0]) for _, address in addresses):
        raise missing_key_error(host)
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses:
            try:
                sockets.append(_bind_one(family, (address[0], port, *address[2:])))
            except OSError as error:
                if sockets and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    continue  # localhost on a machine with only one of IPv4 and IPv6
                raise
            port = sockets[0].getsockname()[1]
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise await _to_op_error(error, host, port) from None
    return sockets


def next_free_port(host: str, port: int) -> int | None:
    """Return the first free port after `port`, or None if the next 100 are in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port + 1, min(port + 1 + _MAX_PORTS_TRIED, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host.strip().strip("[]"), candidate))
            except OSError:
                continue
            return candidate
    return None


async def _resolve(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise _validation_error(
            f"Unknown host '{printable(host)[:100]}'. Use 127.0.0.1 or another address of this machine."
        ) from None
    unique = dict.fromkeys((int(family), address) for family, _, _, _, address in found)
    # IPv4 first: clients try it first, and with port 0 it determines the port.
    return sorted(unique, key=lambda item: item[0])


def _bind_one(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for a restart right after a stop
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _to_op_error(error: OSError, host: str, port: int) -> OpError:
    kind = error_type(error)
    if kind is ErrorType.PORT_IN_USE:
        return await port_in_use_error(host, port)
    if kind is ErrorType.PERMISSION_DENIED:
        return OpError(
            ErrorType.PERMISSION_DENIED,
            f"No permission to use port {port}.",
            remedy=Remedy.CHOOSE_HIGHER_PORT,
        )
    return _validation_error(f"Can't listen on {printable(host)[:100]}: {error.strerror or error}.")


async def port_in_use_error(host: str, port: int) -> OpError:
    """Return the error for a port in use, with the process that uses it if this user may see it."""
    owner = await asyncio.to_thread(_port_owner, port)
    return OpError(
        ErrorType.PORT_IN_USE,
        f"Port {port} of {printable(host)[:100]} is already in use{f' by {owner}' if owner else ''}.",
        remedy=Remedy.CHOOSE_ANOTHER_PORT,
    )


def _port_owner(port: int) -> str | None:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f"{printable(psutil.Process(connection.pid).name())} (process {connection.pid})"
    except (psutil.Error, OSError, RuntimeError):  # macOS requires root
        return None
    return None


def _validation_error(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)
