"""The footer: the keys that work now, and on the right how to find everything else."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen
from textual.widgets import Footer

_ROOM_FOR_PALETTE = 76
"""Below this many cells the palette's key would lie over the others."""


class KeyLine(Footer):
    """Textual's compact footer, which leaves the palette's key out where there is no room for it.

    Textual makes its keys anew whenever the focus moves; here that is done when what they say changes.
    """

    def __init__(self) -> None:
        super().__init__(compact=True)
        self._says: list[object] | None = None

    def on_resize(self) -> None:
        """Show the palette's key where it fits."""
        self.show_command_palette = self.size.width >= _ROOM_FOR_PALETTE
        if self._bindings_ready:
            self.bindings_changed(self.screen)

    def bindings_changed(self, screen: Screen[Any]) -> None:
        """Make the keys anew when they have changed."""
        says: list[object] = [self.show_command_palette]
        for key, (_, binding, enabled, tooltip) in screen.active_bindings.items():
            if binding.show or key == self.app.COMMAND_PALETTE_BINDING:
                says.append((binding, enabled, tooltip))
        if says == self._says:
            return
        super().bindings_changed(screen)
        if screen.app.app_focus and self.is_attached and screen is self.screen:  # else nothing was made
            self._says = says
