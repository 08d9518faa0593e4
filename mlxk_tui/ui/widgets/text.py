"""Labels, gauges and text layout that several panes share; plain text, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from math import ceil
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from mlxk_tui.ops.contract.terms import Framework, MemoryFit, ModelType
from mlxk_tui.ops.core.text import age, printable, truncate_middle

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Model, Quantization

Part = tuple[str, str]
"""A text and its style: a theme token such as `$muted`, or empty."""


UPDATE_GLYPH = "↻"
"""The mark of a model with a newer commit on the hub."""
FIT_LABELS = {MemoryFit.FITS: "fits", MemoryFit.TIGHT: "tight", MemoryFit.TOO_LARGE: "too large"}
FIT_STYLES = {MemoryFit.FITS: "$good", MemoryFit.TIGHT: "$attention", MemoryFit.TOO_LARGE: "$bad"}

_TYPE_LABELS = {
    ModelType.CHAT: "chat",
    ModelType.EMBEDDING: "embed",
    ModelType.BASE: "base",
    ModelType.UNKNOWN: "–",
}
_FRAMEWORK_LABELS = {Framework.GGUF: "GGUF", Framework.PYTORCH: "torch", Framework.UNKNOWN: "–"}


def type_label(model: Model) -> str:
    """Return the model's type in at most five cells."""
    return _TYPE_LABELS[model.model_type]


def quant_label(model: Model) -> str:
    """Return the quantization in at most five cells, or the framework of unquantized weights."""
    if model.quantization is not None:
        return f"{model.quantization.bits}bit"
    return _FRAMEWORK_LABELS.get(model.framework, "–")


def quant_description(quantization: Quantization) -> str:
    """Return the quantization in full: `4 bit, groups of 64`."""
    group = quantization.group_size
    return f"{quantization.bits} bit" + (f", groups of {group}" if group else "")


def cut(text: str, width: int) -> str:
    """Return `text` truncated in the middle to at most `width` cells (wide characters take two)."""
    if cell_len(text) <= width:
        return text
    for characters in range(width, -1, -1):
        shorter = truncate_middle(text, characters)
        if cell_len(shorter) <= width:
            return shorter
    return ""


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` truncated or padded to exactly `width` cells, right-aligned if `right`."""
    text = cut(text, width)
    gap = width - cell_len(text)
    if gap <= 0:
        return set_cell_size(text, width)
    return " " * gap + text if right else text + " " * gap


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` cells."""
    return [part.plain.rstrip() for part in Content(text).wrap(max(8, width))]


def short_age(iso: str | None, now: datetime) -> str:
    """Return the age of an ISO 8601 time in at most four cells: `25d`, `4mo`, `2y`."""
    if not iso:
        return "–"
    shown = age(iso, now)
    if shown == "just now":
        return "now"
    if shown.endswith(" ago"):
        return shown.removesuffix(" ago")
    try:
        then = datetime.strptime(iso, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return "–"
    days = (now - then).days
    return f"{days // 30}mo" if days < 365 else f"{days // 365}y"


def gauge(share: float, cells: int) -> tuple[str, str]:
    """Return the filled and the empty part of a gauge; anything above zero fills at least one cell."""
    filled = 0 if share <= 0 else min(cells, max(1, ceil(share * cells - 1e-9)))
    return "▰" * filled, "▱" * (cells - filled)


def bar(share: float, cells: int) -> tuple[str, str]:
    """Return the filled and the empty part of a bar of `share` (0 to 1), exact to half a cell."""
    halves = round(max(0.0, min(1.0, share)) * cells * 2)
    if share > 0:
        halves = max(1, halves)
    whole, half = divmod(halves, 2)
    drawn = "━" * whole + ("╸" if half else "")
    return drawn, "━" * (cells - len(drawn))


def flush_right(left: Sequence[Part], right: Sequence[Part], width: int) -> list[Part]:
    """Return the padding and `right` that complete a line of `width` cells after `left`.

    The result is empty if both do not fit.
    """
    gap = width - sum(cell_len(text) for text, _ in (*left, *right))
    return [(" " * gap, ""), *right] if right and gap >= 2 else []


def lines(rows: Sequence[Sequence[Part]]) -> Content:
    """Return rows of styled parts as one block of content."""
    return Content("\n").join(line(row) for row in rows)


def line(parts: Sequence[Part]) -> Content:
    """Return styled parts as one line of content."""
    return Content.assemble(
        *(Content.styled(text, style) if style else Content(text) for text, style in parts)
    )


def cut_end(text: str, width: int) -> str:
    """Return `text` truncated at its end, for titles and sentences: their beginning identifies them."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def sentence(text: str) -> str:
    """Return an error text as one line, safe to show."""
    return printable(" ".join(text.split()))
