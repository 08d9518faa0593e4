"""How a model's weights are held on a CPU: as float32 copies, or as stored and expanded where that is faster.

MLX multiplies quantized weights on a CPU in a scalar loop (twenty times slower still where their scales
are bfloat16), and half-precision ones without any BLAS. Float32 copies let the BLAS do it; where they
do not fit, a layer's weights are expanded a block at a time while many rows are multiplied, and let go.
Either way everything else is float32: activations, norms, scales, caches.

The modules stay the same objects and change their class, so that whatever refers to them goes on
working; only mlx's and mlx-lm's own classes are touched, never a subclass that does more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx.utils import tree_flatten
from mlx_lm.models import mla, switch_layers

from mlxk_tui.engine.inference.weights.expanding import (
    NEVER,
    Expanding,
    ExpandingQuantizedEmbedding,
    ExpandingQuantizedLinear,
    ExpandingQuantizedMultiLinear,
    HalfEmbedding,
    HalfLinear,
    HalfMultiLinear,
)
from mlxk_tui.engine.inference.weights.experts import (
    ExpandingQuantizedSwitchLinear,
    GroupedSwitchLinear,
    HalfSwitchLinear,
)
from mlxk_tui.engine.inference.weights.speed import break_even, float32
from mlxk_tui.engine.memory import free_for_float32
from mlxk_tui.ops.contract.matrices import Blas, BlasState
from mlxk_tui.ops.contract.terms import CpuWeights

_dequantize: Callable[..., mx.array] = mx.dequantize

OnBytes = Callable[[int, int], None]
"""Receives bytes done and bytes in all."""

_HALF = (mx.bfloat16, mx.float16)
_SMALL = 1 << 20
"""Up to how many elements an array of a module of another kind becomes float32 all the same."""


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
    expand_from = break_even(_modules(model)) if fast and not copies else NEVER
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
    shown = 0 if copies or expand_from >= NEVER else expand_from
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
            return hold_weights(model, kind, free_for_float32(cache_bytes), on_bytes, fast=fast)

        kinds = (wanted,) if wanted is CpuWeights.STORED else (wanted, CpuWeights.STORED)
        return tuple(partial(hold, kind) for kind in kinds)


_COPIES: dict[type, type] = {
    QuantizedLinear: Linear,
    QuantizedEmbedding: Embedding,
    switch_layers.QuantizedSwitchLinear: GroupedSwitchLinear,
    mla.QuantizedMultiLinear: mla.MultiLinear,
}
"""What a quantized module is once its weights are plain."""
_EXPANDING: dict[type, type] = {
    QuantizedLinear: ExpandingQuantizedLinear,
    switch_layers.QuantizedSwitchLinear: ExpandingQuantizedSwitchLinear,
    QuantizedEmbedding: ExpandingQuantizedEmbedding,
    mla.QuantizedMultiLinear: ExpandingQuantizedMultiLinear,
}
_HALVES: dict[type, type] = {
    Linear: HalfLinear,
    switch_layers.SwitchLinear: HalfSwitchLinear,
    Embedding: HalfEmbedding,
    mla.MultiLinear: HalfMultiLinear,
}


def _copy(module: Any, converted: dict[int, tuple[mx.array, mx.array]]) -> None:
    """Let a module have plain float32 weights."""
    if type(module) in _COPIES and module.get("global_scale") is None:
        biases = module.get("biases")
        plain = _dequantize(
            module.weight,
            float32(module.scales),
            float32(biases) if biases is not None else None,
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
    elif type(module) is switch_layers.SwitchLinear:
        module.__class__ = GroupedSwitchLinear
    for name, array in _arrays(module):
        if array.dtype in _HALF:
            _set_float32(module, name, array, converted)


def _keep(module: Any, expand_from: int, converted: dict[int, tuple[mx.array, mx.array]]) -> None:
    """Let a module keep its weights as they are stored, and expand them when it multiplies."""
    kind = type(module)
    if kind in _EXPANDING and module.get("global_scale") is None:
        module.__class__ = _EXPANDING[kind]
        module.expand_from = expand_from
    elif kind in _HALVES and module.weight.dtype in _HALF:
        module.__class__ = _HALVES[kind]
    elif kind is switch_layers.SwitchLinear:
        module.__class__ = GroupedSwitchLinear
    for name, array in _arrays(module):
        is_weight = name == "weight" and isinstance(module, Expanding)
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
