"""Splits streamed model output into content, reasoning and tool calls, and detects stop sequences.

The result does not depend on how the text is divided into pieces, and emitted text never has to be
retracted: text that could still become a marker or a stop sequence is held back.

The rules, for the whole text:

- The match that ends first wins; of several that end at the same position, the one that begins first.
- In content, a start marker begins a block, which extends to its end marker or to the end of the text.
  Inside a block only that end marker is searched for. Markers belong to neither content nor block.
- Stop sequences are searched for in content only, not in reasoning or tool calls: a client that requests
  to stop at a blank line means the answer it reads. They do not match across a block either.
- Blank lines directly after a marker belong to the marker.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

_BLANKS = re.compile(r"(?:[ \t\r]*\n)*")


class PieceKind(str, Enum):
    """The kind of a piece of model output."""

    CONTENT = "content"
    REASONING = "reasoning"
    TOOL = "tool"


@dataclass(frozen=True)
class TextPiece:
    """A piece of output of one kind. Content and reasoning are streamed; a tool call is a single piece."""

    kind: PieceKind
    text: str
    """The text without markers."""
    source: str = ""
    """For a tool call: its text with markers, to be shown as content if it cannot be parsed."""


@dataclass(frozen=True)
class Markers:
    """The markers of a block; with an empty `end` only the end of the text ends it."""

    start: str
    end: str


class StopMatcher:
    """Finds the first occurrence of any of several strings in streamed text, in linear time.

    This is an Aho-Corasick automaton. Its state is the longest suffix of the text that is a prefix of one of
    the strings, which is exactly the text that has to be held back.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self.stopped: str | None = None
        """The string that was found; no text after it is emitted."""
        self._words = [word for word in dict.fromkeys(stops) if word]
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._word = [0]  # index of a word whose path contains the node
        self._hit: list[int | None] = [None]  # index of the longest word that ends at the node
        for number, word in enumerate(self._words):
            self._insert(number, word)
        self._fail = [0] * len(self._next)
        self._link()
        firsts = "".join(re.escape(first) for first in self._next[0])
        self._first = re.compile(f"[{firsts}]") if firsts else None
        self._node = 0

    def _insert(self, number: int, word: str) -> None:
        node = 0
        for char in word:
            following = self._next[node].get(char)
            if following is None:
                following = len(self._next)
                self._next[node][char] = following
                self._next.append({})
                self._depth.append(self._depth[node] + 1)
                self._word.append(number)
                self._hit.append(None)
            node = following
        self._hit[node] = number

    def _link(self) -> None:
        queue = deque(self._next[0].values())
        while queue:
            node = queue.popleft()
            for char, child in self._next[node].items():
                fail = self._step(self._fail[node], char)
                self._fail[child] = fail
                if self._hit[child] is None:
                    self._hit[child] = self._hit[fail]
                queue.append(child)

    def _step(self, node: int, char: str) -> int:
        while True:
            following = self._next[node].get(char)
            if following is not None:
                return following
            if node == 0:
                return 0
            node = self._fail[node]

    def push(self, text: str) -> tuple[str, str | None]:
        """Append text; return the text that can be emitted, and the string that was found or None."""
        emitted, found, _ = self.scan(text, 0)
        return emitted, found

    def scan(self, text: str, start: int) -> tuple[str, str | None, int]:
        """Append `text[start:]` and scan it up to the first match.

        Returns:
            The text that can be emitted; the string that was found, or None; the position in `text` after
            it. After a match the matcher ignores further text until `reset`.
        """
        if self.stopped is not None:
            return "", self.stopped, start
        if self._first is None:
            return text[start:], None, len(text)
        before, node = self._node, self._node
        at = start
        while at < len(text):
            if node == 0:  # skip to the next character that begins a word
                first = self._first.search(text, at)
                if first is None:
                    at = len(text)
                    break
                at = first.start()
            node = self._step(node, text[at])
            at += 1
            hit = self._hit[node]
            if hit is not None:
                self.stopped = self._words[hit]
                self._node = 0
                return self._released(before, text, start, at, len(self.stopped)), self.stopped, at
        self._node = node
        return self._released(before, text, start, at, self._depth[node]), None, at

    def _released(self, before: int, text: str, start: int, end: int, kept: int) -> str:
        """Return the held-back text plus `text[start:end]`, without the last `kept` characters.

        The held-back text is not stored: it is the path to the node `before`, a prefix of a word.
        """
        held = self._depth[before]
        new = end - start
        word = self._words[self._word[before]]
        if kept >= new:
            return word[: held + new - kept]
        return word[:held] + text[start : end - kept]

    def flush(self) -> str:
        """Return the held-back text, when the text ends or can no longer continue to a match."""
        held = self._words[self._word[self._node]][: self._depth[self._node]] if self._node else ""
        self._node = 0
        return held

    def reset(self) -> None:
        """Start over after a match."""
        self.stopped = None
        self._node = 0


