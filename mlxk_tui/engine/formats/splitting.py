"""Takes the text of a model apart as it streams: content, reasoning, tool calls, and where to stop.

Whatever way the text is cut into pieces, the result is that of the whole text, and what was handed out
never has to be taken back: only what could still become a marker or a stop string is held back.

The rules, on the whole text:

- The match that ends first counts; of several that end at one place, the one that begins first.
- In content a start marker begins a block, which goes on to its end marker or the end of the text.
  Inside a block only that end marker is looked for. Markers are part of neither.
- Stop strings are looked for in content alone, not in reasoning or tool calls: a client that asks to
  stop at a blank line means the answer it reads. They do not reach across a block either.
- Blank lines just after a marker belong to the marker.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

_BLANKS = re.compile(r"(?:[ \t\r]*\n)*")


class Kind(str, Enum):
    """What a piece of a model's text is."""

    CONTENT = "content"
    REASONING = "reasoning"
    TOOL = "tool"


@dataclass(frozen=True)
class TextPiece:
    """Some text of one kind; a tool call comes whole, the others as they stream."""

    kind: Kind
    text: str
    """Without markers."""
    source: str = ""
    """For a tool call: its text with its markers, to be shown where it turns out to be none."""


@dataclass(frozen=True)
class Markers:
    """What begins and ends a block; an empty end means that nothing but the end of the text does."""

    start: str
    end: str


