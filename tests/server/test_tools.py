"""Custom tools, namespaces, allowed tools and legacy functions, with the clients that use them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, CHAT, TINY, Served
from tests.support.clients import openai

pytestmark = needs_mlx

RESPONSES = "/v1/responses"
ASKED: Any = [{"role": "user", "content": "How is the weather in Rome?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
PATCH = 'start: "*** Begin\\n" line+ "*** End"\nline: ("+" | "-") /[a-c "]{1,4}/ "\\n"\n'
PATCHED = re.compile(r'\*\*\* Begin\n([+-][a-c "]{1,4}\n)+\*\*\* End')
WEATHER = {"name": "get_weather", "parameters": CITY}


def custom(name: str, syntax: str | None = None, definition: str = "") -> dict[str, Any]:
    """Return a custom tool in the format of the Responses API."""
    if syntax is None:
        return {"type": "custom", "name": name, "description": "Takes a text."}
    return {
        "type": "custom",
        "name": name,
        "format": {"type": "grammar", "syntax": syntax, "definition": definition},
    }


def in_chat(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the same tool in the format of the chat API."""
    inner = {name: value for name, value in tool.items() if name != "type"}
    if "format" in inner:
        grammar = {name: inner["format"][name] for name in ("syntax", "definition")}
        inner["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": tool["type"], tool["type"]: inner}


GRAMMARS = [
    pytest.param("regex", r"[a-c]{2}-\d", re.compile(r"[a-c]{2}-\d"), id="regex"),
    pytest.param("lark", PATCH, PATCHED, id="lark"),
]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("choice", ["required", "named"])
@pytest.mark.parametrize(("syntax", "definition", "expected"), GRAMMARS)
def test_custom_tool_is_called_with_text_of_its_grammar(
    client: openai.OpenAI,
    syntax: str,
    definition: str,
    expected: re.Pattern[str],
    choice: str,
    stream: bool,
) -> None:
    tool = custom("apply", syntax, definition)
    asked: Any = {"model": BABBLER, "input": ASKED, "temperature": 0, "max_output_tokens": 200}
    asked |= {"tools": [tool], "reasoning": {"effort": "none"}}
    asked["tool_choice"] = {"type": "custom", "name": "apply"} if choice == "named" else choice
    events: list[Any] = []
    if stream:
        events = list(client.responses.create(**asked, stream=True))
        answer: Any = events[-1].response
    else:
        answer = client.responses.create(**asked)
    (item,) = answer.output
    assert (item.type, item.name, answer.tools[0].type) == ("custom_tool_call", "apply", "custom")
    assert item.id.startswith("ctc_")
    ended = answer.status == "completed"
    assert expected.fullmatch(item.input) or (not ended and syntax == "lark")
    if stream:
        kinds = [event.type.removeprefix("response.") for event in events]
        assert kinds[2:6] == [
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
        ]
        assert events[3].delta == events[4].input == item.input

    chat: Any = {"model": BABBLER, "messages": ASKED, "temperature": 0, "max_tokens": 200}
    chat |= {"tools": [in_chat(tool)], "reasoning_effort": "none"}
    chat["tool_choice"] = {"type": "custom", "custom": {"name": "apply"}} if choice == "named" else choice
    if stream:
        chunks: list[Any] = list(client.chat.completions.create(**chat, stream=True))
        (call,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert chunks[0].choices[0].delta.content is None
        assert (call.index, call.type, call.custom["name"]) == (0, "custom", "apply")
        assert call.custom["input"] == item.input
    else:
        whole = client.chat.completions.create(**chat).choices[0]
        assert whole.message.tool_calls is not None
        (told,) = whole.message.tool_calls
        assert told.type == "custom"
        assert (told.custom.name, told.custom.input) == ("apply", item.input)
        assert whole.finish_reason == ("tool_calls" if ended else "length")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_each_of_several_tools_keeps_its_format(served: Served, number: int) -> None:
    tools = [
        in_chat(custom("a b", "lark", PATCH)),
        in_chat(custom("say")),
        {"type": "function", "function": WEATHER},
    ]
    body = {
        "model": BABBLER,
        "messages": ASKED,
        "max_tokens": 60,
        "tools": tools[number:] + tools[:number],
        "tool_choice": "required",
        "reasoning_effort": "none",
    }
    seen = set()
    for seed in range(6):
        answer = served.post(CHAT, {**body, "seed": seed, "temperature": 2}).json["choices"][0]
        assert answer["message"]["content"] is None
        for call in answer["message"].get("tool_calls", ()):
            seen.add(call["type"])
            told = call[call["type"]]
            if told["name"] == "get_weather":
                assert call["type"] == "function"
            elif told["name"] == "a b" and answer["finish_reason"] == "tool_calls":
                assert PATCHED.fullmatch(told["input"])
    assert seen


def test_custom_tool_call_can_be_truncated_at_any_token(served: Served) -> None:
    tool = in_chat(custom('od"d', "lark", 'start: "a\\"é日🙂" "b" "\\n" "c"'))
    body = {"model": BABBLER, "messages": ASKED, "temperature": 0, "reasoning_effort": "none"}
    body |= {"tools": [tool], "tool_choice": "required"}
    before = ""
    for tokens in range(1, 80):
        answer = served.post(CHAT, {**body, "max_tokens": tokens}).json["choices"][0]
        assert answer["message"]["content"] is None
        (call,) = answer["message"]["tool_calls"]
        assert call["custom"]["name"] == 'od"d'
        assert call["custom"]["input"].startswith(before)
        before = call["custom"]["input"]
        if answer["finish_reason"] == "tool_calls":
            break
        assert answer["finish_reason"] == "length"
    assert before == 'a"é日🙂b\nc'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "where"),
    [
        (custom("x", "lark", "start: nowhere"), None),
        (custom("x", "lark", "no grammar at all {{{"), None),
        (custom("x", "regex", "("), None),
        ({"type": "custom", "name": "x", "format": {"type": "grammar"}}, "tools[0].format"),
        (
            {"type": "custom", "name": "x", "format": {"type": "grammar", "syntax": "peg"}},
            "tools[0].format.syntax",
        ),
        ({"type": "custom"}, "tools[0].name"),
        ({"type": "namespace", "tools": []}, "tools[0].name"),
        ({"type": "namespace", "name": "n", "tools": [{"type": "function"}]}, "tools[0].tools[0].name"),
    ],
)
def test_invalid_tool_is_a_client_error(served: Served, tool: dict[str, Any], where: str | None) -> None:
    body = {"model": TINY, "input": "x", "tools": [tool], "tool_choice": "required", "max_output_tokens": 5}
    reply = served.post(RESPONSES, body)
    assert (reply.status, reply.error["type"]) == (400, "validation_error"), reply.body
    assert where is None or reply.error["param"] == where
    served.still_well()


