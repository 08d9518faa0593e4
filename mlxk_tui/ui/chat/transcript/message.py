"""One message of a chat as lines for the terminal, drawn piece by piece and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from mlxk_tui.chats.model import Message, MessageState, Role
from mlxk_tui.ops.core.text import plural, printable, spaced_size
from mlxk_tui.services.conversation.answer import AnswerProgress
from mlxk_tui.ui.chat.transcript.markdown import Drawer, safe
from mlxk_tui.ui.chat.transcript.markdown_pieces import Splitter
from mlxk_tui.ui.widgets.text import Part, cut

_INDENT = 2
"""Cells that text stands to the right of its heading."""
_MOST_REASONING = 20_000
"""Characters of reasoning that are shown unfolded; the export has all."""
_MOST_PLAIN = 60_000
"""Characters of a question that are shown."""


class MessageBlock:
    """A message and its lines.

    Args:
        message: the message.
        live: how far it is, where this program is writing it now.
    """

    def __init__(self, message: Message, live: AnswerProgress | None = None) -> None:
        self.message = message
        self.live = live
        self.unfolded = False
        """Whether the reasoning is shown."""
        self._splitter = Splitter()
        self._reasoning: list[str] = []
        self._drawer: Drawer | None = None
        self._width = 0
        self._drawn: list[Strip] = []
        """Lines of the pieces that do not change any more."""
        self._drawn_pieces = 0
        self._lines: list[Strip] | None = None
        self._fed = ""
        self._hold = ""
        if message.role is Role.ASSISTANT:
            self.feed(message.content, message.reasoning)

    @property
    def key(self) -> int:
        """The message's id."""
        return self.message.id

    @property
    def has_reasoning(self) -> bool:
        """Whether there is something to unfold."""
        return any(part.strip() for part in self._reasoning)

    def feed(self, content: str, reasoning: str = "") -> None:
        """Add text to the answer."""
        if content:
            content = self._hold + content
            self._hold = "\r" if content.endswith("\r") else ""
            if self._hold:
                content = content[:-1]
            self._splitter.feed(safe(content))
        if reasoning:
            self._reasoning.append(reasoning)
        self._lines = None

    def settle(self, message: Message) -> None:
        """Take the stored message once its text is complete."""
        self.message, self.live = message, None
        self._lines = None

    def touch(self) -> None:
        """Draw it again."""
        self._lines = None

    def lines(self, drawer: Drawer, width: int) -> list[Strip]:
        """Return the lines at a width; those that did not change are not drawn again."""
        if drawer is not self._drawer or width != self._width:
            self._drawer, self._width = drawer, width
            self._drawn, self._drawn_pieces, self._lines = [], 0, None
        if self._lines is None:
            self._lines = self._draw(drawer, width)
        return self._lines

    # -- drawing -----------------------------------------------------------------------------------

    def _draw(self, drawer: Drawer, width: int) -> list[Strip]:
        inner = max(10, width - _INDENT)
        rows = [_line(drawer, self._head(width))]
        rows += [self._chip(drawer, inner, item.name, item.text) for item in self.message.attachments]
        if self.message.role is Role.ASSISTANT:
            rows += self._thought(drawer, inner)
            rows += self._body(drawer, inner)
            rows += _indented(self._calls(drawer, inner))
            rows += _indented(self._state(drawer, inner))
        else:
            text = safe(self.message.content[:_MOST_PLAIN])
            more = len(self.message.content) - _MOST_PLAIN
            rows += _indented(drawer.plain(text, inner))
            if more > 0:
                rows += _indented(
                    [_line(drawer, [(f"… {more:,} more characters, all of them sent", "muted")])]
                )
        return [*rows, Strip.blank(0)]

    def _head(self, width: int) -> list[Part | tuple[str, str, tuple[object, ...]]]:
        message = self.message
        if message.role is Role.USER:
            name, token = "You", "accent bold"
        elif message.role is Role.ASSISTANT:
            name, token = printable((message.model or "Assistant").rpartition("/")[2]), "strong bold"
        else:
            name, token = message.role.value.title(), "muted bold"
        parts: list[Part | tuple[str, str, tuple[object, ...]]] = []
        right: list[Part | tuple[str, str, tuple[object, ...]]] = []
        if message.siblings > 1:
            right = [
                ("‹ ", "accent", ("branch", message.id, -1)),
                (f"{message.sibling}/{message.siblings}", "muted"),
                (" ›", "accent", ("branch", message.id, 1)),
            ]
        room = width - sum(cell_len(part[0]) for part in right) - 2
        parts.append((cut(name, max(4, room)), token))
        if right:
            parts += [("  ", ""), *right]
        left = width - sum(cell_len(part[0]) for part in parts) - 2
        stats = stats_of(message) if self.live is None else []
        while stats and cell_len(" · ".join(stats)) > left:
            stats.pop()
        if stats:
            shown = " · ".join(stats)
            parts.append((" " * (left + 2 - cell_len(shown)) + shown, "faint"))
        return parts

    def _chip(self, drawer: Drawer, inner: int, name: str, text: str) -> Strip:
        size = spaced_size(len(text.encode("utf-8", "replace")))
        shown = cut(printable(name), max(8, inner - len(size) - 6))
        return _line(drawer, [(" " * _INDENT, ""), ("+ ", "accent"), (shown, ""), (f"  {size}", "muted")])

    def _thought(self, drawer: Drawer, inner: int) -> list[Strip]:
        live = self.live
        if not self.has_reasoning and not (live and live.thinking):
            return []
        said = []
        if live is not None:
            seconds, tokens = live.reasoning_s, live.reasoning_tokens
        else:
            seconds = _number(self.message.timings, "reasoning_s")
            tokens = int(_number(self.message.usage, "reasoning_tokens"))
        verb = "thinking" if live is not None and live.thinking else "thought"
        said = [f"{verb} for {seconds_text(seconds)}" if seconds else verb]
        said += [plural(tokens, "token")] if tokens else []
        mark = "▾" if self.unfolded else "▸"
        fold = ("fold", self.message.id)
        rows = [
            _line(
                drawer, [(" " * _INDENT, ""), (f"{mark} ", "accent", fold), (" · ".join(said), "muted", fold)]
            )
        ]
        if self.unfolded:
            text = "".join(self._reasoning)
            cut_off = len(text) > _MOST_REASONING
            text = safe(text[-_MOST_REASONING:] if live is not None else text[:_MOST_REASONING]).strip()
            bar = Segment("  │ ", drawer.ink["faint"])
            thoughts = drawer.plain(text, inner - 2, drawer.ink["muted"])
            if cut_off:
                thoughts += drawer.plain("… more; the export has all of it", inner - 2, drawer.ink["faint"])
            rows += [Strip([bar, *strip]) for strip in thoughts]
        if self._splitter.pieces() if live is None else self._splitter.done or self._splitter.rest():
            rows.append(Strip.blank(0))
        return rows

    def _body(self, drawer: Drawer, inner: int) -> list[Strip]:
        done = self._splitter.done
        for piece in done[self._drawn_pieces :]:
            meta = ("copy", self.message.id, piece.block)
            self._drawn += _indented(drawer.piece(piece, inner, meta=meta))
        self._drawn_pieces = len(done)
        rest = self._splitter.rest()
        if rest is None:
            return self._drawn
        meta = ("copy", self.message.id, rest.block)
        return self._drawn + _indented(drawer.piece(rest, inner, meta=meta))

    def _calls(self, drawer: Drawer, inner: int) -> list[Strip]:
        rows: list[Strip] = []
        for call in self.message.tool_calls:
            function = call.get("function", call)
            if isinstance(function, Mapping):
                text = f"→ {function.get('name', '')} {function.get('arguments', '')}"
                rows += drawer.plain(printable(text[:2_000]), inner, drawer.ink["attention"])
        return rows

    def _state(self, drawer: Drawer, inner: int) -> list[Strip]:
        message, live = self.message, self.live
        if live is not None:
            if live.thinking or not live.activity:
                speed = f" · {live.tokens_per_s:,.0f} tok/s" if live.tokens_per_s else ""
                shown = f"{plural(live.tokens, 'token')}{speed}" if live.tokens else ""
            else:
                shown = live.activity
            stop: list[Part] = [("   esc", "accent"), (" stop", "muted")]
            return [_line(drawer, [("● ", "accent"), (shown, "muted"), *stop])]
        rows: list[Strip] = []
        if message.state is MessageState.FAILED:
            text = " ".join((message.error or "It failed for an unknown reason.").split())
            rows += drawer.plain(f"✗ {printable(text)}", inner, drawer.ink["bad"])
            rows.append(_line(drawer, [("r", "accent bold", ("retry", message.id)), (" try again", "muted")]))
        if message.state is MessageState.STOPPED:
            rows.append(_line(drawer, [("■ ", "attention"), ("stopped", "muted")]))
        elif message.state is MessageState.STREAMING:
            rows.append(_line(drawer, [("● ", "accent"), ("being written by another window", "muted")]))
        elif message.finish_reason == "length":
            rows.append(_line(drawer, [("▲ ", "attention"), ("cut at the limit of tokens", "muted")]))
        return rows


