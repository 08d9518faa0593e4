"""Widgets and screens that follow what a service publishes, for as long as they are mounted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from textual.dom import DOMNode
from textual.message_pump import MessagePump

from mlxk_tui.ops.core.events import Publisher, Unsubscribe

T = TypeVar("T")


def is_leaving(node: MessagePump) -> bool:
    """Tell whether a node is being removed, or was, or the app is leaving."""
    pruning = isinstance(node, DOMNode) and node._pruning
    return pruning or node._closing or node._closed or not node.is_attached


class Subscriber(MessagePump):
    """Base of nodes with subscriptions.

    It comes before the Textual class among a node's bases. It is not a `DOMNode`, because Textual takes the
    style sheets and the type name of a node from the first base that is one.
    """

    _subscriptions: tuple[Unsubscribe, ...] = ()

    def subscribe(self, publisher: Publisher[T], callback: Callable[[T], object]) -> None:
        """Call `callback` with each value until this node is unmounted; call this from `on_mount` on.

        The callback runs between two messages of this node, and not any more once the node is being removed.
        """

        def receive(value: T) -> None:
            if self.is_running and not is_leaving(self):
                self.call_next(callback, value)

        self._subscriptions = (*self._subscriptions, publisher.subscribe(receive))

    def on_unmount(self) -> None:
        """End the subscriptions."""
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._subscriptions = ()
