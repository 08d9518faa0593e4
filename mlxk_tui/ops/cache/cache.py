"""Locates the Hugging Face cache and lists its repos."""

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
    """The repo's name; undecodable bytes and control characters are escaped."""
    folder: str
    """Absolute path of the entry; links are not resolved."""

    @property
    def path(self) -> Path:
        """The entry as a Path; creating one costs more than a stat, so scans use `folder`."""
        return Path(self.folder)

    @property
    def folder_name(self) -> str:
        """Name of the entry; unique in a cache, even if two repo names look the same."""
        return os.path.basename(self.folder)


@dataclass(frozen=True)
class ResolvedSpec:
    """A spec with the repo that it resolves to."""

    ref: RepoRef
    spec: Spec
    exact: bool
    """True if the spec contains the full name with the same case."""


@dataclass(frozen=True)
class Cache:
    """A hub cache folder, which contains `models--*` entries."""

    root: Path
    """Absolute path, which may not exist."""

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
        """Return the cache at `path`, with `~` and environment variables expanded."""
        text = os.path.expanduser(os.path.expandvars(os.fspath(path)))
        try:
            return cls(Path(os.path.abspath(text)))
        except FileNotFoundError:  # a relative path, and the working directory was deleted
            return cls(Path("/", text))

    def is_absent(self) -> bool:
        """Return whether the folder does not exist, in contrast to a path that is not a cache."""
        try:
            os.lstat(self.root)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def repos(self) -> list[RepoRef]:
        """Return all model repos, sorted by name.

        Files, datasets, spaces, hidden folders and a bare `models--` are skipped. Links are included; their
        targets are checked when the repo is read.

        Raises:
            OpError: `cache_not_found` if the folder does not exist or is not a folder,
                `permission_denied` if it cannot be read.
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
                f"No cache at {self._display_path} yet. The first download creates it.",
                remedy=Remedy.CHECK_CACHE_VARIABLES,
            ) from None
        except NotADirectoryError:
            raise OpError(
                ErrorType.CACHE_NOT_FOUND,
                f"{self._display_path} is a file, not a cache folder.",
                remedy=Remedy.CHECK_CACHE_VARIABLES,
            ) from None
        except PermissionError:
            raise OpError(
                ErrorType.PERMISSION_DENIED,
                f"The cache at {self._display_path} cannot be read: permission denied.",
                remedy=Remedy.CHECK_PERMISSIONS,
            ) from None
        except OSError as error:
            raise OpError(
                ErrorType.CACHE_NOT_FOUND,
                f"The cache at {self._display_path} cannot be read: {error.strerror or error}.",
            ) from None
        return sorted(found, key=lambda ref: (ref.name.casefold(), ref.name, ref.folder))

    def find(self, spec_text: str, *, partial: bool = True) -> ResolvedSpec:
        """Return the repo that `NAME[@REV]` resolves to; the revision is not checked.

        Args:
            spec_text: `NAME[@REV]`.
            partial: also match a part of a name, as for people; the HTTP server does not.

        Raises:
            OpError: `validation_error`, `model_not_found`, `ambiguous_match`, and those of `repos`.
        """
        spec = parse_spec(spec_text)
        return _pick(self.repos(), spec, partial)

    @property
    def _display_path(self) -> str:
        return printable(str(self.root))


def _pick(refs: Iterable[RepoRef], spec: Spec, partial: bool) -> ResolvedSpec:
    by_name = {ref.name: ref for ref in refs}
    match = resolve(by_name, spec.name, partial=partial)
    return ResolvedSpec(by_name[match.name], spec, match.exact)
