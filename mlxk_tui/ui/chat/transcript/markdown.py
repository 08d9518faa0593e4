"""Renders pieces of an answer as terminal lines: Markdown and highlighted code.

The text of a model is untrusted: it is never Textual markup, HTML is shown as text, links are not clickable,
and control characters are escaped before parsing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from pygments.token import (  # type: ignore[import-untyped]  # it ships no types
    Comment,
    Error,
    Generic,
    Keyword,
    Literal,
    Name,
    Number,
    Operator,
    String,
    Token,
)
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Heading, Markdown
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme
from textual.strip import Strip

from mlxk_tui.ops.core.text import printable
from mlxk_tui.ui.chat.transcript.markdown_pieces import MarkdownPiece

TOKENS = ("strong", "muted", "faint", "accent", "good", "attention", "bad")
"""The theme tokens of the colors that are used."""
_PARSER = MarkdownIt().enable("strikethrough").enable("table").disable(["html_block", "html_inline"])
_LANGUAGE = re.compile(r"[^\w+#.-]")


def safe(text: str) -> str:
    """Return untrusted text with newlines as line ends, tabs as spaces, and control characters escaped."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return printable(text.expandtabs(4) if "\t" in text else text, keep_newlines=True)


class _PlainHeading(Heading):
    """A bold, left-aligned heading; Rich's own are centered or boxed, depending on its version."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        self.text.justify = "left"
        yield self.text


class _Markdown(Markdown):
    elements = {**Markdown.elements, "heading_open": _PlainHeading}

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False, code_theme="ansi_dark", inline_code_theme="ansi_dark")
        self.parsed = _PARSER.parse(text)


@dataclass(frozen=True)
class TranscriptStyles:
    """The styles of a theme; foreground only, except for `code`."""

    styles: dict[str, Style]
    """A style for each of TOKENS."""
    code: Style
    """The background of code."""

    def __getitem__(self, token: str) -> Style:
        return self.styles[token] if token else Style.null()

    def markdown_theme(self) -> Theme:
        """Return the theme for Rich's Markdown."""
        muted, accent = self["muted"], self["accent"]
        heading = self["strong"] + Style(bold=True)
        return Theme(
            {
                **{f"markdown.h{level}": heading for level in range(1, 8)},
                "markdown.h1": heading + Style(underline=True),
                "markdown.block_quote": muted,
                "markdown.code": accent,
                "markdown.code_block": accent,
                "markdown.hr": muted,
                "markdown.item.bullet": accent,
                "markdown.item.number": accent,
                "markdown.link": accent,
                "markdown.link_url": muted,
                "markdown.strong": Style(bold=True),
                "markdown.em": Style(italic=True),
                "markdown.table.border": self["faint"],
                "markdown.table.header": heading,
            }
        )

    def syntax_theme(self) -> ANSISyntaxTheme:
        """Return the theme for code, in four colors of the app's theme."""
        quiet = self["muted"] + Style(italic=True)
        return ANSISyntaxTheme(
            {
                Token: Style.null(),
                Comment: quiet,
                Keyword: self["accent"],
                Operator.Word: self["accent"],
                Name.Builtin: self["accent"],
                Name.Function: self["strong"] + Style(bold=True),
                Name.Class: self["strong"] + Style(bold=True),
                Name.Decorator: self["attention"],
                Name.Tag: self["accent"],
                Name.Attribute: self["attention"],
                String: self["good"],
                Literal: self["good"],
                Number: self["attention"],
                Generic.Deleted: self["bad"],
                Generic.Inserted: self["good"],
                Generic.Heading: self["strong"],
                Error: Style.null(),
            }
        )


class MarkdownRenderer:
    """Renders pieces in one theme.

    Args:
        console: renders, nothing is written to it.
        styles: the styles of the theme.
    """

    def __init__(self, console: Console, styles: TranscriptStyles) -> None:
        self.styles = styles
        self._console = console
        self._markdown_theme = styles.markdown_theme()
        self._syntax_theme = styles.syntax_theme()

    def piece(self, piece: MarkdownPiece, width: int, *, meta: tuple[object, ...] = ()) -> list[Strip]:
        """Return the lines of a piece, including the blank line before it.

        Args:
            piece: a piece of `safe` text.
            width: cells.
            meta: the link of a code block's `copy`.
        """
        lines = self._code(piece, width, meta) if piece.code else self._prose(piece.text, width)
        return [Strip.blank(0), *lines] if piece.gap and lines else lines

    def _prose(self, text: str, width: int) -> list[Strip]:
        with self._console.use_theme(self._markdown_theme):
            return _trimmed(self._render(_Markdown(text), width))

    def plain(self, text: str, width: int, style: Style | None = None) -> list[Strip]:
        """Return unformatted text, wrapped at words."""
        return [
            strip for line in text.split("\n") for strip in self._render(Text(line, style or ""), width)
        ] or [Strip.blank(0)]

    def _render(self, renderable: RenderableType, width: int) -> list[Strip]:
        options = self._console.options.update(width=max(1, width), height=None)
        lines = self._console.render_lines(renderable, options, pad=False, new_lines=False)
        return [Strip(Segment.simplify(line)) for line in lines]

    def _code(self, piece: MarkdownPiece, width: int, meta: tuple[object, ...]) -> list[Strip]:
        background, muted = self.styles.code, self.styles["muted"]
        inner = max(8, width - 3)
        syntax = Syntax(
            piece.text, piece.language or "text", theme=self._syntax_theme, word_wrap=True, tab_size=4
        )
        rows: list[Strip] = []
        if piece.first:
            label = _LANGUAGE.sub("", piece.language)[: inner - 6] or "text"
            copy = Style(meta={"chat": meta}) if meta else Style.null()
            gap = " " * max(1, inner - len(label) - 4)
            rows.append(
                Strip([Segment(label, muted), Segment(gap), Segment("copy", self.styles["faint"] + copy)])
            )
        rows += list(self._render(syntax, inner)) if piece.text else []
        edge = Segment("│ ", self.styles["faint"])
        return [
            Strip([edge, *row.crop(0, inner)]).extend_cell_length(width - 1).apply_style(background)
            for row in rows
        ]


def _trimmed(lines: Sequence[Strip]) -> list[Strip]:
    """Return lines without the blank ones at the start and the end."""
    trimmed = list(lines)
    while trimmed and not trimmed[-1].text.strip():
        trimmed.pop()
    first = next((number for number, line in enumerate(trimmed) if line.text.strip()), len(trimmed))
    return trimmed[first:]
