"""The big quiet message that stands where a list would be: nothing there, loading, or an error."""

from __future__ import annotations

from collections.abc import Sequence

from textual.widgets import Static

from mlxk_tui.ui.widgets.text import Part, lines


class StateView(Static):
    """A title, a few sentences, and the keys that help."""

    def show(
        self,
        glyph: str,
        title: str,
        sentences: Sequence[str],
        *,
        style: str = "$muted",
        command: str = "",
        keys: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Show a message; `keys` are (key, what it does), `command` is for a shell."""
        rows: list[list[Part]] = [[(glyph, style)], [(title, "$strong bold")], []]
        rows += [[(text, "$muted")] for text in sentences]
        if command:
            rows += [[], [(command, "$accent")]]
        if keys:
            parts: list[Part] = []
            for key, does in keys:
                parts += [(f"{key} ", "$accent bold"), (f"{does}   ", "$muted")]
            parts[-1] = (parts[-1][0].rstrip(), parts[-1][1])
            rows += [[], parts]
        self.update(lines(rows))
