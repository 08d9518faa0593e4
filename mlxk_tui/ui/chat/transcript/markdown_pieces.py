"""Splits an answer's Markdown into pieces, so that new text renders only the last piece again.

A piece ends where a block ends (at a blank line or a fence), and earlier where it is too long. The pieces
before the last one never change, however long the answer becomes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LONG, _VERY_LONG = 700, 1_400
"""Characters after which a piece ends at the next blank line, and at the next line end."""
_CODE_LINES, _MANY_CODE_LINES = 12, 24
"""Lines of code after which a piece ends at the next blank line, and at the next line."""
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})[ \t]*([^`]*)$")
_ITEM = re.compile(r"^ *(?:[-*+]|\d{1,9}[.)])(?: |$)")


@dataclass(frozen=True)
class MarkdownPiece:
    """A part of an answer that is rendered separately."""

    text: str
    """Markdown; for code, only the code."""
    code: bool = False
    language: str = ""
    """The first word after the fence."""
    block: int = 0
    """Number of its code block, from 0."""
    gap: bool = False
    """Whether a blank line precedes it."""
    first: bool = True
    """Whether it is the first of its code block."""
    joined: bool = False
    """Whether it continues the last line of the previous piece, which was too long for one piece."""


@dataclass(frozen=True)
class CodeBlock:
    """A fenced code block of an answer."""

    language: str
    text: str


class MarkdownSplitter:
    """Splits streamed Markdown: `done` grows, `rest` may still change."""

    def __init__(self) -> None:
        self.done: list[MarkdownPiece] = []
        """Pieces that do not change any more."""
        self._partial: list[str] = []
        """The unfinished last line, in parts."""
        self._partial_length = 0
        self._lines: list[str] = []
        self._length = 0
        self._fence: str | None = None
        """The opening fence of the open code block."""
        self._indent = 0
        self._language = ""
        self._block = -1
        self._begins_block = True
        self._list = False
        """Whether the open piece is a list."""
        self._blank = False
        """Whether the last line was blank."""
        self._gap = False
        """Whether a blank line precedes the open piece."""
        self._continues = False
        """Whether the unfinished line is the rest of a line of code that was split."""
        self._joined = False
        """Whether the open code starts with such a rest."""

    def feed(self, text: str) -> None:
        *complete, last = text.split("\n")
        for line in complete:
            self._extend(line)
            self._line("".join(self._partial))
            self._partial, self._partial_length = [], 0
        if last:
            self._extend(last)

    def _extend(self, text: str) -> None:
        """Add to the unfinished line; where it is split depends on the line, not on how it was streamed."""
        self._partial.append(text)
        self._partial_length += len(text)
        while self._partial_length > _VERY_LONG:
            self._split_partial()

    def rest(self) -> MarkdownPiece | None:
        """Return the unfinished piece."""
        partial = "".join(self._partial)
        if self._fence is not None:
            lines = [*self._lines, *([self._stripped(partial)] if partial else [])]
            if partial and self._ends_code(partial):
                lines.pop()
            return self._code(lines) if lines or self._begins_block else None
        lines = [*self._lines, *([partial] if partial else [])]
        if partial and (found := _FENCE.match(partial)) and self._takes_fence(found):
            lines.pop()  # a fence that may be unfinished
        text = "\n".join(lines).strip("\n")
        return MarkdownPiece(text, gap=self._gap and bool(self.done)) if text.strip() else None

    def pieces(self) -> list[MarkdownPiece]:
        """Return all pieces, the unfinished one included."""
        rest = self.rest()
        return [*self.done, *([rest] if rest else [])]

    def _split_partial(self) -> None:
        """Split a very long line at a space, if it has one."""
        line = "".join(self._partial)
        end = line.rfind(" ", _VERY_LONG // 2, _VERY_LONG)
        end = end if end > 0 else _VERY_LONG
        in_code = self._fence is not None
        self._line(line[:end])
        self._flush(gap=False)
        self._continues = self._joined = in_code and self._fence is not None
        rest = line[end + (self._fence is None and line[end] == " ") :]
        self._partial, self._partial_length = [rest], len(rest)

    def _ends_code(self, line: str) -> bool:
        return self._fence is not None and not self._continues and _closes(line, self._fence)

    def _stripped(self, line: str) -> str:
        if self._continues:
            return line
        spaces = len(line) - len(line.lstrip(" "))
        return line[min(spaces, self._indent) :]

    def _takes_fence(self, found: re.Match[str]) -> bool:
        return len(found.group(1)) < 4 or self._list

    def _line(self, line: str) -> None:
        if self._fence is not None:
            self._code_line(line)
            return
        found = _FENCE.match(line)
        if found and self._takes_fence(found):
            self._flush(gap=True)
            self._fence = found.group(2)
            self._indent = len(found.group(1))
            self._language = found.group(3).strip().split(" ", 1)[0][:40]
            self._block += 1
            self._begins_block = True
            self._blank = False
            return
        if not line.strip():
            self._blank = bool(self._lines) or self._blank
            if self._lines:
                self._lines.append("")
            return
        item = _ITEM.match(line) is not None
        in_list = self._list and (item or line[0] in " \t")
        if self._lines and self._blank and (not (in_list or line.startswith("    ")) or self._length > _LONG):
            self._flush(gap=not in_list)
        elif self._lines and self._length > _VERY_LONG:
            self._flush(gap=False)
        if not self._lines:
            self._list = item or in_list
        elif item and not self._list:
            self._list = True
        self._blank = False
        self._lines.append(line)
        self._length += len(line) + 1

    def _code_line(self, line: str) -> None:
        if self._ends_code(line):
            if self._lines or self._begins_block:
                self._end_code()
            self._fence = None
            self._gap = True
            return
        line = self._stripped(line)
        self._continues = False
        self._lines.append(line)
        self._length += len(line) + 1
        many = len(self._lines) >= _MANY_CODE_LINES or self._length > _VERY_LONG
        if many or (len(self._lines) >= _CODE_LINES and not line.strip()):
            self._end_code()

    def _end_code(self) -> None:
        self.done.append(self._code(self._lines))
        self._begins_block = self._joined = False
        self._lines, self._length = [], 0

    def _code(self, lines: Sequence[str]) -> MarkdownPiece:
        gap = self._begins_block and bool(self.done)
        text = "\n".join(lines)
        return MarkdownPiece(text, True, self._language, self._block, gap, self._begins_block, self._joined)

    def _flush(self, *, gap: bool) -> None:
        """End the open piece; `gap`: whether a blank line precedes the next one."""
        if self._fence is not None:
            if self._lines:
                self._end_code()
            return
        text = "\n".join(self._lines).strip("\n")
        if text.strip():
            self.done.append(MarkdownPiece(text, gap=self._gap and bool(self.done)))
            self._gap = gap
        self._lines, self._length = [], 0
        self._list = False


def _closes(line: str, fence: str) -> bool:
    words = line.strip()
    return len(words) >= len(fence) and words == fence[0] * len(words)


def split(text: str) -> list[MarkdownPiece]:
    """Return the pieces of a whole answer."""
    splitter = MarkdownSplitter()
    splitter.feed(text)
    return splitter.pieces()


def code_blocks(text: str) -> list[CodeBlock]:
    """Return the code blocks of an answer, in order, without fences."""
    found: dict[int, list[MarkdownPiece]] = {}
    for piece in split(text):
        if piece.code:
            found.setdefault(piece.block, []).append(piece)
    return [CodeBlock(parts[0].language, _joined(parts)) for parts in found.values()]


def _joined(parts: Sequence[MarkdownPiece]) -> str:
    first, *more = parts
    return first.text + "".join(part.text if part.joined else f"\n{part.text}" for part in more)