class _BlankLineFilter:
    """Drops the blank lines after a marker, and whitespace that no other text follows."""

    def __init__(self, active: bool) -> None:
        self._active = active
        self._blanks: list[str] = []

    def begin(self) -> None:
        """Start dropping blank lines, after a marker."""
        self._active = True
        self._blanks.clear()

    def push(self, text: str) -> str:
        if not self._active:
            return text
        if not text.strip(" \t\r"):  # may still become a blank line
            self._blanks.append(text)
            return ""
        text = "".join((*self._blanks, text))
        self._blanks.clear()
        rest = text[_match_end(_BLANKS.match(text)) :]
        if not rest.strip(" \t\r"):
            self._blanks.append(rest)
            return ""
        self._active = False
        return rest


def _match_end(match: re.Match[str] | None) -> int:
    return match.end() if match else 0


class OutputSplitter:
    """Splits model output into content, reasoning and tool calls, and ends it at a stop sequence."""

    def __init__(
        self,
        stops: Sequence[str] = (),
        *,
        reasoning: Markers | None = None,
        reasoning_open: bool = False,
        tools: Markers | None = None,
        dropped: Sequence[str] = (),
        reasoning_first: bool = False,
    ) -> None:
        """Create a splitter for one answer.

        Args:
            stops: stop sequences; they end the answer and are not part of it.
            reasoning: markers of reasoning, such as `<think>` and `</think>`; None if the model has none.
            reasoning_open: the prompt ends inside reasoning.
            tools: markers of tool calls; None if there are none.
            dropped: strings to remove from the output, such as mlx-lm's `structural_markers`.
            reasoning_first: accept reasoning only at the very beginning. After it, or after the first
                character of content, markers are ordinary text.
        """
        self.stopped: str | None = None
        """The stop sequence that ended the answer; after it `push` returns no pieces."""
        self._begins: dict[str, PieceKind] = dict.fromkeys(dropped, PieceKind.CONTENT)
        self._scanners: dict[PieceKind, StopMatcher] = {}
        self._ends: dict[PieceKind, str] = {}
        for kind, markers in ((PieceKind.TOOL, tools), (PieceKind.REASONING, reasoning)):
            if markers is not None and markers.start:
                self._begins[markers.start] = kind
                self._ends[kind] = markers.end
                self._scanners[kind] = StopMatcher((markers.end,))
        self._scanners[PieceKind.CONTENT] = StopMatcher(self._begins)
        self._stop = StopMatcher(stops)
        self._reasoning_first = reasoning_first
        opened = reasoning_open and PieceKind.REASONING in self._scanners
        self._kind = PieceKind.REASONING if opened else PieceKind.CONTENT
        self._start = ""
        self._payload: list[str] = []
        self._blank_lines = _BlankLineFilter(opened)

    @property
    def kind(self) -> PieceKind:
        """The kind of the next character, unless a marker begins with it."""
        return self._kind

    def push(self, text: str) -> list[TextPiece]:
        """Append model output; return the pieces that are final, in order."""
        pieces: list[TextPiece] = []
        at = 0
        while at < len(text) and self.stopped is None:
            scanner = self._scanners[self._kind]
            released, marker, at = scanner.scan(text, at)
            if self._reasoning_first and self._kind is PieceKind.CONTENT and released.strip():
                released += marker or scanner.flush()
                marker = None
                self._ignore_markers()
            self._add_text(pieces, released)
            if marker is not None and self.stopped is None:
                scanner.reset()
                self._on_marker(pieces, marker)
        return pieces

    def finish(self) -> list[TextPiece]:
        """End the text and return the pieces that were held back."""
        pieces: list[TextPiece] = []
        if self.stopped is not None:
            return pieces
        self._add_text(pieces, self._scanners[self._kind].flush())
        if self._kind is PieceKind.TOOL:
            self._close_call(pieces, "")
        elif self._kind is PieceKind.CONTENT and self.stopped is None:
            _add(pieces, PieceKind.CONTENT, self._stop.flush())
        return pieces

    def _add_text(self, pieces: list[TextPiece], text: str) -> None:
        if not text:
            return
        if self._kind is PieceKind.TOOL:
            self._payload.append(text)
            return
        text = self._blank_lines.push(text)
        if self._kind is PieceKind.CONTENT:
            text, self.stopped = self._stop.push(text)
        _add(pieces, self._kind, text)

    def _on_marker(self, pieces: list[TextPiece], marker: str) -> None:
        """Switch between content and a block at a marker."""
        if self._kind is PieceKind.CONTENT:
            _add(pieces, PieceKind.CONTENT, self._stop.flush())
            self._kind = self._begins[marker]
            self._start = marker
        else:
            if self._kind is PieceKind.TOOL:
                self._close_call(pieces, marker)
            self._kind = PieceKind.CONTENT
            if self._reasoning_first:
                self._ignore_markers()
        self._blank_lines.begin()

    def _ignore_markers(self) -> None:
        """Treat all further text as content."""
        self._scanners[PieceKind.CONTENT] = StopMatcher(())

    def _close_call(self, pieces: list[TextPiece], end: str) -> None:
        payload = "".join(self._payload)
        self._payload.clear()
        pieces.append(TextPiece(PieceKind.TOOL, payload, f"{self._start}{payload}{end}"))


def _add(pieces: list[TextPiece], kind: PieceKind, text: str) -> None:
    if not text:
        return
    if pieces and pieces[-1].kind is kind:
        text = pieces.pop().text + text
    pieces.append(TextPiece(kind, text))
