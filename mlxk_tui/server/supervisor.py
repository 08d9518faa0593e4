"""Whether the service can answer, and the restart of an engine that died."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum

from mlxk_tui.engine.client import Engine, EngineState, EngineStatus
from mlxk_tui.engine.models import Runnable
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.server.model_resolver import spec_of

_MOST_RESTARTS, _WINDOW_S = 3, 120.0


class HealthState(str, Enum):
    """The word that `/health` says."""

    READY = "ready"
    """A request is answered at once, or as soon as its model is loaded."""
    LOADING = "loading"
    UNRESPONSIVE = "unresponsive"
    """The inference process stands still; it is ended and started again soon, unless it goes on."""
    RESTARTING = "restarting"
    """The inference process died and is being started again."""
    FAILED = "failed"
    """It died too often, or its model cannot be loaded any more; the next request tries once more."""
    STOPPING = "stopping"


class Supervisor:
    """Watches the engine while the server runs, and loads the model again after a crash.

    Args:
        engine: the engine.
        find: finds a model of the cache by its `NAME@REV`.
    """

    def __init__(self, engine: Engine, find: Callable[[str], Awaitable[Runnable]]) -> None:
        self.restarts = 0
        """How often the engine has died under this server."""
        self.stopping = False
        self._engine = engine
        self._find = find
        self._model: str | None = None
        self._failed = self._often = False
        self._died: deque[float] = deque(maxlen=_MOST_RESTARTS)
        self._restart: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def lost(self) -> str | None:
        """Return the `NAME@REV` of the model that was in memory last, unless it was unloaded on purpose."""
        return self._model

    @property
    def health(self) -> HealthState:
        """What the service can do now."""
        if self.stopping:
            return HealthState.STOPPING
        if self._restart is not None:
            return HealthState.RESTARTING
        if self._engine.status.unresponsive:
            return HealthState.UNRESPONSIVE
        state = self._engine.status.state
        if state in {EngineState.LOADING, EngineState.STARTING}:
            return HealthState.LOADING
        # Without a model there is nothing to bring back: the next request starts another process anyway.
        lost = state is EngineState.FAILED and (self._model is not None or self._often)
        return HealthState.FAILED if lost else HealthState.READY

    def start(self) -> None:
        """Begin to watch."""
        self.stopping = False
        self._model = None
        self._unsubscribe = self._engine.subscribe(self._look)
        self._look(self._engine.status)

    async def stop(self) -> None:
        """Watch no longer."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        restart, self._restart = self._restart, None
        if restart is not None:
            restart.cancel()
            with suppress(asyncio.CancelledError):
                await restart

    def _look(self, status: EngineStatus) -> None:
        if status.model is not None:
            self._model = spec_of(status.model)
        failed = status.state is EngineState.FAILED
        if failed and not self._failed:
            self.restarts += 1
            now = time.monotonic()
            self._often = len(self._died) == _MOST_RESTARTS and now - self._died[0] < _WINDOW_S
            self._died.append(now)
            if self._model is not None and not self._often and self._restart is None and not self.stopping:
                self._restart = asyncio.create_task(self._load(self._model))
        elif status.state in {EngineState.IDLE, EngineState.STOPPED}:
            self._model = None  # unloaded on purpose
        self._failed = failed

    async def _load(self, spec: str) -> None:
        try:
            await self._engine.load(await self._find(spec))
        except OpError:  # the status tells; the next request finds out the same
            pass
        finally:
            self._restart = None
