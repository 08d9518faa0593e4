"""A model card as Markdown in one widget: static, with links as text, in the theme's colors."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown
from rich.style import Style
from rich.theme import Theme


class Card:
    """Renders Markdown in the theme's colors instead of Rich's.

    Args:
        text: Markdown without control characters.
        colors: the theme's variables.
    """

    def __init__(self, text: str, colors: Mapping[str, str]) -> None:
        self._markdown = Markdown(
            text, hyperlinks=False, code_theme="ansi_dark", inline_code_theme="ansi_dark"
        )
        accent, muted = _style(colors, "accent"), _style(colors, "muted")
        heading = Style(bold=True)
        self._theme = Theme(
            {
                **{f"markdown.h{level}": heading for level in range(1, 8)},
                "markdown.h1.border": muted,
                "markdown.block_quote": muted,
                "markdown.code": accent,
                "markdown.code_block": accent,
                "markdown.hr": muted,
                "markdown.item.bullet": muted,
                "markdown.item.number": muted,
                "markdown.link": accent,
                "markdown.link_url": muted,
                "markdown.table.border": muted,
                "markdown.table.header": heading,
            }
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with console.use_theme(self._theme):
            segments = list(console.render(self._markdown, options))
        yield from segments


def _style(colors: Mapping[str, str], name: str) -> Style:
    value = colors.get(name, "")
    return Style(color=value) if value.startswith("#") else Style(color=value.removeprefix("ansi_") or None)
