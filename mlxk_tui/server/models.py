"""GET /v1/models and /v1/models/{id}: what can be asked here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web

from mlxk_tui.ops.contract import Model
from mlxk_tui.server.calls import Call, Route


async def list_models(call: Call) -> web.StreamResponse:
    """List the models that can run here, and the aliases that lead to them."""
    service = call.service
    models = await service.chooser.models()
    loaded = service.engine.status.model
    name = loaded.name if loaded is not None else None
    data = [model_json(model, model.name, name) for model in models]
    by_name = {model.name: model for model in models}
    for alias, spec in service.chooser.aliases.items():
        if spec in by_name:
            data.append(model_json(by_name[spec], alias, name))
    return call.json({"object": "list", "data": data})


async def get_model(call: Call) -> web.StreamResponse:
    """Tell of one model."""
    model = await call.service.chooser.model(call.rest)
    loaded = call.service.engine.status.model
    return call.json(model_json(model, model.name, loaded.name if loaded is not None else None))


def model_json(model: Model, shown: str, loaded: str | None) -> dict[str, Any]:
    """Return a model as OpenAI writes it, with what helps to choose one."""
    return {
        "id": shown,
        "object": "model",
        "created": _seconds(model.last_modified),
        "owned_by": model.name.split("/")[0] if "/" in model.name else "local",
        "context_length": model.context_length,
        "max_model_len": model.context_length,
        "loaded": model.name == loaded,
        "type": model.model_type.value,
        "capabilities": [capability.value for capability in model.capabilities],
        "quantization_bits": model.quantization.bits if model.quantization is not None else None,
        "memory_bytes": model.memory_bytes,
        "memory_fit": model.memory_fit.value if model.memory_fit is not None else None,
    }


def _seconds(iso: str | None) -> int:
    if iso is None:
        return 0
    try:
        return int(datetime.fromisoformat(iso.replace("Z", "+00:00")).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0


ROUTES = (
    Route("GET", "/v1/models", list_models, "List the models that can run here"),
    Route("GET", "/v1/models/{id}", get_model, "Tell of one model"),
)
