"""Answers a prompt with a quantized cache and several prefill chunk sizes, and with mlx_lm.

`python -m tests.engine.probes.paces FOLDER BITS LENGTH ID…` generates LENGTH tokens each time and prints a
JSON object: `answers` (token ids, by bits and chunk size), `mlx_lm` (token ids), and the caches after the
prefill: `kinds` (class names) and `bytes`.
"""

# ruff: noqa: T201 - what a probe prints is its result
# mlx-lm is not typed:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from mlx_lm import stream_generate

from mlxk_tui.engine.generation import Generation, Sampling
from mlxk_tui.engine.inference.decoding.prompt_cache import PromptCache
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.samplers import processors_of, sampler_of
from mlxk_tui.engine.inference.decoding.solo import Solo, check_alone
from mlxk_tui.engine.inference.output.answer import DeltaAssembler
from mlxk_tui.engine.inference.prompts.prompting import prepare
from mlxk_tui.engine.inference.weights.loading import LoadedModel, load


def answer(model: LoadedModel, request: Generation, chunk: int) -> tuple[list[int], list[str], int]:
    """Return the tokens, and the classes and bytes of the caches after the prefill."""
    prompt = prepare(model, request)
    row = Row(
        id=1,
        request=request,
        prompt=prompt,
        answer=DeltaAssembler(model, request, prompt),
        sampler=sampler_of(prompt.sampling),
        processors=processors_of(prompt),
        arrived=time.monotonic(),
    )
    check_alone(model, row, None)
    solo = Solo(row, model, PromptCache(0))
    while solo.prefilling:
        solo.prefill(chunk)
    kinds, size = sorted({type(cache).__name__ for cache in solo.caches}), sum(c.nbytes for c in solo.caches)
    tokens: list[int] = []
    while len(tokens) < prompt.max_tokens:
        token, _ = solo.next()
        row.emitted += 1
        tokens.append(token)
    return tokens, kinds, size


def main(folder: str, bits: int, length: int, prompt: list[int]) -> dict[str, Any]:
    """Generate the answers and return the results."""
    model = load("test/model", Path(folder), None, lambda *_: None)
    answers, kinds, sizes = {}, {}, {}
    for wanted, chunk in ((bits, 2048), (bits, 32), (bits, 7), (None, 2048)):
        request = Generation(
            tokens=tuple(prompt), kv_bits=wanted, max_tokens=length, sampling=Sampling(temperature=0)
        )
        name = f"{wanted or 'full'}/{chunk}"
        answers[name], kinds[name], sizes[name] = answer(model, request, chunk)
    group = model.kv_groups[bits]
    assert group is not None
    theirs = stream_generate(
        model.model,
        model.tokenizer,
        prompt,
        max_tokens=length,
        kv_bits=bits,
        kv_group_size=group,
        quantized_kv_start=0,
    )
    reference = [step.token for step in theirs]
    return {"answers": answers, "kinds": kinds, "bytes": sizes, "mlx_lm": reference}


if __name__ == "__main__":
    given, *numbers = sys.argv[1:]
    wanted_bits, wanted_length, *ids = map(int, numbers)
    print(json.dumps(main(given, wanted_bits, wanted_length, ids)))
