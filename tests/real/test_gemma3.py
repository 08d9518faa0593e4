"""Gemma 3 270M, a base model with a sliding window, matches mlx_lm token by token."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, run
from tests.real.conftest import Reference

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="package")]

PROMPT = "The capital of France is the city of"
_TOKENS = 8


def go_on(tokens: list[int], **more: Any) -> GenerationRequest:
    """Return a greedy completion request."""
    wanted: dict[str, Any] = {"sampling": GREEDY, "max_tokens": _TOKENS, "return_token_ids": True, **more}
    return GenerationRequest(tokens=tuple(tokens), **wanted)


@pytest.fixture(scope="module")
def long(gemma3: RunnableModel, reference: Reference) -> list[int]:
    """Return a prompt that is longer than the window of 512 tokens."""
    lines = "".join(f"{number}. The river {number} flows to the sea.\n" for number in range(10, 60))
    tokens: list[int] = reference.ask("encode", gemma3, text=lines)
    assert len(tokens) > 530
    return tokens[:530]


async def test_raw_completion_matches_mlx_lm(
    engine: Engine, gemma3: RunnableModel, reference: Reference
) -> None:
    tokens = reference.ask("encode", gemma3, text=PROMPT)
    expected = reference.ask("generate", gemma3, prompt=tokens, max_tokens=_TOKENS)
    request = GenerationRequest(
        prompt=PROMPT, sampling=GREEDY, max_tokens=_TOKENS, return_token_ids=True, echo=True
    )
    result = await run(engine, gemma3, request)
    assert result.token_ids == expected["tokens"]
    assert result.text == PROMPT + reference.ask("decode", gemma3, tokens=expected["tokens"])
    assert " Paris" in result.text


async def test_four_requests_at_once_match_single_requests(
    engine: Engine, gemma3: RunnableModel, reference: Reference
) -> None:
    texts = (PROMPT, "1, 2, 3, 4,", "Water is made of", "The opposite of hot is")
    prompts = [reference.ask("encode", gemma3, text=text) for text in texts]
    await engine.unload()
    results = await asyncio.gather(*(run(engine, gemma3, go_on(prompt)) for prompt in prompts))
    for prompt, result in zip(prompts, results, strict=True):
        expected = reference.ask("generate", gemma3, prompt=prompt, max_tokens=_TOKENS)
        assert result.token_ids == expected["tokens"]


async def test_prompt_beyond_the_window_matches_mlx_lm(
    engine: Engine, gemma3: RunnableModel, reference: Reference, long: list[int]
) -> None:
    """Alone, again with the prompt cache, beside another, and as a branch, which cannot use the cache."""
    expected = reference.ask("generate", gemma3, prompt=long, max_tokens=_TOKENS)["tokens"]
    first = await run(engine, gemma3, go_on(long))
    assert first.token_ids == expected
    longer = long + first.token_ids + reference.ask("encode", gemma3, text="The river")[1:]
    told = reference.ask("generate", gemma3, prompt=longer, max_tokens=_TOKENS, goes_on=True)
    expected = told["tokens"]
    more = await run(engine, gemma3, go_on(longer))
    assert more.started.cached_tokens >= len(long)
    assert told["same"] >= len(long)
    assert more.token_ids == expected
    branch = [*long[:520], *reference.ask("encode", gemma3, text="But the lake")[1:]]
    expected = reference.ask("generate", gemma3, prompt=branch, max_tokens=_TOKENS)["tokens"]
    beside, _ = await asyncio.gather(
        run(engine, gemma3, go_on(branch)), run(engine, gemma3, go_on(long[:20], max_tokens=30))
    )
    assert beside.token_ids == expected


async def test_unsupported_options_are_rejected_before_generation(
    engine: Engine, gemma3: RunnableModel, long: list[int]
) -> None:
    for request, said in (
        (go_on(long[:20], kv_bits=8), "cannot be quantized"),
        (go_on(long, draft_model=str(gemma3.folder)), "rotating window of 512 tokens"),
        (go_on(long[:20], max_tokens=600, draft_model=str(gemma3.folder)), "max_tokens to at most 489"),
    ):
        with pytest.raises(OpError) as caught:
            await run(engine, gemma3, request)
        assert caught.value.type is ErrorType.VALIDATION_ERROR
        assert said in caught.value.message
