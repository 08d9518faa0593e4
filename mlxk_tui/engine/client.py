"""The engine's async client: load, generate, cancel, unload, stop. This process does not import MLX."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mlxk_tui.engine import memory
from mlxk_tui.engine.admission import Admission, AdmissionQueue
from mlxk_tui.engine.connection.connection import Reply, WorkerConnection
from mlxk_tui.engine.connection.liveness import LivenessLimits
from mlxk_tui.engine.embedding import Embeddings, check_texts, decode_vectors, split_texts
from mlxk_tui.engine.generation import GenerationRequest, LoadProgress
from mlxk_tui.engine.generation_run import GenerationRun
from mlxk_tui.engine.model_loader import ModelLoader
from mlxk_tui.engine.protocol import (
    Command,
    Counted,
    CountTokens,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    Loaded,
    Tokenize,
    Tokenized,
    Unload,
)
from mlxk_tui.engine.status import EngineState, EngineStatus, ModelStatus
from mlxk_tui.engine.stream import GenerationStream
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, Publisher, Unsubscribe, ignore_event
from mlxk_tui.ops.core.remedies import Remedy

if TYPE_CHECKING:
    from mlxk_tui.engine.models import RunnableModel

__all__ = ["Embeddings", "Engine", "EngineState", "EngineStatus", "GenerationStream", "ModelStatus"]

_NO_PROGRESS = LoadProgress("start", 0, 0)
_ATTEMPTS = 3
"""How often a request is retried if the worker dies just before it is sent."""


class Engine:
    """Runs models in a worker process, which is started on first use.

    An app or a command has one engine; the chat pane and the server share it. Call all methods from the
    same event loop.

    Args:
        idle_unload_s: unload the model after this many seconds without a request; 0 never unloads it.
        cache_bytes: maximum size of the prompt cache; None for a tenth of the memory.
        liveness_limits: when a worker is considered stuck and is killed; a busy one never is.
        batching: decode concurrent requests as one batch if the model supports it. Otherwise requests take
            turns, and the trial at load is skipped.
        environ: environment of the worker; defaults to that of this process.
        weights: how weights are stored if there is no GPU.
    """

    def __init__(
        self,
        *,
        idle_unload_s: float = 0,
        cache_bytes: int | None = None,
        liveness_limits: LivenessLimits | None = None,
        batching: bool = True,
        environ: Mapping[str, str] | None = None,
        weights: memory.WeightsPolicy | None = None,
    ) -> None:
        self._weights = weights or memory.WeightsPolicy()
        self.idle_unload_s = idle_unload_s
        """May be changed at any time; applies from the next request on."""
        self._queue = AdmissionQueue(self._on_change)
        self._connection = WorkerConnection(
            self._on_change,
            self._on_worker_exit,
            liveness_limits=liveness_limits or LivenessLimits(),
            environ=environ,
        )
        self._loader = ModelLoader(
            self._connection,
            cache_bytes=memory.prompt_cache_bytes() if cache_bytes is None else cache_bytes,
            batching=batching,
            stopping=lambda: self._stopping is not None,
        )
        self._loaded: ModelStatus | None = None
        self._loading: str | None = None
        self._progress = _NO_PROGRESS
        self._last_error: OpError | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changes: Publisher[EngineStatus] = Publisher()
        self._published = EngineStatus()

    @property
    def liveness_limits(self) -> LivenessLimits:
        """Limits after which a worker is considered stuck; may be changed at any time."""
        return self._connection.liveness_limits

    @liveness_limits.setter
    def liveness_limits(self, liveness_limits: LivenessLimits) -> None:
        self._connection.liveness_limits = liveness_limits

    @property
    def status(self) -> EngineStatus:
        """The current status."""
        heartbeat = self._connection.heartbeat
        return EngineStatus(
            state=self._state,
            model=self._loaded,
            loading=self._loading,
            loading_done=self._progress.done,
            loading_total=self._progress.total,
            streams=self._connection.streams,
            waiting=self._queue.waiting,
            tokens_per_s=heartbeat.tokens_per_s if heartbeat and self._generating else 0.0,
            memory_bytes=heartbeat.memory_bytes if heartbeat else 0,
            tokenizing_bytes=heartbeat.tokenizing_bytes if heartbeat else 0,
            last_error=self._last_error,
            pid=self._connection.pid,
            unresponsive=self._connection.unresponsive,
            blas=self._connection.blas,
        )

    @property
    def _generating(self) -> bool:
        """Whether tokens are being generated."""
        return self._connection.streams > 0 and not self._connection.unresponsive

    def subscribe(self, callback: Callable[[EngineStatus], object]) -> Unsubscribe:
        """Call `callback` with each new status, in the event loop; return a function that unsubscribes."""
        return self._changes.subscribe(callback)

    async def load(self, model: RunnableModel, *, on_event: OnEvent = ignore_event) -> ModelStatus:
        """Load a model, after the streams of any other model have ended.

        Args:
            model: the model.
            on_event: receives `Progress` events with the stages of `LoadProgress`, and bytes while
                the weights are read.

        Raises:
            OpError: `insufficient_memory`, `model_not_runnable`, `engine_crashed`, `dependency_missing`,
                `cancelled` (the engine was stopped).
        """
        begin = time.monotonic()

        def on_loading(event: LoadProgress) -> None:
            rate = event.done / max(time.monotonic() - begin, 1e-3)
            on_event(Progress(event.stage, model.name, event.done, event.total, rate))

        loaded = await self._acquire(model, on_loading)
        self._queue.leave()
        return loaded

    async def unload(self) -> None:
        """Unload the model once its streams have ended; does nothing if no model is loaded."""
        if self._loaded is None and self._queue.idle:
            return
        await self._queue.enter(None)
        try:
            if self._loaded is not None:
                self._loaded = None
                self._on_change()  # before the worker unloads: if that crashes it, no model was lost
                await self._connection.request(Unload)
        finally:
            self._queue.finish_switch(None)

    async def stop(self) -> None:
        """Stop the engine for good: running streams raise `cancelled`, and the worker process ends."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    def generate(self, model: RunnableModel, request: GenerationRequest) -> GenerationStream:
        """Return the event stream of a generation, which ends with `Finished`. Loads the model if necessary.

        Generation begins when the first event is awaited. Closing the stream (`aclose`), cancelling the
        task that awaits it, or dropping the stream frees its row within one step. `cancel` does the same
        but lets the stream continue to its `Finished`.

        Raises:
            OpError: while iterating: `validation_error`, `context_length_exceeded`, `engine_crashed`,
                `cancelled` (the engine was stopped), and the errors of `load`.
        """
        run = GenerationRun(
            request,
            self._connection,
            acquire=partial(self._acquire, model),
            release=self._queue.leave,
            changed=self._on_change,
            spawn=self._spawn,
        )
        stream = GenerationStream(run.begin, run.cancel)
        run.stream = weakref.ref(stream)
        return stream

    async def count_tokens(
        self,
        model: RunnableModel,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> int:
        """Return the number of prompt tokens of a conversation. Loads the model if necessary.

        The arguments are the fields of the same names in `GenerationRequest`.

        Raises:
            OpError: as `generate`, except `context_length_exceeded`.
        """
        command = partial(
            CountTokens, messages=tuple(messages), tools=tuple(tools), template_kwargs=template_kwargs or {}
        )
        reply = await self._request(model, command)
        return reply.tokens if isinstance(reply, Counted) else 0

    async def tokenize(self, model: RunnableModel, command: Tokenize) -> Tokenized:
        """Return the tokens of a text or a conversation; ignores `command.id`. Loads the model if necessary.

        Raises:
            OpError: as `generate`, except `context_length_exceeded`.
        """
        reply = await self._request(model, lambda number: replace(command, id=number))
        return reply if isinstance(reply, Tokenized) else Tokenized(0)

    async def detokenize(self, model: RunnableModel, tokens: Sequence[int]) -> str:
        """Return the text of token ids. Loads the model if necessary.

        Raises:
            OpError: `validation_error` for an id that the model does not have; and those of `generate`.
        """
        reply = await self._request(model, partial(Detokenize, tokens=tuple(tokens)))
        return reply.text if isinstance(reply, Detokenized) else ""

    async def embed(self, model: RunnableModel, texts: Sequence[str]) -> Embeddings:
        """Return a vector of unit length for each text. Loads the model if necessary.

        Streams of the same model continue meanwhile. Cancelling takes effect within one step.

        Raises:
            OpError: `validation_error`: no text, an empty text, or not an embedding model;
                `context_length_exceeded`; `model_not_runnable`: mlx-lm cannot run this kind of embedding
                model; and the errors of `generate`.
        """
        check_texts(model, texts)
        await self._acquire(model, lambda event: None)
        vectors: list[list[float]] = []
        tokens = 0
        try:
            for part in split_texts(texts):
                reply = await self._connection.request(partial(Embed, texts=part))
                if isinstance(reply, Embedded):
                    vectors += decode_vectors(reply)
                    tokens += reply.tokens
        finally:
            self._queue.leave()
        return Embeddings(vectors, tokens)

    # Loading

    async def _acquire(self, model: RunnableModel, on_loading: Callable[[LoadProgress], None]) -> ModelStatus:
        """Wait until `model` is loaded and count one more request of it, until `self._queue.leave()`."""
        key = str(model.folder)
        for _ in range(_ATTEMPTS):
            if self._stopping is not None:
                raise _stopped_error()
            if await self._queue.enter(key) is Admission.RUN:
                current = self._loaded
                if current is not None and current.folder == key and self._connection.pid is not None:
                    return current
                self._queue.leave()  # the worker has just died
                await self._connection.wait_exited()
                continue
            try:
                loaded = await self._load(model, key, on_loading)
            except BaseException:
                self._queue.finish_switch(self._loaded.folder if self._loaded else None)
                raise
            self._queue.finish_switch(key, run=True)
            return loaded
        raise OpError(
            ErrorType.ENGINE_CRASHED, "The inference process keeps crashing.", remedy=Remedy.TRY_AGAIN
        )

    async def _request(self, model: RunnableModel, command: Callable[[int], Command]) -> Reply:
        """Send a command to the worker and return its reply. Loads the model if necessary."""
        await self._acquire(model, lambda event: None)
        try:
            return await self._connection.request(command)
        finally:
            self._queue.leave()

    async def _load(
        self, model: RunnableModel, key: str, on_loading: Callable[[LoadProgress], None]
    ) -> ModelStatus:
        def on_progress(event: LoadProgress) -> None:
            if event.total:  # only the weights stage counts bytes
                self._progress = event
                self._on_change()
            on_loading(event)

        self._loading = model.name
        self._on_change()
        try:
            heartbeat = self._connection.heartbeat
            weights = self._weights.for_model(model.name)
            memory.check_memory_for(model, heartbeat.memory_bytes if heartbeat else 0, weights)
            self._loaded = None
            reply = await self._loader.load(model, weights, on_progress)
            if not isinstance(reply, Loaded):
                raise OpError(ErrorType.INTERNAL_ERROR, "The inference process sent an unexpected reply.")
            loaded = ModelStatus.from_loaded(model.name, key, reply)
            self._loaded = loaded
            self._last_error = None
        except OpError as error:
            self._last_error = error
            raise
        finally:
            self._loading = None
            self._progress = _NO_PROGRESS
            self._on_change()
        return loaded

    # State changes

    @property
    def _state(self) -> EngineState:
        if self._loading is not None:
            return EngineState.LOADING if self._connection.ready else EngineState.STARTING
        if self._connection.pid is None:
            failed = self._connection.failed and self._stopping is None
            return EngineState.FAILED if failed else EngineState.STOPPED
        return EngineState.READY if self._loaded is not None else EngineState.IDLE

    def _on_change(self) -> None:
        self._update_idle_timer()
        status = self.status
        if status != self._published:
            self._published = status
            self._changes.publish(status)

    def _on_worker_exit(self, error: OpError) -> None:
        """Handle the end of the worker."""
        self._loaded = None
        if self._stopping is None:
            self._last_error = error
        self._queue.on_model_lost()

    def _update_idle_timer(self) -> None:
        idle = self.idle_unload_s > 0 and self._loaded is not None and self._queue.idle
        if idle and self._stopping is None:
            if self._idle_timer is None:
                loop = asyncio.get_running_loop()
                self._idle_timer = loop.call_later(self.idle_unload_s, self._on_idle)
        elif self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _on_idle(self) -> None:
        self._idle_timer = None
        self._spawn(self._unload_idle())

    async def _unload_idle(self) -> None:
        with contextlib.suppress(OpError):  # the worker died meanwhile, which freed the model
            await self.unload()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task and keep a reference to it until it is done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop(self) -> None:
        self._update_idle_timer()
        self._queue.reject_all(_stopped_error())
        await self._connection.stop(_stopped_error())
        self._loaded = None
        self._on_change()


def _stopped_error() -> OpError:
    return OpError(ErrorType.CANCELLED, "The engine was stopped.")
