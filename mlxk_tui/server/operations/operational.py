"""The routes GET /health, GET /metrics and POST /v1/engine/unload."""

from __future__ import annotations

from aiohttp import web

from mlxk_tui import __version__
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.error_text import error_text
from mlxk_tui.server.errors import json_response
from mlxk_tui.server.supervisor import HealthState

_UP = {HealthState.READY, HealthState.LOADING}


async def health(call: Call) -> web.StreamResponse:
    """Handle GET /health; it sends nothing to the inference process.

    Without a valid API key, only `status` is returned.
    """
    service = call.service
    state = service.supervisor.health
    status = service.engine.status
    body: dict[str, object] = {"status": state.value}
    if call.trusted:
        body |= {
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
    return json_response(body, 200 if state in _UP else 503)


async def metrics(call: Call) -> web.StreamResponse:
    """Handle GET /metrics: return all metrics in Prometheus' text format."""
    body, content_type = call.service.metrics.exposition(call.request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def unload(call: Call) -> web.StreamResponse:
    """Handle POST /v1/engine/unload: unload the model once its streams have ended."""
    loaded = call.service.engine.status.model
    await call.service.engine.unload()
    return call.json({"status": "unloaded", "model": loaded.name if loaded is not None else None})


ROUTES = (
    Route(
        "GET",
        "/health",
        health,
        "Check whether the server can handle requests",
        public=True,
        response_fields=("status",),
        statuses=(200, 503),
        quiet=True,
    ),
    Route(
        "GET",
        "/metrics",
        metrics,
        "Prometheus metrics",
        media_types=("text/plain", "application/openmetrics-text"),
        quiet=True,
    ),
    Route("POST", "/v1/engine/unload", unload, "Unload the model", response_fields=("status", "model")),
)
