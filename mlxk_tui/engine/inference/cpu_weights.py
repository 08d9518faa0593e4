"""How a model's weights are held on a CPU: as float32 copies, or as stored and expanded where that is faster.

MLX multiplies quantized weights on a CPU in a scalar loop (twenty times slower still where their scales
are bfloat16), and half-precision ones without any BLAS. Float32 copies let the BLAS do it; where they
do not fit, a layer's weights are expanded a block at a time while many rows are multiplied, and let go.
Either way everything else is float32: activations, norms, scales, caches.

The modules stay the same objects and change their class, so that whatever refers to them goes on
working; only mlx's and mlx-lm's own classes are touched, never a subclass that does more.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx.utils import tree_flatten
from mlx_lm.models import mla, switch_layers

from mlxk_tui.engine.memory import room_for_copies
from mlxk_tui.ops.blas.state import Blas, BlasState
from mlxk_tui.ops.terms import CpuWeights

_dequantize: Callable[..., mx.array] = mx.dequantize
_quantized_matmul: Callable[..., mx.array] = mx.quantized_matmul
_linear: Callable[..., mx.array] = QuantizedLinear.__call__
_as_linear: Callable[..., mx.array] = QuantizedEmbedding.as_linear
_multi_linear: Callable[..., mx.array] = mla.QuantizedMultiLinear.__call__

OnBytes = Callable[[int, int], None]
"""Receives bytes done and bytes in all."""

_HALF = (mx.bfloat16, mx.float16)
_BLOCK = 1 << 19
"""Weights that are expanded at a time: 2 MB as float32 stay in the processor's cache."""
_LARGE = 1 << 22
"""From how many weights on a layer is calculated block by block."""
_DECODED_ROWS = 64
"""Up to how many rows are taken to be tokens that are generated, rather than a prompt's."""
_SMALL = 1 << 20
"""Up to how many elements an array of a module of another kind becomes float32 all the same."""
_NEVER = 1 << 30
_MANY, _TIMES = 16, 5
_SAMPLE_BYTES = 1 << 19


@dataclass(frozen=True)
class HeldWeights:
    """How the weights of a model are held."""

    kind: CpuWeights
    """`float32` or `stored`."""
    stored_bytes: int
    """As they came from the file."""
    held_bytes: int
    """As they are now."""
    expand_from: int = 0
    """Rows from which on quantized weights are expanded; 0 where none are quantized or it never pays."""
    fault: str = ""
    """What the model's code raised with its weights held as they were to be; they are as stored then."""

    @classmethod
    def unchanged(cls, model: Any) -> HeldWeights:
        """Return this of a model whose weights are as mlx-lm has them."""
        size = stored_bytes(model)
        return cls(CpuWeights.STORED, size, size)


def float32_bytes(model: Any) -> int:
    """Return how many bytes the parameters take as float32."""
    seen: set[int] = set()
    total = 0
    for module in _modules(model):
        quantized = type(module) in _COPIES
        for name, array in _arrays(module):
            if id(array) in seen or (quantized and name in ("scales", "biases")):
                continue
            seen.add(id(array))
            if quantized and name == "weight":
                total += array.nbytes * 8 // module.bits * 4
            else:
                total += array.size * 4 if mx.issubdtype(array.dtype, mx.floating) else array.nbytes
    return total


def stored_bytes(model: Any) -> int:
    """Return how many bytes the parameters take now; shared ones count once."""
    leaves: list[Any] = [leaf[1] for leaf in tree_flatten(model.parameters())]
    return sum({id(leaf): int(leaf.nbytes) for leaf in leaves if isinstance(leaf, mx.array)}.values())


def hold_weights(
    model: Any, wanted: CpuWeights, free_bytes: int, on_bytes: OnBytes, *, fast: bool
) -> HeldWeights:
    """Hold a loaded model's weights for a CPU.

    Args:
        model: mlx-lm's; it is changed.
        wanted: `auto` takes float32 where it fits and is faster.
        free_bytes: what `auto` may take in addition.
        fast: MLX multiplies with a fast library; without one nothing is gained by float32.
        on_bytes: hears of the progress, and may raise to stop it.
    """
    before = stored_bytes(model)
    after = float32_bytes(model)
    fits = after - before <= free_bytes
    copies = wanted is CpuWeights.FLOAT32 or (wanted is CpuWeights.AUTO and fits and fast)
    expand_from = _break_even(model) if fast and not copies else _NEVER
    converted: dict[int, tuple[mx.array, mx.array]] = {}
    done = 0
    for module in list(_modules(model)):
        if copies:
            _copy(module, converted)
        else:
            _keep(module, expand_from, converted)
        arrays = [array for _, array in _arrays(module)]
        mx.eval(arrays)
        done += sum(array.nbytes for array in arrays)
        on_bytes(min(done, after), after if copies else before)
    converted.clear()
    mx.clear_cache()
    kind = CpuWeights.FLOAT32 if copies else CpuWeights.STORED
    shown = 0 if copies or expand_from >= _NEVER else expand_from
    return HeldWeights(kind, before, stored_bytes(model), shown)


