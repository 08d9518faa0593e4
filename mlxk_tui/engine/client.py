"""The engine as everything else sees it: load, generate, cancel, unload, stop; no MLX in this process."""

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
from mlxk_tui.engine.connection.connection import Reply, WorkerConnection
from mlxk_tui.engine.connection.liveness import Patience
from mlxk_tui.engine.embedding import Embeddings, check, parts_of, vectors_of
from mlxk_tui.engine.gate import Gate, Pass
from mlxk_tui.engine.generation import (
    Generation,
    Loading,
)
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
    from mlxk_tui.engine.models import Runnable

__all__ = ["Embeddings", "Engine", "EngineState", "EngineStatus", "GenerationStream", "ModelStatus"]

_UNREAD = Loading("start", 0, 0)
_ATTEMPTS = 3
"""How often a request looks for a worker that dies just before it is asked."""


class Engine:
    """Runs models in a worker process that starts with the first use.

    One of it serves a whole app or command: chat pane and server share it. All methods belong to
    one event loop.

    Args:
        idle_unload_s: seconds without a request after which the model is freed; 0 never.
        cache_bytes: most bytes of kept prompt caches; None for a tenth of the memory.
        patience: when a worker counts as stuck and is killed; a busy one never does;
            see `Patience` for the bounds.
        batching: answer requests together where the model can; without it they take turns, and no time is
            spent on finding out.
        environ: environment of the worker; that of this process by default.
        weights: how weights are held where there is no GPU.
    """

    def __init__(
        self,
        *,
        idle_unload_s: float = 0,
        cache_bytes: int | None = None,
        patience: Patience | None = None,
        batching: bool = True,
        environ: Mapping[str, str] | None = None,
        weights: memory.WeightsChoice | None = None,
    ) -> None:
        self._weights = weights or memory.WeightsChoice()
        self.idle_unload_s = idle_unload_s
        """May be changed at any time; counts from the next request on."""
        self._gate = Gate(self._changed)
        self._connection = WorkerConnection(
            self._changed, self._lost, patience=patience or Patience(), environ=environ
        )
        self._loader = ModelLoader(
            self._connection,
            cache_bytes=memory.prompt_cache_bytes() if cache_bytes is None else cache_bytes,
            batching=batching,
            stopping=lambda: self._stopping is not None,
        )
        self._loaded: ModelStatus | None = None
        self._loading: str | None = None
        self._progress = _UNREAD
        self._last_error: OpError | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changes: Publisher[EngineStatus] = Publisher()
        self._published = EngineStatus()

    @property
    def patience(self) -> Patience:
        """When a worker counts as stuck; may be changed at any time."""
        return self._connection.patience

    @patience.setter
    def patience(self, patience: Patience) -> None:
        self._connection.patience = patience

    @property
    def status(self) -> EngineStatus:
        """What the engine is doing now."""
        beat = self._connection.beat
        return EngineStatus(
            state=self._state,
            model=self._loaded,
            loading=self._loading,
            loading_done=self._progress.done,
            loading_total=self._progress.total,
            streams=self._connection.streams,
            waiting=self._gate.waiting,
            tokens_per_s=beat.tokens_per_s if beat and self._moves else 0.0,
            memory_bytes=beat.memory_bytes if beat else 0,
            tokenizing_bytes=beat.tokenizing_bytes if beat else 0,
            last_error=self._last_error,
            pid=self._connection.pid,
            unresponsive=self._connection.unresponsive,
            blas=self._connection.blas,
        )

    @property
    def _moves(self) -> bool:
        """Whether anything is being generated."""
        return self._connection.streams > 0 and not self._connection.unresponsive

    def subscribe(self, callback: Callable[[EngineStatus], object]) -> Unsubscribe:
        """Call `callback` in the event loop with each new status; returns what ends that."""
        return self._changes.subscribe(callback)

    async def load(self, model: Runnable, *, on_event: OnEvent = ignore_event) -> ModelStatus:
        """Load a model, waiting for the streams of another one to end.

        Events have the stages of `Loading`, and bytes while the weights are read.

        Raises:
            OpError: `insufficient_memory`, `model_not_runnable`, `engine_crashed`, `dependency_missing`,
                `cancelled` (the engine was stopped).
        """
        begin = time.monotonic()

        def tell(event: Loading) -> None:
            rate = event.done / max(time.monotonic() - begin, 1e-3)
            on_event(Progress(event.stage, model.name, event.done, event.total, rate))

        loaded = await self._acquire(model, tell)
        self._gate.leave()
        return loaded

    async def unload(self) -> None:
        """Free the model when its streams have ended; nothing happens without one."""
        if self._loaded is None and self._gate.idle:
            return
        await self._gate.enter(None)
        try:
            if self._loaded is not None:
                self._loaded = None
                self._changed()  # else a process that dies of it would be one that died with its model
                await self._connection.ask(Unload)
        finally:
            self._gate.switched(None)

    async def stop(self) -> None:
        """End everything: running streams raise `cancelled`, no process is left. Final."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    def generate(self, model: Runnable, request: Generation) -> GenerationStream:
        """Return the events of a generation, the last one `Finished`; the model is loaded on demand.

        It begins when the first event is waited for. Closing the stream (`aclose`), cancelling the task
        that waits for it or forgetting it frees the row within a step; `cancel` does so too and lets
        the stream go on to its `Finished`.

        Raises:
            OpError: while iterating: `validation_error`, `context_length_exceeded`, `engine_crashed`,
                `cancelled` (the engine was stopped), and those of `load`.
        """
        run = GenerationRun(
            request,
            self._connection,
            acquire=partial(self._acquire, model),
            release=self._gate.leave,
            changed=self._changed,
            spawn=self._spawn,
        )
        stream = GenerationStream(run.begin, run.cancel)
        run.stream = weakref.ref(stream)
        return stream

    async def count_tokens(
        self,
        model: Runnable,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> int:
        """Return how many tokens a conversation has as a prompt; the model is loaded on demand.

        What makes up the prompt is given as in `Generation`.

        Raises:
            OpError: as `generate`, but never for the length.
        """
        command = partial(
            CountTokens, messages=tuple(messages), tools=tuple(tools), template_kwargs=template_kwargs or {}
        )
        said = await self._ask(model, command)
        return said.tokens if isinstance(said, Counted) else 0

    async def tokenize(self, model: Runnable, asked: Tokenize) -> Tokenized:
        """Return the tokens of a text or a conversation; the model is loaded on demand. `asked.id` is unused.

        Raises:
            OpError: as `generate`, but never for the length.
        """
        said = await self._ask(model, lambda number: replace(asked, id=number))
        return said if isinstance(said, Tokenized) else Tokenized(0)

    async def detokenize(self, model: Runnable, tokens: Sequence[int]) -> str:
        """Return the text of tokens; the model is loaded on demand.

        Raises:
            OpError: `validation_error`: an id that the model does not have; and as `generate`.
        """
        said = await self._ask(model, partial(Detokenize, tokens=tuple(tokens)))
        return said.text if isinstance(said, Detokenized) else ""

    async def embed(self, model: Runnable, texts: Sequence[str]) -> Embeddings:
        """Return a vector of length one for each text; the model is loaded on demand.

        Streams of the same model keep flowing meanwhile. Cancelling ends it within a step.

        Raises:
            OpError: `validation_error`: no text, an empty one, or a model that is not for this;
                `context_length_exceeded`; `model_not_runnable`: an embedding model of a kind that
                mlx-lm cannot run; and as `generate`.
        """
        check(model, texts)
        await self._acquire(model, lambda event: None)
        vectors: list[list[float]] = []
        tokens = 0
        try:
            for part in parts_of(texts):
                said = await self._connection.ask(partial(Embed, texts=part))
                if isinstance(said, Embedded):
                    vectors += vectors_of(said)
                    tokens += said.tokens
        finally:
            self._gate.leave()
        return Embeddings(vectors, tokens)

    # How a model comes into memory

    async def _acquire(self, model: Runnable, on_loading: Callable[[Loading], None]) -> ModelStatus:
        """Wait until `model` is there and count as one of its requests, to be ended by the gate's `leave`."""
        key = str(model.folder)
        for _ in range(_ATTEMPTS):
            if self._stopping is not None:
                raise _stopped()
            if await self._gate.enter(key) is Pass.RUN:
                if (
                    self._loaded is not None
                    and self._loaded.folder == key
                    and self._connection.pid is not None
                ):
                    return self._loaded
                self._gate.leave()  # it died a moment ago
                await self._connection.settled()
                continue
            try:
                loaded = await self._load(model, key, on_loading)
            except BaseException:
                self._gate.switched(self._loaded.folder if self._loaded else None)
                raise
            self._gate.switched(key, run=True)
            return loaded
        raise OpError(
            ErrorType.ENGINE_CRASHED, "The inference process keeps ending.", remedy=Remedy.TRY_AGAIN
        )

    async def _ask(self, model: Runnable, command: Callable[[int], Command]) -> Reply:
        """Return what the worker answers about a model, which is loaded on demand."""
        await self._acquire(model, lambda event: None)
        try:
            return await self._connection.ask(command)
        finally:
            self._gate.leave()

    async def _load(self, model: Runnable, key: str, on_loading: Callable[[Loading], None]) -> ModelStatus:
        def tell(event: Loading) -> None:
            if event.total:  # the stages before and after the weights have no bytes
                self._progress = event
                self._changed()
            on_loading(event)

        self._loading = model.name
        self._changed()
        try:
            beat = self._connection.beat
            wanted = self._weights.of(model.name)
            memory.check(model, beat.memory_bytes if beat else 0, wanted)
            self._loaded = None
            said = await self._loader.load(model, wanted, tell)
            if not isinstance(said, Loaded):
                raise OpError(ErrorType.INTERNAL_ERROR, "The inference process said something else.")
            loaded = ModelStatus.of(model.name, key, said)
            self._loaded = loaded
            self._last_error = None
        except OpError as error:
            self._last_error = error
            raise
        finally:
            self._loading = None
            self._progress = _UNREAD
            self._changed()
        return loaded

    # What changes

    @property
    def _state(self) -> EngineState:
        if self._loading is not None:
            return EngineState.LOADING if self._connection.ready else EngineState.STARTING
        if self._connection.pid is None:
            failed = self._connection.failed and self._stopping is None
            return EngineState.FAILED if failed else EngineState.STOPPED
        return EngineState.READY if self._loaded is not None else EngineState.IDLE

    def _changed(self) -> None:
        self._watch_idle()
        status = self.status
        if status != self._published:
            self._published = status
            self._changes.publish(status)

    def _lost(self, error: OpError) -> None:
        """The worker is gone."""
        self._loaded = None
        if self._stopping is None:
            self._last_error = error
        self._gate.lost()

    def _watch_idle(self) -> None:
        wanted = self.idle_unload_s > 0 and self._loaded is not None and self._gate.idle
        if wanted and self._stopping is None:
            if self._idle_timer is None:
                loop = asyncio.get_running_loop()
                self._idle_timer = loop.call_later(self.idle_unload_s, self._idle_out)
        elif self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _idle_out(self) -> None:
        self._idle_timer = None
        self._spawn(self._unload_quietly())

    async def _unload_quietly(self) -> None:
        with contextlib.suppress(OpError):  # it died meanwhile: what was to be freed is free
            await self.unload()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine to its end, held by the engine."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop(self) -> None:
        self._watch_idle()
        self._gate.refuse_all(_stopped())
        await self._connection.stop(_stopped())
        self._loaded = None
        self._changed()


def _stopped() -> OpError:
    return OpError(ErrorType.CANCELLED, "The engine was stopped.")
