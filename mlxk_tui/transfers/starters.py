"""Small models to begin with: of families that every mlx-lm runs, and quickly fetched."""

from __future__ import annotations

from typing import NamedTuple


class Starter(NamedTuple):
    """A model that is offered to whoever has none."""

    name: str
    size_bytes: int
    """About, as of 2025."""
    note: str


STARTERS = (
    Starter("mlx-community/Qwen3-0.6B-4bit", 351_000_000, "the smallest to talk to"),
    Starter("mlx-community/Llama-3.2-1B-Instruct-4bit", 713_000_000, "small and quick"),
    Starter("mlx-community/Qwen3-4B-Instruct-2507-4bit", 2_280_000_000, "good, on 8 GB of memory"),
)
"""The smallest first."""
