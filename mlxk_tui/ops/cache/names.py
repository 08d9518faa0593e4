"""Model names: folder names to repo names and back, specs (`NAME[@REV]`), and finding what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable

PREFIX = "models--"
"""How huggingface_hub starts the folder name of a model repo."""
DEFAULT_ORG = "mlx-community"
"""The organisation that a name without one is first looked for in."""
MAX_NAME = 96
"""Longest repo name the hub allows, in characters."""

_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def dir_to_name(dir_name: str) -> str | None:
    """Return the repo name of a cache folder, or None where the folder is not a model's.

    The conversion is mechanical (`--` becomes `/`), so that the fault of a corrupted folder name
    shows: `models--a--b---c` is `a/b/-c`.
    """
    if not dir_name.startswith(PREFIX) or len(dir_name) == len(PREFIX):
        return None
    return dir_name[len(PREFIX) :].replace("--", "/")


def name_to_dir(name: str) -> str:
    """Return the cache folder name of a repo."""
    return PREFIX + name.replace("/", "--")


def is_clean(name: str) -> bool:
    """Return whether `name` is one that the hub allows; for these, names and folders are bijective.

    Source: huggingface_hub.utils.validate_repo_id (2.4): one optional organisation, 1 to 96
    characters of letters, digits, `-`, `_` and `.`, no `--` or `..`, no `-` or `.` at either end,
    not ending in `.git`.
    """
    if not 1 <= len(name) <= MAX_NAME or "--" in name or ".." in name or name.endswith(".git"):
        return False
    segments = name.split("/")
    return len(segments) <= 2 and all(_SEGMENT.fullmatch(segment) for segment in segments)


@dataclass(frozen=True)
class Spec:
    """What a user asked for: `NAME` or `NAME@REVISION`."""

    name: str
    revision: str | None


def parse_spec(text: str) -> Spec:
    """Return the parts of `NAME[@REV]`.

    Raises:
        OpError: `validation_error` for an empty name or revision, `..`, a leading, trailing or
            double slash, control characters, or more than 96 characters of name.
    """
    shown = printable(text if len(text) <= 120 else text[:117] + "...")

    def refuse(why: str) -> OpError:
        return OpError(ErrorType.VALIDATION_ERROR, f"'{shown}' is not a model name: {why}.")

    if not text.strip():
        raise OpError(ErrorType.VALIDATION_ERROR, "The model name is empty.", remedy=Remedy.GIVE_REPO_NAME)
    if _CONTROL.search(text):
        raise refuse("it holds control characters")
    name, at, revision = text.partition("@")
    name, revision = name.strip(), revision.strip()
    if at and not revision:
        raise refuse("nothing stands behind the '@', where a branch, a tag or a commit belongs")
    if not name:
        raise refuse("nothing stands before the '@'")
    if len(name) > MAX_NAME:
        raise refuse(f"it is longer than {MAX_NAME} characters")
    if name.startswith("/") or name.endswith("/") or "//" in name or "\\" in name:
        raise refuse("slashes belong between organisation and model, once")
    if ".." in name or any(part == "." for part in name.split("/")):
        raise refuse("it must not hold '..'")
    if at and (".." in revision or revision.startswith("/") or revision.endswith("/") or "//" in revision):
        raise refuse("the revision is not a branch, a tag or a commit")
    return Spec(name, revision if at else None)


@dataclass(frozen=True)
class NameMatch:
    """The cached name that a query stands for."""

    name: str
    exact: bool
    """True when the query is the full name, letter for letter."""


def resolve(names: Iterable[str], query: str, *, partial: bool = True) -> NameMatch:
    """Return the one cached name that `query` stands for.

    The first level with a hit wins: the exact name; `mlx-community/QUERY` when the query has no
    slash; either of them whatever the case; a part of the full name whatever the case.

    Args:
        names: the cached names.
        query: what somebody typed.
        partial: accept a part of a name. Without it the levels are: the exact name; the full name
            whatever the case; the last segment of the name whatever the case, of any organization.

    Raises:
        OpError: `ambiguous_match` when the winning level has more than one hit, `model_not_found`
            when there is none.
    """
    known = list(names)
    shown = printable(query)
    for level in _levels(known, query) if partial else _strict_levels(known, query):
        if len(level) == 1:
            return NameMatch(level[0], exact=level[0] == query)
        if level:
            some = ", ".join(sorted(level)[:3]) + (", …" if len(level) > 3 else "")
            raise OpError(
                ErrorType.AMBIGUOUS_MATCH,
                f"'{shown}' matches {len(level)} models ({some}).",
                remedy=Remedy.GIVE_FULL_NAME,
                matches=level,
            )
    raise OpError(
        ErrorType.MODEL_NOT_FOUND,
        f"No model in the cache matches '{shown}'.",
        remedy=Remedy.LIST_MODELS,
    )


def _levels(known: list[str], query: str) -> Iterable[list[str]]:
    wanted = {query} if "/" in query else {query, f"{DEFAULT_ORG}/{query}"}
    folded = {name.casefold() for name in wanted}
    part = query.casefold()
    return (
        [name for name in known if name == query],
        [name for name in known if name in wanted],
        [name for name in known if name.casefold() in folded],
        [name for name in known if part in name.casefold()],
    )


def _strict_levels(known: list[str], query: str) -> Iterable[list[str]]:
    folded = query.casefold()
    return (
        [name for name in known if name == query],
        [name for name in known if name.casefold() == folded],
        [name for name in known if name.rpartition("/")[2].casefold() == folded],
    )
