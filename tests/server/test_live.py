"""Opt-in (`pytest -m server`): real models of the user's own cache behind the server, read-only.

`MLXK2_USER_HF_HOME` or `HF_HOME` names the cache. Models that need more than 80 % of the memory at hand
are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from mlxk_tui.ops.cache import Cache
from mlxk_tui.ops.catalog import walk
from mlxk_tui.ops.contract import Health, Model, ModelType
from tests.engine.conftest import needs_mlx
from tests.server.served import Served

pytestmark = [needs_mlx, pytest.mark.server, pytest.mark.wet]

SHARE = 0.8
"""Largest part of the available memory that a model may need."""


def _hub() -> Path | None:
    home = os.environ.get("MLXK2_USER_HF_HOME")
    return Path(home).expanduser().absolute() / "hub" if home else None


def _models() -> list[Model]:
    """Return the chat models that can run, the smallest first; none where no cache is named."""
    hub = _hub()
    if hub is None or not hub.is_dir():
        return []
    models = [report.model for report in walk(Cache(hub))]
    runnable = [
        model
        for model in models
        if model.model_type is ModelType.CHAT and model.health is Health.HEALTHY and model.runtime_compatible
    ]
    return sorted(runnable, key=lambda model: model.memory_bytes or 0)


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    """Return a server over the user's cache."""
    hub = _hub()
    if hub is None or not hub.is_dir():
        pytest.skip("set HF_HOME or MLXK2_USER_HF_HOME to your own Hugging Face home")
    served = Served(hub)
    yield served
    served.close()


def test_every_chat_model_that_fits_answers_counts_and_ends_its_turn(live: Served) -> None:
    models = _models()
    if not models:
        pytest.skip("there is no chat model that can run in that cache")
    asked = 0
    with openai.OpenAI(base_url=live.url, api_key="none", max_retries=0, timeout=600) as client:
        for model in models:
            if (model.memory_bytes or 0) > SHARE * psutil.virtual_memory().available:
                continue
            answer = client.chat.completions.create(
                model=model.name,
                messages=[{"role": "user", "content": "Say hello in one short sentence."}],
                max_tokens=400,
                temperature=0,
            )
            choice = answer.choices[0]
            assert answer.usage is not None, model.name
            assert 0 < answer.usage.completion_tokens <= 400, model.name
            text = choice.message.content or ""
            assert text or choice.finish_reason == "length", model.name
            # The model must not go on as the user, nor show the ends of turns.
            for mark in (
                "<|im_end|>",
                "<|eot_id|>",
                "<end_of_turn>",
                "</s>",
                "<|end|>",
                "\nUser:",
                "\nHuman:",
            ):
                assert mark not in text, (model.name, mark)
            asked += 1
    if not asked:
        pytest.skip("no model fits into 80 % of the memory at hand")
