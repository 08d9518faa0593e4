"""Models in the format of Anthropic's API, for clients that send its version header.

Reference: https://docs.anthropic.com/en/api/models-list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mlxk_tui.server.errors import invalid
from mlxk_tui.server.model_resolver import ServedModel

VERSION_HEADER = "Anthropic-Version"
"""Anthropic's clients always send it. `X-API-Key` doesn't identify them: other clients use it too."""
DEFAULT_LIMIT, MAX_LIMIT = 20, 1000
_UNKNOWN_DATE = "1970-01-01T00:00:00Z"
T = TypeVar("T", bound=ServedModel)


def is_anthropic(headers: Mapping[str, str]) -> bool:
    """Return whether a client expects responses in Anthropic's format."""
    return VERSION_HEADER in headers


def list_json(models: Sequence[ServedModel], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of models.

    Args:
        models: all models.
        query: `limit`, and `after_id` or `before_id`: the id after or before which the page is.

    Raises:
        ApiError: 400 if a parameter is invalid.
    """
    page, more = _page(models, query)
    return {
        "data": [model_json(model) for model in page],
        "has_more": more,
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }


def model_json(served: ServedModel) -> dict[str, Any]:
    """Return a model as Anthropic's API does."""
    model = served.model
    return {
        "type": "model",
        "id": served.id,
        "display_name": served.id,
        "created_at": model.last_modified or _UNKNOWN_DATE,
        "max_input_tokens": model.context_length,
        "max_tokens": model.context_length,
        "lifecycle": "active",
        "line": None,
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": None,
    }


def _page(models: Sequence[T], query: Mapping[str, str]) -> tuple[Sequence[T], bool]:
    """Return one page, and whether there are more models in its direction."""
    limit = _limit(query.get("limit"))
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise invalid("after_id: it can't be combined with before_id. Send one of them.", "after_id")
    if before:
        end = _find_index(models, before, "before_id")
        start = max(0, end - limit)
        return models[start:end], start > 0
    start = _find_index(models, after, "after_id") + 1 if after else 0
    return models[start : start + limit], start + limit < len(models)


def _limit(value: str | None) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if not (value.isascii() and value.isdecimal() and len(value) < 6 and 1 <= int(value) <= MAX_LIMIT):
        raise invalid(f"limit: it must be a number from 1 to {MAX_LIMIT:,}.", "limit")
    return int(value)


def _find_index(models: Sequence[ServedModel], model_id: str, parameter: str) -> int:
    for index, model in enumerate(models):
        if model.id == model_id:
            return index
    raise invalid(f"{parameter}: model '{model_id[:120]}' not found.", parameter)
