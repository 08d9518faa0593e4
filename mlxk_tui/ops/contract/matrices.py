"""Which BLAS library multiplies matrices on the CPU, as reported to people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BlasState(str, Enum):
    """Whether a faster BLAS library than MLX's own is in use."""

    FAST = "fast"
    """A library that passed its trial is in use."""
    BUILT_IN = "built-in"
    """MLX's built-in product is in use."""
    UNTRIED = "untried"
    """Libraries were found; they are tried when the first model is loaded."""


@dataclass(frozen=True)
class Blas:
    """The BLAS library in use, and why."""

    state: BlasState
    library: str | None = None
    """Name and version of the library in use; None for MLX's own."""
    path: str | None = None
    gain: float | None = None
    """Speed relative to MLX's own product, such as 20.0."""
    message: str = ""
    """A sentence for people, which includes a remedy where there is one."""