def stats_of(message: Message) -> list[str]:
    """Return what is known of how an answer was made: tokens, speed, time to the first token."""
    said = []
    if tokens := int(_number(message.usage, "completion_tokens")):
        said.append(plural(tokens, "token"))
    if speed := _number(message.timings, "generation_tps"):
        said.append(f"{speed:,.0f} tok/s" if speed >= 10 else f"{speed:.1f} tok/s")
    first, load = (_number(message.timings, name) for name in ("time_to_first_token_s", "load_s"))
    if first:
        said.append(f"first token {seconds_text(max(first - load, 0.001))}")
    if load >= 0.5:
        said.append(f"loaded in {seconds_text(load)}")
    return said


def seconds_text(seconds: float) -> str:
    """Return a duration for people: `0.31 s`, `3.2 s`, `2 min 5 s`."""
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _number(values: Mapping[str, Any], name: str) -> float:
    """Return a number of a stored mapping, or 0: it was read from a file that anybody can edit."""
    value = values.get(name)
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e12 else 0.0


def _line(drawer: Drawer, parts: Sequence[Part | tuple[str, str, tuple[object, ...]]]) -> Strip:
    segments = []
    for text, token, *meta in parts:
        name, _, weight = token.partition(" ")
        style = drawer.ink[name] + Style(bold=bool(weight) or None)
        segments.append(Segment(text, style + Style(meta={"chat": meta[0]}) if meta else style))
    return Strip(segments)


def _indented(strips: Sequence[Strip]) -> list[Strip]:
    space = Segment(" " * _INDENT)
    return [Strip([space, *strip]) for strip in strips]
