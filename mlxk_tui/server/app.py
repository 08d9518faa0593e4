"""The aiohttp application: routes, access checks, and errors as responses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.anthropic import messages
from mlxk_tui.server.anthropic.models import is_anthropic
from mlxk_tui.server.calls import Call, Route, Service
from mlxk_tui.server.errors import BUSY, NO_ROUTE, STOPPING, ApiError, api_error, invalid, json_response
from mlxk_tui.server.http.connections import (
    Handler as RequestHandler,
    HttpConnection,
    common_headers,
)
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
_CALL = web.RequestKey("call", Call)
_ID_PATTERN = "{id:(?s:.+)}"
"""aiohttp's form of `{id}`: the rest of the path, slashes included."""
_log = logging.getLogger("mlxk_tui.server")


def all_routes() -> tuple[Route, ...]:
    """Return every route, including that of the OpenAPI document."""
    routes = tuple(route for api in APIS for route in api)
    return (*routes, openapi.document_route(routes))


class App:
    """The API as an aiohttp application.

    A request passes the middlewares in this order: `_record`, `_respond_to_errors`, `_check_caller`,
    `_check_key`, `_check_capacity`.

    Args:
        service: the objects that handlers share.
    """

    def __init__(self, service: Service) -> None:
        self.stopping = False
        """Whether new requests are rejected with 503."""
        self._service = service
        self._routes: dict[web.AbstractRoute, Route] = {}
        application = web.Application(
            middlewares=(
                self._record,
                self._respond_to_errors,
                self._check_caller,
                self._check_key,
                self._check_capacity,
            )
        )
        for route in all_routes():
            resource = application.router.add_resource(route.path.replace("{id}", _ID_PATTERN))
            for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                added = resource.add_route(method, _request_handler(route), expect_handler=_defer_continue)
                self._routes[added] = route
        self._runner = web.AppRunner(application)

    async def setup(self) -> RequestHandler:
        """Return the request handler.

        It raises nothing but `asyncio.CancelledError` (the client disconnected or the server stops) and
        `ConnectionResetError` (the connection broke while the response was sent).
        """
        await self._runner.setup()
        handler = cast("web.Server", self._runner.server).request_handler

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await handler(request)
            except web.HTTPExpectationFailed:
                # aiohttp raises it outside the middlewares if no route, so no `_defer_continue`, matches.
                response = invalid("The only supported Expect header is 100-continue.", status=417).response()
                response.headers.update(common_headers(request.headers))
                return response

        return handle

    async def cleanup(self) -> None:
        """Undo `setup`."""
        await self._runner.cleanup()

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Log and count the request, and reserve memory for its body until it ends."""
        connection = request.protocol
        if isinstance(connection, HttpConnection):
            connection.begin()
        call = request[_CALL] = self._call(request)
        status = 500
        try:
            with self._service.bodies.reserve() as call.reservation:
                response = await handler(request)
            status = response.status
            return response
        except asyncio.CancelledError:
            status = CLIENT_CLOSED_REQUEST
            raise
        except ClientDisconnectedError as error:
            status = CLIENT_CLOSED_REQUEST
            raise ConnectionResetError from error
        finally:
            del request[_CALL]  # breaks the reference cycle
            if isinstance(connection, HttpConnection):
                connection.end()
            self._end(call, status)

    def _call(self, request: web.Request) -> Call:
        headers = common_headers(request.headers)
        request_id = headers["X-Request-ID"]
        route = self._routes.get(request.match_info.route)
        path = route.path if route is not None else "-"
        if route is not None and route.quiet:
            entry = RequestEntry(0, request_id, request.remote or "-", request.method, path)
        else:
            entry = self._service.log.begin(request_id, request.remote or "-", request.method, path)
        return Call(request, entry, self._service, route, headers, request.match_info.get("id", ""))

    @web.middleware
    async def _respond_to_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn every exception into a JSON response."""
        call = request[_CALL]
        try:
            response = await handler(request)
        except (asyncio.CancelledError, ClientDisconnectedError):
            raise
        except Exception as error:
            if request.transport is None:
                raise ClientDisconnectedError from error
            # The boundary: every exception becomes a response.
            sent = (
                _routing_error(request, error) if isinstance(error, web.HTTPException) else api_error(error)
            )
            if sent.status >= 500 and not isinstance(error, ApiError):
                _log.debug("%s %s failed", call.entry.method, call.entry.route, exc_info=error)
            call.entry.error, call.entry.error_type = sent.message, sent.type
            error_body = _error_body(call)
            if error_body is not None:
                response = json_response(error_body(sent, call.entry.id), sent.status, sent.headers)
            else:
                response = sent.response()
        if not response.prepared:
            response.headers.update(call.headers)
        return response

    @web.middleware
    async def _check_caller(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check host, origin and site; respond to CORS preflight requests."""
        guard = self._service.guard
        guard.check_host(request)
        guard.check_site(request)
        allowed = guard.cors(request)
        request[_CALL].headers.update(allowed)
        if request.method == "OPTIONS":
            return guard.preflight(request, allowed)
        return await handler(request)

    @web.middleware
    async def _check_key(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the API key, unless the server has none or the route is public."""
        guard, call = self._service.guard, request[_CALL]
        if guard.needs_key:
            call.entry.key = guard.key_name(request)
            call.trusted = call.entry.key is not None
        if not call.trusted and not (call.route is not None and call.route.public):
            raise guard.invalid_key_error()
        return await handler(request)

    @web.middleware
    async def _check_capacity(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Reject requests while the server stops, and those on a connection over the limit."""
        route, connection = request[_CALL].route, request.protocol
        if route is None or route.quiet:
            return await handler(request)
        if self.stopping:
            raise ApiError(
                503,
                STOPPING,
                "The server is stopping. Try again when it is running again.",
                headers={"Connection": "close"},
                retry_after_s=5,
            )
        if isinstance(connection, HttpConnection) and connection.over_limit:
            raise ApiError(
                503,
                BUSY,
                "Too many connections are open. Try again in a moment.",
                headers={"Connection": "close"},
                retry_after_s=5,
            )
        return await handler(request)

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


def _request_handler(route: Route) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await route.handler(request[_CALL])

    return handle


async def _defer_continue(request: web.Request) -> None:
    """Send no 100 (Continue) yet: `read_body` sends it after checking the headers."""
    del request


def _routing_error(request: web.Request, error: web.HTTPException) -> ApiError:
    """Return the error for a request for which the router has no handler."""
    path = request.path
    if isinstance(error, web.HTTPMethodNotAllowed):
        methods = sorted(error.allowed_methods)
        usable = " or ".join(method for method in methods if method != "HEAD")
        return ApiError(
            405,
            NO_ROUTE,
            f"{request.method} is not allowed for {path[:200]}. Use {usable}.",
            headers={"Allow": ", ".join([*methods, "OPTIONS"])},
        )
    if not isinstance(error, web.HTTPNotFound):
        return api_error(error)
    meant = any((route.method, route.path) == ("POST", f"/v1{path}") for route in all_routes())
    hint = f" Did you mean /v1{path}?" if meant else ""
    return ApiError(404, NO_ROUTE, f"Not found: {path[:200]}.{hint} GET /openapi.json lists all routes.")


def _error_body(call: Call) -> Callable[[ApiError, str], dict[str, Any]] | None:
    """Return the function that formats errors for this client; None for OpenAI's format."""
    route = call.route
    if (route is None or route.anthropic_too) and is_anthropic(call.request.headers):
        return messages.error_body
    return route.error_body if route is not None else None


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
