"""Answers that follow a JSON schema, and required tool calls, in every API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import pydantic
import pytest

from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, CHAT, TINY, Served
from tests.support.clients import anthropic, openai

pytestmark = needs_mlx


class Verdict(pydantic.BaseModel):
    """A schema that the models can only follow with the grammar; all fields are limited."""

    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Literal["good", "bad"]
    points: Literal[1, 2, 3]
    certain: bool


SCHEMA: dict[str, Any] = Verdict.model_json_schema()
ASKED: Any = [{"role": "user", "content": "Judge this."}]
TOOL = {"name": "judge", "description": "Judge.", "schema": SCHEMA}
PLAIN = {"effort": "none"}
"""A model of random weights might reason for ever."""
MODELS = [TINY, BABBLER]


@pytest.mark.parametrize("model", MODELS)
def test_client_parses_a_chat_answer(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.parse(
        model=model,
        messages=ASKED,
        temperature=0,
        max_tokens=100,
        reasoning_effort="none",
        response_format=Verdict,
    )
    assert isinstance(whole.choices[0].message.parsed, Verdict)
    assert whole.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(
        model=model,
        messages=ASKED,
        temperature=0,
        max_tokens=100,
        reasoning_effort="none",
        response_format=Verdict,
    ) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.parsed == whole.choices[0].message.parsed


@pytest.mark.parametrize("model", MODELS)
def test_client_parses_a_response(client: openai.OpenAI, model: str) -> None:
    asked: Any = {
        "model": model,
        "input": "Judge this.",
        "temperature": 0,
        "max_output_tokens": 100,
        "reasoning": PLAIN,
    }
    whole = client.responses.parse(**asked, text_format=Verdict)
    assert isinstance(whole.output_parsed, Verdict)
    assert whole.status == "completed"
    with client.responses.stream(**asked, text_format=Verdict) as stream:
        assert stream.get_final_response().output_parsed == whole.output_parsed


@pytest.mark.parametrize("model", MODELS)
def test_client_parses_a_message(claude: anthropic.Anthropic, model: str) -> None:
    message = claude.messages.parse(model=model, max_tokens=100, messages=ASKED, output_format=Verdict)
    assert isinstance(message.parsed_output, Verdict)
    assert message.stop_reason == "end_turn"


def test_json_object_without_schema_allows_any_object(served: Served, client: openai.OpenAI) -> None:
    # A model with random weights never ends its object, but its text is the start of a valid one.
    body = {"model": TINY, "messages": [{"role": "user", "content": "Describe yourself as JSON"}]}
    reply = served.post(
        CHAT, {**body, "temperature": 0, "max_tokens": 400, "response_format": {"type": "json_object"}}
    )
    assert reply.status == 200
    if reply.json["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(reply.text), dict)
    assert reply.text.lstrip().startswith("{")
    answer = client.responses.create(
        model=TINY,
        input="Describe yourself as JSON",
        temperature=0,
        max_output_tokens=400,
        text={"format": {"type": "json_object"}},
    )
    assert answer.output_text.lstrip().startswith("{")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "judge"}}])
def test_required_tool_is_called_in_chat(client: openai.OpenAI, model: str, choice: Any) -> None:
    asked: Any = {
        "model": model,
        "messages": ASKED,
        "temperature": 0,
        "max_tokens": 200,
        "tools": [{"type": "function", "function": {"name": "judge", "parameters": SCHEMA}}],
        "tool_choice": choice,
        "reasoning_effort": "none",
    }
    whole = client.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.tool_calls is not None
    (call,) = whole.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "judge"
    Verdict.model_validate_json(call.function.arguments)
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls
    assert streamed is not None
    assert streamed[0].type == "function"
    assert streamed[0].function.arguments == call.function.arguments


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "judge"}])
def test_required_tool_is_called_in_a_response(client: openai.OpenAI, choice: Any) -> None:
    tools: Any = [{"type": "function", "name": "judge", "parameters": SCHEMA, "strict": True}]
    asked: Any = {
        "model": BABBLER,
        "input": "Judge this.",
        "temperature": 0,
        "max_output_tokens": 200,
        "reasoning": PLAIN,
    }
    whole = client.responses.create(**asked, tools=tools, tool_choice=choice)
    call = whole.output[-1]
    assert call.type == "function_call"
    assert call.name == "judge"
    Verdict.model_validate_json(call.arguments)
    with client.responses.stream(**asked, tools=tools, tool_choice=choice) as stream:
        streamed = stream.get_final_response().output[-1]
    assert streamed.type == "function_call"
    assert streamed.arguments == call.arguments


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "judge"}])
def test_required_tool_is_called_in_a_message(claude: anthropic.Anthropic, choice: Any) -> None:
    asked: Any = {
        "model": BABBLER,
        "max_tokens": 200,
        "messages": ASKED,
        "tools": [{"name": "judge", "input_schema": SCHEMA}],
        "tool_choice": choice,
        "extra_body": {"temperature": 0},
    }
    whole = claude.messages.create(**asked)
    assert whole.stop_reason == "tool_use"
    (call,) = whole.content
    assert call.type == "tool_use"
    assert call.name == "judge"
    Verdict.model_validate(call.input)
    with claude.messages.stream(**asked) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.type == "tool_use"
    assert streamed.input == call.input


class Point(pydantic.BaseModel):
    """A part of a tool's parameters that its schema references."""

    model_config = pydantic.ConfigDict(extra="forbid")

    x: Literal[1, 2]
    y: Literal[3, 4]


