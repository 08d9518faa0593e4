"""Sends pickled values over a stream socket, each preceded by its length in eight bytes, big-endian."""

from __future__ import annotations

import pickle
import socket
from typing import Any

_HEAD_BYTES = 8


def send(sock: socket.socket, value: object) -> None:
    """Send a value.

    Raises:
        OSError: the other end is closed, or does not read within the socket's timeout.
    """
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    sock.sendall(len(data).to_bytes(_HEAD_BYTES, "big"))
    sock.sendall(data)


def receive(sock: socket.socket) -> Any:
    """Receive a value.

    Raises:
        EOFError: the other end is closed.
        OSError: the connection failed, or nothing arrives within the socket's timeout.
    """
    size = int.from_bytes(_receive_exactly(sock, _HEAD_BYTES), "big")
    return pickle.loads(_receive_exactly(sock, size))  # noqa: S301 - written by a process of this program


def _receive_exactly(sock: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return data
