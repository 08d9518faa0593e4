"""Experts of a mixture, multiplied expert by expert where several rows want the same one.

MLX multiplies each row of `gather_mm` by itself, and in `gather_qmm` in a scalar loop: a prompt, which has
dozens of rows for each expert, is read several times faster when all rows of an expert are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from mlxk_tui.engine.inference.weights.expanding import Expanding, calculate, times

_TOGETHER = 4
"""From how many rows for one expert on a product of their own is faster than MLX's row by row."""
_EXPANDED = 6
"""The same for experts that are expanded first; more, where it is more for the model's other layers."""
_gather: Callable[..., mx.array] = mx.gather_mm
_gather_quantized: Callable[..., mx.array] = mx.gather_qmm
_switch: Callable[..., mx.array] = SwitchLinear.__call__
_quantized_switch: Callable[..., mx.array] = QuantizedSwitchLinear.__call__


class GroupedSwitchLinear(SwitchLinear):
    """Experts of float32."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each row with the weights of its expert."""
        plan = plan_rows(x.shape, indices, _TOGETHER)
        if plan is None:
            return _switch(self, x, indices, sorted_indices)
        y = plan.multiply(x, self._rows_of, partial(_few, self))
        return _with_bias(self, y, indices)

    def _rows_of(self, rows: mx.array, expert: int) -> mx.array:
        return rows @ self.weight[expert].T


class ExpandingQuantizedSwitchLinear(Expanding, QuantizedSwitchLinear):
    """Quantized experts; those that enough rows want are expanded."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each row with the weights of its expert."""
        plan = plan_rows(x.shape, indices, max(self.expand_from, _EXPANDED))
        if plan is None:
            return _quantized_switch(self, x, indices, sorted_indices)
        calculate(x)
        y = plan.multiply(x, partial(_expanded, self), partial(_few_quantized, self))
        return _with_bias(self, y, indices)


class HalfSwitchLinear(Expanding, SwitchLinear):
    """Experts of half precision; those that are wanted are expanded."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply each row with the weights of its expert."""
        plan = plan_rows(x.shape, indices, 1)
        if plan is None:
            return _switch(self, x, indices, sorted_indices)
        calculate(x)
        y = plan.multiply(x, partial(_expanded, self), partial(_few, self))
        return _with_bias(self, y, indices)


def _expanded(layer: Any, rows: mx.array, expert: int) -> mx.array:
    one = {name: layer[name][expert] for name in ("weight", "scales", "biases") if name in layer}
    y = times(rows, partial(layer.expand, one), one["weight"].shape[0])
    calculate(y)  # so that no more than one expert is in memory as float32
    return y


def _few(layer: Any, rows: mx.array, experts: mx.array) -> mx.array:
    return _gather(rows, layer.weight.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)


def _few_quantized(layer: Any, rows: mx.array, experts: mx.array) -> mx.array:
    how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    parts = (layer.weight, layer.scales, layer.get("biases"))
    return _gather_quantized(rows, *parts, rhs_indices=experts, transpose=True, sorted_indices=True, **how)


def _with_bias(layer: Any, y: mx.array, indices: mx.array) -> mx.array:
    return y + mx.expand_dims(layer.bias[indices], -2) if "bias" in layer else y


class RowPlan:
    """Which rows are multiplied with which expert.

    Args:
        lead: the leading dimensions of the result.
        source: for each matrix of the result the number of the one of `x`, flattened.
        experts: its expert.
        begin: how many matrices an expert needs for a product of its own.
    """

    def __init__(self, lead: Sequence[int], source: Any, experts: Any, begin: int) -> None:
        counts = np.bincount(experts)
        self._together = [(int(one), int(counts[one])) for one in np.flatnonzero(counts >= begin)]
        order = np.lexsort((experts, counts[experts] < begin))  # what is left over comes last
        self._source, self._experts = source[order], experts[order]
        self._back = np.argsort(order)
        self._lead = tuple(lead)

    @property
    def pays(self) -> bool:
        """Whether there is an expert that enough rows want."""
        return bool(self._together)

    def multiply(
        self,
        x: mx.array,
        together: Callable[[mx.array, int], mx.array],
        few: Callable[[mx.array, mx.array], mx.array],
    ) -> mx.array:
        """Return the products, in the order of the indices.

        Args:
            x: (…, rows, inputs).
            together: multiplies rows, (…, inputs), with one expert.
            few: multiplies matrices, (count, rows, inputs), each with an expert of its own.
        """
        matrices = x.reshape(-1, *x.shape[-2:])[mx.array(self._source)]
        blocks, at = [], 0
        for expert, count in self._together:
            rows = matrices[at : at + count].reshape(-1, x.shape[-1])
            blocks.append(together(rows, expert).reshape(count, x.shape[-2], -1))
            at += count
        if at < len(self._experts):
            blocks.append(few(matrices[at:], mx.array(self._experts[at:])))
        y = mx.concatenate(blocks)[mx.array(self._back)]
        return y.reshape(*self._lead, *y.shape[-2:])


def plan_rows(shape: Sequence[int], indices: mx.array, begin: int) -> RowPlan | None:
    """Return how to multiply expert by expert; None where no expert is wanted by enough rows.

    Args:
        shape: of what is multiplied: (…, rows, inputs).
        indices: the expert of each matrix; broadcast with the leading dimensions.
        begin: how many matrices an expert needs for a product of its own.
    """
    if indices.size < begin:
        return None
    try:
        chosen = np.array(indices)
    except (ValueError, RuntimeError):  # inside of `mx.compile` there is nothing to read yet
        return None
    lead = np.broadcast_shapes(tuple(shape[:-2]), chosen.shape)
    numbers = np.arange(int(np.prod(shape[:-2]))).reshape(shape[:-2])
    source = np.broadcast_to(numbers, lead).reshape(-1)
    plan = RowPlan(lead, source, np.broadcast_to(chosen, lead).reshape(-1), begin)
    return plan if plan.pays else None
