"""The one server of an app or a command: started, stopped and configured.

The HTTP server is made, and what it needs imported, with the first start.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from mlxk_tui.config_file import ConfigError, save
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Publisher, Unsubscribe
from mlxk_tui.ops.core.os_errors import error_reason, error_type
from mlxk_tui.server.http import keys
from mlxk_tui.server.options import Address, ServerOptions, beyond_loopback, may_reach_beyond
from mlxk_tui.server.request_log import RequestEntry
from mlxk_tui.services.server.measurements import ServerMeasurements
from mlxk_tui.settings import LoadedSettings, server_options

if TYPE_CHECKING:
    from mlxk_tui.engine.client import Engine
    from mlxk_tui.engine.models import RunnableModel
    from mlxk_tui.server.server import Server

_PUBLISH_SECONDS = 0.1
"""Changes of requests are published at most this often, however many there are."""
_GRACE_SECONDS = 10.0
"""How long answers may go on after `toggle` stopped the server."""
_LAST_GRACE_SECONDS = 2.0
"""The same at the end of the program."""


class ServerPhase(str, Enum):
    """How far starting or stopping is."""

    OFF = "off"
    STARTING = "starting"
    ON = "on"
    STOPPING = "stopping"
    """The port is free; the last answers may end."""


class ServerControl:
    """Starts and stops the server, and says why it could not start.

    Args:
        loaded: the settings, and the file that changed ones are written to.
        cache: where the models are.
        engine: returns the engine, which the server shares and never stops.
        given: options of the command line by their names in `ServerOptions`; they go before the settings.
        remember: whether `change` writes to the config file.
        sample_seconds: see `ServerMeasurements`.
    """

    def __init__(
        self,
        loaded: LoadedSettings,
        cache: Cache,
        engine: Callable[[], Engine],
        *,
        given: Mapping[str, Any] | None = None,
        remember: bool = True,
        sample_seconds: float = 1.0,
    ) -> None:
        self.changed: Publisher[bool] = Publisher()
        """True where more than requests changed: the phase, the options, a problem."""
        self.phase = ServerPhase.OFF
        self.problem: OpError | None = None
        """Why the last start failed."""
        self.free_port: int | None = None
        """The next free port, where the configured one is taken."""
        self.options = server_options(loaded.settings, given)
        """With the stored API keys, once they have been read."""
        self.keys_from_environment = False
        """Whether the API keys come from the environment and cannot be changed here."""
        self.keys_problem: OpError | None = None
        """Why the stored keys cannot be read; without them the server does not start."""
        self.model: RunnableModel | None = None
        """The default model, as it was last found."""
        self.model_problem: OpError | None = None
        """Why it cannot be loaded; where only the settings name it, the server starts all the same."""
        self.server: Server | None = None
        """Made with the first start; stays, with its log."""
        self.measurements = ServerMeasurements(
            lambda: self.live, lambda: self.changed.publish(False), sample_seconds=sample_seconds
        )
        """Rates and open requests of the last minute."""
        self._given = given or {}
        self._config = loaded.path
        self._key_file = loaded.key_file
        self._cache = cache
        self._engine = engine
        self._remember = remember
        self._keys_read = False
        self._switching: asyncio.Task[None] | None = None
        self._publishing: asyncio.TimerHandle | None = None
        self._unsubscribe: Unsubscribe | None = None

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def address(self) -> Address | None:
        """Where it listens; None where it does not."""
        return self.server.address if self.server is not None else None

    @property
    def url(self) -> str:
        """Base of all routes: where it listens, or would."""
        return (self.address or Address(self.options.host, self.options.port)).url

    @property
    def port(self) -> int:
        """The port it listens on; 0 where it does not."""
        return self.address.port if self.address is not None else 0

    @property
    def live(self) -> tuple[RequestEntry, ...]:
        """The requests that are being answered now."""
        return self.server.log.live if self.server is not None else ()

    @property
    def entries(self) -> list[RequestEntry]:
        """All requests in the log: first those that are being answered, then the newest."""
        return list(self.server.log) if self.server is not None else []

    @property
    def key_path(self) -> str:
        """The file of the stored keys."""
        return str(self._key_file)

    @property
    def keeps_last_key(self) -> bool:
        """Whether the last key must stay, because other machines get in or may do so.

        Only a running server knows what a host name stands for; it refuses by itself.
        """
        host = self.options.host
        return beyond_loopback(host) if self.port else may_reach_beyond(host)

    # -- API keys ------------------------------------------------------------------------------------

    def read_keys(self) -> None:
        """Read the stored keys, unless that was done; `keys_problem` says why they cannot be read."""
        if not self._keys_read:
            with contextlib.suppress(OpError):
                self._read_keys()

    def _read_keys(self) -> None:
        try:
            found, from_environment = self._stored_keys()
        except OpError as error:
            self.keys_problem = error
            raise
        self._keys_read = True
        self.keys_problem = None
        self.options = replace(self.options, api_keys=found)
        self.keys_from_environment = from_environment

    def _stored_keys(self) -> tuple[Mapping[str, str], bool]:
        """Return the keys of command line, environment or file, in that order, and whether of the second."""
        if given := self._given.get("api_keys"):
            return given, False
        if found := keys.from_environment(os.environ):
            return found, True
        return keys.read_keys(self._key_file), False

    # -- start and stop ------------------------------------------------------------------------------

    def toggle(self) -> None:
        """Start, or stop; stopping while the last answers may still end cuts them off."""
        if self.phase is ServerPhase.OFF:
            self._switch(self._start_quietly())
        elif self.phase is ServerPhase.ON:
            self._switch(self.stop(_GRACE_SECONDS))
        elif self.phase is ServerPhase.STOPPING and self._switching is not None:
            self._switching.cancel()

    def _switch(self, work: Coroutine[Any, Any, None]) -> None:
        self._switching = asyncio.create_task(work)

    async def _start_quietly(self) -> None:
        with contextlib.suppress(OpError):  # `problem` says why
            await self.start()

    async def start(self) -> Address:
        """Listen, and return where.

        Raises:
            OpError: those of `Server.start`; the stored keys cannot be read; the model that the command line
                names cannot be loaded.
        """
        self._set(ServerPhase.STARTING, None)
        try:
            self._read_keys()
            server = self.server or await self._make()
            await self._find_model()
            if self.model_problem is not None and self._given.get("model") is not None:
                raise self.model_problem
            server.reload(self.options)
            address = await server.start()
        except OpError as error:
            self._set(ServerPhase.OFF, error)
            raise
        except OSError as error:
            kind = error_type(error) or ErrorType.INTERNAL_ERROR
            problem = OpError(kind, f"The server cannot listen: {error_reason(error)}.")
            self._set(ServerPhase.OFF, problem)
            raise problem from error
        except BaseException:
            self._set(ServerPhase.OFF, None)
            raise
        self.measurements.start()
        self._set(ServerPhase.ON, None)
        return address

    async def _make(self) -> Server:
        # A quarter of a second of imports: not on the loop that draws.
        module = await asyncio.to_thread(importlib.import_module, "mlxk_tui.server.server")
        server: Server = module.Server(self._engine(), self._cache, self.options)
        self._unsubscribe = server.log.changed.subscribe(self._on_request)
        self.server = server
        return server

    async def check_model(self) -> None:
        """Look again whether the default model can be loaded."""
        before = self.model_problem
        await self._find_model()
        if str(before) != str(self.model_problem):
            self.changed.publish(True)

    async def _find_model(self) -> None:
        options = self.options
        model: RunnableModel | None = None
        problem: OpError | None = None
        if options.model is not None:
            models = await asyncio.to_thread(importlib.import_module, "mlxk_tui.engine.models")
            spec = options.aliases.get(options.model, options.model)
            try:
                model = await models.find_runnable(self._cache, spec, force=options.force)
            except OpError as error:
                problem = error
            except OSError:
                pass  # the first request says why
        if options.model == self.options.model:  # it was not changed meanwhile
            self.model, self.model_problem = model, problem

    async def stop(self, grace_s: float = 0.0) -> None:
        """Free the port at once and let answers go on for at most `grace_s` seconds.

        When it is cancelled, the remaining answers are cut off.
        """
        server = self.server
        if server is None:
            return
        self.measurements.stop()
        self._set(ServerPhase.STOPPING, None)
        try:
            await server.stop(grace_s)
        finally:
            self._set(ServerPhase.OFF, None)

    async def close(self) -> None:
        """Stop for good: the port is free, and no request is left."""
        if self._switching is not None and not self._switching.done():
            if self.phase is ServerPhase.STOPPING:
                self._switching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._switching
        if self.server is not None and self.server.running:
            await self.stop(_LAST_GRACE_SECONDS)
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._publishing is not None:
            self._publishing.cancel()

    def _set(self, phase: ServerPhase, problem: OpError | None) -> None:
        self.phase = phase
        self.problem = problem
        self.free_port = None
        if problem is not None and problem.type is ErrorType.PORT_IN_USE:
            from mlxk_tui.server.http.sockets import next_free_port  # loaded: it said so

            self.free_port = next_free_port(self.options.host, self.options.port)
        self.changed.publish(True)

    # -- options -------------------------------------------------------------------------------------

    async def change(self, options: ServerOptions) -> None:
        """Use other options, save them, and listen elsewhere where the address is another one.

        Raises:
            OpError: keys or settings cannot be written, or other machines would get in without a key;
                then nothing has changed.
        """
        before = self.options
        moves = self.phase is ServerPhase.ON and (before.host, before.port) != (options.host, options.port)
        server = None if moves else self.server
        if server is not None:
            server.reload(options)  # first: it may refuse
        try:
            if options.api_keys != before.api_keys:
                await asyncio.to_thread(keys.save_keys, self._key_file, options.api_keys)
            if self._remember:
                await asyncio.to_thread(self._save, before, options)
        except OpError:
            if server is not None:
                server.reload(before)
            raise
        self.options = options
        self.problem = self.free_port = None
        if options.model != before.model:
            self.model = self.model_problem = None
        if moves:
            await self.stop()
            await self._start_quietly()
        self.changed.publish(True)

    def _save(self, before: ServerOptions, options: ServerOptions) -> None:
        values: dict[str, tuple[str | int, str | int]] = {
            "server_host": (before.host, options.host),
            "server_port": (before.port, options.port),
            "server_origins": (", ".join(before.origins), ", ".join(options.origins)),
            "server_model": (before.model or "", options.model or ""),
        }
        for name, (old, new) in values.items():
            if old != new:
                try:
                    save(self._config, name, new)
                except ConfigError as error:
                    raise OpError(ErrorType.PERMISSION_DENIED, str(error)) from None

    def reload(self, loaded: LoadedSettings) -> None:
        """Use settings and keys that were read again; host and port count from the next start on.

        Raises:
            OpError: the keys cannot be read, or the last one is gone while other machines get in; then
                nothing has changed.
        """
        found, from_environment = self._stored_keys()
        options = replace(server_options(loaded.settings, self._given), api_keys=found)
        if self.server is not None:
            self.server.reload(options)
        self.options, self.keys_from_environment = options, from_environment

    # -- requests ------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget the requests that have ended."""
        if self.server is not None:
            self.server.log.clear()
            self.measurements.failed = 0
            self.changed.publish(True)

    def _on_request(self, entry: RequestEntry) -> None:
        self.measurements.count(entry)
        if self._publishing is None:
            self._publishing = asyncio.get_running_loop().call_later(_PUBLISH_SECONDS, self._publish_requests)

    def _publish_requests(self) -> None:
        self._publishing = None
        self.changed.publish(False)
