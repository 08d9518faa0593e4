"""Lets go of widgets that were removed, in the places that outlive them.

Textual 8.2.8 looks after most of what a removed widget leaves behind. Each of these held whole screens:

- a `Signal` of Textual's is held by its subscribers' callbacks, and so holds them, until it is published;
- who watches a reactive of another node (every `TextArea` the app's theme) is held until that changes;
- a toast that gives way to a newer one (`ToastRack.show`) leaves its holder, which holds it, on the screen;
- a timer that was cancelled is kept by asyncio until it would have been due, with the context of the widget
  that set it: a toast for twelve seconds;
- `StylesCache.get_inner_outer` is memoized with the cache itself in its key: the lines that the last 1,024
  widgets drew stay in memory. What it computes costs next to nothing.
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
"""Seconds between two sweeps: a hand at the keyboard opens a dozen screens meanwhile."""


def sweep(app: App[Any]) -> None:
    """Forget every removed widget in the nodes of an app."""
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
    _forget_cancelled_timers()
    if clear := getattr(StylesCache.get_inner_outer, "cache_clear", None):
        clear()


def _forget_cancelled_timers() -> None:
    """Drop the contexts of what will never be called; the handles go when asyncio clears them away."""
    for handle in getattr(asyncio.get_running_loop(), "_scheduled", ()):
        if handle.cancelled():
            handle._context = None


def _removed(node: DOMNode) -> bool:
    """Tell whether a node that has been mounted is no more."""
    return node._closed or node._closing
