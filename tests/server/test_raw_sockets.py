"""Slow, rude and broken clients, over raw sockets without an HTTP library."""

from __future__ import annotations

import json
import socket

import pytest

from tests.engine.conftest import needs_mlx
from tests.server.served import ANSWER, BABBLER, CHAT, COMPLETIONS, QUESTION, TINY, Served, parsed, read_all
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = needs_mlx

BODY = json.dumps(
    {
        "model": TINY,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "enable_thinking": False,
    }
).encode()


def head(length: int, *more: str, path: str = CHAT) -> bytes:
    """Return the headers of a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}", *more]
    return "\r\n".join((*lines, "", "")).encode()


def test_curl_request_is_answered(served: Served) -> None:
    with served.raw() as wire:
        wire.sendall(head(len(BODY), "Accept: */*", "Connection: close") + BODY)
        reply = parsed(read_all(wire))
    assert reply.text == ANSWER
    assert reply.headers["X-Request-ID"].startswith("req-")
    assert reply.headers["Content-Type"] == "application/json"


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    with served.raw() as wire:
        wire.sendall((head(len(BODY)) + BODY) * 2 + head(2, "Connection: close") + b"[]")
        raw = read_all(wire)
    assert raw.count(b"HTTP/1.1 200 OK") == 2
    assert raw.count(b"HTTP/1.1 400 ") == 1


def test_expect_continue_is_supported(served: Served) -> None:
    with served.raw() as wire:
        wire.sendall(head(len(BODY), "Expect: 100-continue", "Connection: close"))
        assert wire.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(BODY)
        assert parsed(read_all(wire)).text == ANSWER


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 408),
        (b"POST /v1/chat/comp", 408),
        (head(10)[:-2] + b"X-Slow: 1\r\n", 408),
        (head(100) + b"{", 408),
        (b"HELLO\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (head(5, "Content-Length: 6"), 400),
        (head(5, "Transfer-Encoding: chunked"), 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 400),
        (
            b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        (head(60_000_000), 413),
        (head(9, "Content-Encoding: gzip") + b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00", 415),
        (head(4) + b"\xff\xfe\xfd\xfc", 400),
    ],
    ids=[
        *("silent", "half-line", "half-headers", "half-body", "no-http", "version", "tls", "two-lengths"),
        *("length-and-chunks", "two-hosts", "huge-header", "bad-chunk", "huge-length", "gzip", "bytes"),
    ],
)
def test_invalid_http_gets_a_json_error_and_is_closed(served: Served, sent: bytes, status: int) -> None:
    with served.raw() as wire:
        wire.sendall(sent)
        wire.settimeout(PATIENCE_S)
        raw = b""
        while b"}}" not in raw:
            part = wire.recv(65536)
            assert part, raw
            raw += part
    reply = parsed(raw)
    assert reply.status == status
    assert reply.error["type"] == "validation_error"


def test_fifty_megabyte_body_is_rejected_without_buffering(served: Served) -> None:
    with served.raw() as wire:
        wire.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        block = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
        sent = 0
        try:
            for _ in range(50):
                wire.sendall(block)
                sent += 1
        except OSError:  # it closed the connection, as it may
            pass
        assert sent < 50 or parsed(read_all(wire)).status == 413
    refused = served.post(CHAT, b" " * 17_000_000)
    assert (refused.status, refused.error["type"]) == (413, "validation_error")
    served.still_well()


def test_half_close_or_disconnect_stops_the_generation(served: Served) -> None:
    body = json.dumps(
        {"model": BABBLER, "prompt": "Hello", "max_tokens": 4000, "logit_bias": {"0": -100}}
    ).encode()
    for vanish in (lambda wire: wire.shutdown(socket.SHUT_WR), lambda wire: None):
        with served.raw() as wire:
            wire.sendall(head(len(body), path=COMPLETIONS) + body)
            served.until(lambda: served.engine.status.streams == 1)
            vanish(wire)
        served.until(lambda: served.engine.status.streams == 0)
        wait_until(lambda: not served.server.log.live)
        assert served.server.log.finished[-1].status == 499
    assert served.server.generations == 0


def test_waiting_stream_gets_keep_alive_comments(served: Served) -> None:
    served.call(served.engine.unload())
    body = {"model": BABBLER, "prompt": "Hello, world! " * 250, "max_tokens": 2, "stream": True}
    with served.options(keep_alive_s=0.1):  # loading takes longer
        reply = served.post(COMPLETIONS, body)
    assert reply.status == 200
    assert reply.events[-1]["choices"][0]["finish_reason"] == "length"
    assert b": keep-alive\n\n" in reply.body
