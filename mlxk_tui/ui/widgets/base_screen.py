"""Screens that close cleanly: Textual (8.2.8) removes the widgets of a screen before the screen itself.

Between the two, workers and callbacks of the screen still run. They fail when they query a removed widget,
and the failure ends the app. Three rules prevent that:

- The workers of a screen and its widgets are cancelled before the widgets are removed; Textual cancels them
  afterwards.
- A callback of `call_after_refresh` runs only while its sender is attached. Textual runs it in whatever
  screen is on top at the refresh, where an exception would end that screen.
- A screen that is dismissed before it was mounted is not mounted: Textual would mount it without widgets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from textual._callback import invoke
from textual.events import ScreenSuspend, Unmount
from textual.message import Message
from textual.message_pump import MessagePump
from textual.messages import CloseMessages, Prune
from textual.screen import Screen, ScreenResultType
from textual.worker import Worker, WorkerState

from mlxk_tui.ui.widgets.subscriber import Subscriber, is_closing

_CLOSING = (Prune, CloseMessages, Unmount, ScreenSuspend)


class BaseScreen(Subscriber, Screen[ScreenResultType]):
    """A screen whose workers and callbacks end before its widgets are removed."""

    def _post_mount(self) -> None:
        super()._post_mount()  # type: ignore[no-untyped-call]  # Textual gives it no types
        self.call_later(self.refresh_bindings)  # its keys are disabled until it is mounted

    async def on_prune(self, event: Prune) -> None:
        """Cancel the screen's workers; Textual's own handler, which runs next, removes the widgets."""
        del event
        for node in self.walk_children(with_self=True):
            self.workers.cancel_node(node)

    def _invoke_later(self, callback: Callable[..., Any], sender: MessagePump) -> None:
        super()._invoke_later(partial(_call_unless_closing, callback, sender), sender)

    async def _dispatch_message(self, message: Message) -> None:
        if not self.is_mounted and self._was_dismissed and not isinstance(message, _CLOSING):
            return
        await super()._dispatch_message(message)

    @property
    def _was_dismissed(self) -> bool:
        """Whether the screen was dismissed; Textual removes it a moment later."""
        return self._pruning or not any(self in stack for stack in self.app._screen_stacks.values())

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Pass failed workers on to the app, which reports them: Textual does not let this message bubble."""
        if event.state is WorkerState.ERROR:
            self.app.post_message(event)


async def _call_unless_closing(callback: Callable[..., Any], sender: MessagePump) -> None:
    if not is_closing(sender):
        await invoke(callback)
