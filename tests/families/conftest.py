"""Prints a table of results for the architectures after the test summary."""

from __future__ import annotations

from typing import Any

import pytest

COLUMNS = ("architecture", "caches", "several requests", "distance", "equal to mlx_lm")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table; the rows are part of the test reports, also of other processes."""
    rows = [
        row
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, row in getattr(report, "user_properties", ())
        if name == "family"
    ]
    if not rows:
        return
    terminalreporter.section("architectures of mlx_lm")
    table = [COLUMNS, *sorted(rows, key=lambda row: str(row[0]).lower())]
    widths = [max(len(str(row[at])) for row in table) for at in range(len(COLUMNS))]
    for row in table:
        terminalreporter.write_line(
            "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


@pytest.fixture
def add_row(record_property: Any) -> Any:
    """Return a function that adds a row to the table."""

    def add_row(*cells: object) -> None:
        record_property("family", [str(cell) for cell in cells])

    return add_row
