"""/v1/chat/completions: OpenAI's client gets the engine's answers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mlxk_tui.engine.generation import GenerationRequest
from tests.engine.conftest import needs_mlx
from tests.server.served import ANSWER, BABBLER, CHAT, GREEDY, OTHER, QUESTION, TINY, Served
from tests.support.clients import openai

pytestmark = needs_mlx

NO_THINKING = {"enable_thinking": False}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def test_answer_and_counts_match_the_engine(served: Served, client: openai.OpenAI) -> None:
    messages = ({"role": "user", "content": QUESTION},)
    text, finished = served.own(
        GenerationRequest(messages=messages, sampling=GREEDY, template_kwargs=NO_THINKING)
    )
    answer = client.chat.completions.create(
        model=TINY,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        extra_body={"chat_template_kwargs": NO_THINKING},
    )
    assert answer.model == TINY
    assert answer.choices[0].message.content == text == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == finished.usage.prompt_tokens
    assert answer.usage.completion_tokens == finished.usage.completion_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_gives_the_same_answer_in_chunks(served: Served, client: openai.OpenAI) -> None:
    del served
    stream = client.chat.completions.create(
        model="tiny-demo",
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=NO_THINKING,
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == ANSWER
    assert len(pieces) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 10
    assert len({chunk.id for chunk in chunks}) == 1


async def test_async_client_can_stream(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=TINY,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            stream=True,
            extra_body=NO_THINKING,
        )
        text = ""
        async for chunk in stream:
            assert chunk.usage is None
            text += chunk.choices[0].delta.content or ""
    assert text == ANSWER


@pytest.mark.slow
def test_reasoning_is_separated(served: Served) -> None:
    question = "Why does a model not run here?"
    own = served.own_choice(
        GenerationRequest(messages=({"role": "user", "content": question},), sampling=GREEDY)
    )
    whole = served.chat(question, enable_thinking=...).json
    message = whole["choices"][0]["message"]
    assert message["content"] == "".join(own.text)
    assert message["reasoning_content"] == message["reasoning"] == "".join(own.reasoning) != ""
    assert own.finished is not None
    counted = whole["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert counted == own.finished.usage.reasoning_tokens > 0
    streamed = served.chat(question, enable_thinking=..., stream=True).events
    deltas = [event["choices"][0]["delta"] for event in streamed]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == message["reasoning"]
    assert deltas[0]["content"] is None  # an empty text would be taken for a part of the answer
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]
    without = served.chat(question, enable_thinking=..., reasoning_effort="none").json["choices"][0][
        "message"
    ]
    assert "reasoning" not in without


def own_call(served: Served) -> tuple[str, str]:
    """Return the name and arguments of the engine's own call."""
    messages = ({"role": "user", "content": "How is the weather in Rome?"},)
    own = served.own_choice(GenerationRequest(messages=messages, sampling=GREEDY, tools=(WEATHER,)))
    (call,) = own.tool_calls
    assert call.name == "get_weather"
    return call.name, call.arguments


def test_tool_is_called_and_its_result_used(served: Served, client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "How is the weather in Rome?"}]
    first = client.chat.completions.create(model=TINY, messages=messages, tools=[WEATHER], temperature=0)
    assert first.choices[0].finish_reason == "tool_calls"
    assert first.choices[0].message.content is None
    assert first.choices[0].message.tool_calls is not None
    (call,) = first.choices[0].message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == own_call(served)
    messages += [
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 18, "sky": "sunny"}'},
    ]
    second = client.chat.completions.create(model=TINY, messages=messages, tools=[WEATHER], temperature=0)
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + 20


def test_tool_call_is_streamed(served: Served, client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=TINY,
        messages=[{"role": "user", "content": "How is the weather in Rome?"}],
        tools=[WEATHER],
        temperature=0,
    ) as stream:
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert (call.function.name, call.function.arguments) == own_call(served)


def test_tool_choice_none_calls_no_tool(served: Served) -> None:
    answer = served.chat("How is the weather in Rome?", tools=[WEATHER], tool_choice="none").json
    assert "tool_calls" not in answer["choices"][0]["message"]
    for choice, param in (
        ("required", "tool_choice"),
        ({"type": "function", "function": {"name": "x"}}, "tool_choice"),
    ):
        refused = served.chat("Hi", tool_choice=choice)
        assert (refused.status, refused.error["param"]) == (400, param)