class Holder:
    """Decides how the models of a worker are held.

    Args:
        blas: how matrices are multiplied; None where MLX runs on a GPU.
    """

    def __init__(self, blas: Blas | None) -> None:
        self._blas = blas

    def ways(self, wanted: CpuWeights, cache_bytes: int) -> tuple[Callable[[Any, OnBytes], HeldWeights], ...]:
        """Return what changes a model, and what does if it does not run then; none on a GPU."""
        if self._blas is None:
            return ()
        fast = self._blas.state is BlasState.FAST

        def hold(kind: CpuWeights, model: Any, on_bytes: OnBytes) -> HeldWeights:
            return hold_weights(model, kind, room_for_copies(cache_bytes), on_bytes, fast=fast)

        kinds = (wanted,) if wanted is CpuWeights.STORED else (wanted, CpuWeights.STORED)
        return tuple(partial(hold, kind) for kind in kinds)


# Modules that expand their weights while they multiply


class _Expanding(Module):
    """What they share; never made, only mixed in."""

    expand_from = _NEVER

    def _expand(self, begin: int, end: int) -> mx.array:
        """Return rows of the weights as float32, (…, end - begin, inputs)."""
        if "scales" not in self:
            weight: mx.array = self.weight
            return weight[..., begin:end, :].astype(mx.float32)
        biases = self.get("biases")
        return _dequantize(
            self.weight[..., begin:end, :],
            self.scales[..., begin:end, :],
            biases[..., begin:end, :] if biases is not None else None,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            dtype=mx.float32,
        )

    def _times(self, x: mx.array, inputs: int) -> mx.array:
        """Return `x @ weight.T`, a block of the weights at a time.

        MLX allocates far ahead of what it calculates: without a stop the whole model would be in memory
        as float32. So what came before is calculated first. A very large layer, the output layer above
        all, is calculated block by block too; not while a prompt is read, where nobody asks for its result.
        """
        outputs = self.weight.shape[-2]
        heads = math.prod(self.weight.shape[:-2])
        step = max(1, _BLOCK // max(1, inputs * heads))
        by_block = heads * inputs * outputs > _LARGE and x.size // x.shape[-1] <= _DECODED_ROWS
        _calculate(x)
        blocks = []
        for at in range(0, outputs, step):
            blocks.append(x @ self._expand(at, min(at + step, outputs)).swapaxes(-1, -2))
            if by_block:
                _calculate(blocks[-1])
        return blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=-1)


def _calculate(array: mx.array) -> None:
    """Calculate an array now; not inside of `mx.compile`, where there is nothing to calculate yet."""
    with contextlib.suppress(ValueError, RuntimeError):
        mx.eval(array)


class ExpandingQuantizedLinear(_Expanding, QuantizedLinear):
    """A quantized layer that lets the BLAS multiply where the rows are many."""

    def __call__(self, x: mx.array) -> mx.array:
        """Multiply."""
        if x.size // x.shape[-1] < self.expand_from:
            return _linear(self, x)
        y = self._times(x, x.shape[-1])
        return y + self.bias if "bias" in self else y


class ExpandingQuantizedEmbedding(_Expanding, QuantizedEmbedding):
    """The same for embeddings that are the output layer too."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Multiply."""
        if x.size // x.shape[-1] < self.expand_from:
            return _as_linear(self, x)
        return self._times(x, x.shape[-1])


class ExpandingQuantizedMultiLinear(_Expanding, mla.QuantizedMultiLinear):
    """The same for one matrix a head."""

    def __call__(self, x: mx.array, transpose: bool = True) -> mx.array:
        """Multiply."""
        if not transpose or x.shape[-2] < self.expand_from:
            return _multi_linear(self, x, transpose)
        return self._times(x, x.shape[-1])


class HalfLinear(_Expanding, Linear):
    """A layer of half precision that multiplies in float32."""

    def __call__(self, x: mx.array) -> mx.array:
        """Multiply."""
        y = self._times(x, x.shape[-1])
        return y + self.bias if "bias" in self else y


class HalfEmbedding(_Expanding, Embedding):
    """Embeddings of half precision."""

    def __call__(self, x: mx.array) -> mx.array:
        """Return float32."""
        return self.weight[x].astype(mx.float32)

    def as_linear(self, x: mx.array) -> mx.array:
        """Multiply."""
        return self._times(x, x.shape[-1])


