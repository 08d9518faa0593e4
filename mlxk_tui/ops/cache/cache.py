"""The Hugging Face cache on disk: where it is and which repos lie in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.cache.names import Spec, dir_to_name, parse_spec, resolve
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable


@dataclass(frozen=True)
class RepoRef:
    """A `models--*` entry directly inside a cache."""

    name: str
    """The repo's name; undecodable bytes and control characters are shown escaped."""
    folder: str
    """The entry itself: an absolute path, unresolved."""

    @property
    def path(self) -> Path:
        """The entry as a Path; making one costs more than a stat, so that scans go without."""
        return Path(self.folder)

    @property
    def folder_name(self) -> str:
        """The entry's own name; unique in a cache, also where two names look the same."""
        return os.path.basename(self.folder)


@dataclass(frozen=True)
class ResolvedSpec:
    """The repo that a spec stands for."""

    ref: RepoRef
    spec: Spec
    exact: bool
    """True when the spec holds the full name, letter for letter."""


@dataclass(frozen=True)
class Cache:
    """One hub cache folder (the one that holds `models--*`)."""

    root: Path
    """Absolute path; it need not exist."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Cache:
        """Return the cache that huggingface_hub would use.

        Source: huggingface_hub.constants (2.4): HF_HUB_CACHE, then HUGGINGFACE_HUB_CACHE, then
        HF_HOME/hub, then XDG_CACHE_HOME/huggingface/hub, then ~/.cache/huggingface/hub.
        """
        env = os.environ if environ is None else environ
        explicit = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
        if explicit:
            return cls.at(explicit)
        home = env.get("HF_HOME")
        if not home:
            home = os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
        return cls.at(os.path.join(home, "hub"))

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Cache:
        """Return the cache at `path`, with `~` and variables expanded."""
        text = os.path.expanduser(os.path.expandvars(os.fspath(path)))
        try:
            return cls(Path(os.path.abspath(text)))
        except FileNotFoundError:  # a relative path, and the current folder was deleted
            return cls(Path("/", text))

    def is_absent(self) -> bool:
        """Return whether nothing is there yet, as opposed to something that is no cache."""
        try:
            os.lstat(self.root)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def repos(self) -> list[RepoRef]:
        """Return every model repo, sorted by name.

        Files, datasets, spaces, dot folders and a bare `models--` are not models. A link counts:
        what it leads to is judged when it is read.

        Raises:
            OpError: `cache_not_found` when the folder does not exist or is not one,
                `permission_denied` when it cannot be read.
        """
        found: list[RepoRef] = []
        try:
            with os.scandir(self.root) as entries:
                for entry in entries:
                    name = dir_to_name(entry.name)
                    if name is not None and (entry.is_symlink() or entry.is_dir()):
                        found.append(RepoRef(printable(name), entry.path))
        except FileNotFoundError:
            raise OpError(
                ErrorType.CACHE_NOT_FOUND,
                f"There is no cache at {self._shown}. It appears with the first model that is downloaded.",
                remedy=Remedy.CHECK_CACHE_VARIABLES,
            ) from None
        except NotADirectoryError:
            raise OpError(
                ErrorType.CACHE_NOT_FOUND,
                f"{self._shown} is a file, not a cache folder.",
                remedy=Remedy.CHECK_CACHE_VARIABLES,
            ) from None
        except PermissionError:
            raise OpError(
                ErrorType.PERMISSION_DENIED,
                f"The cache at {self._shown} cannot be read: permission denied.",
                remedy=Remedy.CHECK_PERMISSIONS,
            ) from None
        except OSError as error:
            raise OpError(
                ErrorType.CACHE_NOT_FOUND,
                f"The cache at {self._shown} cannot be read: {error.strerror or error}.",
            ) from None
        return sorted(found, key=lambda ref: (ref.name.casefold(), ref.name, ref.folder))

    def find(self, spec_text: str, *, partial: bool = True) -> ResolvedSpec:
        """Return the repo that `NAME[@REV]` stands for; the revision is not looked at.

        Args:
            spec_text: the spec.
            partial: accept a part of a name, as people type it; programs over HTTP may not.

        Raises:
            OpError: `validation_error`, `model_not_found`, `ambiguous_match`, and those of `repos`.
        """
        spec = parse_spec(spec_text)
        return _pick(self.repos(), spec, partial)

    @property
    def _shown(self) -> str:
        return printable(str(self.root))


def _pick(refs: Iterable[RepoRef], spec: Spec, partial: bool) -> ResolvedSpec:
    by_name = {ref.name: ref for ref in refs}
    match = resolve(by_name, spec.name, partial=partial)
    return ResolvedSpec(by_name[match.name], spec, match.exact)
