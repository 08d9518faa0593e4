"""Widgets and screens that subscribe to services while they are mounted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from textual.dom import DOMNode
from textual.message_pump import MessagePump

from mlxk_tui.ops.core.events import Publisher, Unsubscribe

T = TypeVar("T")


def is_closing(node: MessagePump) -> bool:
    """Return whether a node is being removed, was removed, or the app is closing."""
    pruning = isinstance(node, DOMNode) and node._pruning
    return pruning or node._closing or node._closed or not node.is_attached


class Subscriber(MessagePump):
    """A mixin for nodes with subscriptions.

    It precedes the Textual class in the bases of a node. It is not a `DOMNode`, because Textual takes the
    stylesheets and the type name of a node from its first base that is one.
    """

    _subscriptions: tuple[Unsubscribe, ...] = ()

    def subscribe(self, publisher: Publisher[T], callback: Callable[[T], object]) -> None:
        """Call `callback` with each published value until this node is unmounted; not before `on_mount`.

        The callback runs between two messages of this node, and no longer once the node is being removed.
        """

        def receive(value: T) -> None:
            if self.is_running and not is_closing(self):
                self.call_next(callback, value)

        self._subscriptions = (*self._subscriptions, publisher.subscribe(receive))

    def on_unmount(self) -> None:
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._subscriptions = ()
