"""Pickled values over a stream socket, each after its length in eight bytes; both ends are of one program."""

from __future__ import annotations

import pickle
import socket
from typing import Any

_HEAD_BYTES = 8


def send(sock: socket.socket, value: object) -> None:
    """Send a value.

    Raises:
        OSError: the other end is gone, or does not read within the socket's time-out.
    """
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    sock.sendall(len(data).to_bytes(_HEAD_BYTES, "big"))
    sock.sendall(data)


def receive(sock: socket.socket) -> Any:
    """Return the next value.

    Raises:
        EOFError: the other end is gone.
        OSError: it is, or says nothing within the socket's time-out.
    """
    size = int.from_bytes(_exactly(sock, _HEAD_BYTES), "big")
    return pickle.loads(_exactly(sock, size))  # noqa: S301 - our own process wrote it


def _exactly(sock: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return data
