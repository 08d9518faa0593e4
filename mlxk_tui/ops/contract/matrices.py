"""How matrices are multiplied on the CPU, as it is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BlasState(str, Enum):
    """How matrices are multiplied on the CPU."""

    FAST = "fast"
    """With a library that has proved itself."""
    BUILT_IN = "built-in"
    """With what MLX brings along."""
    UNTRIED = "untried"
    """There are libraries; the first model that is loaded tries them."""


@dataclass(frozen=True)
class Blas:
    """How matrices are multiplied on the CPU, for people and programs."""

    state: BlasState
    library: str | None = None
    """Name and version, where one is used."""
    path: str | None = None
    gain: float | None = None
    """How many times faster than MLX's own."""
    message: str = ""
    """A sentence, with what helps where something does."""