class HalfMultiLinear(_Expanding, mla.MultiLinear):
    """One matrix of half precision a head."""

    def __call__(self, x: mx.array, transpose: bool = True) -> mx.array:
        """Multiply."""
        return self._times(x, x.shape[-1]) if transpose else x @ self.weight.astype(mx.float32)


_COPIES: dict[type, type] = {
    QuantizedLinear: Linear,
    QuantizedEmbedding: Embedding,
    switch_layers.QuantizedSwitchLinear: switch_layers.SwitchLinear,
    mla.QuantizedMultiLinear: mla.MultiLinear,
}
"""What a quantized module is once its weights are plain."""
_EXPANDING: dict[type, type] = {
    QuantizedLinear: ExpandingQuantizedLinear,
    QuantizedEmbedding: ExpandingQuantizedEmbedding,
    mla.QuantizedMultiLinear: ExpandingQuantizedMultiLinear,
}
_HALVES: dict[type, type] = {
    Linear: HalfLinear,
    Embedding: HalfEmbedding,
    mla.MultiLinear: HalfMultiLinear,
}


def _copy(module: Any, converted: dict[int, tuple[mx.array, mx.array]]) -> None:
    """Let a module have plain float32 weights."""
    if type(module) in _COPIES and module.get("global_scale") is None:
        biases = module.get("biases")
        plain = _dequantize(
            module.weight,
            _float32(module.scales),
            _float32(biases) if biases is not None else None,
            group_size=module.group_size,
            bits=module.bits,
            mode=module.mode,
            dtype=mx.float32,
        )
        mx.eval(plain)
        module["weight"] = plain
        for name in ("scales", "biases", "global_scale"):
            module.pop(name, None)
        module.__class__ = _COPIES[type(module)]
    for name, array in _arrays(module):
        if array.dtype in _HALF:
            _set_float32(module, name, array, converted)


def _keep(module: Any, expand_from: int, converted: dict[int, tuple[mx.array, mx.array]]) -> None:
    """Let a module keep its weights as they are stored, and expand them when it multiplies."""
    kind = type(module)
    if kind in _EXPANDING:
        module.__class__ = _EXPANDING[kind]
        module.expand_from = expand_from
    elif kind in _HALVES and module.weight.dtype in _HALF:
        module.__class__ = _HALVES[kind]
    for name, array in _arrays(module):
        is_weight = name == "weight" and isinstance(module, (_Expanding, switch_layers.SwitchLinear))
        quantized = name in ("scales", "biases") and "scales" in module
        if array.dtype in _HALF and not is_weight and (quantized or array.size <= _SMALL):
            _set_float32(module, name, array, converted)


def _set_float32(
    module: Any, name: str, array: mx.array, converted: dict[int, tuple[mx.array, mx.array]]
) -> None:
    """Make an array float32; one that is shared stays shared."""
    if id(array) not in converted:
        converted[id(array)] = (array, array.astype(mx.float32))  # the old one keeps its number taken
    module[name] = converted[id(array)][1]


def _modules(model: Any) -> Iterator[Any]:
    """Return all modules, each once."""
    seen: set[int] = set()
    for _, module in model.named_modules():
        if id(module) not in seen:
            seen.add(id(module))
            yield module


def _arrays(module: Any) -> list[tuple[str, mx.array]]:
    """Return the arrays that a module itself holds."""
    return [(name, value) for name, value in module.items() if isinstance(value, mx.array)]


# What is faster here


def _break_even(model: Any) -> int:
    """Return from how many rows on it is faster to expand quantized weights first.

    Measured with up to half a million weights of the kind that the model has most of.
    """
    samples = [module for module in _modules(model) if type(module) is QuantizedLinear]
    if not samples:
        return _MANY
    module = max(samples, key=lambda one: min(int(one.weight.nbytes), _SAMPLE_BYTES))
    inputs = module.weight.shape[-1] * 32 // module.bits
    outputs = max(1, min(module.weight.shape[-2], _SAMPLE_BYTES // inputs))
    scales, biases = module.scales, module.get("biases")
    parts = [module.weight, _float32(scales)]
    parts += [biases.astype(mx.float32)] if biases is not None else []
    parts = [part[:outputs] for part in parts]
    how: dict[str, Any] = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    expanded: Callable[[], mx.array] = partial(_dequantize, *parts, dtype=mx.float32, **how)
    plain, rows = expanded(), mx.ones((_MANY, inputs))
    mx.eval(parts, plain, rows)
    quantized: Callable[[], mx.array] = partial(_quantized_matmul, rows, *parts, transpose=True, **how)
    expand_s, quantized_s, plain_s = _seconds((expanded, quantized, lambda: rows @ plain.T))
    saved = (quantized_s - plain_s) / _MANY  # a row
    if saved <= 0:
        return _MANY  # a busy machine: what it is on most
    return min(max(math.ceil(expand_s / saved), 2), _MANY)


def _float32(array: mx.array) -> mx.array:
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