@pytest.mark.parametrize("stop", ["offline", ["never", "offline"]])
def test_answer_ends_before_a_stop_string(served: Served, stop: object) -> None:
    before = ANSWER.split("offline", maxsplit=1)[0]
    assert served.chat(QUESTION, stop=stop).text == before
    events = served.chat(QUESTION, stop=stop, stream=True).events
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == before
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_several_choices_are_returned_whole_and_streamed(served: Served) -> None:
    answer = served.chat(QUESTION, n=3).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in answer["choices"]] == [ANSWER] * 3
    one = served.chat(QUESTION).json["usage"]
    assert answer["usage"]["prompt_tokens"] == one["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == 3 * one["completion_tokens"]
    texts = ["", "", ""]
    for event in served.chat(QUESTION, n=3, stream=True).events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [ANSWER] * 3


def test_seed_is_reproducible_and_choices_differ(served: Served) -> None:
    def ask(seed: int) -> list[str]:
        body = {"model": BABBLER, "prompt": "Hello", "max_tokens": 12, "temperature": 1, "seed": seed, "n": 2}
        return [choice["text"] for choice in served.post("/v1/completions", body).json["choices"]]

    first = ask(7)
    assert first == ask(7)
    assert first[0] != first[1]
    assert ask(8)[0] == first[1]
    assert ask(2**64 - 1)[1] == ask(0)[0]  # the last seed is followed by the first
    assert ask(-1)[1] == ask(0)[0]


def test_newer_token_limit_takes_precedence(served: Served) -> None:
    answer = served.chat(QUESTION, max_tokens=50, max_completion_tokens=3).json
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_answer_without_a_limit_may_use_half_the_context(served: Served) -> None:
    answer = served.post(
        CHAT,
        {
            "model": OTHER,
            "messages": [{"role": "user", "content": "x"}],
            "temperature": 0,
            "logit_bias": {"0": -100},
        },
    ).json
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 128
    with served.options(max_tokens=5):
        assert served.chat(QUESTION).json["usage"]["completion_tokens"] == 5


def test_log_probabilities_include_the_top_tokens(served: Served) -> None:
    for stream in (False, True):
        reply = served.chat(QUESTION, logprobs=True, top_logprobs=2, max_tokens=4, stream=stream)
        if stream:
            content = [
                token
                for event in reply.events
                for token in (event["choices"][0]["logprobs"] or {"content": []})["content"]
            ]
        else:
            content = reply.json["choices"][0]["logprobs"]["content"]
        assert len(content) == 4
        assert "".join(token["token"] for token in content) == ANSWER[: sum(len(t["token"]) for t in content)]
        for token in content:
            assert [len(token["top_logprobs"]), token["top_logprobs"][0]["token"]] == [2, token["token"]]
            assert bytes(token["bytes"]).decode() == token["token"]
            assert token["logprob"] <= 0


def test_null_and_unknown_fields_change_nothing(served: Served) -> None:
    names = (
        *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "logit_bias"),
        *("repetition_penalty", "seed", "stop", "n", "stream", "stream_options", "user", "max_tokens"),
        *("max_completion_tokens", "logprobs", "top_logprobs", "tools", "tool_choice", "response_format"),
        *("chat_template_kwargs", "reasoning_effort", "no_such_field"),
    )
    nothing: dict[str, Any] = dict.fromkeys(names)
    assert (
        served.chat(QUESTION, **{**nothing, "temperature": 0}, service_tier="auto", store=True).text == ANSWER
    )


def test_text_parts_are_joined_and_others_rejected(served: Served) -> None:
    parts = [{"type": "text", "text": QUESTION[:9]}, {"type": "text", "text": QUESTION[9:]}]
    assert served.chat("", messages=[{"role": "user", "content": parts}]).text == ANSWER
    for kind in ("image_url", "input_audio", "file"):
        content = [{"type": kind, kind: {"url": "http://192.0.2.1/x.png"}}]
        refused = served.chat("", messages=[{"role": "user", "content": content}])
        assert refused.status == 422
        assert kind in refused.error["message"]


def test_next_turn_of_a_chat_uses_the_prompt_cache(served: Served) -> None:
    messages = [
        {"role": "user", "content": "Tell me about the Health pane"},
        {"role": "assistant", "content": "x " * 100},
        {"role": "user", "content": QUESTION},
    ]
    served.chat("", messages=messages, max_tokens=1)
    usage = served.chat("", messages=messages, max_tokens=1).json["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] // 2


def test_prompt_longer_than_the_context_is_rejected_with_token_counts(served: Served) -> None:
    for stream in (False, True):
        body = {"model": OTHER, "messages": [{"role": "user", "content": "word " * 400}], "stream": stream}
        refused = served.post(CHAT, body)
        assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")
        assert refused.error["type"] == "invalid_request_error"
        said = re.fullmatch(
            r"This model's maximum context length is 256 tokens\. However, your prompt resulted in (\d+) "
            r"tokens\. Please reduce its length\.",
            refused.error["message"],
        )
        assert said is not None
        assert int(said[1]) > 400