def codex(**more: Any) -> dict[str, Any]:
    """Return a request like Codex 0.171's, with fewer and shorter tools."""
    function = {"type": "function", "strict": False, "description": "Asks for the weather.", **WEATHER}
    return {
        "model": TINY,
        "instructions": "You are a coding agent.",
        "input": [
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "Sandboxed."}],
            },
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": ASKED[0]["content"]}],
            },
        ],
        "tools": [
            {"type": "function", "name": "shell", "strict": False, "parameters": {"type": "object"}},
            {"type": "namespace", "name": "mcp__sky__", "description": "The sky.", "tools": [function]},
            custom("apply_patch", "lark", PATCH),
            {"type": "web_search", "external_web_access": False},
            {"type": "image_generation", "output_format": "png"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "none", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199",
        "client_metadata": {"x-codex-installation-id": "0"},
        **more,
    }


def items_of(served: Served, body: Any) -> list[dict[str, Any]]:
    """Return the items at the end of a stream, like Codex."""
    reply = served.post(RESPONSES, body)
    assert reply.status == 200, reply.body
    told = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert told[-1]["type"] == "response.completed"
    return [event["item"] for event in told if event["type"] == "response.output_item.done"]


def test_codex_can_call_tools_in_namespaces(served: Served) -> None:
    named = {"type": "function", "name": "get_weather", "namespace": "mcp__sky__"}
    for choice in (named, {"type": "allowed_tools", "mode": "required", "tools": [named]}):
        (item,) = items_of(served, codex(tool_choice=choice))
        assert (item["type"], item["name"], item["namespace"]) == (
            "function_call",
            "get_weather",
            "mcp__sky__",
        )
        assert json.loads(item["arguments"])["city"] in {"Rome", "Oslo"}

    # The token count shows that the tools are part of the prompt.
    def counted(**more: Any) -> int:
        body = {**codex(**more), "stream": False}
        return int(served.post("/v1/responses/input_tokens", body).json["input_tokens"])

    tools = codex()["tools"]
    assert counted() > counted(tools=tools[:1]) + 20
    assert counted(tools=tools[:3]) == counted()
    # The call is sent back with its result.
    said = [
        *codex()["input"],
        {**item, "status": "completed"},
        {"type": "function_call_output", "call_id": item["call_id"], "output": "Sunny."},
        {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin\n"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "ok"}],
        },
    ]
    assert items_of(served, codex(input=said, max_output_tokens=None))


def test_free_call_may_omit_the_namespace(served: Served) -> None:
    # The tiny model is trained to call get_weather, even if it is not offered.
    (item,) = [item for item in items_of(served, codex(tools=codex()["tools"][1:2])) if "name" in item]
    assert (item["name"], item["namespace"]) == ("get_weather", "mcp__sky__")


def test_tools_of_the_same_name_need_different_namespaces(served: Served) -> None:
    spaces: list[Any] = [
        {"type": "namespace", "name": name, "description": "", "tools": [{"type": "function", **WEATHER}]}
        for name in ("a", "b")
    ]
    (item,) = items_of(
        served, codex(tools=spaces, tool_choice={"type": "function", "name": "get_weather", "namespace": "b"})
    )
    assert (item["name"], item["namespace"]) == ("get_weather", "b")
    for twice in ([*spaces, spaces[0]], [{"type": "function", **WEATHER}] * 2):
        reply = served.post(RESPONSES, codex(tools=twice))
        assert (reply.status, "another tool" in reply.error["message"]) == (400, True)
    reply = served.post(RESPONSES, codex(tools=[{**spaces[0], "tools": [spaces[0]["tools"][0]] * 257}]))
    assert reply.status == 400


def test_response_input_tokens_are_counted(client: openai.OpenAI) -> None:
    asked: Any = {"model": TINY, "input": ASKED, "instructions": "Be short."}
    counted = client.responses.input_tokens.count(**asked)
    answer = client.responses.create(**asked, max_output_tokens=1)
    assert answer.usage is not None
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", answer.usage.input_tokens)
    tools: Any = [{"type": "function", "strict": None, **WEATHER}]
    with_tools = client.responses.input_tokens.count(**asked, tools=tools)
    assert with_tools.input_tokens > counted.input_tokens
    with pytest.raises(openai.NotFoundError):
        client.responses.input_tokens.count(model="no-such-model", input="x")


def test_allowed_tools_restrict_the_calls(client: openai.OpenAI) -> None:
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": CITY}}
        for name in ("get_time", "get_weather")
    ]
    asked: Any = {"model": TINY, "messages": ASKED, "tools": tools, "temperature": 0, "max_tokens": 60}
    asked["reasoning_effort"] = "none"

    def allowed(mode: str, *names: str) -> Any:
        entries = [{"type": "function", "function": {"name": name}} for name in names]
        choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": entries}}
        return client.chat.completions.create(**asked, tool_choice=choice).choices[0].message.tool_calls

    for name in ("get_time", "get_weather"):
        (call,) = allowed("required", name)
        assert call.function.name == name
    assert [call.function.name for call in allowed("auto", "get_time", "get_weather")] == ["get_weather"]
    with pytest.raises(openai.BadRequestError, match="requires tools"):
        allowed("required", "get_nothing")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("choice", [None, "auto", {"name": "get_weather"}])
