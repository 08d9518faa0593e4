"""What every screen does about Textual's (8.2.8) way of closing one: first its widgets go, then it.

A screen that is left goes on for a moment, and what runs in that moment looks for widgets that are gone. It
then ends the app, for a fault that shows nothing. Three rules keep that moment empty:

- Work of a screen and its widgets ends before the widgets go; Textual cancels it afterwards.
- What was asked for with `call_after_refresh` runs only while the one who asked is there. Textual runs it in
  whatever screen is on top when the refresh comes, and an error would end that screen.
- A screen that is left before it was mounted is not mounted any more: Textual would do so without widgets.
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

from mlxk_tui.ui.widgets.subscriber import Subscriber, is_leaving

_CLOSING = (Prune, CloseMessages, Unmount, ScreenSuspend)


class BaseScreen(Subscriber, Screen[ScreenResultType]):
    """A screen that leaves nothing behind that looks for its widgets."""

    def _post_mount(self) -> None:
        super()._post_mount()  # type: ignore[no-untyped-call]  # Textual gives it no types
        self.call_later(self.refresh_bindings)  # none of its keys worked until now

    async def on_prune(self, event: Prune) -> None:
        """End the work of this screen; its widgets go next: Textual calls its own handler after this one."""
        del event
        for node in self.walk_children(with_self=True):
            self.workers.cancel_node(node)

    def _invoke_later(self, callback: Callable[..., Any], sender: MessagePump) -> None:
        super()._invoke_later(partial(_call_unless_leaving, callback, sender), sender)

    async def _dispatch_message(self, message: Message) -> None:
        if not self.is_mounted and self._is_left and not isinstance(message, _CLOSING):
            return
        await super()._dispatch_message(message)

    @property
    def _is_left(self) -> bool:
        """Whether it was left; it is removed a moment later."""
        return self._pruning or not any(self in stack for stack in self.app._screen_stacks.values())

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Let the app tell of work that failed; Textual does not let this message bubble."""
        if event.state is WorkerState.ERROR:
            self.app.post_message(event)


async def _call_unless_leaving(callback: Callable[..., Any], sender: MessagePump) -> None:
    if not is_leaving(sender):
        await invoke(callback)
