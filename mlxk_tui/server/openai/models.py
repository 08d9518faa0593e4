"""The routes GET /v1/models and /v1/models/{id}.

Reference: https://platform.openai.com/docs/api-reference/models.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web

from mlxk_tui.engine.status import ModelStatus
from mlxk_tui.server.anthropic import models
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.model_resolver import ServedModel, loaded_commit


async def list_models(call: Call) -> web.StreamResponse:
    """Handle GET /v1/models: list the models that can run here, and their aliases."""
    served = await call.service.resolver.list_models()
    if models.is_anthropic(call.request.headers):
        return call.json(models.list_json(served, call.request.query))
    loaded = call.service.engine.status.model
    return call.json({"object": "list", "data": [model_json(model, loaded) for model in served]})


async def get_model(call: Call) -> web.StreamResponse:
    """Handle GET /v1/models/{id}: return a model that can run here, by name, revision or alias."""
    served = await call.service.resolver.get_model(call.path_id)
    if models.is_anthropic(call.request.headers):
        return call.json(models.model_json(served))
    return call.json(model_json(served, call.service.engine.status.model))


def model_json(served: ServedModel, loaded: ModelStatus | None) -> dict[str, Any]:
    """Return a model object of OpenAI's API, with additional fields: context, memory, quantization, ..."""
    model = served.model
    return {
        "id": served.id,
        "object": "model",
        "created": _to_epoch(model.last_modified),
        "owned_by": model.name.split("/")[0] if "/" in model.name else "local",
        "context_length": model.context_length,
        "max_model_len": model.context_length,
        "loaded": loaded is not None and (model.name, model.hash) == (loaded.name, loaded_commit(loaded)),
        "type": model.model_type.value,
        "capabilities": model.abilities,
        "quantization_bits": model.quantization.bits if model.quantization is not None else None,
        "memory_bytes": model.memory_bytes,
        "memory_fit": model.memory_fit.value if model.memory_fit is not None else None,
    }


def _to_epoch(iso: str) -> int:
    try:
        return int(datetime.fromisoformat(iso.replace("Z", "+00:00")).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0


_PAGED = "Only used with the header anthropic-version."
PARAMETERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("limit", f"Maximum number of models on a page, 1 to 1000. {_PAGED}", {"type": "string"}),
    ("after_id", f"The id after which the page starts. {_PAGED}", {"type": "string"}),
    ("before_id", f"The id before which the page ends. {_PAGED}", {"type": "string"}),
)
ROUTES = (
    Route(
        "GET",
        "/v1/models",
        list_models,
        "List the models that can run here",
        response_fields=("data",),
        parameters=PARAMETERS,
        anthropic_too=True,
    ),
    Route(
        "GET", "/v1/models/{id}", get_model, "Retrieve a model", response_fields=("id",), anthropic_too=True
    ),
)
