"""Releases references that Textual 8.2.8 keeps to removed widgets; each kept whole screens in memory.

- A Textual `Signal` keeps its subscribers until it is published again.
- A reactive keeps the nodes that watch it (every `TextArea` watches the app's theme) until it changes.
- A toast that is replaced by a newer one (`ToastRack.show`) leaves its holder, which references it, on
  the screen.
- asyncio keeps a cancelled timer until it would have been due, with the context of the widget that set it:
  a toast for twelve seconds.
- `StylesCache.get_inner_outer` is memoized with the cache itself in its key, which keeps the rendered lines
  of the last 1,024 widgets. What it computes is cheap.
"""

from __future__ import annotations

import asyncio
from typing import Any

from textual._styles_cache import StylesCache
from textual.app import App
from textual.dom import DOMNode
from textual.signal import Signal
from textual.widgets._toast import ToastHolder

INTERVAL_S = 2.0
"""Seconds between two sweeps; a user at the keyboard opens a dozen screens in that time."""


def sweep(app: App[Any]) -> None:
    """Release every removed widget from the nodes of an app."""
    nodes: list[DOMNode] = [app, *(node for node in app._registry if node is not app)]
    for node in nodes:
        watched: dict[str, list[tuple[DOMNode, object]]] = getattr(node, "__watchers", {})
        for watchers in watched.values():
            if any(_removed(watcher) for watcher, _ in watchers):
                watchers[:] = [pair for pair in watchers if not _removed(pair[0])]
    for signal in (value for node in nodes for value in vars(node).values() if isinstance(value, Signal)):
        for node in [node for node in signal._subscriptions if _removed(node)]:
            signal.unsubscribe(node)
    for node in nodes:
        if isinstance(node, ToastHolder) and node.is_attached and not node.children:
            node.remove()
    _release_cancelled_timers()
    if clear := getattr(StylesCache.get_inner_outer, "cache_clear", None):
        clear()


def _release_cancelled_timers() -> None:
    """Clear the contexts of cancelled timers; asyncio removes the handles themselves later."""
    for handle in getattr(asyncio.get_running_loop(), "_scheduled", ()):
        if handle.cancelled():
            handle._context = None


def _removed(node: DOMNode) -> bool:
    """Return whether a node was mounted and is removed."""
    return node._closed or node._closing
