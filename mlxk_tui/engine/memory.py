"""Checks a model's memory estimate against the machine's memory and what is free before it is loaded."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mlxk_tui.engine.limits import check_memory
from mlxk_tui.ops.contract.terms import CpuWeights, MemoryFit
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import format_size
from mlxk_tui.ops.health.machine import Runtime, may_have_gpu, total_memory, usable_memory

if TYPE_CHECKING:
    from mlxk_tui.engine.models import RunnableModel


_WORKING_BYTES = 250_000_000
"""Memory for activations and buffers of a generation."""


@dataclass(frozen=True)
class WeightsPolicy:
    """How to store the weights of each model if there is no GPU."""

    default: CpuWeights = CpuWeights.AUTO
    by_model: Mapping[str, CpuWeights] = field(default_factory=dict)
    """Exceptions by model name, ignoring case."""

    def for_model(self, name: str) -> CpuWeights:
        """Return how to store the weights of a model."""
        by_lower_name = {key.lower(): value for key, value in self.by_model.items()}
        return by_lower_name.get(name.lower(), self.default)


def free_for_float32(cache_bytes: int) -> int:
    """Return how many additional bytes float32 weights may take.

    This is four fifths of the free memory of the machine or of this process's control group, whichever is
    smaller, minus what a generation and the prompt cache need.

    Args:
        cache_bytes: maximum size of the prompt cache.
    """
    free = min(psutil.virtual_memory().available, _free_in_cgroup())
    return max(0, int(0.8 * free) - cache_bytes - _WORKING_BYTES)


def _free_in_cgroup(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the free memory of the control group (v2, else v1), in bytes; 2**62 if it has no limit."""
    return min(
        _remaining(root / "memory.max", root / "memory.current"),
        _remaining(root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    )


def _remaining(limit: Path, used: Path) -> int:
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return 1 << 62


def check_memory_for(
    model: RunnableModel, released_bytes: int = 0, weights: CpuWeights = CpuWeights.AUTO
) -> MemoryFit | None:
    """Return how a model fits: `tight` also if it fits the machine but takes most of the free memory.

    macOS compresses and swaps out the memory of other processes for the GPU, so only the machine's total
    memory counts there. Elsewhere the free memory counts too.

    Args:
        model: the model to load; not checked if its estimate is unknown or loading is forced.
        released_bytes: memory that unloading the current model will free.
        weights: how its weights are stored on a CPU; float32 may need much more memory.

    Raises:
        OpError: `insufficient_memory`, with the numbers.
    """
    needed = model.memory_bytes
    as_float32 = weights is CpuWeights.FLOAT32 and model.float32_bytes is not None and not may_have_gpu()
    if as_float32:
        needed = model.float32_bytes
    if needed is None or model.forced:
        return None
    usable = usable_memory(total_memory())
    free = psutil.virtual_memory().available + released_bytes
    if as_float32 and needed > min(usable, free):
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            f"{model.name} needs about {format_size(needed)} of memory with float32 weights; "
            f"{format_size(min(usable, free))} is free now. Use stored weights, or force it.",
        )
    fit = check_memory(needed, Runtime(None, frozenset(), memory_bytes=usable), name=model.name).fit
    if needed <= 0.8 * free:
        return fit
    if needed > free and platform.system() != "Darwin":
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            f"{model.name} needs about {format_size(needed)} of memory; {format_size(free)} is free now.",
            remedy=Remedy.FREE_MEMORY_OR_FORCE,
            facts=ErrorFacts(name=model.name, needed_bytes=needed, available_bytes=free),
        )
    return MemoryFit.TIGHT


def prompt_cache_bytes() -> int:
    """Return the default size of the prompt cache: a tenth of the memory for models, at most 8 GB."""
    return min(8 * 10**9, usable_memory(total_memory()) // 10)
