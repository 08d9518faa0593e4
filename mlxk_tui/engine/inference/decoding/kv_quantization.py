"""Quantized KV caches: the position from which they are quantized, the group size, and model support.

The keys of the first tokens have outliers, and quantizing them before the prompt is prefilled degrades the
answer. So the beginning is prefilled in full precision and quantized at one fixed position, as
`mlx_lm.generate.generate_step` with `quantized_kv_start=0` does after its first chunk (mlx-lm 0.32). Later
keys and values are quantized when they are written. The position depends only on the prompt's length, so the
result does not depend on the chunk size.
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
"""Group sizes to try, mlx-lm's default first; the head dimension must be a multiple."""


def full_precision_tokens(prompt_tokens: int) -> int:
    """Return how many prompt tokens are prefilled in full precision; 0 for a prompt of one token."""
    return min(_FULL_PRECISION_TOKENS, prompt_tokens - 1)


def find_group_size(model: LoadedModel, bits: int) -> int | None:
    """Return the group size for quantizing a model's KV cache; None if the model does not support it.

    It is determined by a trial with a few tokens and then stored in the model. Rotating caches cannot be
    quantized, some models access their cache in other ways (latent attention), and some head dimensions are
    not a multiple of a group size.
    """
    if bits not in model.kv_groups:
        model.kv_groups[bits] = next((group for group in _GROUPS if _works(model, bits, group)), None)
    return model.kv_groups[bits]


def quantize(caches: list[Any], bits: int, group: int) -> int:
    """Quantize the caches in the list that are not quantized yet, and return their number.

    The recurrent states of a hybrid model remain unchanged.
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
    except Exception:  # noqa: BLE001 - any error means that the model does not support it
        return False
    return True
