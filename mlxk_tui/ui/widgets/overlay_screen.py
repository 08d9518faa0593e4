"""Screens that are pushed over a pane."""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.screen import ScreenResultType

from mlxk_tui.ui.widgets.base_screen import BaseScreen


class OverlayScreen(BaseScreen[ScreenResultType]):
    """A screen that can be dismissed once, and only while it is on top.

    Textual's `dismiss` pops whatever screen is on top: a second quick press of enter would pop the pane
    below.
    """

    _dismissed = False

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Dismiss the screen, unless it was dismissed already or another screen is on top of it."""
        if self._dismissed or self.app.screen is not self:
            return AwaitComplete()
        self._dismissed = True
        return super().dismiss(result)
