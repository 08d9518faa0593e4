"""Clones with a hub: copies a healthy cached model, pulls it first otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.names import is_valid_repo_name, parse_spec
from mlxk_tui.ops.clone.from_cache import BrokenModelError
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
    """Copy `NAME[@REV]` from the cache; pull it first if it is missing or broken.

    A full name that is not cached means that repo on the hub before it counts as a part of a cached name.

    Raises:
        OpError: the errors of `clone` and of `pull`. If the hub is unreachable, the cache's error with the
            reason added.
    """
    await asyncio.to_thread(check_target)
    is_uncached = await asyncio.to_thread(_is_uncached_full_name, cache, spec)
    try:
        if not is_uncached:
            return await copy_cached(spec, revision)
        cache_error: OpError | None = None
    except OpError as error:
        if error.type not in _ABSENT and not isinstance(error, BrokenModelError):
            raise
        cache_error = error
    parsed = parse_spec(spec)
    selected = parsed.revision if revision is None else revision
    suffix = f"@{selected}" if selected else ""
    name = await asyncio.to_thread(_full_name, cache, spec)
    try:
        pulled = await pull(cache, f"{name}{suffix}", hub=hub, via_hub=via_hub, on_event=on_event)
    except OpError as error:
        if cache_error is not None and error.type in {ErrorType.NETWORK_ERROR, ErrorType.VALIDATION_ERROR}:
            cache_error.message = f"{cache_error.message} It could not be pulled: {error.message}"
            cache_error.remedy, cache_error.facts = error.remedy, error.facts
            raise cache_error from None
        if cache_error is None and (
            error.type is ErrorType.NETWORK_ERROR or error.reason is AccessReason.NOT_FOUND
        ):
            try:  # it may be a part of a cached name
                return await copy_cached(spec, revision)
            except OpError as absent:
                if absent.type not in _ABSENT:
                    raise
        raise error.as_type(error.type) from None
    return await copy_cached(f"{pulled.expanded_name or pulled.model}{suffix}", None)


def _full_name(cache: Cache, spec: str) -> str:
    """Return the full name of a spec in the cache, else the name in the spec. Blocking."""
    if not _is_uncached_full_name(cache, spec):
        with contextlib.suppress(OpError):
            return cache.find(spec).ref.name
    return parse_spec(spec).name


def _is_uncached_full_name(cache: Cache, spec: str) -> bool:
    """Return whether a spec is a full name without a cached repo. Blocking."""
    parsed = parse_spec(spec)
    if "/" not in parsed.name or not is_valid_repo_name(parsed.name):
        return False
    if read_cached(cache, parsed.name) is not None:
        return False
    try:
        return all(ref.name.casefold() != parsed.name.casefold() for ref in cache.repos())
    except OpError:
        return False
