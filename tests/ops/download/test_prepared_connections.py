"""Connections that are made while a pull is planned."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from mlxk_tui.demo.hub import LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.download.connection_count import FIRST_CONNECTIONS, initial_connections
from mlxk_tui.ops.download.transport.connection import ConnectionPool, Origin
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.pull import pull
from tests.support.hf_cache import model_files
from tests.support.waiting import PATIENCE_S, wait_until

NAME = "org/model"


class Listener:
    """Accepts connections and answers one request on each."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.accepted: list[socket.socket] = []
        self.origin = Origin("http", "127.0.0.1", self.server.getsockname()[1])
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                connection.settimeout(PATIENCE_S)
                self.accepted.append(connection)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if connection.recv(10_000):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.server.close()
    for connection in found.accepted:
        connection.close()


def test_prepared_connection_is_used_for_the_request(listener: Listener) -> None:
    pool = ConnectionPool(PATIENCE_S, PATIENCE_S)
    pool.prepare(listener.origin, 2)
    wait_until(lambda: len(pool._ready) == len(listener.accepted) == 2)
    url = urlsplit(f"http://127.0.0.1:{listener.origin.port}/file")
    connections = [pool.new_connection() for _ in range(3)]
    for connection in connections:
        response, _ = connection.request(url, {})
        assert response.read() == b"hi"
    assert len(listener.accepted) == 3
    for connection in connections:
        connection.close()


def test_closed_connection_is_replaced(listener: Listener) -> None:
    pool = ConnectionPool(PATIENCE_S, PATIENCE_S)
    pool.prepare(listener.origin, 1)
    wait_until(lambda: len(pool._ready) == len(listener.accepted) == 1)
    listener.accepted[0].shutdown(socket.SHUT_RDWR)  # as a hub does with idle connections
    connection = pool.new_connection()
    response, _ = connection.request(urlsplit(f"http://127.0.0.1:{listener.origin.port}/"), {})
    assert response.read() == b"hi"
    connection.close()


def test_unused_connections_are_closed(listener: Listener) -> None:
    pool = ConnectionPool(PATIENCE_S, PATIENCE_S)
    pool.prepare(listener.origin, 3)
    wait_until(lambda: len(pool._ready) == len(listener.accepted) == 3)
    pool.close()
    assert [connection.recv(1) for connection in listener.accepted] == [b""] * 3
    pool.prepare(listener.origin, 1)  # one that is made too late
    wait_until(lambda: len(listener.accepted) == 4)
    assert listener.accepted[3].recv(1) == b""


def test_unreachable_origin_is_ignored() -> None:
    pool = ConnectionPool(1.0, 1.0)
    pool.prepare(Origin("http", "127.0.0.1", 1), 2)
    wait_until(lambda: not any(thread.name.startswith("mlxk-prepare") for thread in threading.enumerate()))
    assert pool._ready == []


def test_short_files_need_more_connections_at_first() -> None:
    assert initial_connections([10**9], 16) == FIRST_CONNECTIONS
    assert initial_connections([100] * 12 + [10**9], 16) == 12
    assert initial_connections([100] * 50, 16) == 16
    assert initial_connections([100] * 50, 4) == 4


async def test_pull_of_a_complete_model_opens_no_further_connections(cache: Cache) -> None:
    prepared: list[int] = []
    with LocalHub() as hub, pytest.MonkeyPatch.context() as patch:
        hub.add_repo(NAME, model_files())
        original = ConnectionPool.prepare

        def prepare(self: ConnectionPool, origin: Origin, count: int) -> None:
            prepared.append(count)
            original(self, origin, count)

        patch.setattr(ConnectionPool, "prepare", prepare)
        await pull(cache, NAME, hub=Hub(hub.url))
        assert prepared == [FIRST_CONNECTIONS]
        await pull(cache, NAME, hub=Hub(hub.url))
        with pytest.raises(OpError):
            await pull(cache, "org/missing", hub=Hub(hub.url), dry_run=True)
        assert prepared == [FIRST_CONNECTIONS]
