"""The footer: the keys that work now, and on the right how to find everything else."""

from __future__ import annotations

from textual.widgets import Footer

_ROOM_FOR_PALETTE = 76
"""Below this many cells the palette's key would lie over the others."""


class KeyLine(Footer):
    """Textual's compact footer, which leaves the palette's key out where there is no room for it."""

    def __init__(self) -> None:
        super().__init__(compact=True)

    def on_resize(self) -> None:
        """Show the palette's key where it fits."""
        self.show_command_palette = self.size.width >= _ROOM_FOR_PALETTE
