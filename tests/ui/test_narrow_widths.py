"""Widgets at a given width cut no text unnecessarily."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from rich.cells import cell_len

from mlxk_tui.ops.catalog.filters import parse
from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.services.tasks import Task
from mlxk_tui.ui.inspector.description import memory_gauge
from mlxk_tui.ui.models.filter_bar import placeholder
from mlxk_tui.ui.shell import task_bar
from mlxk_tui.ui.widgets.text import short_age

NAME = "Verifying Qwen3-Coder-30B-A3B-Instruct-4bit"


@pytest.mark.parametrize("width", range(50, 140, 5))
def test_task_bar_hides_its_gauge_before_the_name(width: int) -> None:
    progress = Progress("verify", "x", 3_000_000_000, 7_470_000_000, 410_000_000.0, 1, 4)
    shown = task_bar.describe([Task(NAME, progress)], width).plain
    assert cell_len(shown) <= width
    assert (NAME in shown) == (width >= 63)
    assert "40%" in shown
    assert shown.endswith("esc stop")
    if "▰" in shown:
        assert NAME in shown


@pytest.mark.parametrize("width", range(24, 60, 4))
def test_memory_gauge_wraps_before_it_is_cut(width: int) -> None:
    rows = memory_gauge(2_530_000_000, 24_000_000_000, MemoryFit.TOO_LARGE, width)
    drawn = ["".join(text for text, _ in row) for row in rows]
    assert all(cell_len(row) <= width for row in drawn)
    assert "too large" in drawn[-1]


@pytest.mark.parametrize("width", range(0, 120, 7))
def test_placeholder_has_complete_and_valid_examples(width: int) -> None:
    text = placeholder(width)
    assert cell_len(text) <= width
    for example in text.split(", ")[1:]:
        parse(example)


@pytest.mark.parametrize(
    ("iso", "shown"),
    [
        ("2026-01-01T00:00:00Z", "now"),
        ("2025-12-31T23:30:00Z", "30m"),
        ("2025-12-07T00:00:00Z", "25d"),
        ("2025-09-01T00:00:00Z", "4mo"),
        ("2023-06-01T00:00:00Z", "2y"),
        ("nonsense", "–"),
        (None, "–"),
    ],
)
def test_short_age_fits_into_four_cells(iso: str | None, shown: str) -> None:
    assert short_age(iso, datetime(2026, 1, 1, tzinfo=timezone.utc)) == shown
