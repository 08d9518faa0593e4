"""One call of the API and what its handler works with, and the entries of the table of routes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.limits import too_long
from mlxk_tui.server.errors import ApiError, json_response
from mlxk_tui.server.generation import Generator
from mlxk_tui.server.http.body import BodyBudget, Held, read_body
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

_FEW_IDS = 4096
"""A prompt of more token ids is compared with the model's context before it is unpacked."""


@dataclass
class Service:
    """What all handlers share. `options` and what follows from them may change between requests."""

    options: ServerOptions
    guard: Guard
    engine: Engine
    chooser: ModelResolver
    generator: Generator
    log: RequestLog
    metrics: Metrics
    supervisor: Supervisor
    parser: RequestParser
    bodies: BodyBudget


@dataclass
class Call:
    """One request on its way to an answer."""

    request: web.BaseRequest
    entry: RequestEntry
    service: Service
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of the answer, whatever it is: request id, CORS."""
    rest: str = ""
    """What follows the prefix of a route that has one."""
    trusted: bool = True
    """False where keys are asked for and none was given: only open routes are called so."""
    held: Held | None = None
    """What its body takes of the memory for bodies, until it has been answered."""

    async def body(self, schema: type[S]) -> S:
        """Return the request's body.

        Raises:
            ApiError: it is malformed, too large or too slow, or its prompt has more token ids than the
                model's context holds.
        """
        service, options = self.service, self.service.options
        held = self.held or Held(service.bodies)
        parsed = await service.parser.parse(
            schema, await read_body(self.request, options.max_body_bytes, options.body_timeout_s, held)
        )
        if parsed.longest_ids > _FEW_IDS:
            model = await service.chooser.choose(parsed.model)
            if model.context_length and parsed.longest_ids > model.context_length:
                raise too_long(parsed.longest_ids, model.context_length)
        return parsed.unpack()

    def json(self, value: Any) -> web.Response:
        """Return an answer with this JSON."""
        return json_response(value)

    def event_stream(self, keep_alive: bytes = COMMENT) -> EventStream:
        """Return an answer of events; `keep_alive` is sent in silence."""
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
        """When it came, in seconds since the epoch, as answers have it."""
        return int(self.entry.started_at or time.time())


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """One operation of the API."""

    method: str
    path: str
    """`{id}` at its end takes the rest of the path, slashes included."""
    handler: Handler
    summary: str
    """One line for the OpenAPI document."""
    schema: type[Schema] | None = None
    """What the body is."""
    streams: bool = False
    """Whether it can answer with events."""
    open: bool = False
    """Whether it needs no key."""
    error_body: Callable[[ApiError, str], dict[str, Any]] | None = None
    """An error in another shape than OpenAI's, from it and the id of the request."""
    either: bool = False
    """Whether a client of Anthropic's API is answered in its shape, by its headers."""
    parameters: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    """What a query may hold: name, description, schema."""
    answer: tuple[str, ...] = ()
    """Fields that the JSON of an answer always has."""
    media: str = "application/json"
    """What an answer is, where it is no stream."""
    statuses: tuple[int, ...] = (200,)
    """Statuses of answers that are no errors."""
    quiet: bool = False
    """Whether it stays out of the request log: programs ask for it all the time."""

    @property
    def prefix(self) -> str | None:
        """The path without its parameter; None where it has none."""
        return self.path[: -len("{id}")] if self.path.endswith("{id}") else None
