"""Ignore rules of a push: patterns with git's syntax, matched in bounded time.

Patterns are not converted to regular expressions: a `.hfignore` in the folder may come from another person,
and a pattern such as `*a*a*a*a*b` would keep a regular expression busy for hours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.remedies import Remedy

HFIGNORE = ".hfignore"
GITIGNORE = ".gitignore"
FORBIDDEN_NAMES = frozenset({".git", ".cache"})
"""Names that the hub rejects anywhere in a path; no pattern re-includes them."""
DEFAULTS = (
    HFIGNORE, ".DS_Store", "._*", "Thumbs.db", "__pycache__/", "*.pyc", ".pytest_cache/", ".mypy_cache/",
    ".ruff_cache/", ".ipynb_checkpoints/", ".venv/", "venv/", ".env", "*~", "*.swp", "*.swo", "\\#*#", ".#*",
    "*.incomplete",
)  # fmt: skip
"""Default patterns. `.hfignore` can re-include files with `!`. They cover files that are usually included
by mistake, and `.env`, which contains keys."""

_MAX_BYTES = 256_000
_MAX_PATTERNS = 1_000
_MAX_LINE = 1_000
_ANY_FOLDERS = "**"
_CLASSES = {
    "alnum": str.isalnum, "alpha": str.isalpha, "digit": str.isdigit, "lower": str.islower,
    "space": str.isspace, "upper": str.isupper,
}  # fmt: skip


class _CharacterSet:
    """A set of characters in a pattern, such as `[a-z]`."""

    def __init__(self, ranges: Sequence[tuple[str, str]], classes: Sequence[str], *, inverted: bool) -> None:
        self._ranges = ranges
        self._classes = classes
        self._inverted = inverted

    def contains(self, char: str) -> bool:
        found = any(low <= char <= high for low, high in self._ranges)
        found = found or any(_CLASSES[name](char) and char.isascii() for name in self._classes)
        return found is not self._inverted


_STAR = _CharacterSet((), (), inverted=False)
"""Represents `*`."""
_ANY_CHARACTER = _CharacterSet((), (), inverted=True)
"""Represents `?`: any single character."""
_Glob = tuple["str | _CharacterSet", ...]
"""The part of a pattern between two slashes."""


@dataclass(frozen=True)
class _Pattern:
    parts: tuple[_Glob | None, ...]
    """One glob for each path segment; None for `**`."""
    only_folders: bool
    negated: bool

    def matches(self, names: Sequence[str]) -> bool:
        """Return whether the segments of a path match, in time proportional to segments times parts."""
        at, part, mark, resume = 0, 0, -1, 0
        while at < len(names):
            if part < len(self.parts) and self.parts[part] is None:
                mark, resume = part, at
                part += 1
            elif part < len(self.parts) and _glob_matches(self.parts[part] or (), names[at]):
                at, part = at + 1, part + 1
            elif mark >= 0:
                resume += 1
                at, part = resume, mark + 1
            else:
                return False
        return all(rest is None for rest in self.parts[part:])


class IgnorePatterns:
    """The patterns of an ignore file; the last one that matches decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [pattern for line in lines if (pattern := _parse_line(line)) is not None]

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Return whether a path is ignored; its parent folders must be checked first."""
        names = path.split("/")
        for pattern in reversed(self._patterns):
            if (folder or not pattern.only_folders) and pattern.matches(names):
                return not pattern.negated
        return False


class IgnoreRules:
    """The ignore rules of a folder: the defaults with its `.hfignore`, and its `.gitignore`.

    The hub itself applies a repo's `.gitignore`, so it is applied here too; otherwise a plan would include
    too many files.
    """

    def __init__(self, root: Path) -> None:
        """Read the ignore files of a folder. Blocking.

        Raises:
            OpError: `validation_error` for one that is not a regular file or too large, `permission_denied`.
        """
        self._hfignore = IgnorePatterns([*DEFAULTS, *_read_lines(root / HFIGNORE)])
        self._gitignore = IgnorePatterns(_read_lines(root / GITIGNORE))

    def __call__(self, path: str, *, folder: bool) -> bool:
        """Return whether a path is ignored; its parent folders must be checked first."""
        if path.rpartition("/")[2] in FORBIDDEN_NAMES:
            return True
        return self._hfignore.ignores(path, folder=folder) or self._gitignore.ignores(path, folder=folder)

    def ignores_file(self, path: str) -> bool:
        """Return whether a file or one of its parent folders is ignored."""
        return self(path, folder=False) or any(self(parent, folder=True) for parent in _parents(path))


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _read_lines(path: Path) -> list[str]:
    name = path.name
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OpError(
                ErrorType.VALIDATION_ERROR, f"{name} is not a regular file.", remedy=Remedy.REPLACE_FILE
            )
        with open(path, "rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OpError(ErrorType.PERMISSION_DENIED, f"{name} cannot be read: {error_reason(error)}.") from None
    lines = raw.decode("utf-8-sig", "surrogateescape").split("\n")
    if len(raw) > _MAX_BYTES or len(lines) > _MAX_PATTERNS or any(len(line) > _MAX_LINE for line in lines):
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{name} is too long: the limit is {_MAX_PATTERNS:,} lines of {_MAX_LINE:,} characters.",
        )
    return lines


def _parse_line(line: str) -> _Pattern | None:
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
    words = line.removeprefix("/").split("/")
    parts: list[_Glob | None] = [] if anchored else [None]
    for word in words:
        if word == _ANY_FOLDERS and anchored:
            if not parts or parts[-1] is not None:
                parts.append(None)
            continue
        glob = _parse_glob(word)
        if not glob:
            return None
        parts.append(glob)
    if anchored and parts[-1] is None:
        parts.append((_STAR,))  # `a/**` matches the content of a, but not a itself
    return _Pattern(tuple(parts), only_folders, negated)


def _parse_glob(word: str) -> _Glob | None:
    found: list[str | _CharacterSet] = []
    at = 0
    while at < len(word):
        char = word[at]
        at += 1
        if char == "*":
            if not found or found[-1] is not _STAR:
                found.append(_STAR)
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
    return tuple(found)


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
        ranges.append((low, high))
    if at >= len(word):
        return None, at
    return _CharacterSet(ranges, classes, inverted=inverted), at + 1


def _parse_character(word: str, at: int) -> tuple[str, int]:
    if word[at] == "\\" and at + 1 < len(word):
        at += 1
    return word[at], at + 1


def _glob_matches(glob: _Glob, name: str) -> bool:
    """Return whether a name matches; backtracking only to the last `*` keeps the time quadratic."""
    at, part, mark, resume = 0, 0, -1, 0
    while at < len(name):
        expected = glob[part] if part < len(glob) else None
        if expected is _STAR:
            mark, resume = part, at
            part += 1
        elif expected is not None and (
            expected.contains(name[at]) if isinstance(expected, _CharacterSet) else expected == name[at]
        ):
            at, part = at + 1, part + 1
        elif mark >= 0:
            resume += 1
            at, part = resume, mark + 1
        else:
            return False
    return all(rest is _STAR for rest in glob[part:])
