"""A single generation: text, stop conditions, counts and errors."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import FinishReason, GenerationRequest, PrefillProgress, SamplingParams
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, THOUGHT_OVER, chat, needs_mlx, run
from tests.engine.small_models import make_model

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="package")]

PROMPT = GenerationRequest(prompt="Hello, world! How are", sampling=GREEDY, max_tokens=60)


async def refused(engine: Engine, model: RunnableModel, request: GenerationRequest) -> OpError:
    with pytest.raises(OpError) as caught:
        await run(engine, model, request)
    return caught.value


# Stop conditions


@pytest.mark.slow
async def test_length_is_exact(engine: Engine, babbler: RunnableModel) -> None:
    result = await run(engine, babbler, replace(PROMPT, max_tokens=7, return_token_ids=True))
    assert result.finished.finish_reason is FinishReason.LENGTH
    assert result.finished.usage.completion_tokens == result.tokens == len(result.token_ids) == 7


async def test_end_of_turn_token_is_counted_and_not_shown(engine: Engine, tiny: RunnableModel) -> None:
    result = await run(engine, tiny, chat("Hello!", return_token_ids=True))
    assert result.finished.finish_reason is FinishReason.STOP
    assert "<|" not in result.text
    assert result.text.strip()
    assert result.token_ids[-1] in (0, 2)
    assert result.finished.usage.completion_tokens == len(result.token_ids)


async def test_stop_string_is_found_at_any_position(engine: Engine, babbler: RunnableModel) -> None:
    text = (await run(engine, babbler, PROMPT)).text
    assert len(text) > 30
    for start, length in ((5, 1), (8, 2), (11, 3), (14, 5), (20, 8)):
        stop = text[start : start + length]
        result = await run(engine, babbler, replace(PROMPT, stop=(stop, "never said")))
        assert result.text == text[: text.index(stop)]
        assert result.finished.finish_reason is FinishReason.STOP
        assert result.finished.stop_string == stop


async def test_partial_stop_string_loses_no_text(engine: Engine, babbler: RunnableModel) -> None:
    text = (await run(engine, babbler, PROMPT)).text
    result = await run(engine, babbler, replace(PROMPT, stop=(text[-4:] + "never said",)))
    assert result.text == text
    assert result.finished.finish_reason is FinishReason.LENGTH
    assert result.finished.stop_string is None


async def test_token_limit_is_the_rest_of_the_context(engine: Engine, other: RunnableModel) -> None:
    whole = await run(engine, other, GenerationRequest(prompt="Hello", stop=("e", " ")))
    assert whole.started.max_tokens == 256 - whole.started.prompt_tokens
    half = await run(engine, other, GenerationRequest(prompt="Hello", budget="server", stop=("e", " ")))
    assert half.started.max_tokens == 128
    asked = await run(engine, other, GenerationRequest(prompt="Hello", max_tokens=5000, stop=("e", " ")))
    assert asked.started.max_tokens == whole.started.max_tokens


# Parts of an answer


async def test_reasoning_is_separated(engine: Engine, tiny: RunnableModel) -> None:
    result = await run(engine, tiny, chat(THOUGHT_OVER))
    assert result.reasoning
    assert result.text
    assert "think>" not in result.text + result.reasoning
    usage = result.finished.usage
    assert 0 < usage.reasoning_tokens < usage.completion_tokens


async def test_reasoning_opened_by_the_prompt_is_separated(engine: Engine, babbler: RunnableModel) -> None:
    # The template of this model opens <think> if thinking is enabled, which is the default.
    thinking = await run(engine, babbler, chat("Hello", max_tokens=10))
    usage = thinking.finished.usage
    assert (thinking.text, usage.reasoning_tokens) == ("", usage.completion_tokens)
    assert thinking.reasoning
    plain = await run(
        engine, babbler, chat("Hello", max_tokens=10, template_kwargs={"enable_thinking": False})
    )
    assert plain.text
    assert not plain.reasoning


async def test_tool_call_is_removed_from_the_text(engine: Engine, tiny: RunnableModel) -> None:
    tool = {
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
    result = await run(engine, tiny, chat("What is the weather in Paris?", tools=(tool,)))
    assert [call.name for call in result.tool_calls] == ["get_weather"]
    assert set(json.loads(result.tool_calls[0].arguments)) == {"city"}
    assert "tool_call" not in result.text
    assert result.finished.finish_reason is FinishReason.TOOL_CALLS


async def test_text_never_has_partial_characters(engine: Engine, tiny: RunnableModel) -> None:
    results = [await run(engine, tiny, chat(text)) for text in ("Hello!", "Tell me a tip")]
    said = "".join(result.text for result in results)
    assert "�" not in said
    assert not said.isascii()


async def test_logprobs_and_token_ids_are_returned_on_request(engine: Engine, babbler: RunnableModel) -> None:
    result = await run(engine, babbler, replace(PROMPT, max_tokens=12, logprobs=3, return_token_ids=True))
    assert [item.id for item in result.logprobs] == result.token_ids
    for item in result.logprobs:
        assert item.logprob is not None
        assert len(item.top) == 3
        assert item.top[0].id == item.id  # greedy: the most likely token was selected
        assert [top.logprob for top in item.top] == sorted((t.logprob for t in item.top), reverse=True)
        assert math.isclose(item.top[0].logprob, item.logprob)
    none = await run(engine, babbler, replace(PROMPT, max_tokens=3))
    assert not none.logprobs
    assert not none.token_ids


async def test_timings_are_consistent(engine: Engine, babbler: RunnableModel) -> None:
    timings = (await run(engine, babbler, PROMPT)).finished.timings
    assert 0 < timings.queued_s < timings.time_to_first_token_s
    assert timings.generation_tps > 0
    assert timings.peak_memory_bytes > 0


# SamplingParams


async def test_seed_is_reproducible_beside_other_requests(engine: Engine, babbler: RunnableModel) -> None:
    def seeded(seed: int) -> GenerationRequest:
        return replace(PROMPT, sampling=SamplingParams(temperature=1.0, top_p=0.95, seed=seed))

    alone = await run(engine, babbler, seeded(7))
    together = await asyncio.gather(*(run(engine, babbler, seeded(seed)) for seed in (7, 8, 9)))
    assert together[0].text == alone.text
    assert len({result.text for result in together}) == 3


@pytest.mark.slow
async def test_every_parameter_has_an_effect(engine: Engine, babbler: RunnableModel) -> None:
    greedy = await run(engine, babbler, replace(PROMPT, return_token_ids=True))
    banned = greedy.token_ids[0]
    biased = await run(
        engine,
        babbler,
        replace(PROMPT, return_token_ids=True, sampling=replace(GREEDY, logit_bias={banned: -100})),
    )
    assert banned not in biased.token_ids
    hot = SamplingParams(temperature=1.5, seed=1)
    for narrowed in (replace(hot, top_k=1), replace(hot, top_p=0), replace(hot, min_p=1)):
        result = await run(engine, babbler, replace(PROMPT, sampling=narrowed))
        assert result.text == greedy.text, narrowed
    for punished in (
        replace(GREEDY, repetition_penalty=1.9),
        replace(GREEDY, presence_penalty=1.9),
        replace(GREEDY, frequency_penalty=1.9),
    ):
        result = await run(engine, babbler, replace(PROMPT, sampling=punished, return_token_ids=True))
        assert len(set(result.token_ids[:15])) == 15 > len(set(greedy.token_ids[:15])), punished


async def test_generation_config_provides_defaults(
    engine: Engine, babbler: RunnableModel, tmp_path: Path
) -> None:
    config = {"do_sample": True, "temperature": 1.0, "top_k": 1, "eos_token_id": [0, 5]}
    folder = make_model(tmp_path / "m", context=4096, generation_config=config)
    model = RunnableModel("test/configured", folder)
    default = await run(engine, model, replace(PROMPT, sampling=SamplingParams()))
    asked = await run(engine, model, PROMPT)
    assert default.text == asked.text  # top_k of 1 is greedy
    other = await run(engine, model, replace(PROMPT, sampling=SamplingParams(top_k=0, seed=3)))
    assert other.text != default.text


# Prompts


async def test_model_without_a_template_gets_a_plain_conversation(engine: Engine, tmp_path: Path) -> None:
    model = RunnableModel("test/plain", make_model(tmp_path / "m", template=None))
    lone = await run(engine, model, chat("Hello, world! How are", max_tokens=20))
    raw = await run(engine, model, replace(PROMPT, max_tokens=20))
    assert lone.text == raw.text
    talk = await run(engine, model, chat("Hello", "Hi", "How are you?", max_tokens=20))
    assert talk.started.prompt_tokens > lone.started.prompt_tokens
    assert await engine.count_tokens(model, [{"role": "user", "content": "Hello"}]) > 0


async def test_failing_template_is_an_error(engine: Engine, tmp_path: Path) -> None:
    for number, template in enumerate(("{{ messages[0].nothing.at_all }}", "{% for %}")):
        model = RunnableModel("test/broken", make_model(tmp_path / str(number), template=template))
        error = await refused(engine, model, chat("Hello"))
        assert error.type is ErrorType.MODEL_NOT_RUNNABLE
        assert "chat template of test/broken" in error.message
        assert (await run(engine, model, chat("Hello", chat_template=False, max_tokens=5))).tokens


async def test_system_message_is_merged_for_templates_without_system_role(
    engine: Engine, tmp_path: Path
) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    model = RunnableModel("test/gemma", make_model(tmp_path / "m", template=template))
    messages = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"})
    result = await run(engine, model, GenerationRequest(messages=messages, max_tokens=3))
    assert result.tokens
    refusal = await refused(engine, model, GenerationRequest(messages=messages[:1]))
    assert refusal.type is ErrorType.VALIDATION_ERROR
    assert "System role not supported" in refusal.message


async def test_invalid_unicode_is_replaced(engine: Engine, tiny: RunnableModel) -> None:
    result = await run(engine, tiny, chat("What is \udcff\udc80 this?", max_tokens=5))
    assert result.tokens


async def test_long_prompt_reports_progress_and_a_too_long_one_is_rejected(
    engine: Engine, babbler: RunnableModel
) -> None:
    long = "How are you today? " * 200
    result = await run(engine, babbler, replace(PROMPT, prompt=long, max_tokens=3))
    told = [event.done for event in result.events if isinstance(event, PrefillProgress)]
    assert told == sorted(told)
    assert told
    error = await refused(engine, babbler, replace(PROMPT, prompt="words " * 90_000))
    assert error.type is ErrorType.CONTEXT_LENGTH_EXCEEDED
    assert "4,096" in error.message


# Invalid input


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": ""},
        {"prompt": None},
        {"tokens": (1, 2)},
        {"prompt": None, "tokens": ()},
        {"prompt": None, "tokens": (99_999,)},
        {"prompt": None, "tokens": (-1,)},
        {"prompt": None, "tokens": ("a",)},
        {"prompt": None, "messages": ()},
        {"prompt": None, "messages": ({"content": "no role"},)},
        {"prompt": None, "messages": ({"role": "user", "content": [{"type": "image_url"}]},)},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"logprobs": 21},
        {"stop": (7,)},
        {"stop": ("x" * 5000,)},
        {"kv_bits": 3},
        {"sampling": SamplingParams(top_k=100_000)},
        {"sampling": SamplingParams(logit_bias={100_000: 1.0})},
        {"sampling": SamplingParams(temperature=-1)},
        {"sampling": SamplingParams(seed=2**70)},
    ],
    ids=str,
)
async def test_invalid_request_fails_only_itself(
    engine: Engine, babbler: RunnableModel, change: dict[str, Any]
) -> None:
    good = asyncio.create_task(run(engine, babbler, replace(PROMPT, max_tokens=10)))
    error = await refused(engine, babbler, replace(PROMPT, **change))
    assert error.type is ErrorType.VALIDATION_ERROR
    assert len(error.message) < 400
    assert (await good).tokens


async def test_draft_model_with_another_vocabulary_is_rejected(
    engine: Engine, babbler: RunnableModel, tiny: RunnableModel
) -> None:
    error = await refused(engine, babbler, replace(PROMPT, draft_model=str(tiny.folder)))
    assert error.type is ErrorType.VALIDATION_ERROR
    assert "tokenizer" in error.message
