"""Real models on a CPU: the answers of mlx_lm and its perplexity, with each format of weights."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from mlxk_tui.engine.generation import GenerationRequest
from mlxk_tui.engine.memory import WeightsPolicy
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.health.machine import may_have_gpu
from tests.engine.conftest import GREEDY, new_engine, run, worker_environment

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(may_have_gpu(), reason="it is for Linux without a GPU"),
]

PROMPT = "The three primary colors are"
TOKENS = 16
_REFERENCE = """
import json, sys
from mlx_lm import load, stream_generate
model, tokenizer = load(sys.argv[1])
parts = stream_generate(model, tokenizer, sys.argv[2], max_tokens=int(sys.argv[3]))
print(json.dumps([int(part.token) for part in parts]))
"""
"""mlx_lm as it is, multiplying with the worker's library."""
_PERPLEXITY = """
import json, sys
import mlx.core as mx
from mlx_lm import load
from mlxk_tui.engine.inference.weights.conversion import convert_weights
from mlxk_tui.ops.contract.terms import CpuWeights

def perplexity(model, tokens):
    logits = model(mx.array([tokens[:-1]]))[0].astype(mx.float32)
    at = mx.arange(len(tokens) - 1)
    chances = logits[at, mx.array(tokens[1:])] - mx.logsumexp(logits, axis=-1)
    return mx.exp(-chances.mean()).item()

found = {}
for way in ("mlx_lm", "float32", "stored"):
    model, tokenizer = load(sys.argv[1])
    if way != "mlx_lm":
        convert_weights(model, CpuWeights(way), 1 << 40, lambda done, total: None, fast=True)
    found[way] = perplexity(model, tokenizer.encode(sys.argv[2]))
print(json.dumps(found))
"""
TEXT = (
    "A library is a collection of books, and possibly other materials and media, that is accessible for use "
    "by its members and members of allied institutions. Libraries provide physical or digital materials, and "
    "may be a physical location, a virtual space, or both. A library's collection normally includes printed "
    "materials which may be borrowed, and usually also includes a reference section of publications which "
    "may only be utilized inside the premises."
)


def child(program: str, *arguments: str) -> Any:
    """Run a program with the worker's BLAS library, and return its JSON output."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.with_blas", "-c", program, *arguments],
        env=worker_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("key", ["smollm2", "smollm2_4bit", "gemma3"])
async def test_answers_match_mlx_lm_for_each_format_of_weights(
    key: str, request: pytest.FixtureRequest
) -> None:
    model: RunnableModel = request.getfixturevalue(key)
    expected = child(_REFERENCE, str(model.folder), PROMPT, str(TOKENS))
    for weights in CpuWeights.FLOAT32, CpuWeights.STORED:
        engine = new_engine(weights=WeightsPolicy(weights))
        try:
            asked = GenerationRequest(
                prompt=PROMPT, sampling=GREEDY, max_tokens=TOKENS, return_token_ids=True
            )
            result = await run(engine, model, asked)
            assert engine.status.model is not None
            assert engine.status.model.weights is weights
        finally:
            await engine.stop()
        assert result.token_ids == expected[: len(result.token_ids)]
        assert len(result.token_ids) >= TOKENS - 1  # the end-of-turn token is not part of the answer


def test_quantized_model_has_the_same_perplexity_as_mlx_lm(smollm2_4bit: RunnableModel) -> None:
    found = child(_PERPLEXITY, str(smollm2_4bit.folder), TEXT)
    assert 2 < found["mlx_lm"] < 100
    assert found["float32"] == pytest.approx(found["mlx_lm"], rel=1e-3)
    assert found["stored"] == pytest.approx(found["mlx_lm"], rel=1e-3)
