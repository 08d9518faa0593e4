"""/v1/messages: Anthropic's client gets the engine's answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.engine.generation import GenerationRequest, ToolCall
from mlxk_tui.server.anthropic.requests import MessagesRequest
from tests.engine.conftest import needs_mlx
from tests.server.fuzzing import fuzz
from tests.server.served import ANSWER, BABBLER, GREEDY, OTHER, QUESTION, TINY, Reply, Served
from tests.server.test_malformed import values
from tests.support.clients import anthropic

pytestmark = needs_mlx

PATH, COUNT = "/v1/messages", "/v1/messages/count_tokens"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
COLD = {"temperature": 0}
"""Clients of this API send no temperature any more."""
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}
ROME: list[Any] = [{"role": "user", "content": "How is the weather in Rome?"}]
RUNS: list[Any] = [{"role": "user", "content": "Why does a model not run here?"}]


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[anthropic.Anthropic]:
    """Return Anthropic's client."""
    with anthropic.Anthropic(base_url=served.address.url, api_key="none", max_retries=0) as client:
        yield client


def ask(served: Served, **more: Any) -> Reply:
    """Send a greedy request to the tiny model."""
    return served.post(PATH, {"model": TINY, "max_tokens": 200, "temperature": 0, "messages": ASKED, **more})


def events_of(reply: Reply) -> list[dict[str, Any]]:
    """Return the events of a stream without pings; check that their names match their types."""
    found = []
    for block in reply.body.decode().split("\n\n"):
        if block:
            name, data = block.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            if event["type"] != "ping":
                found.append(event)
    return found


def test_answer_and_counts_match_the_engine(served: Served, client: anthropic.Anthropic) -> None:
    text, finished = served.own(
        GenerationRequest(messages=tuple(ASKED), sampling=GREEDY, template_kwargs={"enable_thinking": False})
    )
    answer = client.messages.create(model=TINY, max_tokens=200, messages=ASKED, extra_body=COLD)
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == text == ANSWER
    assert (answer.model, answer.role, answer.stop_reason, answer.stop_sequence) == (
        TINY,
        "assistant",
        "end_turn",
        None,
    )
    usage = answer.usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == finished.usage.prompt_tokens
    assert usage.output_tokens == finished.usage.completion_tokens
    assert (usage.cache_read_input_tokens or 0) > 0  # this prompt is in the prompt cache


def test_stream_gives_the_same_answer_in_chunks(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="tiny-demo", max_tokens=200, messages=ASKED, extra_body=COLD) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 3
    assert "".join(pieces) == ANSWER
    assert message.content[0].type == "text"
    assert message.content[0].text == ANSWER
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 10


async def test_async_client_can_stream(served: Served) -> None:
    async with (
        anthropic.AsyncAnthropic(base_url=served.address.url, api_key="none", max_retries=0) as client,
        client.messages.stream(model=TINY, max_tokens=200, messages=ASKED, extra_body=COLD) as stream,
    ):
        assert await stream.get_final_text() == ANSWER


