"""A Textual app that copes with its terminal: signals, keys typed ahead, a terminal that is gone, faults.

What it works around is Textual's of 8.2.8; it knows nothing of models or panes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

from textual._context import active_message_pump
from textual.actions import ActionParseResult
from textual.app import App, ScreenError
from textual.css.query import NoMatches
from textual.dom import DOMNode, NoScreen
from textual.driver import Driver
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.signal import SignalError
from textual.types import CSSPathType
from textual.widget import MountError
from textual.worker import Worker, WorkerFailed, WorkerState

from mlxk_tui.ui.shell import clipboard
from mlxk_tui.ui.widgets.error_text import fault_text

_LOOK_S = 2.0
"""Seconds between two looks whether the terminal is still there."""
_NOT_THERE = (NoMatches, MountError, NoScreen, ScreenError, SignalError)
"""What Textual raises where a widget is not, or no longer, in the tree."""


class TerminalApp(App[None]):
    """An app that leaves by a signal as by a key, and says in one sentence what went wrong with it."""

    def __init__(self, *, css_path: CSSPathType | None = None) -> None:
        super().__init__(css_path=css_path)
        self._handlers: dict[signal.Signals, Any] = {}

    def on_mount(self) -> None:
        """Begin to heed signals, and to look after the terminal."""
        self.set_interval(_LOOK_S, self._look_at_terminal)
        self._heed_signals()

    async def on_unmount(self) -> None:
        """Give the signals back, once a subclass has closed what it has open."""
        for number, before in self._handlers.items():
            signal.signal(number, before)
        self._handlers.clear()

    def get_driver_class(self) -> type[Driver]:
        """Return the driver: for a terminal, the one that knows when that is gone."""
        found = super().get_driver_class()
        if found.__name__ != "LinuxDriver":  # a browser's, or none
            return found
        from mlxk_tui.terminal import TerminalDriver

        return TerminalDriver

    def _heed_signals(self) -> None:
        """Let a signal leave as `q` does, with nothing asked: the terminal is restored, everything closed."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if (before := signal.getsignal(number)) is not signal.SIG_IGN:  # nohup
                self._handlers[number] = before
                signal.signal(number, self._leave_by_signal)

    def _leave_by_signal(self, number: int, frame: FrameType | None) -> None:
        """Leave; the loop may be waiting for a terminal that does not read."""
        del frame
        if leave := getattr(self._driver, "leave", None):
            leave()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.exit, None, 128 + number)

    def _look_at_terminal(self) -> None:
        """Leave when the terminal was closed and no signal said so: Textual would read its end for ever."""
        if getattr(self._driver, "is_gone", False) and not self._exit:
            self.exit(return_code=128 + signal.SIGHUP)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a toast; one that says the same goes, so that equal ones do not stack."""
        for old in list(self._notifications):
            if (old.message, old.title, old.severity) == (message, title, severity):
                self._unnotify(old, refresh=False)
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=markup)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say so when something failed that nobody expected; the app goes on."""
        if event.state is WorkerState.ERROR:
            text = fault_text(event.worker.name or "A task", event.worker.error)
            self.notify(text, severity="error", timeout=20, markup=False)

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Do what a key says, unless the app is leaving: what was typed behind `q` opens nothing."""
        if self._exit or self._lacks_widgets(action, default_namespace or self, namespaces):
            return False
        return await super().run_action(action, default_namespace, namespaces)

    def _check_action_state(self, action: str, default_namespace: DOMNode) -> bool | None:
        if self._lacks_widgets(action, default_namespace):
            return False
        return super()._check_action_state(action, default_namespace)

    def _lacks_widgets(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Tell whether an action is one of a screen that has not all its widgets yet.

        A key that was typed for the screen below may come there, and the footer may be there before the list
        that says which keys work.
        """
        target, _, _ = self._parse_action(action, default_namespace, namespaces)
        return isinstance(target, Screen) and not target.is_mounted

    def _handle_exception(self, error: Exception) -> None:
        """Let a worker, a screen that was left or one that mounts while the app leaves be late.

        Textual's own palette has such a worker (8.2.8), and its failure would end the app. While an app
        leaves, a screen is mounted without its children.
        """
        if isinstance(error, WorkerFailed) and isinstance(error.error, NoMatches):
            return
        if isinstance(error, _NOT_THERE):
            if self._exit or not self._running:
                return
            node = active_message_pump.get(None)  # whose message it was
            if isinstance(node, DOMNode) and (node._closing or node._pruning or not node.is_attached):
                return
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Leave with one sentence instead of a traceback with the values of all variables.

        The hook is Textual's own (8.2.8), called once an exception has ended a message loop.
        """
        from rich.text import Text

        from mlxk_tui import crash

        self._exit_renderables.append(Text(crash.report(self._exception), no_wrap=True, overflow="ignore"))
        self._close_messages_no_wait()

    def copy_to_clipboard(self, text: str) -> None:
        """Put text on the clipboard of the machine that the user sits at."""
        super().copy_to_clipboard(text.encode("utf-8", "replace").decode())
        if self._driver is not None and os.environ.get("TMUX"):
            self._driver.write(clipboard.tmux_sequence(text))
        if self.is_headless or self.is_web or clipboard.is_remote(os.environ):
            return
        self.run_worker(
            lambda: clipboard.copy_locally(text), group="clipboard", thread=True, exit_on_error=False
        )
