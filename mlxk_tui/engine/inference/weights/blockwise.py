"""Layers that keep their weights as stored and multiply in float32, one block of the weights at a time."""

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
"""A number of input rows that no layer gets."""
_BLOCK = 1 << 19
"""Weights per block: 2 MB as float32, which stay in the processor's cache."""
_LARGE = 1 << 22
"""Number of weights from which a layer is evaluated block by block."""
_DECODED_ROWS = 64
"""Maximum number of input rows that are considered generated tokens, rather than a prompt."""
_dequantize: Callable[..., mx.array] = mx.dequantize
_linear: Callable[..., mx.array] = QuantizedLinear.__call__
_as_linear: Callable[..., mx.array] = QuantizedEmbedding.as_linear
_multi_linear: Callable[..., mx.array] = mla.QuantizedMultiLinear.__call__


class BlockwiseLayer(Module):
    """A mixin for layers that convert their weights to float32 block by block."""

    min_dequantize_rows = NEVER
    """Number of input rows from which quantized weights are dequantized first."""

    def to_float32(self, parts: Mapping[str, mx.array], begin: int, end: int) -> mx.array:
        """Return the weights of some outputs as float32, (…, end - begin, inputs).

        Args:
            parts: `weight`, (…, outputs, inputs), and `scales` and `biases` if it is quantized.
            begin: the first output.
            end: the output after the last.
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

    def _matmul(self, x: mx.array) -> mx.array:
        """Return `x @ weight.T`, (…, outputs), one block of the weights at a time.

        MLX allocates memory long before it evaluates: without an evaluation here the whole model would be in
        memory as float32. So `x` is evaluated first.
        """
        evaluate(x)
        return blockwise_matmul(x, partial(self.to_float32, self), *self.weight.shape[-2::-1])


def blockwise_matmul(
    x: mx.array, to_float32: Callable[[int, int], mx.array], outputs: int, *heads: int
) -> mx.array:
    """Return `x @ weights.T`, (…, outputs), one block of the weights at a time.

    A very large layer, usually the output layer, is also evaluated block by block. It is not evaluated during
    prefill, whose logits are mostly unused.

    Args:
        x: inputs, (…, inputs).
        to_float32: returns the weights of the outputs from `begin` to `end` as float32.
        outputs: number of outputs.
        heads: number of matrices, if there are several.
    """
    inputs, matrices = x.shape[-1], math.prod(heads)
    step = max(1, _BLOCK // max(1, inputs * matrices))
    by_block = matrices * inputs * outputs > _LARGE and x.size // inputs <= _DECODED_ROWS
    blocks = []
    for at in range(0, outputs, step):
        blocks.append(x @ to_float32(at, min(at + step, outputs)).swapaxes(-1, -2))
        if by_block:
            evaluate(blocks[-1])
    return blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=-1)


def evaluate(array: mx.array) -> None:
    """Evaluate an array; does nothing inside `mx.compile`, where arrays are placeholders."""
    with contextlib.suppress(ValueError, RuntimeError):
        mx.eval(array)


class BlockwiseQuantizedLinear(BlockwiseLayer, QuantizedLinear):
    """A quantized linear layer that dequantizes its weights if there are many input rows."""

    def __call__(self, x: mx.array) -> mx.array:
        """Apply the layer to `x`, (…, inputs); return (…, outputs)."""
        if x.size // x.shape[-1] < self.min_dequantize_rows:
            return _linear(self, x)
        y = self._matmul(x)
        return y + self.bias if "bias" in self else y


class BlockwiseQuantizedEmbedding(BlockwiseLayer, QuantizedEmbedding):
    """Quantized embeddings; as the output layer, they are dequantized if there are many input rows."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Return the logits, (…, vocabulary), of hidden states `x`, (…, size)."""
        if x.size // x.shape[-1] < self.min_dequantize_rows:
            return _as_linear(self, x)
        return self._matmul(x)


class BlockwiseQuantizedMultiLinear(BlockwiseLayer, mla.QuantizedMultiLinear):
    """The quantized per-head projection of latent attention, dequantized if there are many input rows."""

    def __call__(self, x: mx.array, transpose: bool = True) -> mx.array:
        """Apply each head's matrix to `x`, (…, heads, rows, inputs), transposed by default."""
        if not transpose or x.shape[-2] < self.min_dequantize_rows:
            return _multi_linear(self, x, transpose)
        return self._matmul(x)


class HalfLinear(BlockwiseLayer, Linear):
    """A linear layer with weights in half precision that multiplies in float32."""

    def __call__(self, x: mx.array) -> mx.array:
        """Apply the layer to `x`, (…, inputs); return (…, outputs), float32."""
        y = self._matmul(x)
        return y + self.bias if "bias" in self else y


class HalfEmbedding(BlockwiseLayer, Embedding):
    """Embeddings in half precision, used in float32."""

    def __call__(self, x: mx.array) -> mx.array:
        """Return the embeddings, (…, size), float32, of token ids `x`."""
        return self.weight[x].astype(mx.float32)

    def as_linear(self, x: mx.array) -> mx.array:
        """Return the logits, (…, vocabulary), float32, of hidden states `x`, (…, size)."""
        return self._matmul(x)


class HalfMultiLinear(BlockwiseLayer, mla.MultiLinear):
    """The per-head projection of latent attention in half precision, used in float32."""

    def __call__(self, x: mx.array, transpose: bool = True) -> mx.array:
        """Apply each head's matrix to `x`, (…, heads, rows, inputs), transposed by default."""
        return self._matmul(x) if transpose else x @ self.weight.astype(mx.float32)
