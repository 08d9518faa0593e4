"""Ignore rules of a push: the defaults, `.hfignore` and `.gitignore`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.push.patterns import parse_pattern

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
_MAX_SETS = 1_000
"""Maximum number of character sets (`[a-z]`) in an ignore file: only these are tested one by one."""


class IgnorePatterns:
    """The patterns of an ignore file; the last one that matches decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [pattern for line in lines if (pattern := parse_pattern(line)) is not None]

    @property
    def sets(self) -> int:
        """The number of character sets in all patterns."""
        return sum(pattern.sets for pattern in self._patterns)

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Return whether a path is ignored; its parent folders must be checked first."""
        name = path.rpartition("/")[2]
        for pattern in reversed(self._patterns):
            if (folder or not pattern.only_folders) and pattern.matches(path, name):
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
        for name, patterns in ((HFIGNORE, self._hfignore), (GITIGNORE, self._gitignore)):
            if patterns.sets > _MAX_SETS:
                raise OpError(
                    ErrorType.VALIDATION_ERROR,
                    f"{name} is too long: the limit is {_MAX_SETS:,} sets of characters.",
                )

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
