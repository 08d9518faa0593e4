"""GET /v1/models and /v1/models/{id}: what can be asked here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web

from mlxk_tui.engine.status import ModelStatus
from mlxk_tui.server.anthropic import models
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.model_resolver import Offered, commit_of


async def list_models(call: Call) -> web.StreamResponse:
    """List the models that can run here, and the aliases that lead to them."""
    offered = await call.service.chooser.models()
    if models.is_anthropic(call.request.headers):
        return call.json(models.list_json(offered, call.request.query))
    loaded = call.service.engine.status.model
    return call.json({"object": "list", "data": [model_json(one, loaded) for one in offered]})


async def get_model(call: Call) -> web.StreamResponse:
    """Tell of one model."""
    offered = await call.service.chooser.model(call.rest)
    if models.is_anthropic(call.request.headers):
        return call.json(models.model_json(offered))
    return call.json(model_json(offered, call.service.engine.status.model))


def model_json(offered: Offered, loaded: ModelStatus | None) -> dict[str, Any]:
    """Return a model as OpenAI writes it, with what helps to choose one."""
    model = offered.model
    return {
        "id": offered.id,
        "object": "model",
        "created": _seconds(model.last_modified),
        "owned_by": model.name.split("/")[0] if "/" in model.name else "local",
        "context_length": model.context_length,
        "max_model_len": model.context_length,
        "loaded": loaded is not None and (model.name, model.hash) == (loaded.name, commit_of(loaded)),
        "type": model.model_type.value,
        "capabilities": model.abilities,
        "quantization_bits": model.quantization.bits if model.quantization is not None else None,
        "memory_bytes": model.memory_bytes,
        "memory_fit": model.memory_fit.value if model.memory_fit is not None else None,
    }


def _seconds(iso: str) -> int:
    try:
        return int(datetime.fromisoformat(iso.replace("Z", "+00:00")).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0


_PAGED = "Counts with the header anthropic-version alone."
PARAMETERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("limit", f"Most models of a page, 1 to 1000. {_PAGED}", {"type": "string"}),
    ("after_id", f"The model that the page follows. {_PAGED}", {"type": "string"}),
    ("before_id", f"The model that the page ends before. {_PAGED}", {"type": "string"}),
)
ROUTES = (
    Route(
        "GET",
        "/v1/models",
        list_models,
        "List the models that can run here",
        answer=("data",),
        parameters=PARAMETERS,
        either=True,
    ),
    Route("GET", "/v1/models/{id}", get_model, "Tell of one model", answer=("id",), either=True),
)
