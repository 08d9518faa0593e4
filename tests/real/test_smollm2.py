"""SmolLM2-135M-Instruct matches mlx_lm token by token, with every kind of request."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import FinishReason, GenerationRequest, SamplingParams
from mlxk_tui.engine.models import RunnableModel
from tests.engine.conftest import GREEDY, executable, run, worker_environment
from tests.real.conftest import Reference

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="package")]

CAPITAL = "What is the capital of France?"
QUESTIONS = (CAPITAL, "Name three colors.", "What is two plus two?", "Say hello in French.")
_TOKENS = 10


def messages(*contents: str) -> tuple[dict[str, str], ...]:
    """Return a conversation with alternating messages, the user's first."""
    return tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents))


def ask(*contents: str, **more: Any) -> GenerationRequest:
    """Return a greedy request."""
    wanted: dict[str, Any] = {"sampling": GREEDY, "max_tokens": _TOKENS, "return_token_ids": True, **more}
    return GenerationRequest(messages=messages(*contents), **wanted)


def mlx_lm(reference: Reference, model: RunnableModel, contents: Sequence[str], **more: Any) -> Any:
    """Return the answer of mlx_lm."""
    prompt = reference.ask("encode", model, messages=messages(*contents))
    return reference.ask("generate", model, prompt=prompt, **{"max_tokens": _TOKENS, **more})


async def test_answer_matches_mlx_lm(engine: Engine, smollm2: RunnableModel, reference: Reference) -> None:
    expected = mlx_lm(reference, smollm2, [CAPITAL])
    result = await run(engine, smollm2, ask(CAPITAL, logprobs=2))
    assert result.token_ids == expected["tokens"]
    assert result.text == "The capital of France is Paris."
    assert [item.logprob for item in result.logprobs] == pytest.approx(
        expected["logprobs"][: len(result.logprobs)], abs=1e-2
    )
    assert "".join(item.text for item in result.logprobs) == result.text


@pytest.mark.parametrize("bits", [8, 4])
async def test_quantized_kv_cache_matches_mlx_lm(
    engine: Engine, smollm2: RunnableModel, reference: Reference, bits: int
) -> None:
    """Also the next turn and a branch, which reuse the prompt cache."""
    expected = mlx_lm(reference, smollm2, [CAPITAL], kv_bits=bits)
    first = await run(engine, smollm2, ask(CAPITAL, kv_bits=bits))
    assert first.token_ids == expected["tokens"]
    assert first.text == "The capital of France is Paris."
    for turns in ((CAPITAL, first.text, "And of Italy?"), ("What is the capital of Germany?",)):
        expected = mlx_lm(reference, smollm2, [CAPITAL], kv_bits=bits)
        expected = mlx_lm(reference, smollm2, turns, kv_bits=bits, goes_on=True)
        result = await run(engine, smollm2, ask(*turns, kv_bits=bits))
        assert result.token_ids == expected["tokens"]
        assert result.started.cached_tokens == expected["same"] > 8


async def test_prefill_chunks_do_not_change_the_quantized_cache(
    smollm2: RunnableModel, reference: Reference
) -> None:
    """30 layers with 3 heads of 64 keys and 64 values, allocated for 256 tokens."""
    tokens = reference.ask("encode", smollm2, messages=messages(CAPITAL))
    command = [executable(), "-m", "tests.support.with_blas", "tests.engine.probes.chunk_sizes"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, str(smollm2.folder), "4", "6", *map(str, tokens)],
        capture_output=True,
        text=True,
        check=True,
        env=worker_environment(),
    )
    said = json.loads(done.stdout)
    del said["answers"]["full/2048"]
    assert all(answer == said["mlx_lm"] for answer in said["answers"].values())
    values = 30 * 3 * (64 + 64) * 256
    sizes = {"full/2048": values * 4, "4/2048": values * (0.5 + 8 / 64)}
    assert {name: said["bytes"][name] for name in sizes} == sizes


@pytest.mark.parametrize("bits", [None, 8])
async def test_draft_model_does_not_change_the_answer(
    engine: Engine, smollm2: RunnableModel, draft: RunnableModel, reference: Reference, bits: int | None
) -> None:
    expected = mlx_lm(reference, smollm2, [QUESTIONS[1]], kv_bits=bits, draft=str(draft.folder))
    result = await run(engine, smollm2, ask(QUESTIONS[1], kv_bits=bits, draft_model=str(draft.folder)))
    assert result.token_ids == expected["tokens"]
    again = await run(engine, smollm2, ask(QUESTIONS[1], kv_bits=bits, draft_model=str(draft.folder)))
    assert again.started.cached_tokens == again.started.prompt_tokens - 1
    assert again.token_ids == expected["tokens"]


