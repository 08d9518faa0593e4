"""What the chat's helpers use of their screen: workers, dialogs, notifications, the clipboard."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.timer import Timer

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ui.inspector import model_actions

_Result = TypeVar("_Result")


class ScreenHost:
    """The screen of the chat's helpers; any Textual screen works.

    Args:
        screen: owns the workers and timers, and shows the notifications.
    """

    def __init__(self, screen: Screen[Any]) -> None:
        self._screen = screen

    def start(
        self, group: str, job: Callable[[], Coroutine[Any, Any, None]], *, exclusive: bool = False
    ) -> None:
        """Run a job in a worker; `exclusive` cancels the workers of its group."""
        # Textual's type of a worker's function (8.2.8) does not accept coroutine functions that return None.
        work = cast("Callable[[], None]", job)
        self._screen.run_worker(work, group=f"chat-{group}", exclusive=exclusive, exit_on_error=False)

    def paused_timer(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Return a repeating timer that is paused."""
        return self._screen.set_interval(seconds, callback, pause=True)

    def run_dialog(self, dialog: Coroutine[Any, Any, None]) -> None:
        """Run an action that shows dialogs, unless another one is running."""
        model_actions.run_dialog(self._screen, dialog)

    async def show_dialog(self, dialog: Screen[_Result]) -> _Result:
        """Open a dialog and return its result; only within `run_dialog`."""
        return await self._screen.app.push_screen_wait(dialog)

    def notify(
        self,
        text: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
    ) -> None:
        """Show a notification; the text is never markup."""
        self._screen.notify(text, title=title, severity=severity, timeout=timeout, markup=False)

    def notify_error(self, error: OpError) -> None:
        """Show an error as a notification."""
        model_actions.notify_error(self._screen, error)

    def copy(self, text: str) -> None:
        self._screen.app.copy_to_clipboard(text)