class Line(pydantic.BaseModel):
    """The parameters of a tool."""

    model_config = pydantic.ConfigDict(extra="forbid")

    start: Point
    end: Point


@pytest.mark.slow
@pytest.mark.parametrize("others", [[], [{"name": "judge", "parameters": SCHEMA}]], ids=["alone", "among"])
@pytest.mark.parametrize("model", MODELS)
def test_references_in_tool_parameters_are_resolved(
    served: Served, model: str, others: list[dict[str, Any]]
) -> None:
    schema = Line.model_json_schema()
    assert schema["properties"]["start"] == {"$ref": "#/$defs/Point"}
    tools = [*others, {"name": "draw", "parameters": schema}]
    takes: dict[str, type[pydantic.BaseModel]] = {"judge": Verdict, "draw": Line}
    common = {"model": model, "temperature": 0}

    chat = served.post(
        CHAT,
        {
            **common,
            "messages": ASKED,
            "max_tokens": 200,
            "tools": [{"type": "function", "function": tool} for tool in tools],
            "tool_choice": "required",
            "reasoning_effort": "none",
        },
    )
    assert chat.status == 200, chat.body
    function = chat.json["choices"][0]["message"]["tool_calls"][0]["function"]
    takes[function["name"]].model_validate_json(function["arguments"])

    response = served.post(
        "/v1/responses",
        {
            **common,
            "input": "Judge this.",
            "max_output_tokens": 200,
            "tools": [{"type": "function", **tool} for tool in tools],
            "tool_choice": {"type": "function", "name": "draw"},
            "reasoning": PLAIN,
        },
    )
    assert response.status == 200, response.body
    Line.model_validate_json(response.json["output"][-1]["arguments"])

    message = served.post(
        "/v1/messages",
        {
            **common,
            "messages": ASKED,
            "max_tokens": 200,
            "tools": [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in tools],
            "tool_choice": {"type": "tool", "name": "draw"},
        },
    )
    assert message.status == 200, message.body
    Line.model_validate(message.json["content"][-1]["input"])


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ROME, THOUGHT_OVER = "How is the weather in Rome?", "Why does a model not run here?"
"""The tiny model calls the tool for the one, and reasons about the other."""


