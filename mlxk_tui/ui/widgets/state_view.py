"""The centered message in place of a list: empty, loading, or an error."""

from __future__ import annotations

from collections.abc import Sequence

from textual.widgets import Static

from mlxk_tui.ui.widgets.text import Part, lines


class StateView(Static):
    """A title, a few sentences, and the keys for the next step."""

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
        """Show a message; `keys` are (key, description) pairs, `command` is a shell command."""
        rows: list[list[Part]] = [[(glyph, style)], [(title, "$strong bold")], []]
        rows += [[(text, "$muted")] for text in sentences]
        if command:
            rows += [[], [(command, "$accent")]]
        if keys:
            parts: list[Part] = []
            for key, description in keys:
                parts += [(f"{key} ", "$accent bold"), (f"{description}   ", "$muted")]
            parts[-1] = (parts[-1][0].rstrip(), parts[-1][1])
            rows += [[], parts]
        self.update(lines(rows))
