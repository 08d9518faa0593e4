"""Opt-in (`pytest -m server`): the server with real models of the user's cache, read-only.

`MLXK2_USER_HF_HOME` or `HF_HOME` names the cache. Models that need more than 80 % of the available memory are
skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import iter_reports
from mlxk_tui.ops.contract.results import Health, Model, ModelType
from tests.engine.conftest import needs_mlx
from tests.server.served import Served
from tests.support.clients import openai

pytestmark = [needs_mlx, pytest.mark.server, pytest.mark.wet]

SHARE = 0.8
"""Largest part of the available memory that a model may need."""


def _hub() -> Path | None:
    home = os.environ.get("MLXK2_USER_HF_HOME")
    return Path(home).expanduser().absolute() / "hub" if home else None


def _models() -> list[Model]:
    """Return the runnable chat models, smallest first; none if no cache is given."""
    hub = _hub()
    if hub is None or not hub.is_dir():
        return []
    models = [report.model for report in iter_reports(Cache(hub))]
    runnable = [
        model
        for model in models
        if model.model_type is ModelType.CHAT and model.health is Health.HEALTHY and model.runtime_compatible
    ]
    return sorted(runnable, key=lambda model: model.memory_bytes or 0)


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    """Return a server with the user's cache."""
    hub = _hub()
    if hub is None or not hub.is_dir():
        pytest.skip("set HF_HOME or MLXK2_USER_HF_HOME to your own Hugging Face home")
    served = Served(hub)
    yield served
    served.close()


@pytest.fixture
def client(live: Served) -> Iterator[openai.OpenAI]:
    """Return OpenAI's client with a timeout that allows loading models."""
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0, timeout=600) as made:
        yield made


def _fitting() -> Iterator[str]:
    """Yield the names of models that fit into memory; skip the test if there are none."""
    models = _models()
    if not models:
        pytest.skip("there is no chat model that can run in that cache")
    asked = 0
    for model in models:
        if (model.memory_bytes or 0) <= SHARE * psutil.virtual_memory().available:
            asked += 1
            yield model.name
    if not asked:
        pytest.skip("no model fits into 80 % of the memory at hand")


def _ends_its_turn(name: str, text: str) -> None:
    """Check that the answer does not continue as the user or show end-of-turn markers."""
    for mark in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>", "<|end|>", "\nUser:", "\nHuman:"):
        assert mark not in text, (name, mark)


def test_every_chat_model_that_fits_gives_a_correct_answer(client: openai.OpenAI) -> None:
    for name in _fitting():
        answer = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "Say hello in one short sentence."}],
            max_tokens=400,
            temperature=0,
        )
        choice = answer.choices[0]
        assert answer.usage is not None, name
        assert 0 < answer.usage.completion_tokens <= 400, name
        text = choice.message.content or ""
        assert text or choice.finish_reason == "length", name
        _ends_its_turn(name, text)


def test_streamed_and_whole_answers_are_equal(client: openai.OpenAI) -> None:
    for name in _fitting():
        asked: Any = {
            "model": name,
            "messages": [{"role": "user", "content": "Count from one to ten, in words."}],
            "max_tokens": 120,
            "temperature": 0,
        }
        whole = client.chat.completions.create(**asked)
        stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        reason = next(c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason)
        assert text == (whole.choices[0].message.content or ""), name
        assert reason == whole.choices[0].finish_reason, name
        assert chunks[-1].usage is not None, name
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, name


def test_token_limit_is_respected_and_reported(client: openai.OpenAI) -> None:
    for name in _fitting():
        answer = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "Tell a long story about the sea."}],
            max_tokens=8,
            temperature=0,
        )
        assert answer.usage is not None
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (8, "length"), name


def test_consecutive_turns_keep_their_roles(client: openai.OpenAI) -> None:
    for name in _fitting():
        messages: list[Any] = []
        for question in (
            "My favourite colour is green.",
            "Which colour did I name?",
            "Thank you. Good night!",
        ):
            messages.append({"role": "user", "content": question})
            answer = client.chat.completions.create(
                model=name, messages=messages, max_tokens=300, temperature=0
            )
            text = answer.choices[0].message.content or ""
            _ends_its_turn(name, text)
            messages.append({"role": "assistant", "content": text})
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 0, name
