"""The health of the server, and restarts of the engine after a crash."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum

from mlxk_tui.engine.client import Engine, EngineState, EngineStatus
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.server.model_resolver import loaded_spec

_MAX_RESTARTS, _WINDOW_S = 3, 120.0


class HealthState(str, Enum):
    """The `status` that `/health` reports."""

    READY = "ready"
    """Requests are served, after loading their model if needed."""
    LOADING = "loading"
    UNRESPONSIVE = "unresponsive"
    """The inference process doesn't respond; unless it recovers, it is killed and restarted."""
    RESTARTING = "restarting"
    """The inference process crashed and is being restarted."""
    FAILED = "failed"
    """It crashed too often, or the model can't be loaded again; the next request tries once more."""
    STOPPING = "stopping"


class Supervisor:
    """Watches the engine while the server runs, and reloads the model after a crash.

    Args:
        engine: the engine to watch.
        resolve: finds a cached model by `NAME@REV`.
    """

    def __init__(self, engine: Engine, resolve: Callable[[str], Awaitable[RunnableModel]]) -> None:
        self.restarts = 0
        """Number of engine crashes while this server ran."""
        self.stopping = False
        self._engine = engine
        self._resolve = resolve
        self._model: str | None = None
        self._failed = self._crash_loop = False
        self._crash_times: deque[float] = deque(maxlen=_MAX_RESTARTS)
        self._restart: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def last_model(self) -> str | None:
        """Return the `NAME@REV` of the last loaded model, or None if it was unloaded on request."""
        return self._model

    @property
    def health(self) -> HealthState:
        """The current state, as `/health` reports it."""
        if self.stopping:
            return HealthState.STOPPING
        if self._restart is not None:
            return HealthState.RESTARTING
        if self._engine.status.unresponsive:
            return HealthState.UNRESPONSIVE
        state = self._engine.status.state
        if state in {EngineState.LOADING, EngineState.STARTING}:
            return HealthState.LOADING
        # Without a model there is nothing to reload: the next request starts a new process anyway.
        lost = state is EngineState.FAILED and (self._model is not None or self._crash_loop)
        return HealthState.FAILED if lost else HealthState.READY

    def start(self) -> None:
        """Subscribe to the engine's status."""
        self.stopping = False
        self._model = None
        self._unsubscribe = self._engine.subscribe(self._on_status)
        self._on_status(self._engine.status)

    async def stop(self) -> None:
        """Unsubscribe, and cancel a restart in progress."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        restart, self._restart = self._restart, None
        if restart is not None:
            restart.cancel()
            with suppress(asyncio.CancelledError):
                await restart

    def _on_status(self, status: EngineStatus) -> None:
        if status.model is not None:
            self._model = loaded_spec(status.model)
        failed = status.state is EngineState.FAILED
        if failed and not self._failed:
            self.restarts += 1
            now = time.monotonic()
            self._crash_loop = (
                len(self._crash_times) == _MAX_RESTARTS and now - self._crash_times[0] < _WINDOW_S
            )
            self._crash_times.append(now)
            if (
                self._model is not None
                and not self._crash_loop
                and self._restart is None
                and not self.stopping
            ):
                self._restart = asyncio.create_task(self._load(self._model))
        elif status.state in {EngineState.IDLE, EngineState.STOPPED}:
            self._model = None  # unloaded on request
        self._failed = failed

    async def _load(self, spec: str) -> None:
        try:
            await self._engine.load(await self._resolve(spec))
        except OpError:  # the engine's status has it, and the next request gets the same error
            pass
        finally:
            self._restart = None
