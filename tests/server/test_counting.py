"""/v1/messages/count_tokens: counts match real answers, and the same limits apply."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.engine.conftest import needs_mlx
from tests.server.served import OTHER, TINY, Reply, Served, parsed
from tests.server.test_messages import COUNT, IMAGE, ROME, THINKING, WEATHER, ask
from tests.support.clients import anthropic

pytestmark = needs_mlx


def test_token_count_includes_tools(served: Served) -> None:
    forced = {"tools": [WEATHER], "tool_choice": {"type": "any"}}
    mores: list[dict[str, Any]] = [
        {},
        {"thinking": THINKING},
        {"system": "Be brief.", "tools": [WEATHER]},
        forced,
    ]
    counts = set()
    for more in mores:
        with anthropic.Anthropic(base_url=served.address.url, api_key="none", max_retries=0) as client:
            counted = client.messages.count_tokens(model=TINY, messages=ROME, **more).input_tokens
        entry = served.server.log.finished[-1]
        assert (entry.route, entry.prompt_tokens, entry.completion_tokens) == (COUNT, counted, 0)
        usage = ask(served, messages=ROME, max_tokens=1, **more).json["usage"]
        assert counted == usage["input_tokens"] + usage["cache_read_input_tokens"]
        counts.add(counted)
    assert len(counts) == len(mores)
    assert served.server.generations == 0


def count(served: Served, **more: Any) -> Reply:
    """Count tokens."""
    return served.post(COUNT, {"model": TINY, "messages": ROME, **more})


def test_invalid_count_requests_are_rejected_in_anthropics_format(served: Served) -> None:
    unknown = count(served, model="no-such-model")
    assert (unknown.status, unknown.error["type"]) == (404, "not_found_error")
    assert "no-such-model" in unknown.error["message"]
    image = count(served, messages=[{"role": "user", "content": [IMAGE]}])
    assert (image.status, image.error["type"]) == (422, "invalid_request_error")


def test_too_long_prompt_is_counted(served: Served) -> None:
    counted = count(served, model=OTHER, messages=[{"role": "user", "content": "word " * 400}])
    assert counted.json["input_tokens"] > 256


@contextmanager
def stalled(served: Served) -> Iterator[int]:
    """Load a model and suspend its process; yields the process id."""
    assert count(served).status == 200
    pid = served.engine.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def counting(served: Served) -> Iterator[socket.socket]:
    """Start a counting request that waits for the engine."""
    raw = json.dumps({"model": TINY, "messages": ROME}).encode()
    with served.raw() as connection:
        connection.sendall(
            f"POST {COUNT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw
        )
        served.until(lambda: served.server.generations == 1)
        yield connection


def test_full_queue_rejects_counting(served: Served) -> None:
    with stalled(served), counting(served), served.options(max_queue=1):
        refused = count(served)
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert int(refused.headers["Retry-After"]) >= 1
    served.until(lambda: served.server.generations == 0)


def test_stopping_the_server_cancels_counting_with_an_error(served: Served) -> None:
    with stalled(served), counting(served) as connection:
        served.loop.call_soon_threadsafe(served.server._service.generator.cancel_all)
        reply = parsed(connection.recv(65536))
    assert (reply.status, reply.error["type"], reply.error["code"]) == (503, "overloaded_error", "cancelled")
    assert count(served).status == 200


def test_disconnect_cancels_the_counting(served: Served) -> None:
    with stalled(served):
        with counting(served):
            pass
        served.until(lambda: not served.server.log.live)
        assert served.server.generations == 0
    assert (served.server.log.finished[-1].route, served.server.log.finished[-1].status) == (COUNT, 499)
    assert count(served).status == 200


def test_engine_crash_fails_the_counting_and_the_next_request_works(served: Served) -> None:
    expected = count(served).json
    with stalled(served) as pid, counting(served) as connection:
        os.kill(pid, signal.SIGKILL)
        reply = parsed(connection.recv(65536))
        assert (reply.status, reply.error["code"]) == (503, "engine_crashed")
        assert "Retry-After" in reply.headers
    assert served.server.health.value == "restarting"
    assert count(served).json == expected
    served.until(lambda: served.server.health.value == "ready")


def test_server_still_works_afterwards(served: Served) -> None:
    served.still_well()
    assert served.server.generations == 0
