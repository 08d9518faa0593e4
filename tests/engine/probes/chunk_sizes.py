"""Answers a prompt with a quantized cache and several prefill chunk sizes, and with mlx_lm.

`python -m tests.engine.probes.chunk_sizes FOLDER BITS LENGTH ID…` generates LENGTH tokens each time and
prints a JSON object: `answers` (token ids, by bits and chunk size), `mlx_lm` (token ids), and the caches
after the prefill: `kinds` (class names) and `bytes`.
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

from mlxk_tui.engine.generation import GenerationRequest, SamplingParams
from mlxk_tui.engine.inference.decoding.prompt_cache import PromptCache
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.samplers import logits_processors_for, sampler_for
from mlxk_tui.engine.inference.decoding.unbatched import UnbatchedRow, check_unbatched
from mlxk_tui.engine.inference.output.delta_assembler import DeltaAssembler
from mlxk_tui.engine.inference.prompts.prompt_builder import prepare_prompt
from mlxk_tui.engine.inference.weights.loading import LoadedModel, load


def answer(model: LoadedModel, request: GenerationRequest, chunk: int) -> tuple[list[int], list[str], int]:
    """Return the tokens, and the classes and bytes of the caches after the prefill."""
    prompt = prepare_prompt(model, request)
    row = Row(
        id=1,
        request=request,
        prompt=prompt,
        answer=DeltaAssembler(model, request, prompt),
        sampler=sampler_for(prompt.sampling),
        processors=logits_processors_for(prompt),
        arrived=time.monotonic(),
    )
    check_unbatched(model, row, None)
    unbatched = UnbatchedRow(row, model, PromptCache(0))
    while unbatched.prefilling:
        unbatched.prefill(chunk)
    kinds, size = (
        sorted({type(cache).__name__ for cache in unbatched.caches}),
        sum(c.nbytes for c in unbatched.caches),
    )
    tokens: list[int] = []
    while len(tokens) < prompt.max_tokens:
        token, _ = unbatched.next()
        row.emitted += 1
        tokens.append(token)
    return tokens, kinds, size


def main(folder: str, bits: int, length: int, prompt: list[int]) -> dict[str, Any]:
    """Generate the answers and return the results."""
    model = load("test/model", Path(folder), None, lambda *_: None)
    answers, kinds, sizes = {}, {}, {}
    for wanted, chunk in ((bits, 2048), (bits, 32), (bits, 7), (None, 2048)):
        request = GenerationRequest(
            tokens=tuple(prompt), kv_bits=wanted, max_tokens=length, sampling=SamplingParams(temperature=0)
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
