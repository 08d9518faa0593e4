"""What stands in a pane that has nothing to list, where every pane says the same."""

from __future__ import annotations

from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.library import Library, ScanPhase
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.state_view import StateView


def where(library: Library) -> str:
    """Return the cache's folder, safe to show."""
    return printable(str(library.cache.root))


def show_unread(view: StateView, library: Library, *, reading: str) -> bool:
    """Say that the cache cannot be read, or is being read; return False where neither is so.

    Args:
        view: where the message goes.
        library: what the pane shows.
        reading: what is being done, in words, while the cache is being read.
    """
    if library.phase is ScanPhase.FAILED and library.error is not None:
        view.show(
            "✗",
            "The cache cannot be read",
            [error_text(library.error)],
            style="$bad",
            keys=[("r", "try again"), ("q", "quit")],
        )
    elif library.phase is ScanPhase.LOADING:
        view.show("·  ·  ·", reading, [where(library)])
    else:
        return False
    return True
