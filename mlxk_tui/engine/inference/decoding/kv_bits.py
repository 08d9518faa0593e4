"""KV caches of few bits: from which token on, in which groups, and whether a model can do it at all.

Keys of the first tokens have outliers, which spoil an answer where they are quantized before the prompt
has been read. So the beginning is read in full precision and quantized at one fixed position, as
`mlx_lm.generate.generate_step` with `quantized_kv_start=0` does after its first chunk (mlx-lm 0.32). What
comes later is quantized as it is written. The position depends on the prompt's length alone: however
quickly it is read, the same numbers come out.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.generate import generation_stream
from mlx_lm.models.cache import make_prompt_cache

from mlxk_tui.engine.inference.weights.loading import LoadedModel

_FULL_PRECISION_TOKENS = 2048
"""mlx-lm's `prefill_step_size`."""
_GROUPS = (64, 32)
"""Values that share a scale, mlx-lm's own first; the size of a head must be a multiple."""


def quantized_from(prompt_tokens: int) -> int:
    """Return how many tokens of a prompt are read in full precision; 0 where that is only the last one."""
    return min(_FULL_PRECISION_TOKENS, prompt_tokens - 1)


def group_size(model: LoadedModel, bits: int) -> int | None:
    """Return in groups of how many values a model's cache is quantized; None where that is not possible.

    Found out by a trial of a few tokens: some caches cannot (rotating ones), some models read theirs in
    a way of their own (latent attention), and some heads have odd sizes.
    """
    if bits not in model.kv_groups:
        model.kv_groups[bits] = next((group for group in _GROUPS if _works(model, bits, group)), None)
    return model.kv_groups[bits]


def quantize(caches: list[Any], bits: int, group: int) -> int:
    """Quantize in place what can be and is not yet; return how many caches that were.

    Recurrent states of a hybrid model stay as they are.
    """
    count = 0
    for index, cache in enumerate(caches):
        if hasattr(cache, "to_quantized"):
            caches[index] = cache.to_quantized(group_size=group, bits=bits)
            count += 1
    if count:
        mx.eval([cache.state for cache in caches])
    return count


def _works(model: LoadedModel, bits: int, group: int) -> bool:
    try:
        with mx.stream(generation_stream):
            caches = make_prompt_cache(model.model)
            mx.eval(model.model(mx.array([[0, 0]]), cache=caches))
            if not quantize(caches, bits, group):
                return False
            mx.eval(model.model(mx.array([[0, 0]]), cache=caches))
            mx.eval(model.model(mx.array([[0]]), cache=caches))
    except Exception:  # noqa: BLE001 - whatever it says, this model cannot
        return False
    return True
