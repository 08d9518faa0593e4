"""Chooses files of a commit by patterns, for a partial pull."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.responses import TreeEntry


@dataclass(frozen=True)
class FilePatterns:
    """Shell patterns for paths, with the meaning of huggingface_hub's `allow_patterns` and `ignore_patterns`.

    `*` also matches `/`, case matters, and a pattern that ends with `/` means everything in that folder.
    """

    include: tuple[str, ...] = ()
    """Files must match one of these; empty for all files."""
    exclude: tuple[str, ...] = ()
    """Files must match none of these."""

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)

    def select(self, repo: str, entries: Sequence[TreeEntry]) -> tuple[TreeEntry, ...]:
        """Return the files that match.

        Raises:
            OpError: `validation_error` if there are none.
        """
        chosen = tuple(
            entry
            for entry in entries
            if (not self.include or _matches(entry.path, self.include))
            and not _matches(entry.path, self.exclude)
        )
        if entries and not chosen:
            options = [f"--include '{pattern}'" for pattern in self.include]
            options += [f"--exclude '{pattern}'" for pattern in self.exclude]
            some = ", ".join(printable(entry.path) for entry in entries[:3])
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                f"No file of {repo} matches {printable(' '.join(options))[:200]}. It has "
                f"{len(entries)} files, such as {some}.",
            )
        return chosen


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
