"""Searching the hub for models: those made for MLX first, each with whether it is cached already."""

from __future__ import annotations

import asyncio

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import repos_or_none
from mlxk_tui.ops.contract.transfers import SearchData, SearchResult
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.answers import FoundModel
from mlxk_tui.ops.hub.hub import Hub

MAX_RESULTS = 200
"""Most results of one search."""
_MAX_QUERY = 200


async def search(hub: Hub, query: str, *, limit: int = 20, cache: Cache | None = None) -> SearchData:
    """Return models of the hub whose names hold `query`: MLX ones first, the most downloaded first.

    Args:
        hub: whom to ask.
        query: words of the name; blank for the most downloaded.
        limit: most results, 1 to 200.
        cache: tells which of them are cached; None calls none so.

    Raises:
        OpError: `validation_error`, `network_error`, `auth_error`.
    """
    wanted = " ".join(query.split())
    if len(wanted) > _MAX_QUERY or not wanted.isprintable():
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"The search is longer than {_MAX_QUERY} characters, or holds some that no name has.",
        )
    if not 1 <= limit <= MAX_RESULTS:
        raise OpError(ErrorType.VALIDATION_ERROR, f"A search gives 1 to {MAX_RESULTS} results.")
    made_for_mlx, all_kinds, cached = await asyncio.gather(
        hub.search(wanted, limit=limit, mlx_only=True),
        hub.search(wanted, limit=limit, mlx_only=False),
        asyncio.to_thread(_cached_names, cache),
    )
    found = {model.name: model for model in made_for_mlx}
    for model in all_kinds:
        found.setdefault(model.name, model)
    ordered = sorted(found.values(), key=lambda model: not model.mlx)[:limit]
    results = [_result(model, cached) for model in ordered]
    return SearchData(query=printable(wanted), results=results, count=len(results))


def _cached_names(cache: Cache | None) -> frozenset[str]:
    """Return the names of what is cached, whatever their case; blocking, for threads."""
    try:
        return frozenset(ref.name.casefold() for ref in repos_or_none(cache)) if cache else frozenset()
    except OpError:  # what is wrong with the cache is for those who look at it to tell
        return frozenset()


def _result(model: FoundModel, cached: frozenset[str]) -> SearchResult:
    modified = model.last_modified
    return SearchResult(
        name=model.name,
        size_bytes=model.size_bytes,
        downloads=model.downloads,
        likes=model.likes,
        last_modified=modified.strftime("%Y-%m-%dT%H:%M:%SZ") if modified else None,
        mlx=model.mlx,
        task=printable(model.task) if model.task else None,
        license=printable(model.license) if model.license else None,
        gated=model.gated,
        cached=model.name.casefold() in cached,
    )
