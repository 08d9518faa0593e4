"""Which files of a folder are no part of a push: patterns as git's, matched in bounded time.

Patterns are not turned into regular expressions: a `.hfignore` comes with the folder, maybe from
somebody else, and `*a*a*a*a*b` would keep such an expression busy for hours.
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
NEVER = frozenset({".git", ".cache"})
"""Names that the hub accepts nowhere in a path; no pattern brings them back."""
DEFAULTS = (
    HFIGNORE, ".DS_Store", "._*", "Thumbs.db", "__pycache__/", "*.pyc", ".pytest_cache/", ".mypy_cache/",
    ".ruff_cache/", ".ipynb_checkpoints/", ".venv/", "venv/", ".env", "*~", "*.swp", "*.swo", "\\#*#", ".#*",
    "*.incomplete",
)  # fmt: skip
"""Left out unless `.hfignore` brings it back with a `!`; much of it would be ignored by mistake only, and
`.env` holds keys."""

_MAX_BYTES = 256_000
_MAX_PATTERNS = 1_000
_MAX_LINE = 1_000
_ANY_FOLDERS = "**"
_CLASSES = {
    "alnum": str.isalnum, "alpha": str.isalpha, "digit": str.isdigit, "lower": str.islower,
    "space": str.isspace, "upper": str.isupper,
}  # fmt: skip


class _Set:
    """`[a-z]` of a pattern."""

    def __init__(self, ranges: Sequence[tuple[str, str]], classes: Sequence[str], *, inverted: bool) -> None:
        self._ranges = ranges
        self._classes = classes
        self._inverted = inverted

    def has(self, char: str) -> bool:
        found = any(low <= char <= high for low, high in self._ranges)
        found = found or any(_CLASSES[name](char) and char.isascii() for name in self._classes)
        return found is not self._inverted


_STAR = _Set((), (), inverted=False)
"""Stands for `*`."""
_ONE = _Set((), (), inverted=True)
"""`?`: any one character."""
_Glob = tuple["str | _Set", ...]
"""A part of a pattern between slashes."""


@dataclass(frozen=True)
class _Pattern:
    parts: tuple[_Glob | None, ...]
    """By folder; None for `**`."""
    only_folders: bool
    brings_back: bool

    def fits(self, names: Sequence[str]) -> bool:
        """Return whether the parts of a path fit; time is at most their number times that of the names."""
        at, part, mark, resume = 0, 0, -1, 0
        while at < len(names):
            if part < len(self.parts) and self.parts[part] is None:
                mark, resume = part, at
                part += 1
            elif part < len(self.parts) and _fits(self.parts[part] or (), names[at]):
                at, part = at + 1, part + 1
            elif mark >= 0:
                resume += 1
                at, part = resume, mark + 1
            else:
                return False
        return all(rest is None for rest in self.parts[part:])


class Patterns:
    """Lines of an ignore file, the last that fits decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [pattern for line in lines if (pattern := _parse(line)) is not None]

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Return whether a path is left out; the folders that it lies in are to be asked about first."""
        names = path.split("/")
        for pattern in reversed(self._patterns):
            if (folder or not pattern.only_folders) and pattern.fits(names):
                return not pattern.brings_back
        return False


class Ignored:
    """What is left out of a folder: the defaults with its `.hfignore`, and what its `.gitignore` says.

    The hub itself leaves out what a repo's `.gitignore` names, so that it is obeyed here as well: a plan
    would promise too much otherwise.
    """

    def __init__(self, root: Path) -> None:
        """Read the ignore files of a folder; blocking.

        Raises:
            OpError: `validation_error` for one that is no file or too large, `permission_denied`.
        """
        self._own = Patterns([*DEFAULTS, *_lines(root / HFIGNORE)])
        self._hubs = Patterns(_lines(root / GITIGNORE))

    def __call__(self, path: str, *, folder: bool) -> bool:
        """Return whether a path is left out; the folders that it lies in are to be asked about first."""
        if path.rpartition("/")[2] in NEVER:
            return True
        return self._own.ignores(path, folder=folder) or self._hubs.ignores(path, folder=folder)

    def anywhere(self, path: str) -> bool:
        """Return whether a file or one of the folders that it lies in is left out."""
        return self(path, folder=False) or any(self(parent, folder=True) for parent in _parents(path))


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _lines(path: Path) -> list[str]:
    name = path.name
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OpError(
                ErrorType.VALIDATION_ERROR, f"{name} is no regular file.", remedy=Remedy.REPLACE_FILE
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
            f"{name} is too long: at most {_MAX_PATTERNS:,} lines of {_MAX_LINE:,} characters are read.",
        )
    return lines


def _parse(line: str) -> _Pattern | None:
    """Return the pattern of a line, None where it holds none or one that can never fit."""
    line = line.rstrip("\r")
    while line.endswith(" ") and not line.endswith("\\ "):
        line = line[:-1]
    if not line or line.startswith("#"):
        return None
    brings_back = line.startswith("!")
    line = line[1:] if brings_back else line
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
        glob = _glob(word)
        if not glob:
            return None
        parts.append(glob)
    if anchored and parts[-1] is None:
        parts.append((_STAR,))  # `a/**` is what lies in a, not a itself
    return _Pattern(tuple(parts), only_folders, brings_back)


def _glob(word: str) -> _Glob | None:
    found: list[str | _Set] = []
    at = 0
    while at < len(word):
        char = word[at]
        at += 1
        if char == "*":
            if not found or found[-1] is not _STAR:
                found.append(_STAR)
        elif char == "?":
            found.append(_ONE)
        elif char == "[":
            chars, at = _set(word, at)
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


def _set(word: str, at: int) -> tuple[_Set | None, int]:
    """Return the set that begins behind a bracket, and where it ends; None where it does not end."""
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
        low, at = _char(word, at)
        high = low
        if word[at : at + 1] == "-" and word[at + 1 : at + 2] not in {"", "]"}:
            high, at = _char(word, at + 1)
        ranges.append((low, high))
    if at >= len(word):
        return None, at
    return _Set(ranges, classes, inverted=inverted), at + 1


def _char(word: str, at: int) -> tuple[str, int]:
    if word[at] == "\\" and at + 1 < len(word):
        at += 1
    return word[at], at + 1


def _fits(glob: _Glob, name: str) -> bool:
    """Return whether a name fits; going back to the last `*` alone keeps this within length times length."""
    at, part, mark, resume = 0, 0, -1, 0
    while at < len(name):
        want = glob[part] if part < len(glob) else None
        if want is _STAR:
            mark, resume = part, at
            part += 1
        elif want is not None and (want.has(name[at]) if isinstance(want, _Set) else want == name[at]):
            at, part = at + 1, part + 1
        elif mark >= 0:
            resume += 1
            at, part = resume, mark + 1
        else:
            return False
    return all(rest is _STAR for rest in glob[part:])
