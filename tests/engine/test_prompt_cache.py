"""The prompt cache: prompts reuse the longest common prefix, within a limit of memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Delta, GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from tests.engine.conftest import GREEDY, chat, needs_mlx, new_engine, run
from tests.engine.small_models import make_model

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="package")]

HISTORY = "The quick brown fox jumps over the lazy dog. " * 12


async def test_removed_reasoning_reprocesses_only_the_answer(engine: Engine, babbler: RunnableModel) -> None:
    # The template opens <think> for the answer; the next turn's history does not have it.
    first = await run(engine, babbler, chat(HISTORY, max_tokens=20))
    assert first.reasoning
    second = await run(engine, babbler, chat(HISTORY, "Fine.", "And now?", max_tokens=5))
    opening = 10  # tokens at the end of the first prompt that open the answer
    assert second.started.cached_tokens >= first.started.prompt_tokens - opening


async def test_edited_question_reuses_the_prompt_before_it(engine: Engine, babbler: RunnableModel) -> None:
    await run(engine, babbler, chat(HISTORY, "Fine.", "And now?", max_tokens=5))
    edited = await run(engine, babbler, chat(HISTORY, "Fine.", "Something else?", max_tokens=5))
    assert edited.started.cached_tokens > edited.started.prompt_tokens * 0.8


async def test_cancelled_prompt_is_reused(engine: Engine, babbler: RunnableModel) -> None:
    prompt = GenerationRequest(prompt="Once upon a time. " + HISTORY, sampling=GREEDY, max_tokens=500)
    stream = engine.generate(babbler, prompt)
    async for event in stream:
        if isinstance(event, Delta):  # its prefill has ended
            stream.cancel()
    again = await run(engine, babbler, replace(prompt, max_tokens=5))
    assert again.started.cached_tokens > 0


async def test_common_prefix_is_shared_by_several_requests(engine: Engine, babbler: RunnableModel) -> None:
    await run(engine, babbler, chat(HISTORY, max_tokens=5))
    results = await asyncio.gather(
        *(run(engine, babbler, chat(HISTORY + word, max_tokens=30)) for word in ("One", "Two", "Three"))
    )
    for result in results:
        assert result.started.cached_tokens > result.started.prompt_tokens * 0.8
    alone = await run(engine, babbler, chat(HISTORY + "Two", max_tokens=30))
    assert alone.reasoning == results[1].reasoning


async def test_sliding_window_is_reused_for_the_next_turn(engine: Engine, tmp_path: Path) -> None:
    # Such a cache cannot be trimmed once its window is full: the cached entry ends with the history.
    model = RunnableModel("test/sliding", make_model(tmp_path / "m", context=4096, sliding_window=64))
    first = await run(engine, model, chat(HISTORY, max_tokens=20))
    turns = chat(HISTORY, first.text, "And now?", max_tokens=20)
    second = await run(engine, model, turns)
    assert second.started.cached_tokens > first.started.prompt_tokens * 0.8
    await engine.unload()
    cold = await run(engine, model, turns)
    assert cold.started.cached_tokens == 0
    assert (cold.text, cold.reasoning) == (second.text, second.reasoning)


@pytest.mark.slow
async def test_prompt_cache_stays_within_its_limit(babbler: RunnableModel) -> None:
    one = 512 * 2 * 2 * 32 * 4 * 2  # a history: tokens, layers, heads, their size, fp32, keys and values
    engine = new_engine(cache_bytes=one * 3)
    try:
        base = (await engine.load(babbler)).memory_bytes
        prompts = [f"{number} {HISTORY}" for number in range(8)]
        for prompt in prompts:
            await run(engine, babbler, GenerationRequest(prompt=prompt, sampling=GREEDY, max_tokens=5))
        newest = await run(
            engine, babbler, GenerationRequest(prompt=prompts[-1], sampling=GREEDY, max_tokens=5)
        )
        oldest = await run(
            engine, babbler, GenerationRequest(prompt=prompts[0], sampling=GREEDY, max_tokens=5)
        )
        assert newest.started.cached_tokens == newest.started.prompt_tokens - 1
        assert oldest.started.cached_tokens == 0
        assert engine.status.memory_bytes - base < one * 5
    finally:
        await engine.stop()
