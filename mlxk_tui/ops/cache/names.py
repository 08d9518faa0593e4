"""Model names: conversion to and from folder names, specs (`NAME[@REV]`), and name resolution."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable

PREFIX = "models--"
"""Prefix of the folder names of model repos, as in huggingface_hub."""
DEFAULT_ORG = "mlx-community"
"""The organization that is tried first for a name without one."""
MAX_NAME = 96
"""Longest repo name that the hub allows, in characters."""

_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def dir_to_name(dir_name: str) -> str | None:
    """Return the repo name of a cache folder, or None if it is not a model's folder.

    The conversion just replaces `--` by `/`, so that a malformed folder name stays visible:
    `models--a--b---c` becomes `a/b/-c`.
    """
    if not dir_name.startswith(PREFIX) or len(dir_name) == len(PREFIX):
        return None
    return dir_name[len(PREFIX) :].replace("--", "/")


def name_to_dir(name: str) -> str:
    """Return the cache folder name of a repo."""
    return PREFIX + name.replace("/", "--")


def is_valid_repo_name(name: str) -> bool:
    """Return whether the hub allows `name`; such names convert to folder names and back unchanged.

    Source: huggingface_hub.utils.validate_repo_id (2.4): one optional organization, 1 to 96
    characters of letters, digits, `-`, `_` and `.`, no `--` or `..`, no `-` or `.` at either end,
    not ending in `.git`.
    """
    if not 1 <= len(name) <= MAX_NAME or "--" in name or ".." in name or name.endswith(".git"):
        return False
    segments = name.split("/")
    return len(segments) <= 2 and all(_SEGMENT.fullmatch(segment) for segment in segments)


@dataclass(frozen=True)
class Spec:
    """A parsed `NAME[@REVISION]`; the name may be partial."""

    name: str
    revision: str | None


def parse_spec(text: str) -> Spec:
    """Parse `NAME[@REV]`.

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
        raise refuse("it contains control characters")
    name, at, revision = text.partition("@")
    name, revision = name.strip(), revision.strip()
    if at and not revision:
        raise refuse("a branch, a tag or a commit is missing after the '@'")
    if not name:
        raise refuse("the name before the '@' is missing")
    if len(name) > MAX_NAME:
        raise refuse(f"it is longer than {MAX_NAME} characters")
    if name.startswith("/") or name.endswith("/") or "//" in name or "\\" in name:
        raise refuse("it needs the form 'organization/model', with one slash")
    if ".." in name or any(part == "." for part in name.split("/")):
        raise refuse("it must not contain '..'")
    if at and (".." in revision or revision.startswith("/") or revision.endswith("/") or "//" in revision):
        raise refuse("the revision is not a branch, a tag or a commit")
    return Spec(name, revision if at else None)


@dataclass(frozen=True)
class NameMatch:
    """The cached name that a query resolves to."""

    name: str
    exact: bool
    """True if the query is the full name with the same case."""


def resolve(names: Iterable[str], query: str, *, partial: bool = True) -> NameMatch:
    """Resolve `query` to one cached name.

    The first step with a match decides: the exact name; `mlx-community/QUERY` if the query has no slash;
    either of them ignoring case; a substring of the full name ignoring case.

    Args:
        names: the cached names.
        query: the name to resolve.
        partial: match substrings. Otherwise the steps are: the exact name; the full name ignoring case;
            the last segment of the name ignoring case, of any organization.

    Raises:
        OpError: `ambiguous_match` if the deciding step has several matches, `model_not_found` if no step
            has a match.
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
    candidates = {query} if "/" in query else {query, f"{DEFAULT_ORG}/{query}"}
    folded = {name.casefold() for name in candidates}
    part = query.casefold()
    return (
        [name for name in known if name == query],
        [name for name in known if name in candidates],
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
