"""Raw completions: exactly the text that the tokens add, and the log-probabilities of the prompt."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import replace

import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Delta, Finished, FinishReason, GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, executable, folder_of, needs_mlx, run, worker_environment

pytestmark = needs_mlx
together = pytest.mark.asyncio(loop_scope="package")

PROMPT = GenerationRequest(
    tokens=tuple(40 + i % 200 for i in range(300)), sampling=GREEDY, max_tokens=0, echo=True
)


def probe(name: str, *arguments: str) -> str:
    """Return the output of a probe."""
    command = [executable(), "-m", f"tests.engine.probes.{name}", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=worker_environment()
    ).stdout


@pytest.mark.slow
def test_every_tokenizer_continues_a_text_at_any_position() -> None:
    found = json.loads(probe("continuing"))
    assert found["wrong"] == []
    assert found["cuts"] > 300


@pytest.mark.slow
@together
async def test_prompt_log_probabilities_match_a_single_pass(engine: Engine, babbler: RunnableModel) -> None:
    assert PROMPT.tokens is not None
    expected = json.loads(probe("scores", folder_of(babbler), *map(str, PROMPT.tokens)))
    result = await run(engine, babbler, replace(PROMPT, logprobs=3))
    first, *others = result.logprobs
    assert [item.id for item in result.logprobs] == list(PROMPT.tokens)
    assert (first.logprob, first.top) == (None, ())
    assert [item.logprob for item in others] == pytest.approx(expected, abs=1e-3)
    for item in others:
        assert item.logprob is not None
        assert len(item.top) == 3
        assert item.top[0].logprob >= item.top[1].logprob >= item.top[2].logprob
        assert item.top[0].logprob >= item.logprob
    assert (result.tokens, result.finished.usage.prompt_tokens) == (0, 300)
    assert result.finished.finish_reason is FinishReason.LENGTH
    for item, after in zip(result.logprobs, result.logprobs[1:], strict=False):
        if not item.raw:
            assert result.text[item.offset : after.offset] == item.text


@together
async def test_scoring_the_prompt_does_not_change_the_answer(engine: Engine, babbler: RunnableModel) -> None:
    plain = await run(engine, babbler, replace(PROMPT, max_tokens=12, echo=False, logprobs=0))
    echoed = await run(engine, babbler, replace(PROMPT, max_tokens=12, logprobs=0))
    silent = await run(engine, babbler, replace(PROMPT, max_tokens=12))
    assert echoed.text == silent.text
    assert echoed.text.endswith(plain.text)
    for ours, usual in zip(echoed.logprobs[-12:], plain.logprobs, strict=True):
        assert (ours.id, ours.text, ours.raw, ours.offset) == (usual.id, usual.text, usual.raw, usual.offset)
        assert ours.logprob == pytest.approx(usual.logprob, abs=1e-3)
    assert len(echoed.logprobs) == 312
    assert plain.logprobs[0].offset == len(echoed.text) - len(plain.text)
    only = (await run(engine, babbler, PROMPT)).text  # an incomplete character is marked
    assert only.removesuffix("\ufffd") == echoed.text[: -len(plain.text)]


@pytest.mark.slow
@together
async def test_streams_continue_while_prompts_are_scored(engine: Engine, babbler: RunnableModel) -> None:
    """Eight long prompts are processed in chunks, and a stream gets a token with each chunk."""
    scoring = 0
    tokens_meanwhile = 0

    async def score() -> None:
        nonlocal scoring
        scoring += 1
        await run(
            engine, babbler, replace(PROMPT, tokens=tuple(40 + i % 200 for i in range(900)), logprobs=1)
        )
        scoring -= 1

    tasks: list[asyncio.Task[None]] = []
    request = GenerationRequest(prompt="Hello", sampling=GREEDY, max_tokens=3000)
    async for event in engine.generate(babbler, request):
        if isinstance(event, Delta) and not tasks:
            tasks = [asyncio.create_task(score()) for _ in range(8)]
        elif isinstance(event, Delta) and scoring:
            tokens_meanwhile += event.tokens
        elif isinstance(event, Finished):
            break
        if tasks and not scoring and tokens_meanwhile:
            break
    await asyncio.gather(*tasks)
    assert tokens_meanwhile > 8


@together
@pytest.mark.parametrize(
    "more",
    [
        {"echo": False},
        {"max_tokens": -1},
        {"logprobs": 1, "draft_model": "somewhere"},
        {"tokens": None, "messages": ({"role": "user", "content": "Hi"},), "max_tokens": 4},
        {"grammar": "{}", "max_tokens": 4},
    ],
)
async def test_unsupported_echo_is_rejected(
    engine: Engine, babbler: RunnableModel, more: dict[str, object]
) -> None:
    with pytest.raises(OpError) as caught:
        await run(engine, babbler, replace(PROMPT, **more))  # type: ignore[arg-type]  # of several types
    assert caught.value.type is ErrorType.VALIDATION_ERROR
