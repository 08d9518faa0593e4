"""Malformed requests get a 4xx in OpenAI's format and do not affect others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.server.errors import invalid
from mlxk_tui.server.openai.completion_request import CompletionRequest
from mlxk_tui.server.requests.chat_request import ChatRequest
from tests.engine.conftest import needs_mlx
from tests.server.fuzzing import fuzz
from tests.server.served import ANSWER, BABBLER, CHAT, COMPLETIONS, QUESTION, TINY, Served

pytestmark = needs_mlx

MESSAGES = [{"role": "user", "content": QUESTION}]
DEEP = b'{"messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (COMPLETIONS, {"prompt": ["Hello", "world"]}),
        (COMPLETIONS, {"prompt": "Hello, world! How are"}),
        (CHAT, {"messages": MESSAGES, "top_k": 1_000_000}),
        (CHAT, {"messages": MESSAGES, "logit_bias": {"99999999": 5}}),
        (CHAT, {"messages": MESSAGES, "stop": 5}),
    ],
    ids=["list", "cached", "top_k", "logit_bias", "stop"],
)
def test_requests_that_crash_mlx_lm_server_are_harmless(
    served: Served, path: str, more: dict[str, Any]
) -> None:
    for _ in range(2):  # the second time the prompt is cached
        reply = served.post(path, {"model": TINY, "max_tokens": 2, **more})
        if path == COMPLETIONS:
            assert reply.status == 200
        else:
            assert (reply.status, reply.error["type"]) == (400, "validation_error")
            assert next(iter(more.keys() - {"messages"})) in reply.error["message"]
    served.still_well()


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
        ({"messages": MESSAGES * 10_001}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"seed": 2**64}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": "x" * 1001}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
        ({"model": 5}, "model"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_invalid_field_is_named(served: Served, more: dict[str, Any], param: str) -> None:
    reply = served.post(CHAT, {"model": TINY, "messages": MESSAGES, **more})
    assert (reply.status, reply.error["type"]) == (400, "validation_error"), reply.body
    assert reply.error["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"text"', b"{'a': 1}", b"\xff\xfe{}", b'{"a": \xff}', b"\x00"),
        *(b'{"temperature": NaN}', b'{"temperature": Infinity}', b'{"n": 1' + b"0" * 5000 + b"}"),
        *(DEEP, b"[" * 100_000, b'{"messages": [' + b"{}," * 400_000 + b"{}]}", b"\xef\xbb\xbf{}"),
    ],
    ids=lambda body: repr(body[:14]),
)
def test_invalid_bodies_are_rejected(served: Served, body: bytes) -> None:
    reply = served.post(CHAT, body)
    assert reply.status in {400, 413}
    assert reply.error["type"] == "validation_error"


@pytest.mark.parametrize(
    ("model", "status", "kind"),
    [
        ("no-such-model", 404, "model_not_found"),
        ("mlx-community", 404, "model_not_found"),
        ("x", 404, "model_not_found"),
        ("../../etc/passwd", 400, "validation_error"),
        ("/etc/passwd", 400, "validation_error"),
        ("https://example.org/model", 400, "validation_error"),
        ("tiny-demo@abc", 404, "revision_not_found"),
        ("x" * 5000, 400, "validation_error"),
        ("a\x00b", 400, "validation_error"),
        ("\ud800", 404, "model_not_found"),
    ],
)
def test_model_name_is_never_a_path_url_or_download(
    served: Served, model: str, status: int, kind: str
) -> None:
    reply = served.post(CHAT, {"model": model, "messages": MESSAGES})
    assert (reply.status, reply.error["type"], reply.error["param"]) in {
        (status, kind, "model"),
        (status, kind, None),
        (400, "validation_error", "model"),
    }
    assert len(reply.body) < 3000


def test_lone_surrogate_in_a_prompt_is_answered(served: Served) -> None:
    body = b'{"model": "%b", "prompt": "\\ud800 x", "echo": true, "max_tokens": 1}' % BABBLER.encode()
    reply = served.post(COMPLETIONS, body)
    assert reply.status == 200
    reply.body.decode("ascii")


def test_error_message_is_limited_and_printable() -> None:
    error = invalid("x\x1b[31m" * 10_000)
    assert len(error.message) <= 2000
    assert "\x1b" not in error.message


# Fuzz

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 0.5, 1e308, "", "auto", "user", "text", TINY, BABBLER])
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


def fields_of(schema: type[ChatRequest] | type[CompletionRequest]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for requests with random values in some fields."""
    names = sorted(set(schema.model_fields) - {"n"})
    return st.dictionaries(st.sampled_from(names), values, max_size=4)


def check(served: Served, path: str, body: dict[str, Any]) -> None:
    """Send a request that may be invalid; the result must be an answer or a client error."""
    raw = json.dumps(body).encode()
    reply = served.post(path, raw)
    assert reply.status == 200 or 400 <= reply.status < 500, (reply.status, reply.body, raw)
    if reply.status != 200:
        assert reply.error["type"] != "internal_error"
    elif body.get("stream") is True:
        assert not any("error" in event for event in reply.events), raw


@pytest.mark.slow
@fuzz(150)
@given(more=fields_of(ChatRequest))
def test_random_chat_requests_are_answered_or_rejected(served: Served, more: dict[str, Any]) -> None:
    check(
        served,
        CHAT,
        {"model": TINY, "messages": MESSAGES, "max_completion_tokens": 2, **more, "max_tokens": 2},
    )


@fuzz(150)
@given(more=fields_of(CompletionRequest))
def test_random_completion_requests_are_answered_or_rejected(served: Served, more: dict[str, Any]) -> None:
    check(served, COMPLETIONS, {"model": TINY, "prompt": "Hi", **more, "max_tokens": 2})


def test_server_still_answers_exactly_afterwards(served: Served) -> None:
    served.still_well()
    assert served.server.generations == 0
    assert served.chat(QUESTION, stream=False).text == ANSWER
