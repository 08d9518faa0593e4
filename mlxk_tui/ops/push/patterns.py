"""Patterns of ignore files: git's syntax, matched in a time that no pattern can drive up.

Patterns are not converted to regular expressions: a `.hfignore` in the folder may come from another person,
and a pattern such as `*a*a*a*a*b` would keep a regular expression busy for hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_CLASSES = {
    "alnum": str.isalnum, "alpha": str.isalpha, "digit": str.isdigit, "lower": str.islower,
    "space": str.isspace, "upper": str.isupper,
}  # fmt: skip


class _Wild(Enum):
    """Parts of a pattern that match any number of characters."""

    STAR = "*"
    """Any characters but slashes."""
    FOLDERS = "**/"
    """Any folders, or none."""


@dataclass(frozen=True)
class _CharacterSet:
    """A set of characters in a pattern, such as `[a-z]`; `?` is the inverted empty one."""

    ranges: tuple[tuple[str, str], ...] = ()
    classes: tuple[str, ...] = ()
    inverted: bool = False

    def contains(self, char: str) -> bool:
        found = any(low <= char <= high for low, high in self.ranges)
        found = found or any(_CLASSES[name](char) and char.isascii() for name in self.classes)
        return found is not self.inverted


_ANY_CHARACTER = _CharacterSet(inverted=True)
_Token = str | _CharacterSet | _Wild
"""A character, a set of characters, or a wild part."""


class Pattern:
    """One pattern of an ignore file.

    It is matched as a nondeterministic automaton whose states are the bits of an integer, all followed at
    once. The time is proportional to the length of the path, and never grows as backtracking would.

    Args:
        tokens: the pattern from left to right, slashes between folders included.
        anchored: whether the whole path has to match, and not only its last name.
        only_folders: whether it applies to folders only.
        negated: whether it re-includes what matches.
    """

    def __init__(
        self, tokens: Sequence[_Token], *, anchored: bool, only_folders: bool, negated: bool
    ) -> None:
        self.only_folders = only_folders
        self.negated = negated
        self._anchored = anchored
        self._start = _literal_start(tokens)
        self._end = _literal_start(tokens[::-1])[::-1]
        wild = [token for token in tokens if isinstance(token, _Wild)]
        self._shortest = len(tokens) - len(wild)
        self._is_literal = len(self._start) == len(tokens)
        self._is_one_star = wild == [_Wild.STAR] and len(self._start) + len(self._end) + 1 == len(tokens)
        self._literals: dict[str, int] = {}
        self._sets: dict[_CharacterSet, int] = {}
        self._any = self._slashes = self._stars = self._folders = 0
        state = 1
        for part in tokens:
            if part is _Wild.STAR:
                self._stars |= state
                continue
            if part is _Wild.FOLDERS:
                self._folders |= state
                self._stars |= state
                self._slashes |= state
            elif part == "/":
                self._slashes |= state
            elif isinstance(part, str):
                self._literals[part] = self._literals.get(part, 0) | state
            elif part is _ANY_CHARACTER:
                self._any |= state
            elif isinstance(part, _CharacterSet):
                self._sets[part] = self._sets.get(part, 0) | state
            state <<= 1
        self._final = state

    @property
    def sets(self) -> int:
        """The number of different character sets."""
        return len(self._sets)

    def matches(self, path: str, name: str) -> bool:
        """Return whether a path matches; `name` is its last part."""
        text = path if self._anchored else name
        if self._is_literal:
            return text == self._start
        if not (text.startswith(self._start) and text.endswith(self._end) and len(text) >= self._shortest):
            return False  # most paths end here
        if self._is_one_star:
            return text.find("/", len(self._start), len(text) - len(self._end)) < 0
        return self._run(text)

    def _run(self, text: str) -> bool:
        state = self._entered(1)
        for char in text:
            if char == "/":
                state = self._entered((state & self._slashes) << 1)
            else:
                accepting = self._any | self._literals.get(char, 0)
                for characters, states in self._sets.items():
                    if state & states and characters.contains(char):
                        accepting |= states
                # From behind a `**/`, where a name begins, it goes back to skip that name as well.
                waiting = state & self._stars | (state >> 1) & self._folders
                state = self._entered((state & accepting) << 1) | waiting
            if not state:
                return False
        return bool(state & self._final)

    def _entered(self, states: int) -> int:
        """Return the states after a step: `**/` can match no folder at all, so it is passed at once."""
        folders = states & self._folders
        return (states ^ folders) | (folders << 1)


def parse_pattern(line: str) -> Pattern | None:
    """Return the pattern of a line; None if it has none, or one that can never match."""
    line = line.rstrip("\r")
    while line.endswith(" ") and not line.endswith("\\ "):
        line = line[:-1]
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    line = line[1:] if negated else line
    only_folders = line.endswith("/")
    line = line[:-1] if only_folders else line
    anchored = "/" in line
    tokens: list[_Token] = []
    for number, word in enumerate(line.removeprefix("/").split("/")):
        if number and tokens[-1] is not _Wild.FOLDERS:
            tokens.append("/")
        if word == "**" and anchored:
            if not tokens or tokens[-1] is not _Wild.FOLDERS:
                tokens.append(_Wild.FOLDERS)
            continue
        glob = _parse_glob(word)
        if not glob:
            return None
        tokens += glob
    if tokens[-1] is _Wild.FOLDERS:
        tokens.append(_Wild.STAR)  # `a/**` matches the content of a, but not a itself
    return Pattern(tokens, anchored=anchored, only_folders=only_folders, negated=negated)


def _parse_glob(word: str) -> list[_Token] | None:
    """Return the tokens of the part of a pattern between two slashes; None if it is invalid."""
    found: list[_Token] = []
    at = 0
    while at < len(word):
        char = word[at]
        at += 1
        if char == "*":
            if not found or found[-1] is not _Wild.STAR:
                found.append(_Wild.STAR)
        elif char == "?":
            found.append(_ANY_CHARACTER)
        elif char == "[":
            chars, at = _parse_set(word, at)
            if chars is None:
                return None
            found.append(chars)
        elif char == "\\":
            if at == len(word):
                return None
            found.append(word[at])
            at += 1
        else:
            found.append(char)
    return found


def _parse_set(word: str, at: int) -> tuple[_CharacterSet | None, int]:
    """Return the character set after a bracket and its end; None if it is not closed."""
    inverted = word[at : at + 1] in {"!", "^"}
    at += inverted
    ranges: list[tuple[str, str]] = []
    classes: list[str] = []
    first = True
    while at < len(word) and (first or word[at] != "]"):
        first = False
        if word.startswith("[:", at) and (end := word.find(":]", at + 2)) >= 0:
            if word[at + 2 : end] not in _CLASSES:
                return None, at
            classes.append(word[at + 2 : end])
            at = end + 2
            continue
        low, at = _parse_character(word, at)
        high = low
        if word[at : at + 1] == "-" and word[at + 1 : at + 2] not in {"", "]"}:
            high, at = _parse_character(word, at + 1)
        ranges.append((low, max(low, high)))  # git's `[z-a]` is z
    if at >= len(word):
        return None, at
    return _CharacterSet(tuple(ranges), tuple(classes), inverted), at + 1


def _parse_character(word: str, at: int) -> tuple[str, int]:
    if word[at] == "\\" and at + 1 < len(word):
        at += 1
    return word[at], at + 1


def _literal_start(tokens: Sequence[_Token]) -> str:
    start = ""
    for token in tokens:
        if not isinstance(token, str):
            break
        start += token
    return start
