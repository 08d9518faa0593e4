"""Whether a model may be loaded now: its estimate against the machine's memory and what is free of it."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import psutil

from mlxk_tui.engine.limits import check_memory
from mlxk_tui.ops.errors import ErrorType, OpError
from mlxk_tui.ops.format import size
from mlxk_tui.ops.machine import Runtime, total_memory, usable_memory
from mlxk_tui.ops.terms import MemoryFit

if TYPE_CHECKING:
    from mlxk_tui.engine.models import Runnable


def check(model: Runnable, held_bytes: int = 0) -> MemoryFit | None:
    """Return how a model fits, `tight` also where it fits the machine but hardly what is free.

    On macOS what is in use by others is compressed and swapped out for the GPU, so that only the
    machine's memory counts; elsewhere what is free counts too.

    Args:
        model: what is to be loaded; unchecked where its need is unknown or it is forced.
        held_bytes: what the present model gives back first.

    Raises:
        OpError: `insufficient_memory`, with the numbers.
    """
    needed = model.memory_bytes
    if needed is None or model.forced:
        return None
    usable = usable_memory(total_memory())
    fit = check_memory(needed, Runtime(None, frozenset(), memory_bytes=usable), name=model.name).fit
    free = psutil.virtual_memory().available + held_bytes
    if needed <= 0.8 * free:
        return fit
    if needed > free and platform.system() != "Darwin":
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            f"{model.name} needs about {size(needed)} of memory, and {size(free)} are free now. Close other "
            "programs, take a smaller model, or force it.",
        )
    return MemoryFit.TIGHT


def prompt_cache_bytes() -> int:
    """Return how much kept prompt caches may take: a tenth of what models can use, at most 8 GB."""
    return min(8 * 10**9, usable_memory(total_memory()) // 10)
