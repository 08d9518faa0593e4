"""Measures from how many input rows dequantizing weights before the product is faster on this machine."""

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
_MAX_ROWS, _REPEATS = 16, 5
_SAMPLE_WEIGHTS = 1 << 19


def measure_break_even(modules: Iterable[Any]) -> int:
    """Return the number of input rows from which dequantizing first is faster: 2 to 16.

    It is measured with up to half a million weights of the most frequent kind.

    Args:
        modules: the modules of the model.
    """
    samples = [module for module in modules if type(module) in (QuantizedLinear, QuantizedSwitchLinear)]
    if not samples:
        return _MAX_ROWS
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
    outputs = max(1, min(weight.shape[-2], _SAMPLE_WEIGHTS // inputs))
    parts = [part[:outputs] for part in parts]
    options: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": mode}
    dequantize: Callable[[], mx.array] = partial(_dequantize, *parts, dtype=mx.float32, **options)
    plain, rows = dequantize(), mx.ones((_MAX_ROWS, inputs))
    mx.eval(parts, plain, rows)
    quantized: Callable[[], mx.array] = partial(_quantized_matmul, rows, *parts, transpose=True, **options)
    dequantize_s, quantized_s, plain_s = _fastest((dequantize, quantized, lambda: rows @ plain.T))
    saved_per_row = (quantized_s - plain_s) / _MAX_ROWS
    if saved_per_row <= 0:
        return _MAX_ROWS  # the machine is busy: the value on most machines
    return min(max(math.ceil(dequantize_s / saved_per_row), 2), _MAX_ROWS)


def _kind(module: Any) -> tuple[int, int, str]:
    return module.group_size, module.bits, module.mode


def float32(array: mx.array) -> mx.array:
    """Return scales or biases as float32, for exact products; integers (mxfp4) remain unchanged."""
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def _fastest(operations: Sequence[Callable[[], mx.array]]) -> list[float]:
    """Return the minimum duration of each operation in seconds; they alternate, so that load affects all."""
    best = [math.inf] * len(operations)
    for _ in range(_REPEATS):
        for at, operation in enumerate(operations):
            begin = time.perf_counter()
            mx.eval(operation())
            best[at] = min(best[at], time.perf_counter() - begin)
    return best
