"""A row of tabs on one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget


@dataclass(frozen=True)
class Tab:
    """A tab's title, its key and its badge."""

    id: str
    title: str
    key: str = ""
    """The key that activates it, shown before the title."""
    badge: str = ""
    """A count or glyph, shown after the title."""
    badge_style: str = "attention"


def _width(tab: Tab) -> int:
    parts = [tab.key] if tab.key else []
    parts += [tab.title] + ([tab.badge] if tab.badge else [])
    return cell_len(" ".join(parts))


class TabStrip(Widget):
    """Tabs side by side; a click activates one."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "tab",
        "tab-key",
        "tab-active",
        "tab-hover",
        "accent",
        "attention",
        "bad",
    }

    active: reactive[str] = reactive("")
    """Id of the active tab."""
    hover: reactive[str] = reactive("")
    """Id of the tab under the mouse."""
    tabs: reactive[tuple[Tab, ...]] = reactive(())

    @dataclass
    class Activated(Message):
        """A tab was clicked."""

        source: TabStrip
        id: str

        @property
        def control(self) -> TabStrip:
            return self.source

    def __init__(self, tabs: Sequence[Tab], active: str, *, id: str | None = None) -> None:  # noqa: A002 - as Textual has it
        super().__init__(id=id)
        self.set_reactive(TabStrip.tabs, tuple(tabs))
        self.set_reactive(TabStrip.active, active)

    def render_line(self, y: int) -> Strip:
        style = self.get_component_rich_style
        plain = style("tab")
        segments = [] if self._has_padding else [Segment(" ", plain)]
        padding = " " if self._has_padding else ""
        for tab in self.tabs:
            base = plain
            if tab.id == self.active:
                base = style("tab-active")
            elif tab.id == self.hover:
                base = style("tab-hover")
            segments.append(Segment(padding, base))
            if tab.key:
                key_style = style("tab-key", partial=True)
                segments.append(Segment(f"{tab.key} ", base if tab.id == self.active else base + key_style))
            segments.append(Segment(tab.title, base))
            if tab.badge:
                badge = style(tab.badge_style, partial=True)
                # In a reversed tab the badge's color would become a block.
                segments.append(Segment(f" {tab.badge}", base if base.reverse else base + badge))
            segments.append(Segment(padding, base))
            segments.append(Segment(" ", plain))
        return Strip(segments).adjust_cell_length(self.size.width, plain)

    @property
    def _has_padding(self) -> bool:
        """Whether there is room for a blank cell on both sides of every tab."""
        return sum(_width(tab) + 3 for tab in self.tabs) - 1 <= self.size.width

    def _at(self, x: int) -> str:
        left, padding = (0, 2) if self._has_padding else (1, 0)
        for tab in self.tabs:
            right = left + _width(tab) + padding
            if left <= x < right:
                return tab.id
            left = right + 1
        return ""

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.hover = self._at(event.x)

    def on_leave(self) -> None:
        self.hover = ""

    def on_click(self, event: events.Click) -> None:
        if tab_id := self._at(event.x):
            self.post_message(self.Activated(self, tab_id))

    def neighbor(self, by: int) -> str:
        """Return the id of the tab `by` places from the active one, wrapping around."""
        ids = [tab.id for tab in self.tabs]
        place = ids.index(self.active) if self.active in ids else 0
        return ids[(place + by) % len(ids)]
