"""/v1/messages/count_tokens: the counts are those of real answers, and its work is bounded like theirs."""

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


def test_counted_tokens_are_those_of_the_prompt_with_its_tools(served: Served) -> None:
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


def test_what_cannot_be_counted_is_refused_in_the_shape_of_the_api(served: Served) -> None:
    unknown = count(served, model="no-such-model")
    assert (unknown.status, unknown.error["type"]) == (404, "not_found_error")
    assert "no-such-model" in unknown.error["message"]
    image = count(served, messages=[{"role": "user", "content": [IMAGE]}])
    assert (image.status, image.error["type"]) == (422, "invalid_request_error")


def test_a_prompt_that_is_too_long_is_counted_all_the_same(served: Served) -> None:
    counted = count(served, model=OTHER, messages=[{"role": "user", "content": "word " * 400}])
    assert counted.json["input_tokens"] > 256


@contextmanager
def stalled(served: Served) -> Iterator[int]:
    """Have a loaded model whose process does nothing; yields its process id."""
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
    """Have a request that counts and waits for the engine."""
    raw = json.dumps({"model": TINY, "messages": ROME}).encode()
    with served.raw() as connection:
        connection.sendall(
            f"POST {COUNT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw
        )
        served.until(lambda: served.server.generations == 1)
        yield connection


def test_a_full_queue_refuses_to_count(served: Served) -> None:
    with stalled(served), counting(served), served.options(max_queue=1):
        refused = count(served)
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert int(refused.headers["Retry-After"]) >= 1
    served.until(lambda: served.server.generations == 0)


def test_stopping_the_server_ends_the_counting_with_a_word(served: Served) -> None:
    with stalled(served), counting(served) as connection:
        served.loop.call_soon_threadsafe(served.server._service.generator.cancel_all)
        reply = parsed(connection.recv(65536))
    assert (reply.status, reply.error["type"], reply.error["code"]) == (503, "overloaded_error", "cancelled")
    assert count(served).status == 200


def test_a_client_that_goes_away_ends_the_counting(served: Served) -> None:
    with stalled(served):
        with counting(served):
            pass
        served.until(lambda: not served.server.log.live)
        assert served.server.generations == 0
    assert (served.server.log.finished[-1].route, served.server.log.finished[-1].status) == (COUNT, 499)
    assert count(served).status == 200


def test_an_engine_that_dies_fails_the_counting_and_the_next_one_waits_for_it(served: Served) -> None:
    expected = count(served).json
    with stalled(served) as pid, counting(served) as connection:
        os.kill(pid, signal.SIGKILL)
        reply = parsed(connection.recv(65536))
        assert (reply.status, reply.error["code"]) == (503, "engine_crashed")
        assert "Retry-After" in reply.headers
    assert served.server.health.value == "restarting"
    assert count(served).json == expected
    served.until(lambda: served.server.health.value == "ready")


def test_afterwards_it_is_well(served: Served) -> None:
    served.still_well()
    assert served.server.generations == 0
