"""What the chat's helpers may ask of the screen they work for: workers, dialogs, notices, the clipboard."""

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
    """A screen, as the helpers know it: any screen of Textual's will do.

    Args:
        screen: owns the workers and the timers, and shows what is notified.
    """

    def __init__(self, screen: Screen[Any]) -> None:
        self._screen = screen

    def start(self, group: str, job: Callable[[], Coroutine[Any, Any, None]], *, alone: bool = False) -> None:
        """Run a job in a worker; `alone` ends the one before it, even before its first step."""
        # Textual's type of a worker's job (8.2.8) fits no coroutine function that returns None.
        todo = cast("Callable[[], None]", job)
        self._screen.run_worker(todo, group=f"chat-{group}", exclusive=alone, exit_on_error=False)

    def every(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Return a paused timer."""
        return self._screen.set_interval(seconds, callback, pause=True)

    def ask(self, dialog: Coroutine[Any, Any, None]) -> None:
        """Run what asks something, unless a dialog is open already."""
        model_actions.ask(self._screen, dialog)

    async def answer_to(self, dialog: Screen[_Result]) -> _Result:
        """Open a dialog and return its result; only inside of what `ask` runs."""
        return await self._screen.app.push_screen_wait(dialog)

    def notify(
        self,
        text: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
    ) -> None:
        """Show a notice; the text is never markup."""
        self._screen.notify(text, title=title, severity=severity, timeout=timeout, markup=False)

    def tell_error(self, error: OpError) -> None:
        """Show an error as a sentence."""
        model_actions.tell_error(self._screen, error)

    def copy(self, text: str) -> None:
        """Put a text on the clipboard."""
        self._screen.app.copy_to_clipboard(text)
