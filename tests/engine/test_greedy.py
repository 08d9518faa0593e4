"""Greedy answers are always the same, and those of mlx-lm."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any, NamedTuple

import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Delta, GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from tests.engine.conftest import (
    GREEDY,
    Result,
    chat,
    executable,
    folder_of,
    needs_mlx,
    run,
    worker_environment,
)

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="package")]

QUESTIONS = (
    "What do the panes do?",
    "What does verify do?",
    "Why does a model not run here?",
    "Show me Python code",
    "Tell me a tip",
    "Give me a tour of the app",
    "Hello!",
    "Can you write JSON?",
)
_PEER = """
import json, sys
from mlx_lm import generate, load, stream_generate
model, tokenizer = load(sys.argv[1])
answers = []
for question in json.loads(sys.argv[2]):
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
    steps = list(stream_generate(model, tokenizer, prompt, max_tokens=150))
    text = "".join(step.text for step in steps)
    if len(answers) < 2:
        assert text == generate(model, tokenizer, prompt, max_tokens=150)
    answers.append([[step.token for step in steps], text])
print(json.dumps(answers))
"""


class Answer(NamedTuple):
    """An answer."""

    tokens: list[int]
    text: str

    def is_said_by(self, result: Result) -> bool:
        """Compare with mlx-lm's answer, which is not split at markers."""
        split = "think>" in self.text
        return self.tokens == result.token_ids and (split or self.text == result.text)


def ask(question: str, **more: Any) -> GenerationRequest:
    return chat(
        question, max_tokens=150, return_token_ids=True, template_kwargs={"enable_thinking": False}, **more
    )


@pytest.fixture(scope="module")
def expected(tiny: RunnableModel) -> list[Answer]:
    """Return the answers of mlx_lm.generate to the single questions."""
    done = subprocess.run(
        [executable(), "-c", _PEER, folder_of(tiny), json.dumps(QUESTIONS)],
        env=worker_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    answers = [Answer(*answer) for answer in json.loads(done.stdout)]
    assert (
        len({answer.text for answer in answers}) > len(QUESTIONS) // 2
    )  # most questions have different answers
    return answers


async def test_single_stream_matches_mlx_lm(
    engine: Engine, tiny: RunnableModel, expected: list[Answer]
) -> None:
    for question, answer in zip(QUESTIONS, expected, strict=True):
        assert answer.is_said_by(await run(engine, tiny, ask(question))), question


async def test_eight_streams_match_mlx_lm(
    engine: Engine, tiny: RunnableModel, expected: list[Answer]
) -> None:
    results = await asyncio.gather(*(run(engine, tiny, ask(question)) for question in QUESTIONS))
    for answer, result in zip(expected, results, strict=True):
        assert answer.is_said_by(result)


async def test_repeated_prompt_is_cached_and_gives_the_same_answer(
    engine: Engine, tiny: RunnableModel, expected: list[Answer]
) -> None:
    result = await run(engine, tiny, ask(QUESTIONS[0]))
    assert result.started.cached_tokens == result.started.prompt_tokens - 1
    assert expected[0].is_said_by(result)


async def test_other_requests_do_not_change_an_answer(
    engine: Engine, tiny: RunnableModel, expected: list[Answer]
) -> None:
    async def neighbor(question: str, tokens: int) -> None:
        stream = engine.generate(tiny, ask(question, stop=("never said",)))
        async for event in stream:
            if isinstance(event, Delta):
                tokens -= event.tokens
            if tokens <= 0:
                break
        await stream.aclose()

    results = await asyncio.gather(
        run(engine, tiny, ask(QUESTIONS[2])),
        neighbor(QUESTIONS[3], 3),
        neighbor(QUESTIONS[5], 20),
        run(engine, tiny, ask(QUESTIONS[4])),
    )
    assert expected[2].is_said_by(results[0])
    assert expected[4].is_said_by(results[3])


async def test_token_and_text_prompts_give_the_same_answer(engine: Engine, tiny: RunnableModel) -> None:
    whole = await run(engine, tiny, ask(QUESTIONS[1]))
    prompt = f"<|im_start|>user\n{QUESTIONS[1]}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    raw = await run(
        engine, tiny, GenerationRequest(prompt=prompt, sampling=GREEDY, max_tokens=150, return_token_ids=True)
    )
    assert raw.token_ids == whole.token_ids
    assert raw.text == whole.text


@pytest.mark.slow
async def test_quantized_cache_and_draft_model_work(
    engine: Engine, tiny: RunnableModel, expected: list[Answer]
) -> None:
    drafted = await run(engine, tiny, ask(QUESTIONS[0], draft_model=folder_of(tiny)))
    assert expected[0].is_said_by(drafted)
    quantized = await run(engine, tiny, ask(QUESTIONS[0], kv_bits=8))
    assert quantized.text[:20] == expected[0].text[:20]
    again = await run(engine, tiny, ask(QUESTIONS[0], kv_bits=8))
    assert again.started.cached_tokens == again.started.prompt_tokens - 1
    assert again.text == quantized.text


@pytest.mark.slow
async def test_next_turn_reuses_the_cache_and_matches_a_cold_start(
    engine: Engine, tiny: RunnableModel
) -> None:
    first = await run(engine, tiny, ask(QUESTIONS[0]))
    turns = (QUESTIONS[0], first.text, QUESTIONS[1])
    request = chat(*turns, max_tokens=100, template_kwargs={"enable_thinking": False})
    warm = await run(engine, tiny, request)
    assert warm.started.cached_tokens > first.started.prompt_tokens // 2
    await engine.unload()
    cold = await run(engine, tiny, request)
    assert cold.started.cached_tokens == 0
    assert cold.text == warm.text
