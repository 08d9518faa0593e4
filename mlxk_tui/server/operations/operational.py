"""GET /health, GET /metrics, POST /v1/engine/unload and GET /openapi.json."""

from __future__ import annotations

from aiohttp import web

from mlxk_tui import __version__
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.error_text import error_text
from mlxk_tui.server.errors import json_response
from mlxk_tui.server.supervisor import HealthState

_UP = {HealthState.READY, HealthState.LOADING}


async def health(call: Call) -> web.StreamResponse:
    """Tell whether requests can be answered; it asks nothing of the inference process."""
    service = call.service
    state = service.supervisor.health
    status = service.engine.status
    told: dict[str, object] = {"status": state.value}
    if call.trusted:
        told |= {
            "model": status.model.name if status.model is not None else None,
            "loading": status.loading,
            "loading_bytes_done": status.loading_done,
            "loading_bytes_total": status.loading_total,
            "engine": status.state.value,
            "streams": status.streams,
            "waiting": status.waiting,
            "generations": service.generator.running,
            "max_queue": service.generator.max_queue,
            "tokens_per_s": round(status.tokens_per_s, 1),
            "memory_bytes": status.memory_bytes,
            "tokenizing_bytes": status.tokenizing_bytes,
            "restarts": service.supervisor.restarts,
            "last_error": error_text(status.last_error) if status.last_error is not None else None,
            "version": __version__,
        }
    return json_response(told, 200 if state in _UP else 503)


async def metrics(call: Call) -> web.StreamResponse:
    """Tell what was counted."""
    service = call.service
    text = service.metrics.text(
        service.engine.status,
        in_flight=len(service.log.live),
        generations=service.generator.running,
        rejected=service.generator.rejected,
        restarts=service.supervisor.restarts,
    )
    return web.Response(
        body=text.encode("ascii", "backslashreplace"),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


async def unload(call: Call) -> web.StreamResponse:
    """Free the model once its streams have ended."""
    loaded = call.service.engine.status.model
    await call.service.engine.unload()
    return call.json({"status": "unloaded", "model": loaded.name if loaded is not None else None})


ROUTES = (
    Route(
        "GET",
        "/health",
        health,
        "Tell whether requests can be answered",
        open=True,
        answer=("status",),
        statuses=(200, 503),
        quiet=True,
    ),
    Route("GET", "/metrics", metrics, "Counts for Prometheus", media="text/plain", quiet=True),
    Route("POST", "/v1/engine/unload", unload, "Free the model in memory", answer=("status", "model")),
)