def test_legacy_functions_use_the_legacy_format(client: openai.OpenAI, choice: Any, stream: bool) -> None:
    asked: Any = {
        "model": TINY,
        "messages": ASKED,
        "functions": [WEATHER],
        "temperature": 0,
        "max_tokens": 80,
    }
    asked |= {"reasoning_effort": "none"} | ({} if choice is None else {"function_call": choice})
    if stream:
        chunks: list[Any] = [
            chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)
        ]
        assert chunks[0].delta.content is None
        (called,) = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
        reason = chunks[-1].finish_reason
    else:
        whole: Any = client.chat.completions.create(**asked).choices[0]
        called, reason = whole.message.function_call, whole.finish_reason
        assert whole.message.content is None
        assert whole.message.tool_calls is None
    assert (called.name, reason) == ("get_weather", "function_call")
    assert "city" in json.loads(called.arguments)
    if choice is None and not stream:
        said: Any = {"role": "assistant", "content": None, "function_call": called.model_dump()}
        result: Any = {"role": "function", "name": "get_weather", "content": "Sunny."}
        more: Any = {**asked, "messages": [*ASKED, said, result]}
        again = client.chat.completions.create(**more)
        assert again.choices[0].finish_reason


def test_functions_and_tools_cannot_be_combined(served: Served) -> None:
    body = {"model": TINY, "messages": ASKED, "functions": [WEATHER], "max_tokens": 40, "temperature": 0}
    both = served.post(CHAT, {**body, "tools": [{"type": "function", "function": WEATHER}]})
    assert (both.status, both.error["param"]) == (400, "functions")
    none = served.post(CHAT, {**body, "function_call": "none", "reasoning_effort": "none"}).json["choices"][0]
    assert "function_call" not in none["message"]
    wrong = served.post(CHAT, {**body, "function_call": {"name": "other"}})
    assert (wrong.status, wrong.error["param"]) == (400, "tool_choice")


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_tool_is_validated_by_its_type(served: Served, path: str) -> None:
    both = {"type": "function", "function": WEATHER, "custom": {"name": "other"}}
    body = {"model": TINY, "messages": ASKED, "max_tokens": 80, "temperature": 0, "reasoning_effort": "none"}
    answer = served.post(path, {**body, "tools": [both]})
    assert answer.status == 200, answer.body
    if path == CHAT:
        (call,) = answer.json["choices"][0]["message"]["tool_calls"]
        assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    for half in ({"type": "function"}, {"type": "custom", "function": WEATHER}):
        assert served.post(path, {**body, "tools": [half]}).status == 400
