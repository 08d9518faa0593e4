"""What the app hands to every pane."""

from __future__ import annotations

from dataclasses import dataclass

from mlxk_tui.library import Library
from mlxk_tui.settings import Settings
from mlxk_tui.tasks import Tasks


@dataclass(frozen=True)
class Context:
    """The long-lived things, made once by the app."""

    library: Library
    settings: Settings
    tasks: Tasks
    label: str = "hub"
    """What the cache is called in the header."""
