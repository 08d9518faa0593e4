"""Loads a model in the worker, and retries without batching if the batching trial crashes the worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mlxk_tui.engine.connection.connection import Reply, WorkerConnection
from mlxk_tui.engine.generation import LoadProgress
from mlxk_tui.engine.protocol import BatchingMode, Load
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError

if TYPE_CHECKING:
    from mlxk_tui.engine.models import RunnableModel

_LOG = logging.getLogger("mlxk_tui.engine")


class ModelLoader:
    """Loads models over a connection and remembers which of them crashed in the batching trial.

    Args:
        connection: the connection to the worker, which is started if it does not run.
        cache_bytes: maximum size of the prompt cache.
        batching: let the worker test whether requests can be batched.
        stopping: returns whether the engine is being stopped; no worker is started then.
    """

    def __init__(
        self, connection: WorkerConnection, *, cache_bytes: int, batching: bool, stopping: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._stopping = stopping
        self._cache_bytes = cache_bytes
        self._batching = batching
        self._crashed: set[str] = set()
        """Folders of models whose batching trial crashed the worker."""

    async def load(
        self, model: RunnableModel, weights: CpuWeights, on_loading: Callable[[LoadProgress], None]
    ) -> Reply:
        """Load a model and return the worker's reply.

        Args:
            model: the model.
            weights: how to store its weights on a CPU.
            on_loading: receives the progress.

        Raises:
            OpError: the worker's error, `engine_crashed`, or `cancelled` (the engine was stopped).
        """
        folder, stage = str(model.folder), ""

        def on_progress(event: LoadProgress) -> None:
            nonlocal stage
            stage = event.stage
            on_loading(event)

        while True:
            if self._connection.pid is None:
                on_progress(LoadProgress("start", 0, 0))
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
                return await self._connection.request(command, on_progress)
            except OpError as error:
                in_trial = stage == "batching" and mode == "try"
                if error.type is not ErrorType.ENGINE_CRASHED or not in_trial or self._stopping():
                    raise
                _LOG.warning("%s crashed in the batching trial; its requests take turns", model.name)
                self._crashed.add(folder)
