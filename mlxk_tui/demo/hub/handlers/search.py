"""Search: `GET /api/models`, as used by `HfApi.list_models`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlxk_tui.demo.hub.context import HandlerContext
from mlxk_tui.demo.hub.handlers.models import describe, format_date, page, tags
from mlxk_tui.demo.hub.replies import HubError, Reply
from mlxk_tui.demo.hub.store.repos import HubRepo

_DEFAULT_FIELDS = (
    "_id", "id", "modelId", "author", "createdAt", "private", "gated", "downloads", "likes", "tags",
    "library_name", "pipeline_tag",
)  # fmt: skip
_FULL_FIELDS = ("sha", "lastModified", "siblings", "disabled")

_SORT_KEYS: dict[str, Callable[[HubRepo], Any]] = {
    "downloads": lambda repo: repo.downloads,
    "likes": lambda repo: repo.likes,
    "lastModified": lambda repo: repo.last_modified,
    "createdAt": lambda repo: repo.created,
    "trendingScore": lambda repo: repo.likes,
}


async def search(context: HandlerContext) -> Reply:
    """Return the models that match all words of `search` and all `filter`s, in the order of `sort`.

    As on the Hub, only members of the namespace see private repos, and disabled ones are hidden. By default,
    results have no sizes and no `lastModified`; `full=true` or `expand` adds them.
    """
    query = context.query
    words = query.get("search", [""])[-1].lower().split()
    filters = [tag.strip() for given in query.get("filter", []) for tag in given.split(",") if tag.strip()]
    filters += query.get("pipeline_tag", [])
    author = query.get("author", [None])[-1]
    order = query.get("sort", ["trendingScore"])[-1]
    if order not in _SORT_KEYS:
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
    found.sort(key=_SORT_KEYS[order], reverse=query.get("direction", ["-1"])[-1] != "1")
    fields = query.get("expand")
    full = context.flag("full")
    names = [
        *_DEFAULT_FIELDS,
        *(_FULL_FIELDS if full else ()),
        *(["cardData"] if full or context.flag("cardData") else []),
    ]
    if context.flag("config"):
        names.append("config")
    return page(context, [_item(repo, fields or names) for repo in found], headers={})


def _item(repo: HubRepo, fields: list[str]) -> dict[str, Any]:
    document = describe(repo, repo.head, fields=fields)
    document.setdefault("trendingScore", 0)
    if "lastModified" in document:
        document["lastModified"] = format_date(repo.last_modified)
    return document
