"""The app's one server: switched, set up and measured; nothing of it is made before the first on."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from mlxk_tui.config_file import ConfigError, save
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Publisher, Unsubscribe
from mlxk_tui.ops.core.os_errors import reason_of
from mlxk_tui.server.http.keys import needs_key, save_keys
from mlxk_tui.server.options import Address
from mlxk_tui.server.request_log import RequestEntry
from mlxk_tui.services.server import setup as setups
from mlxk_tui.services.server.setup import Setup
from mlxk_tui.settings import LoadedSettings

if TYPE_CHECKING:
    from mlxk_tui.engine.client import Engine
    from mlxk_tui.server.server import Server

SECONDS = 60
"""How far the measured past reaches."""
_TELL_SECONDS = 0.1
"""Changes of requests are told at most this often, however many there are."""
_GRACE_SECONDS = 10.0
"""How long answers may go on once the server was switched off."""
_LAST_GRACE_SECONDS = 2.0
"""The same at the end of the program."""


class ServerPhase(str, Enum):
    """Where the switch stands."""

    OFF = "off"
    STARTING = "starting"
    ON = "on"
    STOPPING = "stopping"
    """The port is free; the last answers may end."""


class ServerBackend:
    """The server of one app.

    Args:
        loaded: the settings, and the file that new ones are written to.
        cache: where the models are.
        engine: returns the engine, which this shares with the chats and never stops.
        remember: whether what is set here is written to the config file.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        loaded: LoadedSettings,
        cache: Cache,
        engine: Callable[[], Engine],
        *,
        remember: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.changed: Publisher[bool] = Publisher()
        """True where more than requests is different: the switch, the setup, a problem."""
        self.phase = ServerPhase.OFF
        self.problem: OpError | None = None
        """Why it could not be switched on."""
        self.free_port: int | None = None
        """The next free port, where the one asked for is taken."""
        self.setup = setups.from_settings(loaded.settings)
        self.keys_problem: OpError | None = None
        """Why the kept keys cannot be read; nothing is served without them."""
        self.model_problem: OpError | None = None
        """Why the model of requests that name none cannot be loaded; the server is on all the same."""
        self.server: Server | None = None
        """Made with the first on; stays, with its log."""
        self.since = 0.0
        """When it was switched on, in seconds since the epoch."""
        self.rates: deque[float] = deque(maxlen=SECONDS)
        """Tokens per second over all requests, a value for each of the last seconds."""
        self.queue: deque[int] = deque(maxlen=SECONDS)
        """Open requests, a value for each of the last seconds."""
        self.failed = 0
        """Requests that ended with an error."""
        self.sample_seconds = 1.0
        """How often rate and queue are measured while it is on."""
        self._config = loaded.path
        self._key_file = loaded.key_file
        self._cache = cache
        self._engine = engine
        self._remember = remember
        self._clock = clock
        self._keys_read = False
        self._switching: asyncio.Task[None] | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._sampling: asyncio.TimerHandle | None = None
        self._unsubscribe: Unsubscribe | None = None
        self._ended_tokens = 0
        self._seen_tokens = 0
        self._sampled_at = 0.0

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Base of all routes: where it listens, or would."""
        if self.server is not None and self.server.address is not None:
            return self.server.address.url
        return Address(self.setup.host, self.setup.port).url

    @property
    def port(self) -> int:
        """The port it listens on; 0 where it does not."""
        address = self.server.address if self.server is not None else None
        return address.port if address is not None else 0

    @property
    def live(self) -> tuple[RequestEntry, ...]:
        """What is being answered now."""
        return self.server.log.live if self.server is not None else ()

    @property
    def entries(self) -> list[RequestEntry]:
        """Every request that is still known, what is being answered first, then the newest."""
        return list(self.server.log) if self.server is not None else []

    @property
    def key_path(self) -> str:
        """Where keys are kept."""
        return str(self._key_file)

    @property
    def keeps_last_key(self) -> bool:
        """Whether the last key must stay, because other machines get in or may do so.

        Of a host name only a server that runs knows what it stands for; that one refuses by itself.
        """
        host = self.setup.host
        return setups.beyond_loopback(host) if self.port else setups.may_reach_beyond(host)

    def read_keys(self) -> None:
        """Read the kept keys, unless that was done."""
        if not self._keys_read:
            self._read_keys()

    def _read_keys(self) -> None:
        try:
            found, foreign = setups.read_keys(self._key_file)
        except OpError as error:
            self.keys_problem = error
            return
        self._keys_read = True
        self.keys_problem = None
        self.setup = replace(self.setup, keys=found, foreign_keys=foreign)

    # -- the switch ----------------------------------------------------------------------------------

    def toggle(self) -> None:
        """Switch on, or off; off while the last answers may end cuts them."""
        if self.phase is ServerPhase.OFF:
            self._start(self._on())
        elif self.phase is ServerPhase.ON:
            self._start(self._off(_GRACE_SECONDS))
        elif self.phase is ServerPhase.STOPPING and self._switching is not None:
            self._switching.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._switching = asyncio.create_task(work)

    async def _on(self) -> None:
        self._set(ServerPhase.STARTING, None)
        try:
            self._read_keys()
            if self.keys_problem is not None:
                raise self.keys_problem
            if setups.beyond_loopback(self.setup.host) and not self.setup.keys:
                raise needs_key(self.setup.host.strip())
            server = self.server or await self._make()
            await self._judge_model()
            server.reload(self.setup.options)
            await server.start()
        except OpError as error:
            self._set(ServerPhase.OFF, error)
            return
        except OSError as error:
            cause = reason_of(error)
            self._set(
                ServerPhase.OFF, OpError(ErrorType.INTERNAL_ERROR, f"The server cannot listen: {cause}.")
            )
            return
        except BaseException:
            self._set(ServerPhase.OFF, None)
            raise
        self.since = self._clock()
        self._sampled_at = time.monotonic()
        self._sample_later()
        self._set(ServerPhase.ON, None)

    async def _make(self) -> Server:
        # A quarter of a second of imports: not on the loop that draws.
        module = await asyncio.to_thread(importlib.import_module, "mlxk_tui.server.server")
        server: Server = module.Server(self._engine(), self._cache, self.setup.options)
        self._unsubscribe = server.log.changed.subscribe(self._request_changed)
        self.server = server
        return server

    async def judge_model(self) -> None:
        """Look again whether the model of requests that name none can be loaded."""
        before = self.model_problem
        await self._judge_model()
        if str(before) != str(self.model_problem):
            self._publish(True)

    async def _judge_model(self) -> None:
        name, problem = self.setup.model, None
        if name is not None:
            models = await asyncio.to_thread(importlib.import_module, "mlxk_tui.engine.models")
            try:
                await models.find_runnable(self._cache, name)
            except OpError as error:
                problem = error
            except OSError:
                pass  # the first request tells
        if name == self.setup.model:  # nobody chose another one meanwhile
            self.model_problem = problem

    async def _off(self, grace_s: float) -> None:
        server = self.server
        if server is None:
            return
        if self._sampling is not None:
            self._sampling.cancel()
            self._sampling = None
        self._set(ServerPhase.STOPPING, None)
        try:
            await server.stop(grace_s)
        finally:
            self.rates.clear()
            self.queue.clear()
            self._set(ServerPhase.OFF, None)

    async def close(self) -> None:
        """Switch off for good: the port is free, and no request is left."""
        if self._switching is not None and not self._switching.done():
            if self.phase is ServerPhase.STOPPING:
                self._switching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._switching
        if self.server is not None and self.server.running:
            await self._off(_LAST_GRACE_SECONDS)
        if self._unsubscribe is not None:
            self._unsubscribe()
        for timer in (self._telling, self._sampling):
            if timer is not None:
                timer.cancel()

    # -- the setup -----------------------------------------------------------------------------------

    async def change(self, setup: Setup) -> None:
        """Take another setup, keep it, and listen elsewhere where that is different.

        Raises:
            OpError: keys or settings cannot be written, or other machines would get in without a key;
                nothing was changed then.
        """
        before = self.setup
        moves = self.phase is ServerPhase.ON and (before.host, before.port) != (setup.host, setup.port)
        server = None if moves else self.server
        if server is not None:
            server.reload(setup.options)  # first: it may refuse
        try:
            if setup.keys != before.keys:
                await asyncio.to_thread(save_keys, self._key_file, setup.keys)
            if self._remember:
                await asyncio.to_thread(self._save, before, setup)
        except OpError:
            if server is not None:
                server.reload(before.options)
            raise
        self.setup = setup
        self.problem = self.free_port = None
        if setup.model != before.model:
            self.model_problem = None
        if moves:
            await self._off(0)
            await self._on()
        self._publish(True)

    def _save(self, before: Setup, setup: Setup) -> None:
        values: dict[str, tuple[str | int, str | int]] = {
            "server_host": (before.host, setup.host),
            "server_port": (before.port, setup.port),
            "server_origins": (", ".join(before.origins), ", ".join(setup.origins)),
            "server_model": (before.model or "", setup.model or ""),
        }
        for name, (old, new) in values.items():
            if old != new:
                try:
                    save(self._config, name, new)
                except ConfigError as error:
                    raise OpError(ErrorType.PERMISSION_DENIED, str(error)) from None

    # -- what happens --------------------------------------------------------------------------------

    def _set(self, phase: ServerPhase, problem: OpError | None) -> None:
        self.phase = phase
        self.problem = problem
        self.free_port = None
        if problem is not None and problem.type is ErrorType.PORT_IN_USE:
            self.free_port = setups.next_free_port(self.setup.host, self.setup.port)
        self._publish(True)

    def _request_changed(self, entry: RequestEntry) -> None:
        if not entry.live:
            self._ended_tokens += entry.completion_tokens
            self.failed += entry.error is not None
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._publish(False)

    def _publish(self, structure: bool) -> None:
        self.changed.publish(structure)

    def clear(self) -> None:
        """Forget the requests that have ended."""
        if self.server is not None:
            self.server.log.clear()
            self.failed = 0
            self._publish(True)

    def _sample_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sampling = loop.call_later(self.sample_seconds, self._sample)

    def _sample(self) -> None:
        now = time.monotonic()
        tokens = self._ended_tokens + sum(entry.completion_tokens for entry in self.live)
        rate = max(0, tokens - self._seen_tokens) / max(now - self._sampled_at, 1e-3)
        self._seen_tokens, self._sampled_at = tokens, now
        moving = rate > 0 or self.live or any(self.rates) or any(self.queue)
        self.rates.append(rate)
        self.queue.append(len(self.live))
        self._sample_later()
        if moving:
            self._publish(False)
