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
    """One tab."""

    id: str
    title: str
    key: str = ""
    """The key that opens it, drawn before the title."""
    badge: str = ""
    """What wants attention, drawn behind the title."""
    badge_style: str = "attention"


def _cells(tab: Tab) -> int:
    words = [tab.key] if tab.key else []
    words += [tab.title] + ([tab.badge] if tab.badge else [])
    return cell_len(" ".join(words))


class TabStrip(Widget):
    """Tabs side by side; a click opens one."""

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
    """Id of the open tab."""
    hover: reactive[str] = reactive("")
    """Id of the tab under the mouse."""
    tabs: reactive[tuple[Tab, ...]] = reactive(())

    @dataclass
    class Opened(Message):
        """A tab was clicked."""

        source: TabStrip
        id: str

        @property
        def control(self) -> TabStrip:
            """The strip that sent it."""
            return self.source

    def __init__(self, tabs: Sequence[Tab], active: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.set_reactive(TabStrip.tabs, tuple(tabs))
        self.set_reactive(TabStrip.active, active)

    def render_line(self, y: int) -> Strip:
        """Draw the tabs."""
        style = self.get_component_rich_style
        plain = style("tab")
        segments = [] if self._roomy else [Segment(" ", plain)]
        around = " " if self._roomy else ""
        for tab in self.tabs:
            base = plain
            if tab.id == self.active:
                base = style("tab-active")
            elif tab.id == self.hover:
                base = style("tab-hover")
            segments.append(Segment(around, base))
            if tab.key:
                key_style = style("tab-key", partial=True)
                segments.append(Segment(f"{tab.key} ", base if tab.id == self.active else base + key_style))
            segments.append(Segment(tab.title, base))
            if tab.badge:
                badge = style(tab.badge_style, partial=True)
                # Reversed, a colour of its own would be a block in the tab.
                segments.append(Segment(f" {tab.badge}", base if base.reverse else base + badge))
            segments.append(Segment(around, base))
            segments.append(Segment(" ", plain))
        return Strip(segments).adjust_cell_length(self.size.width, plain)

    @property
    def _roomy(self) -> bool:
        """Whether every tab can have a blank cell on both sides."""
        return sum(_cells(tab) + 3 for tab in self.tabs) - 1 <= self.size.width

    def _at(self, x: int) -> str:
        left, around = (0, 2) if self._roomy else (1, 0)
        for tab in self.tabs:
            right = left + _cells(tab) + around
            if left <= x < right:
                return tab.id
            left = right + 1
        return ""

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Follow the mouse."""
        self.hover = self._at(event.x)

    def on_leave(self) -> None:
        """Forget the mouse."""
        self.hover = ""

    def on_click(self, event: events.Click) -> None:
        """Open the tab under the mouse."""
        if opened := self._at(event.x):
            self.post_message(self.Opened(self, opened))

    def neighbour(self, by: int) -> str:
        """Return the id of the tab `by` places from the open one, round the ends."""
        ids = [tab.id for tab in self.tabs]
        place = ids.index(self.active) if self.active in ids else 0
        return ids[(place + by) % len(ids)]
