"""Layers that keep their weights as stored and multiply in float32, a block of the weights at a time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from functools import partial

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx_lm.models import mla

NEVER = 1 << 30
"""More rows than there are."""
_BLOCK = 1 << 19
"""Weights that are expanded at a time: 2 MB as float32 stay in the processor's cache."""
_LARGE = 1 << 22
"""From how many weights on a layer is calculated block by block."""
_DECODED_ROWS = 64
"""Up to how many rows are taken to be tokens that are generated, rather than a prompt's."""
_dequantize: Callable[..., mx.array] = mx.dequantize
_linear: Callable[..., mx.array] = QuantizedLinear.__call__
_as_linear: Callable[..., mx.array] = QuantizedEmbedding.as_linear
_multi_linear: Callable[..., mx.array] = mla.QuantizedMultiLinear.__call__


class Expanding(Module):
    """What they share; never made, only mixed in."""

    expand_from = NEVER

    def expand(self, parts: Mapping[str, mx.array], begin: int, end: int) -> mx.array:
        """Return rows of weights as float32, (…, end - begin, inputs).

        Args:
            parts: the weights, with their scales and biases where they are quantized.
            begin: the first row.
            end: the one after the last.
        """
        weight = parts["weight"][..., begin:end, :]
        if "scales" not in parts:
            return weight.astype(mx.float32)
        scales, biases = parts["scales"][..., begin:end, :], parts.get("biases")
        return _dequantize(
            weight,
            scales,
            biases[..., begin:end, :] if biases is not None else None,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            dtype=mx.float32,
        )

    def _times(self, x: mx.array) -> mx.array:
        """Return `x @ weight.T`, a block of the weights at a time.

        MLX allocates far ahead of what it calculates: without a stop the whole model would be in memory
        as float32. So what came before is calculated first.
        """
        calculate(x)
        return times(x, partial(self.expand, self), *self.weight.shape[-2::-1])


def times(x: mx.array, expand: Callable[[int, int], mx.array], outputs: int, *heads: int) -> mx.array:
    """Return `x @ weights.T`, a block of the weights at a time.

    A very large layer, the output layer above all, is calculated block by block too; not while a prompt
    is read, where nobody asks for its result.

    Args:
        x: (…, inputs).
        expand: returns rows of the weights as float32.
        outputs: how many rows they have.
        heads: how many matrices there are, where there are several.
    """
    inputs, matrices = x.shape[-1], math.prod(heads)
    step = max(1, _BLOCK // max(1, inputs * matrices))
    by_block = matrices * inputs * outputs > _LARGE and x.size // inputs <= _DECODED_ROWS
    blocks = []
    for at in range(0, outputs, step):
        blocks.append(x @ expand(at, min(at + step, outputs)).swapaxes(-1, -2))
        if by_block:
            calculate(blocks[-1])
    return blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=-1)


def calculate(array: mx.array) -> None:
    """Calculate an array now; not inside of `mx.compile`, where there is nothing to calculate yet."""
    with contextlib.suppress(ValueError, RuntimeError):
        mx.eval(array)


class ExpandingQuantizedLinear(Expanding, QuantizedLinear):
    """A quantized layer that lets the BLAS multiply where the rows are many."""

    def __call__(self, x: mx.array) -> mx.array:
        """Multiply."""
        if x.size // x.shape[-1] < self.expand_from:
            return _linear(self, x)
        y = self._times(x)
        return y + self.bias if "bias" in self else y


class ExpandingQuantizedEmbedding(Expanding, QuantizedEmbedding):
    """The same for embeddings that are the output layer too."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Multiply."""
        if x.size // x.shape[-1] < self.expand_from:
            return _as_linear(self, x)
        return self._times(x)


class ExpandingQuantizedMultiLinear(Expanding, mla.QuantizedMultiLinear):
    """The same for one matrix a head."""

    def __call__(self, x: mx.array, transpose: bool = True) -> mx.array:
        """Multiply."""
        if not transpose or x.shape[-2] < self.expand_from:
            return _multi_linear(self, x, transpose)
        return self._times(x)


class HalfLinear(Expanding, Linear):
    """A layer of half precision that multiplies in float32."""

    def __call__(self, x: mx.array) -> mx.array:
        """Multiply."""
        y = self._times(x)
        return y + self.bias if "bias" in self else y


class HalfEmbedding(Expanding, Embedding):
    """Embeddings of half precision."""

    def __call__(self, x: mx.array) -> mx.array:
        """Return float32."""
        return self.weight[x].astype(mx.float32)

    def as_linear(self, x: mx.array) -> mx.array:
        """Multiply."""
        return self._times(x)


class HalfMultiLinear(Expanding, mla.MultiLinear):
    """One matrix of half precision a head."""

    def __call__(self, x: mx.array, transpose: bool = True) -> mx.array:
        """Multiply."""
        return self._times(x) if transpose else x @ self.weight.astype(mx.float32)
