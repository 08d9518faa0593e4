"""Hostile bodies get a 4xx and do not block the server's event loop."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.server.app import APIS
from mlxk_tui.server.errors import ApiError
from mlxk_tui.server.http.body import BodyBudget
from mlxk_tui.server.openai.completion_request import CompletionRequest
from mlxk_tui.server.requests.schema import Schema
from tests.engine.conftest import is_gone, needs_mlx
from tests.server.fuzzing import fuzz
from tests.server.served import CHAT, COMPLETIONS, OTHER, TINY, Served
from tests.support.waiting import wait_until

EMBEDDINGS, MESSAGES, RESPONSES = "/v1/embeddings", "/v1/messages", "/v1/responses"
FAULTS = b'{"prompt": [5, ' + b'"a", 5, ' * 750_000 + b"5]}"
"""6 MB in which every other item is of the wrong type."""
SOME_FAULTS = b'{"prompt": [5, ' + b'"a", 5, ' * 50_000 + b"5]}"
"""So few that the process that parsed them stays."""
TEXTS = FAULTS.replace(b"[5", b'["a"')
"""The same, where texts come first: more values than a request may have."""


def body_of(path: str, head: bytes, unit: bytes, times: int, tail: bytes) -> bytes:
    """Return a body whose main field contains `unit` many times."""
    field = {COMPLETIONS: b"prompt", EMBEDDINGS: b"input", RESPONSES: b"input"}.get(path, b"messages")
    return b'{"model": "' + TINY.encode() + b'", "' + field + b'": ' + head + unit * times + tail + b"}"


def thread_seconds(served: Served) -> float:
    """Return the processor time of the server's event loop thread, in seconds."""

    async def used() -> float:
        return time.thread_time()

    return served.call(used())


@pytest.mark.slow
@needs_mlx
def test_bodies_with_millions_of_errors_do_not_block_the_event_loop(served: Served) -> None:
    served.post(COMPLETIONS, FAULTS)  # starts the parser process
    before = thread_seconds(served)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda body: served.post(COMPLETIONS, body), [FAULTS, TEXTS] * 4))
    used = thread_seconds(served) - before
    assert {(reply.status, reply.error["param"]) for reply in replies} == {(400, "prompt[1]"), (413, None)}
    # Processor time in seconds: one body took 46 when it was validated in the event loop.
    assert used < 8 * 0.25
    served.still_well()


@needs_mlx
def test_too_many_token_ids_are_rejected_before_unpacking(served: Served) -> None:
    before = thread_seconds(served)
    raw = b'{"model": "%b", "prompt": [%b5]}' % (OTHER.encode(), b"5," * 2_000_000)
    for body in (raw, raw.replace(b"[", b"[[").replace(b"]", b"]]")):
        refused = served.post(COMPLETIONS, body)
        assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")
        assert (
            "maximum context length is 256 tokens. However, your prompt resulted in 2000001"
            in (refused.error["message"])
        )
    assert thread_seconds(served) - before < 1.0


def _lists(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            yield schema
        schema = list(schema.values())
    if isinstance(schema, (list, tuple)):
        for inner in schema:
            yield from _lists(inner)


SCHEMAS = sorted(
    {route.schema for api in APIS for route in api if route.schema is not None}, key=lambda one: one.__name__
)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda one: one.__name__)
def test_validation_stops_at_the_first_error_of_a_list(schema: type[Schema]) -> None:
    lists = list(_lists(schema.__pydantic_core_schema__))
    assert lists
    assert all(one.get("fail_fast") for one in lists)


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        (["a", 5], "prompt[1]: it must be a valid string."),
        ([5, "a"], "prompt[1]: it must be a valid integer."),
        ([[5], "a"], "prompt[1]: it must be a valid list."),
        ([[5, "a"]], "prompt[0][1]: it must be a valid integer."),
        ([True], "prompt[0]: it must be a valid integer."),
    ],
)
@needs_mlx
def test_prompt_type_is_that_of_its_first_item(served: Served, prompt: object, fault: str) -> None:
    reply = served.post(COMPLETIONS, {"model": TINY, "prompt": prompt})
    assert (reply.status, reply.error["message"]) == (400, fault)


