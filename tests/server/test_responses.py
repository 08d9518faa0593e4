"""/v1/responses: OpenAI's client gets the engine's answers, and nothing is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.engine.generation import GenerationRequest, ToolCall
from mlxk_tui.server.openai.responses_request import ResponsesRequest
from tests.engine.conftest import needs_mlx
from tests.server.fuzzing import fuzz
from tests.server.served import ANSWER, BABBLER, GREEDY, OTHER, QUESTION, TINY, Reply, Served
from tests.server.test_malformed import values
from tests.support.clients import openai

pytestmark = needs_mlx

PATH = "/v1/responses"
PLAIN: Any = {"effort": "none"}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
ROME = "How is the weather in Rome?"
RUNS = "Why does a model not run here?"


def ask(served: Served, given: Any = QUESTION, **more: Any) -> Reply:
    """Send a greedy request without reasoning to the tiny model."""
    return served.post(PATH, {"model": TINY, "input": given, "temperature": 0, "reasoning": PLAIN, **more})


def events_of(reply: Reply) -> list[dict[str, Any]]:
    """Return the events of a stream; check that their names match their types and numbers."""
    events = []
    for block in reply.body.decode().split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def text_of(reply: Reply) -> str:
    """Return the text of an answer with one message."""
    (item,) = reply.json["output"]
    assert item["type"] == "message"
    return str(item["content"][0]["text"])


def test_answer_and_counts_match_the_engine(served: Served, client: openai.OpenAI) -> None:
    messages = ({"role": "user", "content": QUESTION},)
    text, finished = served.own(
        GenerationRequest(messages=messages, sampling=GREEDY, template_kwargs={"enable_thinking": False})
    )
    answer = client.responses.create(model=TINY, input=QUESTION, temperature=0, reasoning=PLAIN)
    assert answer.output_text == text == ANSWER
    assert (answer.status, answer.model, answer.error) == ("completed", TINY, None)
    assert answer.usage is not None
    assert answer.usage.input_tokens == finished.usage.prompt_tokens
    assert answer.usage.input_tokens_details.cached_tokens > 0  # this prompt is in the prompt cache
    assert answer.usage.output_tokens == finished.usage.completion_tokens


def test_stream_gives_the_same_answer_in_chunks(client: openai.OpenAI) -> None:
    with client.responses.stream(model="tiny-demo", input=QUESTION, temperature=0, reasoning=PLAIN) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert len(pieces) > 3
    assert "".join(pieces) == final.output_text == ANSWER
    assert final.usage is not None
    assert final.usage.output_tokens > 10


async def test_async_client_can_stream(served: Served) -> None:
    async with (
        openai.AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client,
        client.responses.stream(model=TINY, input=QUESTION, temperature=0, reasoning=PLAIN) as stream,
    ):
        assert (await stream.get_final_response()).output_text == ANSWER


def test_events_have_the_order_of_the_api_and_end_with_the_response(served: Served) -> None:
    events = events_of(ask(served, stream=True))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    whole = ask(served).json
    last = events[-1]["response"]
    changing = {"id", "created_at", "completed_at", "output", "usage"}
    assert {key: last[key] for key in last.keys() - changing} == {
        key: whole[key] for key in whole.keys() - changing
    }
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert last["output"] == [events[-2]["item"]]


@pytest.mark.slow
def test_reasoning_is_a_separate_item_or_a_summary(client: openai.OpenAI) -> None:
    asked: Any = {"model": TINY, "input": RUNS, "temperature": 0}
    whole = client.responses.create(**asked)
    reasoning, message = whole.output
    assert reasoning.type == "reasoning"
    assert reasoning.content is not None
    assert reasoning.content[0].text.startswith("Sound and runnable are two things.")
    assert reasoning.summary == []
    assert message.type == "message"
    assert whole.output_text.startswith("Its files are complete")
    assert whole.usage is not None
    assert whole.usage.output_tokens_details.reasoning_tokens > 10
    for summary in (None, "auto"):
        with client.responses.stream(**asked, reasoning={"summary": summary}) as stream:
            thought = "".join(
                event.delta
                for event in stream
                if event.type == "response.reasoning_text.delta"
                or event.type == "response.reasoning_summary_text.delta"
            )
            final = stream.get_final_response()
        assert thought == reasoning.content[0].text
        assert final.output_text == whole.output_text
        first = final.output[0]
        assert first.type == "reasoning"
        shown = first.summary if summary else first.content
        assert shown is not None
        assert shown[0].text == thought


def own_call(served: Served) -> ToolCall:
    """Return the engine's own call."""
    function = {name: WEATHER[name] for name in ("name", "description", "parameters")}
    messages = ({"role": "user", "content": ROME},)
    tools = ({"type": "function", "function": function},)
    (call,) = served.own_choice(GenerationRequest(messages=messages, sampling=GREEDY, tools=tools)).tool_calls
    return call


