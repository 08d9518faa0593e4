"""The table of `list`: its models and columns, and which columns a narrow terminal hides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mlxk_tui.ops.cache.names import DEFAULT_ORG
from mlxk_tui.ops.contract.results import Framework, Health, ListData, Model, ModelType
from mlxk_tui.ops.core.text import age, format_size, printable, truncate_middle
from mlxk_tui_headless.render.columns import GAP, draw_columns
from mlxk_tui_headless.request import View

_NAME_WIDTH = 24
"""Minimum width of the name; a narrow terminal hides other columns instead."""
_HIDE_ORDER = ("Hash", "Modified", "Framework", "Type", "Size", "Runtime")
"""Columns that a narrow terminal hides, in this order."""


@dataclass(frozen=True)
class _Column:
    title: str
    value: Callable[[Model], str]
    right: bool = False


def list_table(data: ListData, view: View, width: int | None) -> tuple[list[RenderableType], list[str]]:
    """Return the table and the notes below it.

    Args:
        data: every model that matches.
        view: the models to show, and how.
        width: width of the terminal in cells; None without a terminal: nothing is cut.
    """
    shown = [model for model in data.models if _is_shown(model, view)]
    hidden = len(data.models) - len(shown)
    if not data.models:
        if view.pattern:
            return [Text(f"No cached model matches '{printable(view.pattern)}'.")], []
        return [
            Text(
                "No models are cached yet. Pull one, for example with "
                "'mlxk-headless pull mlx-community/Llama-3.2-1B-Instruct-4bit', "
                "or try the sample: 'mlxk-headless --demo list'."
            )
        ], []
    notes = [_hidden(hidden, view)] if hidden else []
    if not shown:
        return [], notes
    columns = _columns(view)
    rows = [[printable(column.value(model)) for column in columns] for model in shown]
    if view.health and not view.verbose and any("*" in row[-1] for row in rows):
        notes.insert(0, "* Intact, but can't run here; 'mlxk-headless show NAME' shows why.")
    return [_draw(columns, rows, width)], notes


def _is_shown(model: Model, view: View) -> bool:
    if view.show_all:
        return True
    if model.framework is not Framework.MLX:
        return False
    return view.verbose or model.model_type is ModelType.CHAT


def _hidden(count: int, view: View) -> str:
    if view.verbose:
        return f"{count:,} more: --all shows every framework."
    return f"{count:,} more, not MLX or not chat: --all shows everything."


def _columns(view: View) -> list[_Column]:
    full_names = view.verbose or view.show_all
    columns = [
        _Column("Name", _full_name if full_names else _short_name),
        _Column("Hash", lambda model: model.hash[:7] if model.hash else "-"),
        _Column("Size", lambda model: format_size(model.size_bytes), right=True),
        _Column("Modified", lambda model: age(model.last_modified)),
    ]
    if full_names:
        columns.append(_Column("Framework", lambda model: model.framework.value))
    columns.append(_Column("Type", lambda model: model.model_type.value))
    if view.health and view.verbose:
        columns.append(_Column("Integrity", lambda model: model.health.value))
        columns.append(_Column("Runtime", lambda model: "yes" if model.runtime_compatible else "no"))
        columns.append(_Column("Reason", lambda model: model.reason or "-"))
    elif view.health:
        columns.append(_Column("Health", _health))
    return columns


def _full_name(model: Model) -> str:
    return model.name


def _short_name(model: Model) -> str:
    return model.name.removeprefix(f"{DEFAULT_ORG}/")


def _health(model: Model) -> str:
    if model.health is Health.UNHEALTHY:
        return "unhealthy"
    return "healthy" if model.runtime_compatible else "healthy*"


def _draw(columns: list[_Column], rows: list[list[str]], width: int | None) -> RenderableType:
    titles = [column.title for column in columns]
    widths = [max(map(cell_len, cells)) for cells in zip(titles, *rows, strict=True)]
    if width is not None:
        visible = _visible_columns(titles, widths, width)
        columns, titles = [columns[i] for i in visible], [titles[i] for i in visible]
        rows, widths = [[row[i] for i in visible] for row in rows], [widths[i] for i in visible]
        others = sum(map(_min_width, titles[1:], widths[1:])) + GAP * len(titles[1:])
        widths[0] = min(widths[0], max(8, width - others))
        rows = [[truncate_middle(name, widths[0]), *cells] for name, *cells in rows]
        if sum(widths) + GAP * (len(widths) - 1) > width:
            return _wrapped(columns, rows)
    right = frozenset(column.title for column in columns if column.right)
    return draw_columns(titles, rows, right=right, style=_style)


def _wrapped(columns: list[_Column], rows: list[list[str]]) -> Table:
    """Return a table that wraps the reasons."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        wraps = column.title == "Reason"
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
        )
    for row in rows:
        cells = zip(columns, row, strict=True)
        table.add_row(*(Text(cell, style=_style(column.title, cell) or "") for column, cell in cells))
    return table


def _visible_columns(titles: list[str], widths: list[int], width: int) -> list[int]:
    """Return the indexes of the columns that fit beside a readable name."""
    visible = list(range(len(titles)))
    for title in _HIDE_ORDER:
        others = sum(_min_width(titles[i], widths[i]) + GAP for i in visible if i)
        if others + min(widths[0], _NAME_WIDTH) <= width:
            break
        visible = [i for i in visible if titles[i] != title]
    return visible


def _min_width(title: str, widest: int) -> int:
    """Return the width that a column needs; a reason needs little, because it wraps."""
    return min(widest, 20) if title == "Reason" else widest


def _style(title: str, cell: str) -> Style | None:
    if title in {"Health", "Integrity"}:
        return Style(color={"healthy": "green", "healthy*": "yellow"}.get(cell, "red"))
    return Style(dim=True) if title in {"Hash", "Modified"} else None
