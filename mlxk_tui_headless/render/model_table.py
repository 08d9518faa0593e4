"""The table of `list`: which models a view shows, which columns, and what a narrow terminal leaves out."""

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
from mlxk_tui.ops.core.text import age, middle, printable, size
from mlxk_tui_headless.render.columns import GAP, draw_columns
from mlxk_tui_headless.request import View

_NAME_WIDTH = 24
"""Cells below which a narrow terminal gives up other columns for the name."""
_SACRIFICE = ("Hash", "Modified", "Framework", "Type", "Size", "Runtime")
"""Columns that a narrow terminal loses, in this order."""


@dataclass(frozen=True)
class _Column:
    title: str
    value: Callable[[Model], str]
    right: bool = False


def list_table(data: ListData, view: View, width: int | None) -> tuple[list[RenderableType], list[str]]:
    """Return the table and the notes below it.

    Args:
        data: every model that matched.
        view: which of them to show, and how.
        width: cells of the terminal; None where there is none and nothing may be cut.
    """
    shown = [model for model in data.models if _is_shown(model, view)]
    hidden = len(data.models) - len(shown)
    if not data.models:
        if view.pattern:
            return [Text(f"No cached model matches '{printable(view.pattern)}'.")], []
        return [
            Text(
                "No models are cached yet. Fetch one, for example with "
                "'hf download mlx-community/Llama-3.2-1B-Instruct-4bit', "
                "or look at the sample: 'mlxk-headless --demo list'."
            )
        ], []
    notes = [_hidden(hidden, view)] if hidden else []
    if not shown:
        return [], notes
    columns = _columns(view)
    rows = [[printable(column.value(model)) for column in columns] for model in shown]
    if view.health and not view.verbose and any("*" in row[-1] for row in rows):
        notes.insert(0, "* sound, but it will not run here; 'mlxk-headless show NAME' tells why.")
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
        _Column("Size", lambda model: size(model.size_bytes), right=True),
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
        kept = _fitting(titles, widths, width)
        columns, titles = [columns[i] for i in kept], [titles[i] for i in kept]
        rows, widths = [[row[i] for i in kept] for row in rows], [widths[i] for i in kept]
        others = sum(map(_room, titles[1:], widths[1:])) + GAP * len(titles[1:])
        widths[0] = min(widths[0], max(8, width - others))
        rows = [[middle(name, widths[0]), *cells] for name, *cells in rows]
        if sum(widths) + GAP * (len(widths) - 1) > width:
            return _wrapped(columns, rows)
    right = frozenset(column.title for column in columns if column.right)
    return draw_columns(titles, rows, right=right, style=_style)


def _wrapped(columns: list[_Column], rows: list[list[str]]) -> Table:
    """Return a table whose reasons are broken into lines."""
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


def _fitting(titles: list[str], widths: list[int], width: int) -> list[int]:
    """Return which columns fit beside a name that can still be read."""
    kept = list(range(len(titles)))
    for title in _SACRIFICE:
        others = sum(_room(titles[i], widths[i]) + GAP for i in kept if i)
        if others + min(widths[0], _NAME_WIDTH) <= width:
            break
        kept = [i for i in kept if titles[i] != title]
    return kept


def _room(title: str, widest: int) -> int:
    """Return the cells that a column asks for; a reason is content with few and breaks its line."""
    return min(widest, 20) if title == "Reason" else widest


def _style(title: str, cell: str) -> Style | None:
    if title in {"Health", "Integrity"}:
        return Style(color={"healthy": "green", "healthy*": "yellow"}.get(cell, "red"))
    return Style(dim=True) if title in {"Hash", "Modified"} else None
