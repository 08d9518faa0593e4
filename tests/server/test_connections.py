"""With very many connections, `/health` still answers and running requests continue."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, COMPLETIONS, Served
from tests.support.waiting import PATIENCE_S, wait_until

MANY = 540
NOTHING = b""
HALF_A_HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-"
HALF_A_BODY = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 50000\r\n\r\n{"prompt": "'
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a separate server with an empty cache and the default limits."""
    with contextlib.closing(Served(tmp_path_factory.mktemp("hub"))) as served:
        yield served


@contextmanager
def connections(port: int, number: int, said: Callable[[int], bytes]) -> Iterator[None]:
    """Open this many connections, send something on each, and leave them open."""
    with ExitStack() as stack:
        for at in range(number):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
            with contextlib.suppress(ConnectionError):
                sock.sendall(said(at))
        yield


def half_of_them(at: int) -> bytes:
    return (NOTHING, HALF_A_HEAD)[at % 2]


@pytest.mark.parametrize(
    "said", [half_of_them, lambda at: HALF_A_BODY], ids=["nothing or half a head", "half a body"]
)
def test_server_answers_with_540_open_connections(served: Served, said: Callable[[int], bytes]) -> None:
    with connections(served.address.port, MANY, said):
        for _ in range(5):
            assert served.get("/health").status == 200
    wait_until(lambda: not served.server.log.live)
    assert served.get("/v1/models").status == 200


def test_too_many_active_connections_are_rejected(served: Served) -> None:
    with connections(served.address.port, MANY, lambda at: HALF_A_BODY):
        served.until(lambda: len(served.server.log.live) >= 512)
        # The last connections are being rejected: until they are closed, one of them is replaced.
        reply = next(reply for reply in iter(lambda: served.get("/v1/models"), None) if reply.status == 503)
        assert reply.error["code"] == "server_busy"
        assert "Retry-After" in reply.headers
        assert served.get("/health").status == 200
    wait_until(lambda: not served.server.log.live)
    assert served.get("/v1/models").status == 200


@pytest.mark.slow
@needs_mlx
def test_idle_connections_do_not_end_streams(model_hub: Path) -> None:
    with contextlib.closing(Served(model_hub, max_connections=20)) as served:
        body = json.dumps(
            {
                "model": BABBLER,
                "prompt": "Hello",
                "max_tokens": 200,
                "stream": True,
                "logit_bias": {"0": -100},
            }
        ).encode()
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", served.address.port), PATIENCE_S) as asking:
            asking.sendall(head.encode() + body)
            served.until(lambda: any(entry.completion_tokens for entry in served.server.log.live))
            with connections(served.address.port, 60, half_of_them):
                came = b""
                while b"[DONE]" not in came:
                    piece = asking.recv(65_536)
                    assert piece
                    came += piece


_FEW_FILES = """
import asyncio, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (240, 240))
from mlxk_tui.engine.client import Engine
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.server.options import ServerOptions
from mlxk_tui.server.server import Server

async def main():
    server = Server(Engine(), Cache(Path(sys.argv[1])), ServerOptions(port=0))
    print((await server.start()).port, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop()

asyncio.run(main())
"""


@pytest.mark.slow
def test_file_limit_reduces_the_number_of_connections(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _FEW_FILES, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        port = int(child.stdout.readline())
        with connections(port, 300, half_of_them), socket.create_connection(("127.0.0.1", port)) as asking:
            asking.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert asking.recv(65_536).startswith(b"HTTP/1.1 200")
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.wait(PATIENCE_S) == 0
