"""Cloning with a hub behind the cache: what is cached and sound is copied, the rest is pulled first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.names import is_valid_repo_name, parse_spec
from mlxk_tui.ops.clone.from_cache import NotWholeError
from mlxk_tui.ops.contract.results import CloneData
from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.local_files import read_cached
from mlxk_tui.ops.pull.pull import pull

_ABSENT = frozenset({ErrorType.MODEL_NOT_FOUND, ErrorType.REVISION_NOT_FOUND, ErrorType.CACHE_NOT_FOUND})


async def clone_or_pull(
    copy_cached: Callable[[str, str | None], Awaitable[CloneData]],
    check_target: Callable[[], Path],
    cache: Cache,
    spec: str,
    *,
    revision: str | None,
    hub: Hub,
    via_hub: bool,
    on_event: OnEvent,
) -> CloneData:
    """Copy `NAME[@REV]` from the cache; where it is not there, or not sound, pull it and copy it then.

    A full name that is not cached is that repo of the hub before it is a part of another cached name.

    Raises:
        OpError: those of `clone` and of `pull`. When the hub cannot be reached it is what the cache alone
            leads to, with the reason.
    """
    await asyncio.to_thread(check_target)
    full_name_elsewhere = await asyncio.to_thread(_names_another_repo, cache, spec)
    try:
        if not full_name_elsewhere:
            return await copy_cached(spec, revision)
        local: OpError | None = None
    except OpError as error:
        if error.type not in _ABSENT and not isinstance(error, NotWholeError):
            raise
        local = error
    parsed = parse_spec(spec)
    wanted = parsed.revision if revision is None else revision
    at = f"@{wanted}" if wanted else ""
    name = await asyncio.to_thread(_name_of, cache, spec)
    try:
        pulled = await pull(cache, f"{name}{at}", hub=hub, via_hub=via_hub, on_event=on_event)
    except OpError as error:
        if local is not None and error.type in {ErrorType.NETWORK_ERROR, ErrorType.VALIDATION_ERROR}:
            local.message = f"{local.message} It could not be pulled: {error.message}"
            local.remedy, local.facts = error.remedy, error.facts
            raise local from None
        if local is None and (
            error.type is ErrorType.NETWORK_ERROR or error.reason is AccessReason.NOT_FOUND
        ):
            try:  # then it may be meant as a part of a cached name
                return await copy_cached(spec, revision)
            except OpError as absent:
                if absent.type not in _ABSENT:
                    raise
        raise error.as_type(error.type) from None
    return await copy_cached(f"{pulled.expanded_name or pulled.model}{at}", None)


def _name_of(cache: Cache, spec: str) -> str:
    """Return the full name that a spec has in the cache, else the one it states; blocking, for threads."""
    if not _names_another_repo(cache, spec):
        with contextlib.suppress(OpError):
            return cache.find(spec).ref.name
    return parse_spec(spec).name


def _names_another_repo(cache: Cache, spec: str) -> bool:
    """Return whether a spec is a full name that no cached repo has; blocking, for threads."""
    parsed = parse_spec(spec)
    if "/" not in parsed.name or not is_valid_repo_name(parsed.name):
        return False
    if read_cached(cache, parsed.name) is not None:
        return False
    try:
        return all(ref.name.casefold() != parsed.name.casefold() for ref in cache.repos())
    except OpError:
        return False