def chat_of(served: Served, text: str, choice: str, *, stream: bool) -> tuple[bool, str, str, str]:
    """Return whether the answer has reasoning, its text, the arguments of its call, and the finish reason."""
    body = {
        "model": TINY,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 300,
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": CITY}}],
        "tool_choice": choice,
        "response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}},
        "stream": stream,
    }
    if stream:
        said = [event["choices"][0] for event in served.post(CHAT, body).events]
        deltas, reason = [choice["delta"] for choice in said], said[-1]["finish_reason"]
    else:
        whole = served.post(CHAT, body).json["choices"][0]
        deltas, reason = [whole["message"]], whole["finish_reason"]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    return (
        any("reasoning_content" in delta for delta in deltas),
        "".join(delta.get("content") or "" for delta in deltas),
        "".join(call["function"]["arguments"] for call in calls),
        reason,
    )


def response_of(client: openai.OpenAI, text: str, choice: Any, *, stream: bool) -> tuple[bool, str, str, str]:
    """Return the same for a response."""
    asked: Any = {
        "model": TINY,
        "input": text,
        "temperature": 0,
        "max_output_tokens": 300,
        "tools": [{"type": "function", "name": "get_weather", "parameters": CITY}],
        "tool_choice": choice,
        "text": {"format": {"type": "json_schema", "name": "verdict", "schema": SCHEMA}},
    }
    if stream:
        with client.responses.stream(**asked) as events:
            whole: Any = events.get_final_response()
    else:
        whole = client.responses.create(**asked)
    calls = [item.arguments for item in whole.output if item.type == "function_call"]
    reasons = any(item.type == "reasoning" for item in whole.output)
    return reasons, whole.output_text, "".join(calls), "tool_calls" if calls else "stop"


def message_of(
    claude: anthropic.Anthropic, text: str, choice: str, *, stream: bool
) -> tuple[bool, str, str, str]:
    """Return the same for a message."""
    asked: Any = {
        "model": TINY,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 300,
        "tools": [{"name": "get_weather", "input_schema": CITY}],
        "tool_choice": {"type": {"required": "any"}.get(choice, choice)},
        "thinking": {"type": "adaptive"},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "extra_body": {"temperature": 0},
    }
    if stream:
        with claude.messages.stream(**asked) as events:
            whole: Any = events.get_final_message()
    else:
        whole = claude.messages.create(**asked)
    return (
        any(block.type == "thinking" for block in whole.content),
        "".join(block.text for block in whole.content if block.type == "text"),
        "".join(json.dumps(block.input) for block in whole.content if block.type == "tool_use"),
        {"tool_use": "tool_calls", "end_turn": "stop"}[whole.stop_reason],
    )


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_tools_and_schema_give_either_a_call_or_an_answer(
    served: Served, client: openai.OpenAI, claude: anthropic.Anthropic, stream: bool
) -> None:
    asks: list[Callable[[str, str], tuple[bool, str, str, str]]] = [
        lambda text, choice: chat_of(served, text, choice, stream=stream),
        lambda text, choice: response_of(client, text, choice, stream=stream),
        lambda text, choice: message_of(claude, text, choice, stream=stream),
    ]
    for ask in asks:
        assert ask(ROME, "auto") == (False, "", '{"city": "Rome"}', "tool_calls")
        for text, choice in ((THOUGHT_OVER, "auto"), (ROME, "none")):
            reasons, said, called, reason = ask(text, choice)
            assert (reasons, called, reason) == (text == THOUGHT_OVER, "", "stop")
            Verdict.model_validate_json(said)
        _, said, called, reason = ask(ROME, "required")
        assert (said, set(json.loads(called)), reason) == ("", {"city"}, "tool_calls")


@pytest.mark.parametrize(
    "schema",
    [{"type": "no such type"}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "("}, {"enum": []}],
    ids=["type", "reference", "pattern", "enum"],
)
def test_unsupported_schema_is_a_client_error(served: Served, schema: object) -> None:
    named = {"name": "x", "schema": schema}
    shape = {"type": "json_schema", "json_schema": named}
    reply = served.post(CHAT, {"model": TINY, "messages": ASKED, "max_tokens": 5, "response_format": shape})
    assert 400 <= reply.status < 500, reply.body
    text = {"format": {"type": "json_schema", **named}}
    assert served.post("/v1/responses", {"model": TINY, "input": "x", "text": text}).status == reply.status
    served.still_well()
