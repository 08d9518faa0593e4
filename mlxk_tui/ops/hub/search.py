"""Searches the hub for models: MLX models first, each marked as cached or not."""

from __future__ import annotations

import asyncio

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import list_repos
from mlxk_tui.ops.contract.transfers import SearchData, SearchResult
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.hub.responses import HubModel

MAX_RESULTS = 200
"""Largest number of results of a search."""
_MAX_QUERY = 200


async def search(hub: Hub, query: str, *, limit: int = 20, cache: Cache | None = None) -> SearchData:
    """Return models on the hub whose names contain `query`: MLX models first, then by downloads.

    Args:
        hub: the hub to search.
        query: words of the name; blank for the most downloaded models.
        limit: number of results, 1 to 200.
        cache: the cache that determines `cached`; with None no model counts as cached.

    Raises:
        OpError: `validation_error`, `network_error`, `auth_error`.
    """
    normalized = " ".join(query.split())
    if len(normalized) > _MAX_QUERY or not normalized.isprintable():
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"The search is longer than {_MAX_QUERY} characters, or contains unprintable ones.",
        )
    if not 1 <= limit <= MAX_RESULTS:
        raise OpError(ErrorType.VALIDATION_ERROR, f"A search returns 1 to {MAX_RESULTS} results.")
    made_for_mlx, all_kinds, cached = await asyncio.gather(
        hub.search(normalized, limit=limit, mlx_only=True),
        hub.search(normalized, limit=limit, mlx_only=False),
        asyncio.to_thread(_cached_names, cache),
    )
    found = {model.name: model for model in made_for_mlx}
    for model in all_kinds:
        found.setdefault(model.name, model)
    ordered = sorted(found.values(), key=lambda model: not model.mlx)[:limit]
    results = [_result(model, cached) for model in ordered]
    return SearchData(query=printable(normalized), results=results, count=len(results))


def _cached_names(cache: Cache | None) -> frozenset[str]:
    """Return the case-folded names of cached models. Blocking."""
    try:
        return frozenset(ref.name.casefold() for ref in list_repos(cache)) if cache else frozenset()
    except OpError:  # a broken cache does not prevent a search
        return frozenset()


def _result(model: HubModel, cached: frozenset[str]) -> SearchResult:
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
