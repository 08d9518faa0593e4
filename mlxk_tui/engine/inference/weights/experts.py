"""Mixture-of-experts layers that multiply all rows of an expert in one product, on a CPU.

MLX's `gather_mm` multiplies each row separately, and `gather_qmm` does so in a scalar loop. A prompt has
dozens of rows per expert, and its prefill is several times faster with one product per expert.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from mlxk_tui.engine.inference.weights.blockwise import BlockwiseLayer, blockwise_matmul, evaluate

_MIN_GROUP = 4
"""Number of rows per expert from which one product is faster than MLX's separate ones."""
_MIN_DEQUANTIZED_GROUP = 6
"""The same if the expert is dequantized first, unless `min_dequantize_rows` of the model is larger."""
_gather: Callable[..., mx.array] = mx.gather_mm
_gather_quantized: Callable[..., mx.array] = mx.gather_qmm
_switch: Callable[..., mx.array] = SwitchLinear.__call__
_quantized_switch: Callable[..., mx.array] = QuantizedSwitchLinear.__call__


class GroupedSwitchLinear(SwitchLinear):
    """Experts with float32 weights."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each matrix of `x`, (…, rows, inputs), by its expert's weights; see `group_by_expert`."""
        groups = group_by_expert(x.shape, indices, _MIN_GROUP)
        if groups is None:
            return _switch(self, x, indices, sorted_indices)
        y = groups.multiply(x, self._multiply_group, partial(_multiply_rest, self))
        return _with_bias(self, y, indices)

    def _multiply_group(self, rows: mx.array, expert: int) -> mx.array:
        return rows @ self.weight[expert].T


class BlockwiseQuantizedSwitchLinear(BlockwiseLayer, QuantizedSwitchLinear):
    """Quantized experts; those with enough rows are dequantized."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each matrix of `x`, (…, rows, inputs), by its expert's weights; see `group_by_expert`."""
        groups = group_by_expert(x.shape, indices, max(self.min_dequantize_rows, _MIN_DEQUANTIZED_GROUP))
        if groups is None:
            return _quantized_switch(self, x, indices, sorted_indices)
        evaluate(x)
        y = groups.multiply(x, partial(_multiply_float32, self), partial(_multiply_rest_quantized, self))
        return _with_bias(self, y, indices)


class HalfSwitchLinear(BlockwiseLayer, SwitchLinear):
    """Experts in half precision, used in float32."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each matrix of `x`, (…, rows, inputs), by its expert's weights; see `group_by_expert`."""
        groups = group_by_expert(x.shape, indices, 1)
        if groups is None:
            return _switch(self, x, indices, sorted_indices)
        evaluate(x)
        y = groups.multiply(x, partial(_multiply_float32, self), partial(_multiply_rest, self))
        return _with_bias(self, y, indices)


def _multiply_float32(layer: Any, rows: mx.array, expert: int) -> mx.array:
    parts = {name: layer[name][expert] for name in ("weight", "scales", "biases") if name in layer}
    y = blockwise_matmul(rows, partial(layer.to_float32, parts), parts["weight"].shape[0])
    evaluate(y)  # so that at most one expert is in memory as float32
    return y


def _multiply_rest(layer: Any, matrices: mx.array, experts: mx.array) -> mx.array:
    return _gather(matrices, layer.weight.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)


def _multiply_rest_quantized(layer: Any, matrices: mx.array, experts: mx.array) -> mx.array:
    options = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    parts = (layer.weight, layer.scales, layer.get("biases"))
    return _gather_quantized(
        matrices, *parts, rhs_indices=experts, transpose=True, sorted_indices=True, **options
    )


def _with_bias(layer: Any, y: mx.array, indices: mx.array) -> mx.array:
    return y + mx.expand_dims(layer.bias[indices], -2) if "bias" in layer else y


class ExpertGroups:
    """The matrices of an input, grouped by expert.

    Args:
        lead: leading dimensions of the result.
        source: for each matrix of the result the index of the input matrix, (matrices,).
        experts: expert of each matrix of the result, (matrices,).
        min_group: number of matrices from which an expert is multiplied as a group.
    """

    def __init__(self, lead: Sequence[int], source: Any, experts: Any, min_group: int) -> None:
        counts = np.bincount(experts)
        self._groups = [(int(expert), int(counts[expert])) for expert in np.flatnonzero(counts >= min_group)]
        """Expert and number of matrices of each group."""
        order = np.lexsort((experts, counts[experts] < min_group))  # those without a group come last
        self._source, self._experts = source[order], experts[order]
        self._inverse = np.argsort(order)
        self._lead = tuple(lead)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def multiply(
        self,
        x: mx.array,
        multiply_group: Callable[[mx.array, int], mx.array],
        multiply_rest: Callable[[mx.array, mx.array], mx.array],
    ) -> mx.array:
        """Return the products, (…, rows, outputs), in the order of the indices.

        Args:
            x: input, (…, rows, inputs).
            multiply_group: multiplies rows, (…, inputs), by one expert's weights.
            multiply_rest: multiplies matrices, (count, rows, inputs), each by the weights of its own expert,
                (count,).
        """
        matrices = x.reshape(-1, *x.shape[-2:])[mx.array(self._source)]
        blocks, at = [], 0
        for expert, count in self._groups:
            rows = matrices[at : at + count].reshape(-1, x.shape[-1])
            blocks.append(multiply_group(rows, expert).reshape(count, x.shape[-2], -1))
            at += count
        if at < len(self._experts):
            blocks.append(multiply_rest(matrices[at:], mx.array(self._experts[at:])))
        y = mx.concatenate(blocks)[mx.array(self._inverse)]
        return y.reshape(*self._lead, *y.shape[-2:])


def group_by_expert(shape: Sequence[int], indices: mx.array, min_group: int) -> ExpertGroups | None:
    """Group the matrices of an input by expert; return None if no expert has enough matrices.

    Args:
        shape: shape of the input, (…, rows, inputs).
        indices: expert of each matrix; broadcast with the leading dimensions.
        min_group: number of matrices from which an expert is multiplied as a group.
    """
    if indices.size < min_group:
        return None
    try:
        experts = np.array(indices)
    except (ValueError, RuntimeError):  # inside `mx.compile` arrays are placeholders
        return None
    lead = np.broadcast_shapes(tuple(shape[:-2]), experts.shape)
    numbers = np.arange(int(np.prod(shape[:-2]))).reshape(shape[:-2])
    source = np.broadcast_to(numbers, lead).reshape(-1)
    groups = ExpertGroups(lead, source, np.broadcast_to(experts, lead).reshape(-1), min_group)
    return groups or None
