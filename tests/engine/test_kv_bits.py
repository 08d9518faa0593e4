"""Quantized KV caches: the answers of mlx-lm for all prefill chunk sizes, and unsupported models."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, executable, folder_of, needs_mlx, run, worker_environment
from tests.engine.small_models import make_model

pytestmark = needs_mlx
together = pytest.mark.asyncio(loop_scope="package")

PROMPT = tuple(10 + (7 * i) % 300 for i in range(2100))
"""Longer than what mlx-lm reads in full precision (2,048 tokens)."""


@pytest.mark.parametrize(
    ("bits", "length"),
    [
        pytest.param(4, 1, marks=pytest.mark.slow),
        (4, 40),
        pytest.param(4, 2100, marks=pytest.mark.slow),
        pytest.param(8, 40, marks=pytest.mark.slow),
    ],
)
def test_prefill_chunks_do_not_change_tokens_and_the_cache_is_small(
    babbler: RunnableModel, bits: int, length: int
) -> None:
    command = [executable(), "-m", "tests.engine.probes.chunk_sizes", folder_of(babbler), str(bits), "24"]
    done = subprocess.run(
        [*command, *map(str, PROMPT[:length])],
        capture_output=True,
        text=True,
        check=True,
        env=worker_environment(),
    )
    said = json.loads(done.stdout)
    full = said["answers"].pop("full/2048")
    assert len(set(full)) > 6
    assert all(tokens == said["mlx_lm"] for tokens in said["answers"].values()), said
    if length == 1:  # no prefill before the first token
        return
    assert {tuple(kinds) for name, kinds in said["kinds"].items() if name != "full/2048"} == {
        ("QuantizedKVCache",)
    }
    for name in said["answers"]:
        assert said["bytes"][name] < said["bytes"]["full/2048"] * (bits + 4) / 32


@together
async def test_cached_prompt_continues_like_a_new_one(engine: Engine, babbler: RunnableModel) -> None:
    request = GenerationRequest(
        tokens=PROMPT[:60], kv_bits=4, max_tokens=20, sampling=GREEDY, return_token_ids=True
    )
    first = await run(engine, babbler, request)
    again = await run(engine, babbler, request)
    assert (first.started.cached_tokens, again.started.cached_tokens) == (0, 59)
    assert again.token_ids == first.token_ids


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> RunnableModel:
    """Return a model with a sliding window of 64 tokens."""
    folder = make_model(
        tmp_path_factory.mktemp("sliding") / "m", context=4096, sliding_window=64, endless=True
    )
    return RunnableModel("test/sliding", folder)


@together
async def test_sliding_window_cannot_be_quantized(engine: Engine, sliding: RunnableModel) -> None:
    request = GenerationRequest(tokens=PROMPT[:9], kv_bits=8, max_tokens=4, sampling=GREEDY)
    with pytest.raises(OpError) as caught:
        await run(engine, sliding, request)
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert "test/sliding cannot be quantized to 8 bits" in caught.value.message
    assert "Leave kv_bits out." in caught.value.message


@together
async def test_draft_model_is_rejected_beyond_a_sliding_window(
    engine: Engine, sliding: RunnableModel
) -> None:
    request = GenerationRequest(tokens=PROMPT[:30], max_tokens=30, sampling=GREEDY, return_token_ids=True)
    alone = await run(engine, sliding, request)
    for _ in range(2):  # the second time with the prompt cache
        drafted = await run(
            engine,
            sliding,
            GenerationRequest(
                tokens=PROMPT[:30],
                max_tokens=30,
                sampling=GREEDY,
                return_token_ids=True,
                draft_model=folder_of(sliding),
            ),
        )
        assert drafted.token_ids == alone.token_ids
    for length, most, remedy in ((30, None, "max_tokens to at most 31"), (62, 1, "Shorten the prompt")):
        with pytest.raises(OpError) as caught:
            await run(
                engine,
                sliding,
                GenerationRequest(
                    tokens=PROMPT[:length],
                    max_tokens=most,
                    sampling=GREEDY,
                    draft_model=folder_of(sliding),
                ),
            )
        assert caught.value.type is ErrorType.VALIDATION_ERROR
        assert "rotating window of 64 tokens" in caught.value.message
        assert remedy in caught.value.message


@together
async def test_smaller_draft_model_does_not_change_the_answer(
    engine: Engine, babbler: RunnableModel, tmp_path: Path
) -> None:
    small = make_model(tmp_path / "m", context=4096, endless=True, layers=1)
    request = GenerationRequest(
        tokens=PROMPT[:80], kv_bits=4, max_tokens=20, sampling=GREEDY, return_token_ids=True
    )
    alone = await run(engine, babbler, request)
    drafted = GenerationRequest(
        tokens=PROMPT[:80],
        kv_bits=4,
        max_tokens=20,
        sampling=GREEDY,
        return_token_ids=True,
        draft_model=str(small),
    )
    assert (await run(engine, babbler, drafted)).token_ids == alone.token_ids
