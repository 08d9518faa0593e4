"""The messages for a cache that is loading or failed to load, the same in all panes."""

from __future__ import annotations

from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.library import Library, ScanPhase
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.state_view import StateView


def cache_path(library: Library) -> str:
    """Return the cache's folder, safe to show."""
    return printable(str(library.cache.root))


def show_scan_state(view: StateView, library: Library, *, loading: str) -> bool:
    """Show that the cache failed to load, or is loading; return False if it is loaded.

    Args:
        view: shows the message.
        library: the cache's models.
        loading: the title while the cache is loading.
    """
    if library.phase is ScanPhase.FAILED and library.error is not None:
        view.show(
            "✗",
            "Can't read the cache",
            [error_text(library.error)],
            style="$bad",
            keys=[("r", "retry"), ("q", "quit")],
        )
    elif library.phase is ScanPhase.LOADING:
        view.show("·  ·  ·", loading, [cache_path(library)])
    else:
        return False
    return True