def test_tool_is_called_and_its_result_used(served: Served, client: openai.OpenAI) -> None:
    own = own_call(served)
    asked: Any = {"model": TINY, "tools": [WEATHER], "temperature": 0, "store": False}
    first = client.responses.create(**asked, input=ROME)
    call = first.output[-1]
    assert call.type == "function_call"
    assert (call.name, call.arguments) == (own.name, own.arguments)
    with client.responses.stream(**asked, input=ROME) as stream:
        streamed = stream.get_final_response().output[-1]
    assert streamed.type == "function_call"
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)
    items: list[Any] = [
        {"role": "user", "content": ROME},
        *first.output,
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": '{"temperature": 18, "sky": "sunny"}',
        },
    ]
    second = client.responses.create(**asked, input=items)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + 20


def test_whole_conversation_can_be_sent_back(served: Served) -> None:
    conversation: list[Any] = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "A greeting."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]},
        {"type": "message", "role": "user", "content": QUESTION},
    ]
    messages = (
        {"role": "system", "content": "You help.\n\nBe brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!", "reasoning_content": "A greeting."},
        {"role": "user", "content": QUESTION},
    )
    text, finished = served.own(
        GenerationRequest(messages=messages, sampling=GREEDY, template_kwargs={"enable_thinking": False})
    )
    reply = ask(served, conversation, instructions="You help.")
    assert text_of(reply) == text
    assert reply.json["usage"]["input_tokens"] == finished.usage.prompt_tokens


def test_token_limit_makes_the_response_incomplete(served: Served) -> None:
    whole = ask(served, max_output_tokens=3).json
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (whole["output"][0]["status"], whole["usage"]["output_tokens"]) == ("incomplete", 3)
    last = events_of(ask(served, max_output_tokens=3, stream=True))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["output"][0]["content"] == whole["output"][0]["content"]


def test_log_probabilities_are_returned_on_request(served: Served) -> None:
    for stream in (False, True):
        reply = ask(served, top_logprobs=2, max_output_tokens=4, stream=stream)
        if stream:
            events = events_of(reply)
            told = [
                entry
                for event in events
                if event["type"] == "response.output_text.delta"
                for entry in event["logprobs"]
            ]
            assert told == events[-1]["response"]["output"][0]["content"][0]["logprobs"]
        else:
            told = reply.json["output"][0]["content"][0]["logprobs"]
        assert [len(entry["top_logprobs"]) for entry in told] == [2, 2, 2, 2]
    assert ask(served, max_output_tokens=1).json["output"][0]["content"][0]["logprobs"] == []


def test_nothing_is_stored_and_hosted_tools_are_ignored(served: Served) -> None:
    whole = ask(served, store=True, tools=[WEATHER, {"type": "web_search"}], tool_choice="none").json
    assert whole["store"] is False
    assert [tool["name"] for tool in whole["tools"]] == ["get_weather"]
    assert served.get(f"{PATH}/{whole['id']}").status == 404


