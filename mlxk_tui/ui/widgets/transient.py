"""Screens that are pushed over a pane and left again."""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.screen import ScreenResultType

from mlxk_tui.ui.widgets.base_screen import BaseScreen


class Transient(BaseScreen[ScreenResultType]):
    """A screen that can be left once, and only while it is on top.

    Textual's `dismiss` pops whatever screen is on top, so that two quick presses of enter would take
    the pane below along.
    """

    _left = False

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Leave, unless that has happened or another screen lies over this one."""
        if self._left or self.app.screen is not self:
            return AwaitComplete()
        self._left = True
        return super().dismiss(result)