def test_events_have_the_order_of_the_api(served: Served) -> None:
    events = events_of(ask(served, stream=True))
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["message_start", "content_block_start", "content_block_delta"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    start = events[0]["message"]
    assert (start["type"], start["role"], start["content"], start["stop_reason"]) == (
        "message",
        "assistant",
        [],
        None,
    )
    assert start["usage"]["input_tokens"] + start["usage"]["cache_read_input_tokens"] > 5
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


@pytest.mark.slow
def test_thinking_is_a_separate_block_on_request(served: Served, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": TINY, "max_tokens": 300, "messages": RUNS, "extra_body": COLD}
    whole = client.messages.create(**asked, thinking=THINKING)
    first, second = whole.content
    assert first.type == "thinking"
    assert first.thinking.startswith("Sound and runnable are two things.")
    assert second.type == "text"
    assert second.text.startswith("Its files are complete")
    with client.messages.stream(**asked, thinking=THINKING) as stream:
        assert [block.to_dict() for block in stream.get_final_message().content] == [
            block.to_dict() for block in whole.content
        ]
    asked["messages"] = [
        *RUNS,
        {"role": "assistant", "content": [block.to_dict() for block in whole.content]},
        {"role": "user", "content": QUESTION},
    ]
    assert client.messages.create(**asked).content[0].type == "text"  # no thinking unless requested
    hidden = ask(served, messages=RUNS, thinking={"type": "enabled", "display": "omitted"}).json
    assert [block["type"] for block in hidden["content"]] == ["text"]
    assert hidden["usage"]["output_tokens_details"]["thinking_tokens"] > 10


def own_call(served: Served) -> ToolCall:
    """Return the engine's own call."""
    tool = {
        "type": "function",
        "function": {
            "name": WEATHER["name"],
            "description": WEATHER["description"],
            "parameters": WEATHER["input_schema"],
        },
    }
    generation = GenerationRequest(messages=tuple(ROME), sampling=GREEDY, tools=(tool,))
    (call,) = served.own_choice(generation).tool_calls
    return call


def test_tool_is_called_and_its_result_used(served: Served, client: anthropic.Anthropic) -> None:
    own = own_call(served)
    asked: Any = {
        "model": TINY,
        "max_tokens": 200,
        "tools": [WEATHER],
        "extra_body": COLD,
        "thinking": THINKING,
    }
    first = client.messages.create(**asked, messages=ROME)
    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    assert call.type == "tool_use"
    assert (call.name, call.input) == (own.name, json.loads(own.arguments))
    with client.messages.stream(**asked, messages=ROME) as stream:
        streamed = stream.get_final_message().content[-1]
    assert streamed.type == "tool_use"
    assert (streamed.name, streamed.input) == (call.name, call.input)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": '{"temperature": 18, "sky": "sunny"}'}
    messages = [
        *ROME,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = client.messages.create(**asked, messages=messages)
    before, after = (
        answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) for answer in (first, second)
    )
    assert after > before + 20


def test_stop_reason_names_the_stop_sequence_or_limit(served: Served) -> None:
    stopped = ask(served, stop_sequences=["never", "offline"]).json
    assert stopped["content"][0]["text"] == ANSWER.split("offline", maxsplit=1)[0]
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "offline")
    events = events_of(ask(served, stop_sequences=["offline"], stream=True))
    assert events[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "offline"}
    cut = ask(served, max_tokens=3).json
    assert (cut["stop_reason"], cut["usage"]["output_tokens"]) == ("max_tokens", 3)


def test_consecutive_turns_become_one_message(served: Served) -> None:
    short: Any = {"max_tokens": 12}
    plain = ask(served, **short, system="Answer only with JSON.").json["content"]
    blocks = [{"type": "text", "text": "Answer only with JSON.", "cache_control": {"type": "ephemeral"}}]
    assert ask(served, **short, system=blocks).json["content"] == plain
    assert (
        ask(served, **short, messages=[{"role": "system", "content": "Answer only with JSON."}, *ASKED]).json[
            "content"
        ]
        == plain
    )
    joined = ask(served, **short, messages=[{"role": "user", "content": "Hi\n\nthere"}]).json
    turns = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "there"}]
    assert ask(served, **short, messages=turns).json["content"] == joined["content"]
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": QUESTION}}
    assert (
        ask(served, **short, messages=[{"role": "user", "content": [document]}]).json["content"]
        == ask(served, **short).json["content"]
    )


def test_message_without_blocks_is_empty(served: Served) -> None:
    def ask(content: object) -> Reply:
        said = [{"role": "user", "content": content}]
        return served.post(
            "/v1/messages", {"model": TINY, "max_tokens": 3, "temperature": 0, "messages": said}
        )

    empty, none = ask(""), ask([])
    assert (none.status, none.json["content"]) == (200, empty.json["content"])


