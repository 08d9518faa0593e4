"""Key bindings of scrolling widgets."""

from __future__ import annotations

from textual.binding import Binding, BindingType


def scroll_bindings(prefix: str) -> list[BindingType]:
    """Return the bindings of a scrolling widget, with ids such as `inspector.page_down`.

    Args:
        prefix: the first part of the binding ids, which keymaps use.
    """
    return [
        Binding("down,j", "scroll_down", "Down", show=False, id=f"{prefix}.down"),
        Binding("up,k", "scroll_up", "Up", show=False, id=f"{prefix}.up"),
        Binding("pagedown,ctrl+d", "page_down", "Page down", show=False, id=f"{prefix}.page_down"),
        Binding("pageup,ctrl+u", "page_up", "Page up", show=False, id=f"{prefix}.page_up"),
        Binding("g,home", "scroll_home", "Top", show=False, id=f"{prefix}.first"),
        Binding("G,end", "scroll_end", "Bottom", show=False, id=f"{prefix}.last"),
    ]
