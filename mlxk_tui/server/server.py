"""The HTTP server, which can be started and stopped repeatedly in one event loop."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

from mlxk_tui.engine.client import Engine
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.addresses import is_loopback
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.os_errors import error_type
from mlxk_tui.server.app import App
from mlxk_tui.server.calls import Service
from mlxk_tui.server.generation import Generator
from mlxk_tui.server.http.body import BodyBudget
from mlxk_tui.server.http.connections import WebServer
from mlxk_tui.server.http.keys import missing_key_error
from mlxk_tui.server.http.parser import RequestParser
from mlxk_tui.server.http.security import Guard
from mlxk_tui.server.http.sockets import bind, port_in_use_error
from mlxk_tui.server.metrics import CurrentValues, Metrics
from mlxk_tui.server.model_resolver import ModelResolver
from mlxk_tui.server.options import Address, ServerOptions
from mlxk_tui.server.request_log import RequestLog
from mlxk_tui.server.supervisor import HealthState, Supervisor

_MAX_LARGEST_BODIES = 8
"""How many bodies of the maximum size are held in memory at once."""
_CANCEL_GRACE_S = 1.0
"""Seconds that cancelled requests get to send their error."""


class Server:
    """The HTTP server over a shared engine; it never stops the engine.

    Args:
        engine: the engine that runs the models.
        cache: the cache with the models; the server never downloads into it.
        options: address, access and limits.
    """

    def __init__(self, engine: Engine, cache: Cache, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.log = RequestLog(self.options.log_size)
        """The request log; it is kept across restarts."""
        self.address: Address | None = None
        """The address it listens on; None while stopped."""
        resolver = ModelResolver(engine, cache)
        supervisor = Supervisor(engine, resolver.resolve)
        resolver.last_model = supervisor.last_model
        self._service = Service(
            options=self.options,
            guard=Guard(self.options),
            engine=engine,
            resolver=resolver,
            generator=Generator(engine, self.log),
            log=self.log,
            metrics=Metrics(self._current_values),
            supervisor=supervisor,
            parser=RequestParser(),
            bodies=BodyBudget(_MAX_LARGEST_BODIES * self.options.max_body_bytes),
        )
        self._app: App | None = None
        self._web: WebServer | None = None
        self._listeners: list[asyncio.Server] = []
        self._bound: tuple[str, ...] = ()
        """The addresses of the listening sockets."""
        self._changing = asyncio.Lock()
        self.reload(self.options)

    @property
    def running(self) -> bool:
        """Whether the server is listening."""
        return self.address is not None

    @property
    def health(self) -> HealthState:
        """The state that `/health` reports."""
        return self._service.supervisor.health

    @property
    def generations(self) -> int:
        """Number of running and queued generations."""
        return self._service.generator.running

    def reload(self, options: ServerOptions) -> None:
        """Apply new options while running; a new host or port takes effect at the next start.

        Raises:
            OpError: `validation_error` if the server listens on a non-loopback address and the options have
                no API key. None of the new options is applied then.
        """
        if self._bound:
            if not options.api_keys and not all(map(is_loopback, self._bound)):
                raise missing_key_error(self.options.host)
            options = replace(options, host=self.options.host, port=self.options.port)
        self.options = options
        service = self._service
        service.options = options
        service.guard = Guard(options)
        service.resolver.default = options.model
        service.resolver.aliases = dict(options.aliases)
        service.resolver.force = options.force
        service.bodies.max_bytes = _MAX_LARGEST_BODIES * options.max_body_bytes
        service.generator.max_queue = options.max_queue
        service.generator.log_prompts = options.log_prompts

    async def start(self) -> Address:
        """Start listening and return the address; if already running, only return it.

        Raises:
            OpError: `port_in_use`; `permission_denied` (a port below 1024); `validation_error` (unknown
                host, or a non-loopback address without an API key).
        """
        async with self._changing:
            if self.address is not None:
                return self.address
            sockets = await bind(self.options)
            bound = tuple(str(sock.getsockname()[0]) for sock in sockets)
            if not self.options.api_keys and not all(map(is_loopback, bound)):  # removed meanwhile
                for sock in sockets:
                    sock.close()
                raise missing_key_error(self.options.host)
            self._bound = bound
            app = App(self._service)
            loop = asyncio.get_running_loop()
            try:
                web = WebServer(await app.setup(), self.options)
                for sock in sockets:
                    self._listeners.append(await loop.create_server(web, sock=sock, backlog=256))
            except BaseException as error:
                self._close_listeners()
                for sock in sockets:
                    sock.close()
                await app.cleanup()
                if isinstance(error, OSError) and error_type(error) is ErrorType.PORT_IN_USE:
                    raise await port_in_use_error(self.options.host, self.options.port) from None
                raise
            self._app, self._web = app, web
            self._service.supervisor.start()
            self.address = Address(self.options.host, _port(sockets[0]))
            return self.address

    async def stop(self, grace_s: float = 0.0) -> None:
        """Close the port, let running requests finish for up to `grace_s` seconds, then cancel the rest."""
        async with self._changing:
            if self.address is None or self._web is None or self._app is None:
                return
            web, app = self._web, self._app
            self._close_listeners()
            self.address = None
            app.stopping = self._service.supervisor.stopping = True
            try:
                web.close_idle()
                await self._drain(grace_s)
            finally:  # also if `stop` itself is cancelled
                self._service.generator.cancel_all()
                await web.shutdown(_CANCEL_GRACE_S)
                await app.cleanup()
                await self._service.supervisor.stop()
                await self._service.parser.close()
                self._app = self._web = None

    async def _drain(self, seconds: float) -> None:
        """Wait up to `seconds` until no request is in progress."""
        ended = asyncio.Event()
        unsubscribe = self.log.changed.subscribe(lambda entry: ended.set() if not self.log.live else None)
        try:
            if self.log.live and seconds > 0:
                await asyncio.wait_for(ended.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            unsubscribe()

    def _current_values(self) -> CurrentValues:
        service = self._service
        return CurrentValues(
            service.engine.status,
            in_flight=len(self.log.live),
            generations=service.generator.running,
            rejected=service.generator.rejected,
            restarts=service.supervisor.restarts,
        )

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._bound = ()


def _port(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port
