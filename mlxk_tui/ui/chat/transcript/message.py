"""One message of a chat as cached terminal lines, rendered piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from mlxk_tui.chats.model import Message, MessageState, Role
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.services.conversation.answer import AnswerProgress
from mlxk_tui.ui.chat.transcript.markdown import MarkdownRenderer, safe
from mlxk_tui.ui.chat.transcript.markdown_pieces import MarkdownSplitter
from mlxk_tui.ui.widgets.text import Part, cut

_INDENT = 2
"""Indentation of the text below its heading, in cells."""
_MAX_REASONING = 20_000
"""Characters of unfolded reasoning; the export has all of it."""
_MAX_PLAIN = 60_000
"""Characters of a user message that are shown."""


class MessageBlock:
    """A message and its lines.

    Args:
        message: the message.
        live: the progress of an answer that this program is generating.
    """

    def __init__(self, message: Message, live: AnswerProgress | None = None) -> None:
        self.message = message
        self.live = live
        self.unfolded = False
        """Whether the reasoning is shown."""
        self._splitter = MarkdownSplitter()
        self._reasoning: list[str] = []
        self._renderer: MarkdownRenderer | None = None
        self._width = 0
        self._rendered: list[Strip] = []
        """Lines of the pieces that do not change any more."""
        self._rendered_pieces = 0
        self._lines: list[Strip] | None = None
        self._pending_cr = ""
        """A carriage return at the end of the text, whose newline may follow."""
        if message.role is Role.ASSISTANT:
            self.feed(message.content, message.reasoning)

    @property
    def key(self) -> int:
        """Id of the message."""
        return self.message.id

    @property
    def has_reasoning(self) -> bool:
        """Whether there is reasoning to unfold."""
        return any(part.strip() for part in self._reasoning)

    def feed(self, content: str, reasoning: str = "") -> None:
        """Add text to the answer."""
        if content:
            content = self._pending_cr + content
            self._pending_cr = "\r" if content.endswith("\r") else ""
            if self._pending_cr:
                content = content[:-1]
            self._splitter.feed(safe(content))
        if reasoning:
            self._reasoning.append(reasoning)
        self._lines = None

    def finish(self, message: Message) -> None:
        """Replace the message by the stored one, once its text is complete."""
        self.message, self.live = message, None
        self._lines = None

    def invalidate(self) -> None:
        """Render the lines again."""
        self._lines = None

    def lines(self, renderer: MarkdownRenderer, width: int) -> list[Strip]:
        """Return the lines at a width; unchanged ones come from the cache."""
        if renderer is not self._renderer or width != self._width:
            self._renderer, self._width = renderer, width
            self._rendered, self._rendered_pieces, self._lines = [], 0, None
        if self._lines is None:
            self._lines = self._render(renderer, width)
        return self._lines

    # -- rendering ---------------------------------------------------------------------------------

    def _render(self, renderer: MarkdownRenderer, width: int) -> list[Strip]:
        inner = max(10, width - _INDENT)
        rows = [_line(renderer, self._head(width))]
        rows += [self._chip(renderer, inner, item.name, item.text) for item in self.message.attachments]
        if self.message.role is Role.ASSISTANT:
            rows += self._reasoning_lines(renderer, inner)
            rows += self._body(renderer, inner)
            rows += _indented(self._tool_call_lines(renderer, inner))
            rows += _indented(self._state_lines(renderer, inner))
        else:
            text = safe(self.message.content[:_MAX_PLAIN])
            more = len(self.message.content) - _MAX_PLAIN
            rows += _indented(renderer.plain(text, inner))
            if more > 0:
                rows += _indented([_line(renderer, [(f"… {more:,} more characters (all sent)", "muted")])])
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
        stats = answer_stats(message) if self.live is None else []
        while stats and cell_len(" · ".join(stats)) > left:
            stats.pop()
        if stats:
            shown = " · ".join(stats)
            parts.append((" " * (left + 2 - cell_len(shown)) + shown, "faint"))
        return parts

    def _chip(self, renderer: MarkdownRenderer, inner: int, name: str, text: str) -> Strip:
        size = format_size(len(text.encode("utf-8", "replace")))
        shown = cut(printable(name), max(8, inner - len(size) - 6))
        return _line(renderer, [(" " * _INDENT, ""), ("+ ", "accent"), (shown, ""), (f"  {size}", "muted")])

    def _reasoning_lines(self, renderer: MarkdownRenderer, inner: int) -> list[Strip]:
        live = self.live
        if not self.has_reasoning and not (live and live.thinking):
            return []
        if live is not None:
            seconds, tokens = live.reasoning_s, live.reasoning_tokens
        else:
            seconds = _number(self.message.timings, "reasoning_s")
            tokens = int(_number(self.message.usage, "reasoning_tokens"))
        verb = "thinking" if live is not None and live.thinking else "thought"
        summary = f"{verb} for {seconds_text(seconds)}" if seconds else verb
        summary += f" · {plural(tokens, 'token')}" if tokens else ""
        mark = "▾" if self.unfolded else "▸"
        fold = ("fold", self.message.id)
        rows = [
            _line(renderer, [(" " * _INDENT, ""), (f"{mark} ", "accent", fold), (summary, "muted", fold)])
        ]
        if self.unfolded:
            text = "".join(self._reasoning)
            truncated = len(text) > _MAX_REASONING
            text = safe(text[-_MAX_REASONING:] if live is not None else text[:_MAX_REASONING]).strip()
            bar = Segment("  │ ", renderer.styles["faint"])
            reasoning = renderer.plain(text, inner - 2, renderer.styles["muted"])
            if truncated:
                reasoning += renderer.plain(
                    "… truncated; the export has all of it", inner - 2, renderer.styles["faint"]
                )
            rows += [Strip([bar, *strip]) for strip in reasoning]
        if self._splitter.pieces() if live is None else self._splitter.done or self._splitter.rest():
            rows.append(Strip.blank(0))
        return rows

    def _body(self, renderer: MarkdownRenderer, inner: int) -> list[Strip]:
        done = self._splitter.done
        for piece in done[self._rendered_pieces :]:
            meta = ("copy", self.message.id, piece.block)
            self._rendered += _indented(renderer.piece(piece, inner, meta=meta))
        self._rendered_pieces = len(done)
        rest = self._splitter.rest()
        if rest is None:
            return self._rendered
        meta = ("copy", self.message.id, rest.block)
        return self._rendered + _indented(renderer.piece(rest, inner, meta=meta))

    def _tool_call_lines(self, renderer: MarkdownRenderer, inner: int) -> list[Strip]:
        rows: list[Strip] = []
        for call in self.message.tool_calls:
            function = call.get("function", call)
            if isinstance(function, Mapping):
                text = f"→ {function.get('name', '')} {function.get('arguments', '')}"
                rows += renderer.plain(printable(text[:2_000]), inner, renderer.styles["attention"])
        return rows

    def _state_lines(self, renderer: MarkdownRenderer, inner: int) -> list[Strip]:
        message, live = self.message, self.live
        if live is not None:
            if live.thinking or not live.activity:
                speed = f" · {live.tokens_per_s:,.0f} tok/s" if live.tokens_per_s else ""
                shown = f"{plural(live.tokens, 'token')}{speed}" if live.tokens else ""
            else:
                shown = live.activity
            stop: list[Part] = [("   esc", "accent"), (" stop", "muted")]
            return [_line(renderer, [("● ", "accent"), (shown, "muted"), *stop])]
        rows: list[Strip] = []
        if message.state is MessageState.FAILED:
            text = " ".join((message.error or "Unknown error.").split())
            rows += renderer.plain(f"✗ {printable(text)}", inner, renderer.styles["bad"])
            rows.append(_line(renderer, [("r", "accent bold", ("retry", message.id)), (" retry", "muted")]))
        if message.state is MessageState.STOPPED:
            rows.append(_line(renderer, [("■ ", "attention"), ("stopped", "muted")]))
        elif message.state is MessageState.STREAMING:
            rows.append(_line(renderer, [("● ", "accent"), ("in progress in another window", "muted")]))
        elif message.finish_reason == "length":
            rows.append(_line(renderer, [("▲ ", "attention"), ("stopped at the token limit", "muted")]))
        return rows


def answer_stats(message: Message) -> list[str]:
    """Return the statistics of an answer: tokens, speed, time to the first token, time to load."""
    stats = []
    if tokens := int(_number(message.usage, "completion_tokens")):
        stats.append(plural(tokens, "token"))
    if speed := _number(message.timings, "generation_tps"):
        stats.append(f"{speed:,.0f} tok/s" if speed >= 10 else f"{speed:.1f} tok/s")
    first, load = (_number(message.timings, name) for name in ("time_to_first_token_s", "load_s"))
    if first:
        stats.append(f"first token {seconds_text(max(first - load, 0.001))}")
    if load >= 0.5:
        stats.append(f"loaded in {seconds_text(load)}")
    return stats


def seconds_text(seconds: float) -> str:
    """Return a duration: `0.31 s`, `3.2 s`, `2 min 5 s`."""
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _number(values: Mapping[str, Any], name: str) -> float:
    """Return a number of a stored mapping, or 0: the stored data may have been edited."""
    value = values.get(name)
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e12 else 0.0


def _line(renderer: MarkdownRenderer, parts: Sequence[Part | tuple[str, str, tuple[object, ...]]]) -> Strip:
    segments = []
    for text, token, *meta in parts:
        name, _, weight = token.partition(" ")
        style = renderer.styles[name] + Style(bold=bool(weight) or None)
        segments.append(Segment(text, style + Style(meta={"chat": meta[0]}) if meta else style))
    return Strip(segments)


def _indented(strips: Sequence[Strip]) -> list[Strip]:
    space = Segment(" " * _INDENT)
    return [Strip([space, *strip]) for strip in strips]
