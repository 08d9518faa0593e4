"""The keys of what scrolls."""

from __future__ import annotations

from textual.binding import Binding, BindingType


def scroll_bindings(place: str) -> list[BindingType]:
    """Return the bindings of a scrolling widget, with ids such as `inspector.page_down`.

    Args:
        place: the first part of the ids, by which users set keys of their own.
    """
    return [
        Binding("down,j", "scroll_down", "Down", show=False, id=f"{place}.down"),
        Binding("up,k", "scroll_up", "Up", show=False, id=f"{place}.up"),
        Binding("pagedown,ctrl+d", "page_down", "Page down", show=False, id=f"{place}.page_down"),
        Binding("pageup,ctrl+u", "page_up", "Page up", show=False, id=f"{place}.page_up"),
        Binding("g,home", "scroll_home", "Top", show=False, id=f"{place}.first"),
        Binding("G,end", "scroll_end", "Bottom", show=False, id=f"{place}.last"),
    ]
