"""Converts a model's weights for a CPU: to float32 copies, or to layers that dequantize them blockwise.

On a CPU MLX multiplies quantized weights in a scalar loop (twenty times slower still with bfloat16 scales),
and half-precision weights without BLAS. With float32 copies the BLAS library multiplies. If the copies do not
fit into memory, a layer dequantizes its weights one block at a time when it gets many input rows. In both
cases everything else is float32: activations, norms, scales, caches.

The modules remain the same objects but change their class, so that references to them stay valid. Only the
classes of mlx and mlx-lm themselves are converted, never a subclass.
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

from mlxk_tui.engine.inference.weights.blockwise import (
    NEVER,
    BlockwiseLayer,
    BlockwiseQuantizedEmbedding,
    BlockwiseQuantizedLinear,
    BlockwiseQuantizedMultiLinear,
    HalfEmbedding,
    HalfLinear,
    HalfMultiLinear,
)
from mlxk_tui.engine.inference.weights.break_even import float32, measure_break_even
from mlxk_tui.engine.inference.weights.experts import (
    BlockwiseQuantizedSwitchLinear,
    GroupedSwitchLinear,
    HalfSwitchLinear,
)
from mlxk_tui.engine.memory import free_for_float32
from mlxk_tui.ops.contract.matrices import Blas, BlasState
from mlxk_tui.ops.contract.terms import CpuWeights

_dequantize: Callable[..., mx.array] = mx.dequantize

OnBytes = Callable[[int, int], None]
"""Receives the bytes converted and the total."""

_HALF = (mx.bfloat16, mx.float16)
_SMALL = 1 << 20
"""Maximum number of elements up to which an array of any other module is converted to float32 too."""


@dataclass(frozen=True)
class WeightFormat:
    """How the weights of a model are stored in memory."""

    kind: CpuWeights
    """`float32` or `stored`."""
    stored_bytes: int
    """Size in the format of the file."""
    current_bytes: int
    """Size in memory."""
    min_dequantize_rows: int = 0
    """Input rows from which quantized weights are dequantized; 0 if none are, or if it is never faster."""
    error: str = ""
    """The error that the model raised with the requested conversion; it was then loaded without it."""

    @classmethod
    def unconverted(cls, model: Any) -> WeightFormat:
        """Return the format of a model as mlx-lm loaded it."""
        size = stored_bytes(model)
        return cls(CpuWeights.STORED, size, size)


def float32_bytes(model: Any) -> int:
    """Return the size of the parameters as float32, in bytes; shared arrays count once."""
    seen: set[int] = set()
    total = 0
    for module in _modules(model):
        quantized = type(module) in _PLAIN
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
    """Return the current size of the parameters, in bytes; shared arrays count once."""
    leaves: list[Any] = [leaf[1] for leaf in tree_flatten(model.parameters())]
    return sum({id(leaf): int(leaf.nbytes) for leaf in leaves if isinstance(leaf, mx.array)}.values())


def convert_weights(
    model: Any, requested: CpuWeights, free_bytes: int, on_bytes: OnBytes, *, fast: bool
) -> WeightFormat:
    """Convert a loaded model's weights for a CPU, in place.

    Args:
        model: mlx-lm's nn.Module.
        requested: the format; `auto` means float32 if it fits and is faster, else stored.
        free_bytes: maximum additional memory for `auto`.
        on_bytes: receives the progress; may raise to stop the conversion.
        fast: MLX uses a fast BLAS library; without one float32 is not faster.
    """
    before = stored_bytes(model)
    after = float32_bytes(model)
    fits = after - before <= free_bytes
    copies = requested is CpuWeights.FLOAT32 or (requested is CpuWeights.AUTO and fits and fast)
    min_rows = measure_break_even(_modules(model)) if fast and not copies else NEVER
    converted: dict[int, tuple[mx.array, mx.array]] = {}
    done = 0
    for module in list(_modules(model)):
        if copies:
            _convert_to_float32(module, converted)
        else:
            _convert_to_blockwise(module, min_rows, converted)
        arrays = [array for _, array in _arrays(module)]
        mx.eval(arrays)
        done += sum(array.nbytes for array in arrays)
        on_bytes(min(done, after), after if copies else before)
    converted.clear()
    mx.clear_cache()
    kind = CpuWeights.FLOAT32 if copies else CpuWeights.STORED
    return WeightFormat(kind, before, stored_bytes(model), 0 if copies or min_rows >= NEVER else min_rows)


def conversions(
    blas: Blas | None, requested: CpuWeights, cache_bytes: int
) -> tuple[Callable[[Any, OnBytes], WeightFormat], ...]:
    """Return the conversions to try for a model, in order of preference; empty on a GPU.

    Args:
        blas: the BLAS library; None if MLX runs on a GPU.
        requested: the requested format.
        cache_bytes: maximum size of the prompt cache.
    """
    if blas is None:
        return ()
    fast = blas.state is BlasState.FAST

    def convert(kind: CpuWeights, model: Any, on_bytes: OnBytes) -> WeightFormat:
        return convert_weights(model, kind, free_for_float32(cache_bytes), on_bytes, fast=fast)

    kinds = (requested,) if requested is CpuWeights.STORED else (requested, CpuWeights.STORED)
    return tuple(partial(convert, kind) for kind in kinds)


_PLAIN: dict[type, type] = {
    QuantizedLinear: Linear,
    QuantizedEmbedding: Embedding,
    switch_layers.QuantizedSwitchLinear: GroupedSwitchLinear,
    mla.QuantizedMultiLinear: mla.MultiLinear,
}
"""Class of a quantized module after its weights were dequantized."""
_BLOCKWISE: dict[type, type] = {
    QuantizedLinear: BlockwiseQuantizedLinear,
    switch_layers.QuantizedSwitchLinear: BlockwiseQuantizedSwitchLinear,
    QuantizedEmbedding: BlockwiseQuantizedEmbedding,
    mla.QuantizedMultiLinear: BlockwiseQuantizedMultiLinear,
}
"""Blockwise class of a quantized module."""
_HALVES: dict[type, type] = {
    Linear: HalfLinear,
    switch_layers.SwitchLinear: HalfSwitchLinear,
    Embedding: HalfEmbedding,
    mla.MultiLinear: HalfMultiLinear,
}
"""Blockwise class of a module in half precision."""


def _convert_to_float32(module: Any, converted: dict[int, tuple[mx.array, mx.array]]) -> None:
    """Convert the weights of a module to float32."""
    if type(module) in _PLAIN and module.get("global_scale") is None:
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
        module.__class__ = _PLAIN[type(module)]
    elif type(module) is switch_layers.SwitchLinear:
        module.__class__ = GroupedSwitchLinear
    for name, array in _arrays(module):
        if array.dtype in _HALF:
            _set_float32(module, name, array, converted)


def _convert_to_blockwise(
    module: Any, min_dequantize_rows: int, converted: dict[int, tuple[mx.array, mx.array]]
) -> None:
    """Convert a module to its blockwise class, and everything but its weights to float32."""
    kind = type(module)
    if kind in _BLOCKWISE and module.get("global_scale") is None:
        module.__class__ = _BLOCKWISE[kind]
        module.min_dequantize_rows = min_dequantize_rows
    elif kind in _HALVES and module.weight.dtype in _HALF:
        module.__class__ = _HALVES[kind]
    elif kind is switch_layers.SwitchLinear:
        module.__class__ = GroupedSwitchLinear
    for name, array in _arrays(module):
        is_weight = name == "weight" and isinstance(module, BlockwiseLayer)
        quantized = name in ("scales", "biases") and "scales" in module
        if array.dtype in _HALF and not is_weight and (quantized or array.size <= _SMALL):
            _set_float32(module, name, array, converted)


def _set_float32(
    module: Any, name: str, array: mx.array, converted: dict[int, tuple[mx.array, mx.array]]
) -> None:
    """Convert an array to float32; an array that modules share stays shared."""
    if id(array) not in converted:
        converted[id(array)] = (array, array.astype(mx.float32))  # a reference keeps the id from being reused
    module[name] = converted[id(array)][1]


def _modules(model: Any) -> Iterator[Any]:
    """Yield all modules, each one once."""
    seen: set[int] = set()
    for _, module in model.named_modules():
        if id(module) not in seen:
            seen.add(id(module))
            yield module


def _arrays(module: Any) -> list[tuple[str, mx.array]]:
    """Return the arrays of a module, without those of its submodules."""
    return [(name, value) for name, value in module.items() if isinstance(value, mx.array)]