class StopMatcher:
    """Finds the first of some strings in text that comes in pieces; linear in the text's length.

    An Aho-Corasick automaton: its state is the longest end of the text that begins one of the strings,
    which is exactly what has to be held back.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self.stopped: str | None = None
        """The string that was found; nothing is emitted after it."""
        self._words = [word for word in dict.fromkeys(stops) if word]
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._word = [0]  # a word that goes through the node
        self._hit: list[int | None] = [None]  # the longest word that ends here
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
        """Take more text; return what can be emitted, and the string that was found."""
        emitted, found, _ = self.scan(text, 0)
        return emitted, found

    def scan(self, text: str, start: int) -> tuple[str, str | None, int]:
        """Take `text` from `start` on; return what can be emitted, what was found, and where it ended.

        After a find the matcher stays stopped until `reset`.
        """
        if self.stopped is not None:
            return "", self.stopped, start
        if self._first is None:
            return text[start:], None, len(text)
        before, node = self._node, self._node
        at = start
        while at < len(text):
            if node == 0:  # nothing begun: on to the next character that begins a word
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
        """Return held text and `text[start:end]`, less the last `kept` characters.

        The held text is not stored: it is the path to the node `before`, the beginning of a word.
        """
        held = self._depth[before]
        new = end - start
        word = self._words[self._word[before]]
        if kept >= new:
            return word[: held + new - kept]
        return word[:held] + text[start : end - kept]

    def flush(self) -> str:
        """Return what is held back, as the text ends here or cannot go on to a match."""
        held = self._words[self._word[self._node]][: self._depth[self._node]] if self._node else ""
        self._node = 0
        return held

    def reset(self) -> None:
        """Begin anew after a find."""
        self.stopped = None
        self._node = 0


class _Lead:
    """Drops the blank lines that follow a marker, and blanks that nothing follows."""

    def __init__(self, active: bool) -> None:
        self._active = active
        self._blanks: list[str] = []

    def begin(self) -> None:
        """A marker was just read."""
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
        rest = text[_end_of(_BLANKS.match(text)) :]
        if not rest.strip(" \t\r"):
            self._blanks.append(rest)
            return ""
        self._active = False
        return rest


def _end_of(match: re.Match[str] | None) -> int:
    return match.end() if match else 0


class OutputSplitter:
    """Splits a model's text into content, reasoning and tool calls, and stops at stop strings.

    Give only what a model has: without markers it is a stop matcher, without stops a splitter.
    """

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
        """Prepare for one answer.

        Args:
            stops: strings that end the answer; they are not part of it.
            reasoning: markers of reasoning, such as `<think>` and `</think>`.
            reasoning_open: the prompt has already opened the reasoning.
            tools: markers of tool calls.
            dropped: texts that are structure, not content, such as mlx-lm's `structural_markers`.
            reasoning_first: only reasoning at the very beginning counts; in what comes after it, or
                after the first character of content, nothing is a marker.
        """
        self.stopped: str | None = None
        """The stop string that ended the answer; every later `push` returns nothing."""
        self._begins: dict[str, Kind] = dict.fromkeys(dropped, Kind.CONTENT)
        self._scanners: dict[Kind, StopMatcher] = {}
        self._ends: dict[Kind, str] = {}
        for kind, markers in ((Kind.TOOL, tools), (Kind.REASONING, reasoning)):
            if markers is not None and markers.start:
                self._begins[markers.start] = kind
                self._ends[kind] = markers.end
                self._scanners[kind] = StopMatcher((markers.end,))
        self._scanners[Kind.CONTENT] = StopMatcher(self._begins)
        self._stop = StopMatcher(stops)
        self._reasoning_first = reasoning_first
        opened = reasoning_open and Kind.REASONING in self._scanners
        self._kind = Kind.REASONING if opened else Kind.CONTENT
        self._start = ""
        self._payload: list[str] = []
        self._lead = _Lead(opened)

    @property
    def kind(self) -> Kind:
        """What the next character will be, if no marker begins with it."""
        return self._kind

    def push(self, text: str) -> list[TextPiece]:
        """Take more of the model's text; return what is certain now, in order."""
        pieces: list[TextPiece] = []
        at = 0
        while at < len(text) and self.stopped is None:
            scanner = self._scanners[self._kind]
            released, marker, at = scanner.scan(text, at)
            if self._reasoning_first and self._kind is Kind.CONTENT and released.strip():
                released += marker or scanner.flush()
                marker = None
                self._mark_nothing()
            self._take(pieces, released)
            if marker is not None and self.stopped is None:
                scanner.reset()
                self._cross(pieces, marker)
        return pieces

    def finish(self) -> list[TextPiece]:
        """Return what was held back: the model's text ends here."""
        pieces: list[TextPiece] = []
        if self.stopped is not None:
            return pieces
        self._take(pieces, self._scanners[self._kind].flush())
        if self._kind is Kind.TOOL:
            self._close_call(pieces, "")
        elif self._kind is Kind.CONTENT and self.stopped is None:
            _add(pieces, Kind.CONTENT, self._stop.flush())
        return pieces

    def _take(self, pieces: list[TextPiece], text: str) -> None:
        if not text:
            return
        if self._kind is Kind.TOOL:
            self._payload.append(text)
            return
        text = self._lead.push(text)
        if self._kind is Kind.CONTENT:
            text, self.stopped = self._stop.push(text)
        _add(pieces, self._kind, text)

    def _cross(self, pieces: list[TextPiece], marker: str) -> None:
        """Go over a marker."""
        if self._kind is Kind.CONTENT:
            _add(pieces, Kind.CONTENT, self._stop.flush())
            self._kind = self._begins[marker]
            self._start = marker
        else:
            if self._kind is Kind.TOOL:
                self._close_call(pieces, marker)
            self._kind = Kind.CONTENT
            if self._reasoning_first:
                self._mark_nothing()
        self._lead.begin()

    def _mark_nothing(self) -> None:
        """Take all that follows for content."""
        self._scanners[Kind.CONTENT] = StopMatcher(())

    def _close_call(self, pieces: list[TextPiece], end: str) -> None:
        payload = "".join(self._payload)
        self._payload.clear()
        pieces.append(TextPiece(Kind.TOOL, payload, f"{self._start}{payload}{end}"))


def _add(pieces: list[TextPiece], kind: Kind, text: str) -> None:
    if not text:
        return
    if pieces and pieces[-1].kind is kind:
        text = pieces.pop().text + text
    pieces.append(TextPiece(kind, text))
