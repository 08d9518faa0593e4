"""A call truncated by max_tokens at any token is a call, over each API, streamed and whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, CHAT, TINY, Served
from tests.support.clients import anthropic, openai

pytestmark = needs_mlx

CITY = 'Zü"日🙂'
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": [CITY]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [{"name": name, "parameters": SCHEMA} for name in ("get_weather", "get_time")]
WRAPPER = ("arguments", "parameters", "tool_call", '{"na')
ASKED = "How is the weather in Rome?"


@dataclass(frozen=True)
class Answer:
    """An answer as seen by a client."""

    text: str | None
    calls: tuple[tuple[str, str], ...]
    """Names, and arguments as text."""
    reason: str
    whole: bool = True
    """Whether a call counts as completed."""


def chat(served: Served, model: str, choice: Any, tokens: int, stream: bool, **more: Any) -> Answer:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": ASKED}],
        "temperature": 0,
        "max_tokens": tokens,
        "tools": [{"type": "function", "function": tool} for tool in TOOLS],
        "tool_choice": choice,
        "enable_thinking": False,
        "stream": stream,
        **more,
    }
    reply = served.post(CHAT, body)
    assert reply.status == 200, reply.body
    if not stream:
        (answer,) = reply.json["choices"]
        message = answer["message"]
        calls = [call["function"] for call in message.get("tool_calls", ())]
        told = [(call["name"], call["arguments"]) for call in calls]
        return Answer(message["content"], tuple(told), answer["finish_reason"])
    deltas = [event["choices"][0] for event in reply.events]
    first = deltas[0]["delta"]
    text = [delta["delta"]["content"] for delta in deltas if delta["delta"].get("content") is not None]
    calls = [call["function"] for delta in deltas for call in delta["delta"].get("tool_calls", ())]
    assert first["role"] == "assistant"
    assert "content" in first
    told = [(call["name"], call["arguments"]) for call in calls]
    return Answer("".join(text) if text else None, tuple(told), deltas[-1]["finish_reason"])


def response(client: openai.OpenAI, model: str, choice: Any, tokens: int, stream: bool) -> Answer:
    if isinstance(choice, dict):
        choice = {"type": "function", "name": choice["function"]["name"]}
    asked: Any = {
        "model": model,
        "input": ASKED,
        "temperature": 0,
        "max_output_tokens": tokens,
        "tools": [{"type": "function", **tool} for tool in TOOLS],
        "tool_choice": choice,
        "reasoning": {"effort": "none"},
    }
    if stream:
        events = list(client.responses.create(**asked, stream=True))
        answer: Any = getattr(events[-1], "response")  # noqa: B009 - the last event has it
        sent = "".join(event.delta for event in events if event.type.endswith("arguments.delta"))
        made = "".join(item.arguments for item in answer.output if item.type == "function_call")
        assert sent == made
    else:
        answer = client.responses.create(**asked)
    if answer.status == "incomplete":
        assert answer.incomplete_details.reason == "max_output_tokens"
    calls = [item for item in answer.output if item.type == "function_call"]
    reason = {"completed": "tool_calls" if calls else "stop", "incomplete": "length"}[answer.status]
    return Answer(
        answer.output_text or None,
        tuple((item.name, item.arguments) for item in calls),
        reason,
        all(item.status == "completed" for item in calls),
    )


def message(claude: anthropic.Anthropic, model: str, choice: Any, tokens: int, stream: bool) -> Answer:
    named = isinstance(choice, dict)
    asked: Any = {
        "model": model,
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": ASKED}],
        "tools": [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in TOOLS],
        "tool_choice": {"type": "tool", "name": choice["function"]["name"]}
        if named
        else {"type": {"required": "any"}.get(choice, choice)},
        "extra_body": {"temperature": 0},
    }
    if stream:
        with claude.messages.stream(**asked) as events:
            answer: Any = events.get_final_message()
    else:
        answer = claude.messages.create(**asked)
    calls = [(block.name, json.dumps(block.input)) for block in answer.content if block.type == "tool_use"]
    text = "".join(block.text for block in answer.content if block.type == "text")
    reason = {"max_tokens": "length", "tool_use": "tool_calls", "end_turn": "stop"}[answer.stop_reason]
    return Answer(text or None, tuple(calls), reason)


NAMED = {"type": "function", "function": {"name": "get_time"}}


@pytest.mark.parametrize(
    ("model", "choice", "stream"),
    [
        pytest.param(BABBLER, "required", True, marks=pytest.mark.slow),  # a hundred requests follow
        pytest.param(BABBLER, NAMED, False, marks=pytest.mark.slow),
        pytest.param(TINY, "auto", False, marks=pytest.mark.slow),
        pytest.param(TINY, "auto", True, marks=pytest.mark.slow),
    ],
    ids=["required-streamed", "named-whole", "auto-whole", "auto-streamed"],
)
def test_truncated_call_is_a_call_at_every_token(
    served: Served, client: openai.OpenAI, claude: anthropic.Anthropic, model: str, choice: Any, stream: bool
) -> None:
    whole = chat(served, model, choice, 300, stream)
    assert whole.reason == "tool_calls"
    ((name, arguments),) = whole.calls
    if choice != "auto":
        assert json.loads(arguments) == {"city": CITY}
    seen: set[str] = set()
    before = ""
    for tokens in range(1, 300):
        told = chat(served, model, choice, tokens, stream)
        if told == whole:
            break
        assert told.reason == "length"
        assert told.text is None or (choice == "auto" and not told.calls)
        assert not any(word in (told.text or "") for word in WRAPPER)
        for called, given in told.calls:
            assert called == name
            # A complete call is serialized again if the model chose the whitespace itself.
            assert given.startswith(before) or choice == "auto"
            assert arguments.startswith(given) or choice == "auto"
            before = given
            seen.add(given)
        by_response = response(client, model, choice, tokens, stream)
        assert (by_response.calls, by_response.reason) == (told.calls, "length")
        assert by_response.whole == (before == arguments or not told.calls)
        by_message = message(claude, model, choice, tokens, stream)
        assert ([call for call, _ in by_message.calls], by_message.reason) == (
            [call for call, _ in told.calls],
            "length",
        )
        assert by_message.text in {None, told.text}
        for _, given in by_message.calls:
            taken = json.loads(given)
            assert taken == (json.loads(before) if before == arguments else taken)
            assert set(taken) <= {"city"}
    else:
        pytest.fail("it never ends")
    assert len(seen) > 5
    assert "" in seen
    assert any(given.endswith("\\") for given in seen) or choice == "auto"


def test_stop_strings_are_ignored_in_a_call(served: Served) -> None:
    for stream in (False, True):
        told = chat(served, BABBLER, "required", 300, stream, stop=["city", '"', "}"])
        ((_, arguments),) = told.calls
        assert (json.loads(arguments)["city"], told.reason) == (CITY, "tool_calls")


@pytest.mark.parametrize("name", ["two words", 'quo"te', "back\\slash", "ümlaut"])
def test_forced_tool_may_have_any_name(served: Served, name: str) -> None:
    for stream in (False, True):
        tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}}]
        told = chat(served, BABBLER, "required", 300, stream, tools=tools)
        assert (told.text, told.calls[0][0], told.reason) == (None, name, "tool_calls")


@pytest.mark.parametrize("parameters", [{}, None, {"properties": {}}, {"description": "anything"}])
def test_empty_parameters_are_an_object(served: Served, parameters: Any) -> None:
    tools = [{"type": "function", "function": {"name": "go", "parameters": parameters}}]
    told = chat(served, BABBLER, "required", 40, False, tools=tools)
    assert told.text is None
    assert told.calls[0][1].startswith("{")


def test_each_choice_is_truncated_separately(served: Served) -> None:
    body = {
        "model": BABBLER,
        "messages": [{"role": "user", "content": ASKED}],
        "max_tokens": 30,
        "n": 3,
        "tools": [{"type": "function", "function": tool} for tool in TOOLS],
        "tool_choice": NAMED,
        "enable_thinking": False,
    }
    for answer in served.post(CHAT, body).json["choices"]:
        assert answer["message"]["content"] is None
        assert answer["message"]["tool_calls"][0]["function"]["name"] == "get_time"
        assert answer["finish_reason"] == "length"
    events = served.post(CHAT, {**body, "stream": True}).events
    firsts = {event["choices"][0]["index"]: event["choices"][0]["delta"] for event in reversed(events)}
    assert [firsts[index]["content"] for index in range(3)] == [None] * 3


def test_truncated_call_can_be_sent_back(served: Served) -> None:
    for arguments in ("", "{", '{"city": "Z', '{"city": "\\'):
        call = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": arguments}}
        messages = [
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "Your call was cut off."},
        ]
        reply = served.post(CHAT, {"model": TINY, "messages": messages, "max_tokens": 2})
        assert reply.status == 200, reply.body
