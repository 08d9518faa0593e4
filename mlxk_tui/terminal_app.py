"""A Textual app that handles signals, keys typed ahead, a closed terminal and unexpected exceptions.

It works around Textual 8.2.8 and knows nothing of models or panes.
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

_TERMINAL_CHECK_S = 2.0
"""Seconds between two checks whether the terminal was closed."""
_MISSING_WIDGET = (NoMatches, MountError, NoScreen, ScreenError, SignalError)
"""Exceptions of Textual for a widget that is not, or no longer, in the tree."""


class TerminalApp(App[None]):
    """An app that exits cleanly on a signal, and reports a crash in one sentence."""

    def __init__(self, *, css_path: CSSPathType | None = None) -> None:
        super().__init__(css_path=css_path)
        self._handlers: dict[signal.Signals, Any] = {}

    def on_mount(self) -> None:
        self.set_interval(_TERMINAL_CHECK_S, self._check_terminal)
        self._install_signal_handlers()

    async def on_unmount(self) -> None:
        """Restore the signal handlers, after a subclass has closed its services."""
        for number, before in self._handlers.items():
            signal.signal(number, before)
        self._handlers.clear()

    def get_driver_class(self) -> type[Driver]:
        """Return the driver; for a terminal, the one that detects that it was closed."""
        found = super().get_driver_class()
        if found.__name__ != "LinuxDriver":  # a browser's, or none
            return found
        from mlxk_tui.terminal import TerminalDriver

        return TerminalDriver

    def _install_signal_handlers(self) -> None:
        """Make a signal exit like `q`, without a question: terminal restored, services closed."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if (before := signal.getsignal(number)) is not signal.SIG_IGN:  # nohup
                self._handlers[number] = before
                signal.signal(number, self._exit_on_signal)

    def _exit_on_signal(self, number: int, frame: FrameType | None) -> None:
        """Exit; the event loop may be blocked on a terminal that does not read."""
        del frame
        if leave := getattr(self._driver, "leave", None):
            leave()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.exit, None, 128 + number)

    def _check_terminal(self) -> None:
        """Exit when the terminal was closed without a signal: Textual would read its end of file for ever."""
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
        """Show a notification; an equal one is replaced, so that equal ones do not stack."""
        for old in list(self._notifications):
            if (old.message, old.title, old.severity) == (message, title, severity):
                self._unnotify(old, refresh=False)
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=markup)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Report an unexpected failure of a worker; the app continues."""
        if event.state is WorkerState.ERROR:
            text = fault_text(event.worker.name or "A task", event.worker.error)
            self.notify(text, severity="error", timeout=20, markup=False)

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Run an action, unless the app is exiting: keys typed after `q` do nothing."""
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
        """Return whether an action belongs to a screen that is not fully mounted.

        A key that was typed for the screen below may arrive there, and the footer may be mounted before the
        list that decides which keys are enabled.
        """
        target, _, _ = self._parse_action(action, default_namespace, namespaces)
        return isinstance(target, Screen) and not target.is_mounted

    def _handle_exception(self, error: Exception) -> None:
        """Ignore missing widgets in workers, in dismissed screens, and while the app exits.

        Textual's own palette has such a worker (8.2.8), whose failure would end the app. While an app exits,
        a screen is mounted without its children.
        """
        if isinstance(error, WorkerFailed) and isinstance(error.error, NoMatches):
            return
        if isinstance(error, _MISSING_WIDGET):
            if self._exit or not self._running:
                return
            node = active_message_pump.get(None)  # the node whose message was handled
            if isinstance(node, DOMNode) and (node._closing or node._pruning or not node.is_attached):
                return
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Exit with one sentence instead of a traceback with the values of all variables.

        Textual (8.2.8) calls it after an exception has ended a message loop.
        """
        from rich.text import Text

        from mlxk_tui import crash

        self._exit_renderables.append(Text(crash.report(self._exception), no_wrap=True, overflow="ignore"))
        self._close_messages_no_wait()

    def copy_to_clipboard(self, text: str) -> None:
        """Copy to the clipboard of the machine that the user sits at."""
        super().copy_to_clipboard(text.encode("utf-8", "replace").decode())
        if self._driver is not None and os.environ.get("TMUX"):
            self._driver.write(clipboard.tmux_sequence(text))
        if self.is_headless or self.is_web or clipboard.is_remote(os.environ):
            return
        self.run_worker(
            lambda: clipboard.copy_locally(text), group="clipboard", thread=True, exit_on_error=False
        )