UNITS = [
    *(b'"a", ', b"5, ", b"0.125, ", b"null, ", b"[], ", b"{}, ", b'{"a": 1}, ', b"[[1], ", b'{"a": '),
    *(b'{"role": "user"}, ', b'{"role": "user", "content": "x"}, ', b'{"type": "text", "text": "x"}, '),
    *(b'"\\u00e9", ', b'"\\ud800", ', b"9999999999999999999999, ", b"-1, ", b'"\\"\\"\\"", ', b"1e400, "),
]


@fuzz(12)
@given(
    path=st.sampled_from([CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES]),
    head=st.sampled_from([b"[", b"[[", b'[{"role": "user", "content": [', b'{"a": [']),
    unit=st.sampled_from(UNITS),
    tail=st.sampled_from([b"1]", b"1]]", b"1]}]", b"1]}"]),
)
@needs_mlx
def test_bodies_with_too_many_items_are_rejected(
    served: Served, path: str, head: bytes, unit: bytes, tail: bytes
) -> None:
    reply = served.post(path, body_of(path, head, unit, 300_000, tail))
    assert reply.status in {400, 413, 422}, reply.body[:500]
    assert reply.json["error"]["message"]
    assert len(reply.body) < 3000


@needs_mlx
def test_too_many_keys_are_rejected(served: Served) -> None:
    keys = b",".join(b'"%x":1' % number for number in range(300_000))
    for name in ("logit_bias", "chat_template_kwargs", "metadata"):
        reply = served.post(RESPONSES, b'{"input": "x", "%b": {%b}}' % (name.encode(), keys))
        assert reply.status == 413


@needs_mlx
def test_large_valid_request_is_answered_normally(served: Served) -> None:
    question = {"role": "user", "content": "What does verify do?"}
    small = served.chat("", messages=[question])
    padded = b" " * (1 << 20) + json.dumps(
        {"model": TINY, "messages": [question], "temperature": 0, "enable_thinking": False}
    ).encode("utf-8")
    large = served.post(CHAT, padded)
    assert (large.status, large.text) == (200, small.text)
    assert served.server._service.parser.pids


@needs_mlx
def test_killed_parser_process_fails_no_request(served: Served) -> None:
    assert served.post(COMPLETIONS, SOME_FAULTS).status == 400
    pids = served.server._service.parser.pids
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert served.post(COMPLETIONS, SOME_FAULTS).status == 400
    wait_until(lambda: not set(pids) & set(served.server._service.parser.pids))


@needs_mlx
def test_parser_processes_end_with_the_server(model_hub: Path) -> None:
    served = Served(model_hub)
    try:
        assert served.post(COMPLETIONS, SOME_FAULTS).status == 400
        (pid,) = served.server._service.parser.pids
    finally:
        served.close()
    wait_until(lambda: is_gone(pid))


async def test_bodies_beyond_the_memory_limit_are_rejected_temporarily() -> None:
    budget = BodyBudget(100_000, timeout_s=0.01)
    with budget.reserve() as first, budget.reserve() as second:
        await first.grow(90_000)
        await second.grow(60_000)  # a small one
        with pytest.raises(ApiError) as refused:
            await second.grow(70_000)
        assert (refused.value.status, refused.value.type) == (429, "server_busy")
        assert refused.value.headers["Retry-After"]
    assert budget.reserved == 0
    with budget.reserve() as third:
        await third.grow(100_000)
        assert budget.reserved == 100_000


def test_error_names_the_first_invalid_field() -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        CompletionRequest.model_validate({"prompt": ["a", *[5] * 1000]})
