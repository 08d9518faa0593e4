"""From how many rows on expanding quantized weights before they are multiplied is faster, measured here."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
from mlx.nn.layers.quantized import QuantizedLinear
from mlx_lm.models.switch_layers import QuantizedSwitchLinear

_dequantize: Callable[..., mx.array] = mx.dequantize
_quantized_matmul: Callable[..., mx.array] = mx.quantized_matmul
_MANY, _TIMES = 16, 5
_SAMPLE_BYTES = 1 << 19


def break_even(modules: Iterable[Any]) -> int:
    """Return from how many rows on it is faster to expand quantized weights first.

    Measured with up to half a million weights of the kind that the model has most of.
    """
    samples = [module for module in modules if type(module) in (QuantizedLinear, QuantizedSwitchLinear)]
    if not samples:
        return _MANY
    sizes: Counter[tuple[int, int, str]] = Counter()
    for module in samples:
        sizes[_kind(module)] += int(module.weight.nbytes)
    most = max(sizes, key=lambda kind: sizes[kind])
    module = max((one for one in samples if _kind(one) == most), key=lambda one: one.weight[0].size)
    group_size, bits, mode = most
    weight, scales, biases = module.weight, module.scales, module.get("biases")
    parts = [weight, float32(scales), *([float32(biases)] if biases is not None else [])]
    parts = [part[0] if part.ndim == 3 else part for part in parts]
    inputs = weight.shape[-1] * 32 // bits
    outputs = max(1, min(weight.shape[-2], _SAMPLE_BYTES // inputs))
    parts = [part[:outputs] for part in parts]
    how: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": mode}
    expanded: Callable[[], mx.array] = partial(_dequantize, *parts, dtype=mx.float32, **how)
    plain, rows = expanded(), mx.ones((_MANY, inputs))
    mx.eval(parts, plain, rows)
    quantized: Callable[[], mx.array] = partial(_quantized_matmul, rows, *parts, transpose=True, **how)
    expand_s, quantized_s, plain_s = _seconds((expanded, quantized, lambda: rows @ plain.T))
    saved = (quantized_s - plain_s) / _MANY  # a row
    if saved <= 0:
        return _MANY  # a busy machine: what it is on most
    return min(max(math.ceil(expand_s / saved), 2), _MANY)


def _kind(module: Any) -> tuple[int, int, str]:
    return module.group_size, module.bits, module.mode


def float32(array: mx.array) -> mx.array:
    """Return scales or biases as float32, so that nothing is rounded; those of mxfp4 are whole numbers."""
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def _seconds(works: Sequence[Callable[[], mx.array]]) -> list[float]:
    """Return the least time that each takes; in turn, so that a busy moment hits all of them."""
    best = [math.inf] * len(works)
    for _ in range(_TIMES):
        for at, work in enumerate(works):
            begin = time.perf_counter()
            mx.eval(work())
            best[at] = min(best[at], time.perf_counter() - begin)
    return best
