"""A server that can be started and stopped again and again in one event loop."""

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
from mlxk_tui.server.http.keys import needs_key
from mlxk_tui.server.http.listening import bind, port_in_use
from mlxk_tui.server.http.parser import RequestParser
from mlxk_tui.server.http.security import Guard
from mlxk_tui.server.metrics import Metrics
from mlxk_tui.server.model_resolver import ModelResolver
from mlxk_tui.server.options import Address, ServerOptions
from mlxk_tui.server.request_log import RequestLog
from mlxk_tui.server.supervisor import HealthState, Supervisor

_BODIES = 8
"""How many of the largest bodies are held at once."""
_LAST_WORDS_S = 1.0
"""How long cancelled answers have to say so."""


class Server:
    """The HTTP server over an engine, which it shares and never stops.

    Args:
        engine: runs the models.
        cache: where the models are; nothing is ever downloaded into it.
        options: see `ServerOptions`.
    """

    def __init__(self, engine: Engine, cache: Cache, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.log = RequestLog(self.options.log_size)
        """Stays from one start to the next."""
        self.address: Address | None = None
        """Where it listens; None when it does not."""
        chooser = ModelResolver(engine, cache)
        supervisor = Supervisor(engine, chooser.choose)
        chooser.lost = supervisor.lost
        self._service = Service(
            options=self.options,
            guard=Guard(self.options),
            engine=engine,
            chooser=chooser,
            generator=Generator(engine, self.log),
            log=self.log,
            metrics=Metrics(),
            supervisor=supervisor,
            parser=RequestParser(),
            bodies=BodyBudget(_BODIES * self.options.max_body_bytes),
        )
        self._app: App | None = None
        self._web: WebServer | None = None
        self._listeners: list[asyncio.Server] = []
        self._bound: tuple[str, ...] = ()
        """The addresses that are really listened on."""
        self._changing = asyncio.Lock()
        self.reload(self.options)

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self.address is not None

    @property
    def health(self) -> HealthState:
        """What `/health` says."""
        return self._service.supervisor.health

    @property
    def generations(self) -> int:
        """Generations that run or wait."""
        return self._service.generator.running

    def reload(self, options: ServerOptions) -> None:
        """Take other options while it runs; host and port count from the next start on.

        Raises:
            OpError: `validation_error`: it listens beyond this machine, and the options hold no API key.
                The old ones stay in force then, all of them.
        """
        if self._bound:
            if not options.api_keys and not all(map(is_loopback, self._bound)):
                raise needs_key(self.options.host)
            options = replace(options, host=self.options.host, port=self.options.port)
        self.options = options
        service = self._service
        service.options = options
        service.guard = Guard(options)
        service.chooser.default = options.model
        service.chooser.aliases = dict(options.aliases)
        service.chooser.force = options.force
        service.bodies.max_bytes = _BODIES * options.max_body_bytes
        service.generator.max_queue = options.max_queue
        service.generator.log_prompts = options.log_prompts

    async def start(self) -> Address:
        """Listen; nothing happens where it does so already.

        Raises:
            OpError: `port_in_use`; `permission_denied` (a port below 1024); `validation_error` (an unknown
                host, or one beyond this machine without an API key).
        """
        async with self._changing:
            if self.address is not None:
                return self.address
            sockets = await bind(self.options)
            bound = tuple(str(sock.getsockname()[0]) for sock in sockets)
            if not self.options.api_keys and not all(map(is_loopback, bound)):  # taken away meanwhile
                for sock in sockets:
                    sock.close()
                raise needs_key(self.options.host)
            self._bound = bound
            app = App(self._service)
            web = WebServer(app.handle, self.options)
            loop = asyncio.get_running_loop()
            try:
                for sock in sockets:
                    self._listeners.append(await loop.create_server(web, sock=sock, backlog=256))
            except BaseException as error:
                self._close_listeners()
                for sock in sockets:
                    sock.close()
                if isinstance(error, OSError) and error_type(error) is ErrorType.PORT_IN_USE:
                    raise await port_in_use(self.options.host, self.options.port) from None
                raise
            self._app, self._web = app, web
            self._service.supervisor.start()
            self.address = Address(self.options.host, _port_of(sockets[0]))
            return self.address

    async def stop(self, grace_s: float = 0.0) -> None:
        """Free the port at once, let running answers go on for at most `grace_s` seconds, then end them."""
        async with self._changing:
            if self.address is None or self._web is None or self._app is None:
                return
            web, app = self._web, self._app
            self._close_listeners()
            self.address = None
            app.stopping = self._service.supervisor.stopping = True
            try:
                web.close_idle()
                await self._drained(grace_s)
            finally:  # also where somebody has lost patience
                self._service.generator.cancel_all()
                await web.shutdown(_LAST_WORDS_S)
                await self._service.supervisor.stop()
                await self._service.parser.close()
                self._app = self._web = None

    async def _drained(self, seconds: float) -> None:
        """Wait until no request is open, at most so long."""
        ended = asyncio.Event()
        unsubscribe = self.log.changed.subscribe(lambda entry: ended.set() if not self.log.live else None)
        try:
            if self.log.live and seconds > 0:
                await asyncio.wait_for(ended.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            unsubscribe()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._bound = ()


def _port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port
