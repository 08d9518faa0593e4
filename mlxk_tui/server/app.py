"""Dispatches HTTP requests: checks access, finds the route, and turns errors into responses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.anthropic import messages
from mlxk_tui.server.anthropic.models import is_anthropic
from mlxk_tui.server.calls import Call, Route, Service
from mlxk_tui.server.errors import BUSY, NO_ROUTE, STOPPING, ApiError, api_error, json_response
from mlxk_tui.server.http.connections import HttpConnection, common_headers
from mlxk_tui.server.http.sse import ClientDisconnectedError
from mlxk_tui.server.openai import chat, completions, embeddings, models, responses, tokenizing
from mlxk_tui.server.operations import openapi, operational
from mlxk_tui.server.request_log import RequestEntry

APIS: tuple[tuple[Route, ...], ...] = (
    chat.ROUTES,
    completions.ROUTES,
    embeddings.ROUTES,
    messages.ROUTES,
    responses.ROUTES,
    tokenizing.ROUTES,
    models.ROUTES,
    operational.ROUTES,
)
"""The routes of each API; add new ones here."""

CLIENT_CLOSED_REQUEST = 499
"""Status in the log for a client that disconnected before the response (nginx's number)."""
_MAX_LOGGED_PROMPT = 1000
"""Maximum characters of a prompt in a log line, if prompts are logged."""
_log = logging.getLogger("mlxk_tui.server")


def all_routes() -> tuple[Route, ...]:
    """Return every route, including that of the OpenAPI document."""
    routes = tuple(route for api in APIS for route in api)
    return (*routes, openapi.document_route(routes))


class App:
    """The request handler of the HTTP server.

    Args:
        service: the objects that handlers share.
    """

    def __init__(self, service: Service) -> None:
        self.stopping = False
        """Whether new requests are rejected with 503."""
        self._service = service
        routes = all_routes()
        self._exact = {(route.method, route.path): route for route in routes if route.prefix is None}
        self._prefixed = [(route.prefix, route) for route in routes if route.prefix is not None]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to a request.

        Raises:
            asyncio.CancelledError: the client disconnected or the server stops.
            ConnectionResetError: the connection broke while the response was sent.
        """
        connection = request.protocol
        if isinstance(connection, HttpConnection):
            connection.begin()
        call = self._call(request)
        status = 500
        try:
            with self._service.bodies.reserve() as call.reservation:
                response = await self._respond(call)
            status = response.status
            return response
        except asyncio.CancelledError:
            status = CLIENT_CLOSED_REQUEST
            raise
        except ClientDisconnectedError as error:
            status = CLIENT_CLOSED_REQUEST
            raise ConnectionResetError from error
        finally:
            if isinstance(connection, HttpConnection):
                connection.end()
            self._end(call, status)

    def _call(self, request: web.BaseRequest) -> Call:
        headers = common_headers(request.headers)
        request_id = headers["X-Request-ID"]
        route, path_id = self._find(request)
        path = route.path if route is not None else "-"
        if route is not None and route.quiet:
            entry = RequestEntry(0, request_id, request.remote or "-", request.method, path)
        else:
            entry = self._service.log.begin(request_id, request.remote or "-", request.method, path)
        return Call(request, entry, self._service, headers, path_id)

    def _find(self, request: web.BaseRequest) -> tuple[Route | None, str]:
        method = "GET" if request.method == "HEAD" else request.method
        path = request.path
        route = self._exact.get((method, path))
        if route is not None:
            return route, ""
        for prefix, candidate in self._prefixed:
            if candidate.method == method and path.startswith(prefix) and path != prefix:
                return candidate, unquote(path[len(prefix) :])
        return None, ""

    async def _respond(self, call: Call) -> web.StreamResponse:
        try:
            response = await self._dispatch(call)
        except (asyncio.CancelledError, ClientDisconnectedError):
            raise
        except Exception as error:
            if call.request.transport is None:
                raise ClientDisconnectedError from error
            # The boundary: every exception becomes a response.
            sent = api_error(error)
            if sent.status >= 500 and not isinstance(error, ApiError):
                _log.debug("%s %s failed", call.entry.method, call.entry.route, exc_info=error)
            call.entry.error, call.entry.error_type = sent.message, sent.type
            error_body = self._error_body(call.request)
            if error_body is not None:
                response = json_response(error_body(sent, call.entry.id), sent.status, sent.headers)
            else:
                response = sent.response()
        if not response.prepared:
            response.headers.update(call.headers)
        return response

    def _error_body(self, request: web.BaseRequest) -> Callable[[ApiError, str], dict[str, Any]] | None:
        """Return the function that formats errors for this client; None for OpenAI's format."""
        route, _ = self._find(request)
        if (route is None or route.anthropic_too) and is_anthropic(request.headers):
            return messages.error_body
        return route.error_body if route is not None else None

    async def _dispatch(self, call: Call) -> web.StreamResponse:
        request, guard = call.request, self._service.guard
        guard.check_host(request)
        guard.check_site(request)
        allowed = guard.cors(request)
        call.headers.update(allowed)
        if request.method == "OPTIONS":
            return guard.preflight(request, allowed)
        route, _ = self._find(request)
        if guard.needs_key:
            call.entry.key = guard.key_name(request)
            call.trusted = call.entry.key is not None
        if not call.trusted and not (route is not None and route.public):
            raise guard.invalid_key_error()
        if route is None:
            raise self._route_not_found(request)
        if self.stopping and not route.quiet:
            raise ApiError(
                503,
                STOPPING,
                "The server is stopping. Try again when it is running again.",
                headers={"Connection": "close"},
                retry_after_s=5,
            )
        connection = request.protocol
        if isinstance(connection, HttpConnection) and connection.over_limit and not route.quiet:
            raise ApiError(
                503,
                BUSY,
                "Too many connections are open. Try again in a moment.",
                headers={"Connection": "close"},
                retry_after_s=5,
            )
        return await route.handler(call)

    def _route_not_found(self, request: web.BaseRequest) -> ApiError:
        path = request.path
        methods = sorted({method for method, exact in self._exact if exact == path})
        methods += [
            route.method for prefix, route in self._prefixed if path.startswith(prefix) and path != prefix
        ]
        if methods:
            return ApiError(
                405,
                NO_ROUTE,
                f"{request.method} is not allowed for {path[:200]}. Use {' or '.join(methods)}.",
                headers={"Allow": ", ".join([*methods, "OPTIONS"])},
            )
        hint = " Did you mean /v1" + path[:200] + "?" if ("POST", f"/v1{path}") in self._exact else ""
        return ApiError(404, NO_ROUTE, f"Not found: {path[:200]}.{hint} GET /openapi.json lists all routes.")

    def _end(self, call: Call, status: int) -> None:
        entry = call.entry
        if entry.number == 0:  # of a quiet route
            return
        self._service.log.end(entry, status)
        self._service.metrics.count(entry)
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", log_line(entry))
            if entry.prompt is not None:
                _log.info("prompt of %s: %s", entry.id, printable(entry.prompt[:_MAX_LOGGED_PROMPT]))


def log_line(entry: RequestEntry) -> str:
    """Return the log line of a finished request; it contains no prompt text and no API keys."""
    fields = [entry.client, entry.method, entry.route, str(entry.status)]
    if entry.key is not None:
        fields.append(f"key={entry.key}")
    if entry.model is not None:
        fields.append(printable(entry.model))
    if entry.completion_tokens:
        fields.append(f"{entry.prompt_tokens}+{entry.completion_tokens} tokens")
    if entry.tokens_per_s:
        fields.append(f"{entry.tokens_per_s:.1f} tok/s")
    if entry.ttft_s is not None:
        fields.append(f"first after {entry.ttft_s:.3f} s")
    fields.append(f"{entry.age_s:.3f} s")
    if entry.error_type is not None:
        fields.append(entry.error_type)
    fields.append(entry.id)
    return " ".join(fields)
