"""Models as Anthropic's API writes them: for clients that say its version in their headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mlxk_tui.server.errors import invalid
from mlxk_tui.server.model_resolver import Offered

VERSION_HEADER = "Anthropic-Version"
"""Anthropic's clients must send it; `X-API-Key` is no sign, as keys of this server come in it too."""
DEFAULT_LIMIT, MAX_LIMIT = 20, 1000
_UNKNOWN = "1970-01-01T00:00:00Z"
T = TypeVar("T", bound=Offered)


def is_anthropic(headers: Mapping[str, str]) -> bool:
    """Tell whether a client expects answers in Anthropic's shape."""
    return VERSION_HEADER in headers


def list_json(offered: Sequence[Offered], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of models.

    Args:
        offered: all of them.
        query: `limit`, and `after_id` or `before_id`: the model that the page follows, or ends before.

    Raises:
        ApiError: 400: a parameter cannot be used.
    """
    page, more = _page(offered, query)
    return {
        "data": [model_json(one) for one in page],
        "has_more": more,
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }


def model_json(offered: Offered) -> dict[str, Any]:
    """Return a model."""
    model = offered.model
    return {
        "type": "model",
        "id": offered.id,
        "display_name": offered.id,
        "created_at": model.last_modified or _UNKNOWN,
        "max_input_tokens": model.context_length,
        "max_tokens": model.context_length,
        "lifecycle": "active",
        "line": None,
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": None,
    }


def _page(offered: Sequence[T], query: Mapping[str, str]) -> tuple[Sequence[T], bool]:
    """Return one page, and whether more follow in its direction."""
    limit = _limit(query.get("limit"))
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise invalid("after_id: give it or before_id, not both.", "after_id")
    if before:
        end = _place(offered, before, "before_id")
        start = max(0, end - limit)
        return offered[start:end], start > 0
    start = _place(offered, after, "after_id") + 1 if after else 0
    return offered[start : start + limit], start + limit < len(offered)


def _limit(given: str | None) -> int:
    if given is None:
        return DEFAULT_LIMIT
    if not (given.isascii() and given.isdecimal() and len(given) < 6 and 1 <= int(given) <= MAX_LIMIT):
        raise invalid(f"limit: it must be a number from 1 to {MAX_LIMIT:,}.", "limit")
    return int(given)


def _place(offered: Sequence[Offered], id: str, name: str) -> int:  # noqa: A002 - the API's own name
    for number, one in enumerate(offered):
        if one.id == id:
            return number
    raise invalid(f"{name}: there is no model '{id[:120]}' here.", name)
