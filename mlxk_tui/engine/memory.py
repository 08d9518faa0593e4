"""Whether a model may be loaded now: its estimate against the machine's memory and what is free of it."""

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
from mlxk_tui.ops.core.text import size
from mlxk_tui.ops.health.machine import Runtime, may_have_gpu, total_memory, usable_memory

if TYPE_CHECKING:
    from mlxk_tui.engine.models import Runnable


_WORKING_BYTES = 250_000_000
"""Activations and buffers of a generation."""


@dataclass(frozen=True)
class WeightsChoice:
    """How weights are to be held where there is no GPU."""

    default: CpuWeights = CpuWeights.AUTO
    by_model: Mapping[str, CpuWeights] = field(default_factory=dict)
    """Names of models, in any case of letters."""

    def of(self, name: str) -> CpuWeights:
        """Return how a model's are to be held."""
        wanted = {key.lower(): value for key, value in self.by_model.items()}
        return wanted.get(name.lower(), self.default)


def room_for_copies(cache_bytes: int) -> int:
    """Return how many bytes weights may take beyond those that are loaded.

    Four fifths of what is free, in the machine and in this process's control group, less what a
    conversation and the kept prompt caches need.
    """
    free = min(psutil.virtual_memory().available, _free_in_group())
    return max(0, int(0.8 * free) - cache_bytes - _WORKING_BYTES)


def _free_in_group(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what the control group of a container (v2, else v1) leaves, in bytes."""
    return min(
        _left(root / "memory.max", root / "memory.current"),
        _left(root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    )


def _left(limit: Path, used: Path) -> int:
    try:
        return max(0, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # there is none, or it is "max"
        return 1 << 62


def check(model: Runnable, held_bytes: int = 0, wanted: CpuWeights = CpuWeights.AUTO) -> MemoryFit | None:
    """Return how a model fits, `tight` also where it fits the machine but hardly what is free.

    On macOS what is in use by others is compressed and swapped out for the GPU, so that only the
    machine's memory counts; elsewhere what is free counts too.

    Args:
        model: what is to be loaded; unchecked where its need is unknown or it is forced.
        held_bytes: what the present model gives back first.
        wanted: how its weights are to be held on a CPU; as float32 they may need much more.

    Raises:
        OpError: `insufficient_memory`, with the numbers.
    """
    needed = model.memory_bytes
    copies = wanted is CpuWeights.FLOAT32 and model.float32_bytes is not None and not may_have_gpu()
    if copies:
        needed = model.float32_bytes
    if needed is None or model.forced:
        return None
    usable = usable_memory(total_memory())
    free = psutil.virtual_memory().available + held_bytes
    if copies and needed > min(usable, free):
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            f"{model.name} needs about {size(needed)} of memory with its weights as float32, and "
            f"{size(min(usable, free))} are free now. Hold them as stored, or force it.",
        )
    fit = check_memory(needed, Runtime(None, frozenset(), memory_bytes=usable), name=model.name).fit
    if needed <= 0.8 * free:
        return fit
    if needed > free and platform.system() != "Darwin":
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            f"{model.name} needs about {size(needed)} of memory, and {size(free)} are free now.",
            remedy=Remedy.FREE_MEMORY_OR_FORCE,
            facts=ErrorFacts(name=model.name, needed_bytes=needed, available_bytes=free),
        )
    return MemoryFit.TIGHT


def prompt_cache_bytes() -> int:
    """Return how much kept prompt caches may take: a tenth of what models can use, at most 8 GB."""
    return min(8 * 10**9, usable_memory(total_memory()) // 10)