def test_api_key_is_read_from_both_headers(served: Served) -> None:
    with served.options(api_keys={"editor": "mlxk-secret"}):
        with anthropic.Anthropic(base_url=served.address.url, api_key="mlxk-secret", max_retries=0) as client:
            client.messages.create(model=TINY, max_tokens=1, messages=ASKED)
        assert served.server.log.finished[-1].key == "editor"
        with anthropic.Anthropic(
            base_url=served.address.url, auth_token="mlxk-secret", max_retries=0
        ) as client:
            client.messages.create(model=TINY, max_tokens=1, messages=ASKED)
        with (
            anthropic.Anthropic(base_url=served.address.url, api_key="wrong", max_retries=0) as client,
            pytest.raises(anthropic.AuthenticationError) as refused,
        ):
            client.messages.create(model=TINY, max_tokens=1, messages=ASKED)
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == "authentication_error"


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, 422, "'image'"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}],
                    }
                ]
            },
            422,
            "messages[0].content[0].content[0]",
        ),
        ({"messages": [*ASKED, {"role": "assistant", "content": "`v`"}]}, 400, "the last message"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "the last message"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, 400, "tool_use_id"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "requires text"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}, *ASKED]}, 400, "a name"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 400, "web_search_20250305"),
        ({"tool_choice": {"type": "any"}}, 400, "requires tools"),
        ({"tool_choice": {"type": "tool"}}, 400, "requires a name"),
        ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [WEATHER]}, 400, "'x'"),
        ({"stop_sequences": "x"}, 400, "stop_sequences"),
        ({"model": "no-such-model"}, 404, "no-such-model"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_invalid_requests_are_rejected_in_anthropics_format(
    served: Served, more: dict[str, Any], status: int, words: str
) -> None:
    reply = ask(served, **more)
    assert reply.status == status
    assert (reply.json["type"], reply.json["request_id"]) == ("error", reply.headers["X-Request-ID"])
    assert reply.error["type"] == {404: "not_found_error"}.get(status, "invalid_request_error")
    assert words in reply.error["message"]


def test_too_long_prompt_has_the_message_that_clients_search_for(served: Served) -> None:
    body = {"model": OTHER, "max_tokens": 5, "messages": [{"role": "user", "content": "word " * 400}]}
    for stream in (False, True):
        refused = served.post(PATH, {**body, "stream": stream})
        assert (refused.status, refused.error["type"]) == (400, "invalid_request_error")
        assert re.match(r"prompt is too long: \d+ tokens > 256 maximum\. ", refused.error["message"])


def test_waiting_stream_gets_pings(served: Served) -> None:
    body = {"model": BABBLER, "max_tokens": 1, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    blocker = {"model": TINY, "max_tokens": 200, "temperature": 0, "messages": ASKED}
    served.post(PATH, blocker)
    with served.options(keep_alive_s=0.001):  # loading another model takes longer
        reply = served.post(PATH, body)
    assert reply.body.startswith(b'event: ping\ndata: {"type":"ping"}\n\n')
    assert events_of(reply)[-1]["type"] == "message_stop"


def test_disconnect_frees_the_row(served: Served) -> None:
    body = {
        "model": BABBLER,
        "max_tokens": 3000,
        "stream": True,
        "messages": [{"role": "user", "content": "x"}],
    }
    for stream in (True, False):
        with served.raw() as connection:
            raw = json.dumps({**body, "stream": stream}).encode()
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
            connection.sendall(head.encode() + raw)
            served.until(lambda: any(entry.completion_tokens for entry in served.server.log.live))
        served.until(lambda: not served.server.log.live)
        entry = served.server.log.finished[-1]
        assert (entry.route, entry.status) == (PATH, 499)
        assert entry.completion_tokens < 3000
    served.still_well()


@fuzz(80)
@given(
    more=st.dictionaries(st.sampled_from(sorted(MessagesRequest.model_fields)), values, max_size=4),
    content=st.none()
    | st.lists(
        st.dictionaries(
            st.sampled_from(["type", "text", "id", "name", "input", "content", "tool_use_id", "thinking"]),
            values | st.sampled_from(["text", "tool_use", "tool_result", "thinking"]),
            max_size=4,
        ),
        max_size=3,
    ),
    role=st.sampled_from(["user", "assistant", "system"]),
    count=st.booleans(),
)
def test_random_requests_are_answered_or_rejected(
    served: Served, more: dict[str, Any], content: list[Any] | None, role: str, count: bool
) -> None:
    messages = ASKED if content is None else [{"role": role, "content": content}, *ASKED]
    body = {"model": TINY, "messages": messages, **more, "max_tokens": 2}
    reply = served.post(COUNT if count else PATH, body)
    assert reply.status == 200 or 400 <= reply.status < 500, (reply.status, reply.body, body)
    if reply.status not in {200, 408}:  # a request that arrives too slowly has no route yet
        assert reply.json["type"] == "error"
        assert reply.error["code"] != "internal_error"


def test_server_still_works_afterwards(served: Served) -> None:
    served.still_well()
    assert served.server.generations == 0
