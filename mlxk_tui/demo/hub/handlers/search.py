"""Search: `GET /api/models` as `HfApi.list_models` asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlxk_tui.demo.hub.context import HandlerContext
from mlxk_tui.demo.hub.handlers.models import describe, moment, page, tags
from mlxk_tui.demo.hub.replies import HubError, Reply
from mlxk_tui.demo.hub.store.repos import HubRepo

_PLAIN = (
    "_id", "id", "modelId", "author", "createdAt", "private", "gated", "downloads", "likes", "tags",
    "library_name", "pipeline_tag",
)  # fmt: skip
_FULL = ("sha", "lastModified", "siblings", "disabled")

_ORDERS: dict[str, Callable[[HubRepo], Any]] = {
    "downloads": lambda repo: repo.downloads,
    "likes": lambda repo: repo.likes,
    "lastModified": lambda repo: repo.last_modified,
    "createdAt": lambda repo: repo.created,
    "trendingScore": lambda repo: repo.likes,
}


async def search(context: HandlerContext) -> Reply:
    """Return the models that every word of `search` and every `filter` fits, in the order of `sort`.

    As on the hub, private repos show only to their people, disabled ones to nobody, and a plain answer
    has neither sizes nor `lastModified`: `full=true` or `expand` brings these.
    """
    query = context.query
    words = query.get("search", [""])[-1].lower().split()
    filters = [tag.strip() for given in query.get("filter", []) for tag in given.split(",") if tag.strip()]
    filters += query.get("pipeline_tag", [])
    author = query.get("author", [None])[-1]
    order = query.get("sort", ["trendingScore"])[-1]
    if order not in _ORDERS:
        raise HubError(400, f"Invalid sort: {order}")
    user = context.user
    found = [
        repo
        for repo in list(context.state.repos.values())
        if not repo.disabled
        and (not repo.private or (user is not None and user.member_of(repo.namespace)))
        and (author is None or repo.namespace.lower() == author.lower())
        and all(word in repo.name.lower() for word in words)
        and set(filters) <= set(tags(repo, repo.card()))
        and ("gated" not in query or context.flag("gated") == bool(repo.gated))
    ]
    found.sort(key=lambda repo: repo.name)
    found.sort(key=_ORDERS[order], reverse=query.get("direction", ["-1"])[-1] != "1")
    wanted = query.get("expand")
    full = context.flag("full")
    names = [*_PLAIN, *(_FULL if full else ()), *(["cardData"] if full or context.flag("cardData") else [])]
    if context.flag("config"):
        names.append("config")
    return page(context, [_item(repo, wanted or names) for repo in found], headers={})


def _item(repo: HubRepo, wanted: list[str]) -> dict[str, Any]:
    document = describe(repo, repo.head, wanted=wanted)
    document.setdefault("trendingScore", 0)
    if "lastModified" in document:
        document["lastModified"] = moment(repo.last_modified)
    return document