IMAGE = {"type": "input_image", "image_url": "http://192.0.2.1/x.png"}


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"conversation": "conv_1"}, 400, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, 400, "prompt"),
        ({"background": True}, 400, "background"),
        ({"input": []}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 400, "input[0]"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, 400, "input[0].type"),
        ({"input": [{"type": "message", "content": "x"}]}, 400, "input[0].role"),
        ({"input": [{"type": "function_call", "call_id": "a"}]}, 400, "input[0].name"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, 400, "input[0].call_id"),
        ({"input": [{"role": "user", "content": [IMAGE]}]}, 422, "input[0].content[0]"),
        (
            {"input": [{"type": "function_call_output", "call_id": "a", "output": [IMAGE]}]},
            422,
            "input[0].output[0]",
        ),
        ({"max_output_tokens": 0}, 400, "max_output_tokens"),
        ({"tools": [{"type": "function"}]}, 400, "tools[0].name"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, 400, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": [WEATHER]}, 400, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, 400, "text.format.schema"),
        ({"model": "no-such-model"}, 404, "model"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_invalid_requests_are_rejected_with_the_field(
    served: Served, more: dict[str, Any], status: int, param: str
) -> None:
    reply = served.post(PATH, {"model": TINY, "input": QUESTION, **more})
    assert (reply.status, reply.error["param"]) == (status, param), reply.body


def test_too_long_prompt_is_rejected_before_streaming(served: Served) -> None:
    for stream in (False, True):
        refused = served.post(PATH, {"model": OTHER, "input": "word " * 400, "stream": stream})
        assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")
        assert "This model's maximum context length is 256 tokens. However, " in refused.error["message"]


def test_interrupted_stream_ends_with_a_failed_response(served: Served) -> None:
    body = {"model": BABBLER, "input": "x", "max_output_tokens": 3000, "stream": True}
    raw = json.dumps(body).encode()
    with served.raw() as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
        connection.sendall(head.encode() + raw)
        served.until(lambda: any(entry.completion_tokens for entry in served.server.log.live))
        served.loop.call_soon_threadsafe(served.server._service.generator.cancel_all)
        received = b""
        while b"response.failed" not in received:
            received += connection.recv(65536)
    served.until(lambda: not served.server.log.live)
    entry = served.server.log.finished[-1]
    assert (entry.route, entry.status, entry.error_type) == (PATH, 200, "cancelled")
    served.still_well()


def test_disconnect_frees_the_row(served: Served) -> None:
    raw = json.dumps({"model": BABBLER, "input": "x", "max_output_tokens": 3000}).encode()
    with served.raw() as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
        connection.sendall(head.encode() + raw)
        served.until(lambda: any(entry.completion_tokens for entry in served.server.log.live))
    served.until(lambda: not served.server.log.live)
    assert served.server.log.finished[-1].status == 499
    served.still_well()


@fuzz(80)
@given(
    more=st.dictionaries(st.sampled_from(sorted(ResponsesRequest.model_fields)), values, max_size=4),
    items=st.none()
    | st.lists(
        st.dictionaries(
            st.sampled_from(["type", "role", "content", "name", "arguments", "call_id", "output", "summary"]),
            values
            | st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "assistant"]),
            max_size=4,
        ),
        max_size=3,
    ),
)
def test_random_requests_are_answered_or_rejected(
    served: Served, more: dict[str, Any], items: list[Any] | None
) -> None:
    asked = QUESTION if items is None else [*items, {"role": "user", "content": QUESTION}]
    body = {"model": TINY, "input": asked, **more, "max_output_tokens": 2}
    reply = served.post(PATH, body)
    assert reply.status == 200 or 400 <= reply.status < 500, (reply.status, reply.body, body)
    if reply.status != 200:
        assert reply.error["type"] != "internal_error"


def test_server_still_works_afterwards(served: Served) -> None:
    served.still_well()
    assert served.server.generations == 0
