"""The panes, in the order of their keys. Adding one is adding an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from textual.screen import Screen

from mlxk_tui.library import Library, State
from mlxk_tui.panes.context import Context


@dataclass(frozen=True)
class PaneInfo:
    """What the shell knows of a pane before it is made."""

    id: str
    """The mode's name."""
    title: str
    factory: str
    """`module:class`, imported when the pane is first opened."""
    badge: Callable[[Library], int] = lambda library: 0
    """How many things want attention."""

    def make(self, context: Context) -> Screen[None]:
        """Return the pane's screen."""
        module, _, name = self.factory.partition(":")
        screen = getattr(import_module(module), name)(context)
        if not isinstance(screen, Screen):
            raise TypeError(f"{self.factory} is not a screen")
        return screen


PANES = (
    PaneInfo("models", "Models", "mlxk_tui.panes.models:ModelsPane"),
    PaneInfo(
        "health", "Health", "mlxk_tui.panes.health:HealthPane", lambda library: library.count(State.BAD)
    ),
)
"""Every pane that works, left to right; the number keys follow."""
