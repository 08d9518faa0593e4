"""Has the worker load a model, and once more where the trial of its batching ends the worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mlxk_tui.engine.connection.connection import Reply, WorkerConnection
from mlxk_tui.engine.generation import Loading
from mlxk_tui.engine.protocol import BatchingMode, Load
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError

if TYPE_CHECKING:
    from mlxk_tui.engine.models import Runnable

_LOG = logging.getLogger("mlxk_tui.engine")


class ModelLoader:
    """Loads models over one connection, and remembers which of them cannot be batched.

    Args:
        connection: to the worker, which is started where there is none.
        cache_bytes: most bytes of kept prompt caches.
        batching: find out whether requests can be answered together.
        stopping: tells whether the engine is being stopped, when no further worker may start.
    """

    def __init__(
        self, connection: WorkerConnection, *, cache_bytes: int, batching: bool, stopping: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._stopping = stopping
        self._cache_bytes = cache_bytes
        self._batching = batching
        self._crashed: set[str] = set()
        """Folders of models whose trial of batching ended the worker."""

    async def load(
        self, model: Runnable, weights: CpuWeights, on_loading: Callable[[Loading], None]
    ) -> Reply:
        """Return what the worker answers.

        Raises:
            OpError: what the worker says, `engine_crashed`, `cancelled` (the engine was stopped).
        """
        folder, stage = str(model.folder), ""

        def on_progress(event: Loading) -> None:
            nonlocal stage
            stage = event.stage
            on_loading(event)

        while True:
            if self._connection.pid is None:
                on_progress(Loading("start", 0, 0))
            await self._connection.start()
            mode: BatchingMode = "try" if self._batching and not model.embedding else "never"
            if folder in self._crashed:
                mode = "crashed"
            command = partial(
                Load,
                name=model.name,
                folder=folder,
                cache_bytes=self._cache_bytes,
                context_length=model.context_length,
                cpu_weights=weights,
                batching=mode,
            )
            try:
                return await self._connection.ask(command, on_progress)
            except OpError as error:
                tried = stage == "batching" and mode == "try"
                if error.type is not ErrorType.ENGINE_CRASHED or not tried or self._stopping():
                    raise
                _LOG.warning("%s crashed while batching was checked: its requests take turns", model.name)
                self._crashed.add(folder)
