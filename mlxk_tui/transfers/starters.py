"""Small models to start with; every version of mlx-lm supports their families."""

from __future__ import annotations

from typing import NamedTuple


class Starter(NamedTuple):
    """A suggested model for an empty cache."""

    name: str
    size_bytes: int
    """Approximate download size, as of 2025."""
    note: str


STARTERS = (
    Starter("mlx-community/Qwen3-0.6B-4bit", 351_000_000, "smallest chat model"),
    Starter("mlx-community/Llama-3.2-1B-Instruct-4bit", 713_000_000, "small and fast"),
    Starter("mlx-community/Qwen3-4B-Instruct-2507-4bit", 2_280_000_000, "good quality, 8 GB of memory"),
)
"""Suggested models, smallest first."""