async def test_four_requests_at_once_match_single_requests(
    engine: Engine, smollm2: RunnableModel, reference: Reference
) -> None:
    await engine.unload()
    results = await asyncio.gather(*(run(engine, smollm2, ask(question)) for question in QUESTIONS))
    for question, result in zip(QUESTIONS, results, strict=True):
        expected = mlx_lm(reference, smollm2, [question])
        assert result.token_ids == expected["tokens"]
        assert result.text == expected["text"].removesuffix("<|im_end|>")


async def test_next_turn_and_branch_reuse_the_prompt_cache(
    engine: Engine, smollm2: RunnableModel, reference: Reference
) -> None:
    first = await run(engine, smollm2, ask(CAPITAL))
    for turns in ((CAPITAL, first.text, "And of Italy?"), ("What is the capital of Germany?",)):
        expected = mlx_lm(reference, smollm2, turns)
        result = await run(engine, smollm2, ask(*turns))
        assert result.token_ids == expected["tokens"]
        assert result.started.cached_tokens > 20


async def test_raw_completion_keeps_the_leading_space(
    engine: Engine, smollm2: RunnableModel, reference: Reference
) -> None:
    prompt = "The capital of France is"
    tokens = reference.ask("encode", smollm2, text=prompt)
    expected = reference.ask("generate", smollm2, prompt=tokens, max_tokens=4)
    whole = reference.ask("decode", smollm2, tokens=tokens + expected["tokens"])
    request = GenerationRequest(
        prompt=prompt, sampling=GREEDY, max_tokens=4, return_token_ids=True, logprobs=0
    )
    for asked in (request, replace(request, prompt=None, tokens=tuple(tokens))):
        result = await run(engine, smollm2, asked)
        assert result.token_ids == expected["tokens"]
        assert prompt + result.text == whole
        assert result.text.startswith(" Paris")
        assert result.logprobs[0].offset == len(prompt)
        assert (await run(engine, smollm2, replace(asked, echo=True))).text == whole
    lone = await run(engine, smollm2, ask(prompt, chat_template=False, max_tokens=4))
    assert prompt + lone.text == whole


async def test_prompt_log_probabilities_match_mlx_lm(
    engine: Engine, smollm2: RunnableModel, reference: Reference
) -> None:
    tokens = reference.ask("encode", smollm2, text="The capital of France is Paris. Two and two make four.")
    expected = reference.ask("score", smollm2, prompt=tokens)
    request = GenerationRequest(tokens=tuple(tokens), sampling=GREEDY, max_tokens=0, echo=True, logprobs=1)
    result = await run(engine, smollm2, request)
    assert [item.logprob for item in result.logprobs[1:]] == pytest.approx(expected, abs=1e-2)
    assert result.logprobs[0].logprob is None


async def test_answer_ends_before_a_stop_string(
    engine: Engine, smollm2: RunnableModel, reference: Reference
) -> None:
    expected = mlx_lm(reference, smollm2, [CAPITAL])["text"]
    result = await run(engine, smollm2, ask(CAPITAL, stop=("ance i",)))
    assert result.text == expected[: expected.index("ance i")]
    assert (result.finished.finish_reason, result.finished.stop_string) == (FinishReason.STOP, "ance i")


async def test_schema_is_followed_and_gives_a_useful_answer(engine: Engine, smollm2: RunnableModel) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Berlin", "Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    question = "What is the capital of France? Answer in JSON with the key city."
    request = ask(question, grammar=json.dumps(schema), max_tokens=30)
    alone = await run(engine, smollm2, request)
    assert json.loads(alone.text) == {"city": "Paris"}
    beside, _ = await asyncio.gather(run(engine, smollm2, request), run(engine, smollm2, ask(QUESTIONS[1])))
    assert beside.token_ids == alone.token_ids


async def test_seed_is_reproducible_alone_and_beside_others(engine: Engine, smollm2: RunnableModel) -> None:
    def drawn(seed: int) -> GenerationRequest:
        return ask("Tell me a story.", sampling=SamplingParams(temperature=1.0, seed=seed), max_tokens=10)

    alone = await run(engine, smollm2, drawn(7))
    beside, other, _ = await asyncio.gather(
        run(engine, smollm2, drawn(7)), run(engine, smollm2, drawn(8)), run(engine, smollm2, ask(CAPITAL))
    )
    assert beside.token_ids == alone.token_ids
    assert other.token_ids != alone.token_ids
