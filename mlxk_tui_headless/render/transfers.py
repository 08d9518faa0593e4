"""Human-readable output of `pull` and `search`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import RenderableType
from rich.style import Style
from rich.text import Text

from mlxk_tui.ops.contract.results import MemoryFit
from mlxk_tui.ops.contract.transfers import (
    DownloadStatus,
    PullBatchData,
    PullData,
    SearchData,
    SearchResult,
)
from mlxk_tui.ops.core.text import age, format_size, printable, truncate_middle
from mlxk_tui_headless.render.columns import GAP, draw_columns

_FIT = {
    MemoryFit.FITS: "fits this machine",
    MemoryFit.TIGHT: "tight on this machine",
    MemoryFit.TOO_LARGE: "too large for this machine",
}
_NAME_WIDTH = 30
"""Minimum width of the name; a narrow terminal hides other columns instead."""
_HIDE_ORDER = ("Task", "Likes", "Modified", "Downloads", "Size")
"""Columns that a narrow terminal hides, in this order."""


def pull_lines(data: PullData) -> Iterator[RenderableType]:
    """Yield the result of a pull in one line; for a plan, a second line with details."""
    yield Text(printable(f"pull: {data.message}"))
    if data.download_status is DownloadStatus.PLANNED:
        yield Text(printable("      " + ", ".join(_facts(data))), style="dim")


def batch_lines(data: PullBatchData) -> Iterator[RenderableType]:
    """Yield the result of each model, and a summary."""
    yield from finished_lines(data)
    yield Text(printable(f"pull: {data.message}"))


def finished_lines(data: PullBatchData) -> Iterator[RenderableType]:
    """Yield the results of the models that were pulled, planned or complete."""
    failed = {DownloadStatus.FAILED, DownloadStatus.ACCESS_DENIED, DownloadStatus.CANCELLED}
    for model in data.models:
        if model.download_status not in failed:
            yield from pull_lines(model)


def pull_notes(data: PullData | PullBatchData) -> list[str]:
    """Return the warnings for stderr."""
    models = data.models if isinstance(data, PullBatchData) else [data]
    return [f"Warning: {warning}" for model in models for warning in model.warnings]


def _facts(data: PullData) -> Iterator[str]:
    if data.disk_free_bytes is not None:
        yield f"{format_size(data.disk_free_bytes)} free on disk"
    if data.memory_bytes is not None:
        fit = f", {_FIT[data.memory_fit]}" if data.memory_fit is not None else ""
        yield f"needs about {format_size(data.memory_bytes)} of memory{fit}"
    yield f"license {data.license}" if data.license else "no license stated"
    if data.gated:
        yield "gated, access granted"


def search_table(data: SearchData, width: int | None) -> tuple[list[RenderableType], list[str]]:
    """Return the table and the notes below it; `width` is None if nothing may be cut."""
    if not data.results:
        return [Text(printable(f"No model on the hub matches '{data.query}'."))], []
    titles = ["Name", "Size", "Downloads", "Likes", "Modified", "Task", ""]
    rows = [_row(result) for result in data.results]
    widths = [max(map(cell_len, cells)) for cells in zip(titles, *rows, strict=True)]
    if width is not None:
        visible = _visible_columns(titles, widths, width)
        titles, rows = [titles[i] for i in visible], [[row[i] for i in visible] for row in rows]
        others = sum(widths[i] + GAP for i in visible if i)
        rows = [[truncate_middle(name, max(8, width - others)), *cells] for name, *cells in rows]
    right = frozenset({"Size", "Downloads", "Likes"})
    table = draw_columns(titles, rows, right=right, style=_style)
    return [table], ["'mlxk-headless pull NAME' downloads a model."]


def _row(result: SearchResult) -> list[str]:
    marks = [
        mark
        for mark, applies in (("cached", result.cached), ("gated", result.gated), ("not MLX", not result.mlx))
        if applies
    ]
    return [
        printable(result.name),
        format_size(result.size_bytes),
        "-" if result.downloads is None else f"{result.downloads:,}",
        "-" if result.likes is None else f"{result.likes:,}",
        age(result.last_modified),
        printable(result.task or "-"),
        ", ".join(marks),
    ]


def _visible_columns(titles: list[str], widths: list[int], width: int) -> list[int]:
    """Return the indexes of the columns that fit beside a readable name."""
    visible = list(range(len(titles)))
    for title in _HIDE_ORDER:
        others = sum(widths[i] + GAP for i in visible if i)
        if others + min(widths[0], _NAME_WIDTH) <= width:
            break
        visible = [i for i in visible if titles[i] != title]
    return visible


def _style(title: str, cell: str) -> Style | None:
    if title == "":
        return Style(color="green") if "cached" in cell else Style(color="yellow")
    return Style(dim=True) if title in {"Modified", "Task"} else None
