"""The context that route handlers get, and the entries of the route table."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.limits import prompt_too_long
from mlxk_tui.server.errors import ApiError, json_response
from mlxk_tui.server.generation import Generator
from mlxk_tui.server.http.body import BodyBudget, BodyReservation, read_body
from mlxk_tui.server.http.parser import RequestParser
from mlxk_tui.server.http.security import Guard
from mlxk_tui.server.http.sse import COMMENT, EventStream
from mlxk_tui.server.metrics import Metrics
from mlxk_tui.server.model_resolver import ModelResolver
from mlxk_tui.server.options import ServerOptions
from mlxk_tui.server.request_log import RequestEntry, RequestLog
from mlxk_tui.server.requests.schema import Schema
from mlxk_tui.server.supervisor import Supervisor

S = TypeVar("S", bound=Schema)

_MAX_UNCHECKED_IDS = 4096
"""A prompt with more token ids is compared with the model's context length before it is unpickled."""


@dataclass
class Service:
    """Objects shared by all handlers. `options` and `guard` are replaced when the options change."""

    options: ServerOptions
    guard: Guard
    engine: Engine
    resolver: ModelResolver
    generator: Generator
    log: RequestLog
    metrics: Metrics
    supervisor: Supervisor
    parser: RequestParser
    bodies: BodyBudget


@dataclass
class Call:
    """One request and its context; the argument of every handler."""

    request: web.BaseRequest
    entry: RequestEntry
    service: Service
    route: Route | None
    """None if no route matches the path and method."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of every response to this request: request id, CORS."""
    path_id: str = ""
    """The value of `{id}` in the route's path."""
    trusted: bool = True
    """False if the server has API keys and the request has none; only public routes get such calls."""
    reservation: BodyReservation | None = None
    """Memory reserved for its body until the response is complete."""

    async def body(self, schema: type[S]) -> S:
        """Read, parse and validate the request's body.

        Raises:
            ApiError: the body is invalid, too large or arrives too slowly (400, 408, 413, 415, 429, 503),
                or its prompt has more token ids than the model's context.
        """
        service, options = self.service, self.service.options
        reservation = self.reservation or BodyReservation(service.bodies)
        parsed = await service.parser.parse(
            schema, await read_body(self.request, options.max_body_bytes, options.body_timeout_s, reservation)
        )
        if parsed.longest_ids > _MAX_UNCHECKED_IDS:
            model = await service.resolver.resolve(parsed.model)
            if model.context_length and parsed.longest_ids > model.context_length:
                raise prompt_too_long(parsed.longest_ids, model.context_length)
        return parsed.unpack()

    def json(self, value: Any) -> web.Response:
        """Return a response with status 200 and this JSON."""
        return json_response(value)

    def event_stream(self, keep_alive: bytes = COMMENT) -> EventStream:
        """Return a response of server-sent events; `keep_alive` is sent while no event comes."""
        self.entry.stream = True
        options = self.service.options
        return EventStream(
            self.request,
            self.headers,
            keep_alive_s=options.keep_alive_s,
            write_timeout_s=options.write_timeout_s,
            keep_alive=keep_alive,
        )

    @property
    def created(self) -> int:
        """The arrival in seconds since the epoch, for the `created` field of responses."""
        return int(self.entry.started_at or time.time())


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """One entry of the route table."""

    method: str
    path: str
    """A path, which may end with `{id}`: that matches the rest of the path, slashes included."""
    handler: Handler
    summary: str
    """One line for the OpenAPI document."""
    schema: type[Schema] | None = None
    """Schema of the request body."""
    streams: bool = False
    """Whether it can respond with server-sent events."""
    public: bool = False
    """Whether it needs no API key."""
    error_body: Callable[[ApiError, str], dict[str, Any]] | None = None
    """Returns the body of an error, given the error and the request id; None for OpenAI's format."""
    anthropic_too: bool = False
    """Whether clients with Anthropic's version header get responses in the format of its API."""
    parameters: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    """Query parameters: name, description, JSON schema."""
    response_fields: tuple[str, ...] = ()
    """Fields that a JSON response always has."""
    media_types: tuple[str, ...] = ("application/json",)
    """Media types of responses that aren't streams."""
    statuses: tuple[int, ...] = (200,)
    """Statuses of successful responses."""
    quiet: bool = False
    """Whether requests stay out of the request log, because programs poll the route."""

    @property
    def prefix(self) -> str | None:
        """The path before `{id}`; None if the path has no `{id}`."""
        return self.path[: -len("{id}")] if self.path.endswith("{id}") else None
