"""Requests of coding agents: Claude Code 2.1 here, Codex in test_tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlxk_tui.engine.generation import Delta, ToolCall
from mlxk_tui.server.generation import Choice
from mlxk_tui.server.openai.chat import ChatWriter, ToolCallFormat, choice_json
from tests.engine.conftest import needs_mlx
from tests.server.served import TINY, Served
from tests.support.clients import anthropic, openai

pytestmark = needs_mlx

HEADERS = {"Anthropic-Version": "2023-06-01", "Anthropic-Beta": "claude-code-20250219", "X-App": "cli"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def claude_code(nonce: str, **more: Any) -> dict[str, Any]:
    """Return a request like Claude Code's, with a shorter prompt and fewer tools."""
    kept = {"type": "ephemeral"}
    return {
        "model": TINY,
        "max_tokens": 8,
        "stream": True,
        "system": [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={nonce};"},
            {"type": "text", "text": "You are a command line agent. " * 40, "cache_control": kept},
        ],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "What does verify do?", "cache_control": kept}],
            }
        ],
        "tools": [{"name": "get_weather", "description": "Weather.", "input_schema": WEATHER}],
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "metadata": {"user_id": "u"},
        **more,
    }


def test_claude_code_requests_use_the_prompt_cache(served: Served) -> None:
    assert served.ask("HEAD", "/").body == b""
    cached = []
    for nonce in ("00aa1", "17f3c", "9b2d0"):
        reply = served.post("/v1/messages?beta=true", claude_code(nonce, stream=False), **HEADERS)
        assert reply.status == 200, reply.body
        cached.append(reply.json["usage"]["cache_read_input_tokens"])
    assert min(cached[1:]) > 100
    streamed = served.post("/v1/messages?beta=true", claude_code("5"), **HEADERS)
    assert b"event: message_stop" in streamed.body
    counted = served.post("/v1/messages/count_tokens?beta=true", claude_code("7"), **HEADERS)
    assert counted.json["input_tokens"] > 100


@pytest.mark.slow
def test_beta_methods_of_anthropics_client_work(served: Served) -> None:
    with anthropic.Anthropic(base_url=served.address.url, api_key="none", max_retries=0) as client:
        asked: Any = {"model": TINY, "messages": [{"role": "user", "content": "What does verify do?"}]}
        answer = client.beta.messages.create(**asked, max_tokens=5, betas=["context-management-2025-06-27"])
        assert answer.stop_reason == "max_tokens"
        assert client.beta.messages.count_tokens(**asked).input_tokens == answer.usage.input_tokens + (
            answer.usage.cache_read_input_tokens or 0
        )
        assert client.beta.models.retrieve(TINY).id == TINY


def test_without_parallel_calls_only_one_call_is_returned() -> None:
    calls = tuple(ToolCall(number, f"call_{number}", "look", "{}") for number in range(3))
    choice = Choice(tool_calls=list(calls))
    call_format = ToolCallFormat(first_only=True)
    assert len(choice_json(0, choice, None, call_format, False)["message"]["tool_calls"]) == 1
    assert len(choice_json(0, choice, None, ToolCallFormat(), False)["message"]["tool_calls"]) == 3
    for one, expected in ((True, ["call_0"]), (False, ["call_0", "call_1", "call_2"])):
        writer = ChatWriter(
            "x", 0, "m", 1, include_usage=False, forced=None, call_format=ToolCallFormat(first_only=one)
        )
        sent = writer.delta(0, Delta(tool_calls=calls[:2])) + writer.delta(0, Delta(tool_calls=calls[2:]))
        told = [json.loads(line[6:])["choices"][0]["delta"] for line in sent.decode().splitlines() if line]
        assert [call["id"] for delta in told for call in delta.get("tool_calls", ())] == expected


def test_stored_responses_are_not_found(served: Served) -> None:
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        calls: list[Any] = [
            lambda: client.responses.retrieve("resp_x"),
            lambda: client.responses.delete("resp_x"),
            lambda: client.responses.cancel("resp_x"),
            lambda: client.responses.input_items.list("resp_x"),
            lambda: client.chat.completions.retrieve("chatcmpl-x"),
            lambda: client.conversations.retrieve("conv_x"),
        ]
        for call in calls:
            with pytest.raises(openai.NotFoundError) as caught:
                call()
            assert caught.value.type == "route_not_found"
