"""The MLX thread: processes commands between steps, steps the running generations, and sends their events."""

from __future__ import annotations

import gc
import os
import queue
import time
from collections import deque
from functools import partial
from pathlib import Path

import mlx.core as mx

from mlxk_tui.engine.generation import FinishReason, GenerationRequest, LoadProgress, PrefillProgress, Started
from mlxk_tui.engine.inference.batching.choice import choose_batching
from mlxk_tui.engine.inference.blas.installation import InstalledBlas
from mlxk_tui.engine.inference.channel import Inbox, Outbox
from mlxk_tui.engine.inference.decoding.chunk_sizer import ChunkSizer
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.samplers import logits_processors_for, sampler_for
from mlxk_tui.engine.inference.decoding.scheduler import PrefillUpdate, RowScheduler, SampledToken
from mlxk_tui.engine.inference.embedding import EmbeddingJob
from mlxk_tui.engine.inference.heartbeat import HeartbeatReporter
from mlxk_tui.engine.inference.output.delta_assembler import DeltaAssembler
from mlxk_tui.engine.inference.prompts.dispatch import PreparationResult
from mlxk_tui.engine.inference.prompts.preparer import PreparedRequest, Preparer
from mlxk_tui.engine.inference.prompts.prompt_builder import Prompt
from mlxk_tui.engine.inference.prompts.tokenizing.pool import TokenizerPool
from mlxk_tui.engine.inference.weights.conversion import conversions
from mlxk_tui.engine.inference.weights.loading import (
    Conversion,
    LoadedModel,
    LoadStopped,
    load,
    tokenizer_arguments,
)
from mlxk_tui.engine.protocol import (
    Cancel,
    Command,
    Counted,
    CountTokens,
    Detokenize,
    Detokenized,
    Done,
    Embed,
    Generate,
    Load,
    Loaded,
    RequestFailed,
    Streamed,
    Tokenize,
    Tokenized,
    Unload,
)
from mlxk_tui.ops.core.errors import ErrorType, OpError

_HEARTBEAT_S = 0.2
"""Minimum interval of the heartbeats that this thread sends."""
_FLUSH_S = 0.008
"""Minimum interval of writing deltas: those in between are written together."""
_PREPARING_LIMIT_S = 30.0
"""Maximum time for preparing a request in this process; after it the worker exits."""
_RATE_WINDOW_S = 1.5
_LONG_PROMPT = 256
"""Number of uncached prompt tokens from which prefill progress is sent."""


class InferenceLoop:
    """Owns the model. All methods run on the MLX thread.

    Args:
        inbox: commands and prepared requests.
        outbox: where messages are written.
        reporter: the heartbeat thread's data.
        pool: the tokenizer processes.
        installed: the BLAS library in use.
    """

    def __init__(
        self,
        inbox: Inbox,
        outbox: Outbox,
        reporter: HeartbeatReporter,
        pool: TokenizerPool,
        installed: InstalledBlas,
    ) -> None:
        self._cores = installed.cores
        self._blas = installed.blas
        self._conversions: tuple[Conversion, ...] = ()
        self._outbox = outbox
        self._reporter = reporter
        reporter.device = _device_memory
        self._inbox: queue.SimpleQueue[Command | PreparedRequest] = inbox.queue
        self._cancelled = inbox.cancelled
        self._on_trial = partial(setattr, inbox, "trial")
        self._pool = pool
        self._preparer = Preparer(self._inbox.put, pool)
        self._model: LoadedModel | None = None
        self._scheduler: RowScheduler | None = None
        self._rows: dict[int, Row] = {}
        self._jobs: deque[EmbeddingJob] = deque()
        self._embedding_chunk_sizer = ChunkSizer()
        self._preparing: set[int] = set()
        self._idle = False
        self._last_heartbeat = self._last_flush = 0.0
        self._recent_counts: deque[tuple[float, int]] = deque()

    def run(self) -> None:
        """Process commands and steps; never returns."""
        while True:
            self._process_commands()
            if self._scheduler is not None and self._rows:
                self._reporter.begin_step(self._scheduler.expected_s)
                self._step(self._scheduler)
            if self._jobs:
                self._reporter.begin_step(self._jobs[0].expected_s(shared=bool(self._rows)))
                self._embed(self._jobs[0])
            self._send_heartbeat()

    # Commands

    def _process_commands(self) -> None:
        """Process the queued commands; wait for one if there is no other work."""
        try:
            if not (self._rows or self._jobs):
                self._reporter.set_idle()
                self._send_heartbeat(force=not self._idle)
                self._outbox.flush()
                self._idle = True
                wait = _HEARTBEAT_S if self._preparing else None
                self._process(self._inbox.get(timeout=wait))
                self._idle = False
            while True:
                self._process(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _process(self, item: Command | PreparedRequest) -> None:
        self._reporter.begin_step(reads_files=isinstance(item, Load))
        if isinstance(item, PreparedRequest):
            self._begin(item)
        elif isinstance(item, (Generate, CountTokens, Tokenize, Detokenize, Embed)):
            if self._model is None:
                error = OpError(ErrorType.INTERNAL_ERROR, "No model is loaded.")
                self._outbox.put(RequestFailed.from_error(item.id, error))
            else:
                self._preparing.add(item.id)
                self._preparer.put(item, self._model)
        elif isinstance(item, Cancel):
            self._cancel(item.id)
        elif isinstance(item, Load):
            self._load(item)
        else:
            self._unload(item)

    def _load(self, command: Load) -> None:
        self._free()

        def on_stage(stage: str, done: int, total: int) -> None:
            if command.id in self._cancelled:
                raise LoadStopped
            self._reporter.begin_step(reads_files=True)
            self._outbox.put(Streamed(command.id, LoadProgress(stage, done, total)))
            self._send_heartbeat(force=True)
            self._outbox.flush()

        try:
            folder = Path(command.folder)
            self._pool.load(command.folder, *tokenizer_arguments(folder))
            mx.reset_peak_memory()
            self._conversions = conversions(self._blas, command.cpu_weights, command.cache_bytes)
            model = load(command.name, folder, command.context_length, on_stage, self._conversions)
            verdict = choose_batching(model, command.batching, self._blas, on_stage, self._on_trial)
            model.batchable = verdict is not None and verdict.together
            self._scheduler = RowScheduler(model, command.cache_bytes)
        except (LoadStopped, OpError) as error:
            self._free()
            cancelled = OpError(ErrorType.CANCELLED, "Loading was cancelled.")
            failure = error if isinstance(error, OpError) else cancelled
            self._outbox.put(RequestFailed.from_error(command.id, failure))
        else:
            self._model = model
            tokenizer, weights = model.tokenizer, model.weight_format
            self._outbox.put(
                Loaded(
                    id=command.id,
                    context_length=model.context_length or 0,
                    vocab_size=model.vocab_size,
                    memory_bytes=mx.get_active_memory(),
                    load_s=model.load_s,
                    weights=weights.kind if weights is not None else None,
                    stored_bytes=weights.stored_bytes if weights is not None else 0,
                    weights_error=weights.error if weights is not None else "",
                    has_chat_template=bool(tokenizer.has_chat_template),
                    has_thinking=bool(tokenizer.has_thinking),
                    has_tools=bool(tokenizer.has_tool_calling),
                    batched=model.batchable,
                    unbatched_reason=verdict.reason if verdict is not None else None,
                )
            )
        self._cancelled.discard(command.id)
        self._send_heartbeat(force=True)

    def _unload(self, command: Unload) -> None:
        self._free()
        self._outbox.put(Done(command.id))
        self._send_heartbeat(force=True)

    def _free(self) -> None:
        self._pool.unload()
        for row in list(self._rows.values()):
            self._end(row, FinishReason.CANCELLED)
        self._jobs.clear()
        self._embedding_chunk_sizer = ChunkSizer()
        if self._scheduler is not None:
            self._scheduler.close()
        self._scheduler = self._model = None
        gc.collect()  # modules have reference cycles
        mx.clear_cache()

    def _begin(self, prepared: PreparedRequest) -> None:
        """Start a prepared request, or send its result."""
        command, result = prepared.command, prepared.result
        self._preparing.discard(command.id)
        if isinstance(result, OpError):
            self._outbox.put(RequestFailed.from_error(command.id, result))
        elif isinstance(result, int):
            self._outbox.put(Counted(command.id, result))
        elif isinstance(result, (Tokenized, Detokenized)):
            self._outbox.put(result)
        else:
            try:
                if isinstance(command, Embed):
                    self._start_embedding(command, result)
                elif isinstance(command, Generate) and isinstance(result, Prompt):
                    self._start(command, result, prepared.arrived)
            except OpError as error:
                self._outbox.put(RequestFailed.from_error(command.id, error))
        self._cancelled.discard(command.id)
        self._outbox.flush()

    def _start(self, command: Generate, prompt: Prompt, arrived: float) -> None:
        model, scheduler = self._model, self._scheduler
        if model is None or scheduler is None:
            raise OpError(ErrorType.INTERNAL_ERROR, "The model was unloaded meanwhile.")
        request = command.request
        row = Row(
            id=command.id,
            request=request,
            prompt=prompt,
            answer=DeltaAssembler(model, request, prompt),
            sampler=sampler_for(prompt.sampling),
            processors=logits_processors_for(prompt),
            arrived=arrived,
        )
        if command.id in self._cancelled:
            self._outbox.put(Streamed(row.id, row.finished(FinishReason.CANCELLED, mx.get_peak_memory())))
            return
        draft = self._load_draft(model, request)
        scheduler.add(row, draft)
        self._rows[row.id] = row
        started = Started(len(prompt.tokens), row.cached, prompt.max_tokens, model.context_length or 0)
        self._outbox.put(Streamed(row.id, started))

    def _start_embedding(self, command: Embed, result: PreparationResult) -> None:
        if self._model is not None and isinstance(result, list) and command.id not in self._cancelled:
            self._jobs.append(EmbeddingJob(command.id, self._model, result, self._embedding_chunk_sizer))

    def _load_draft(self, model: LoadedModel, request: GenerationRequest) -> LoadedModel | None:
        folder = request.draft_model
        if folder is None:
            return None
        if folder not in model.drafts:
            self._reporter.begin_step(reads_files=True)
            model.drafts.clear()

            def on_stage(*_: object) -> None:
                self._reporter.begin_step(reads_files=True)
                self._send_heartbeat(force=True)

            name = request.draft_name or Path(folder).name
            model.drafts[folder] = load(name, Path(folder), None, on_stage, self._conversions)
        return model.drafts[folder]

    def _cancel(self, id: int) -> None:  # noqa: A002 - the name in the protocol
        row = self._rows.get(id)
        if row is not None and self._scheduler is not None:
            self._scheduler.remove(row)
            self._end(row, FinishReason.CANCELLED)
            self._outbox.flush()
        self._jobs = deque(job for job in self._jobs if job.id != id)
        if id not in self._preparing:
            self._cancelled.discard(id)

    # Steps

    def _step(self, scheduler: RowScheduler) -> None:
        sampled, updates = scheduler.step()
        urgent = bool(updates)
        for token in sampled:
            urgent = self._on_token(scheduler, token) or urgent
        for update in updates:
            self._on_prefill(update)
        now = time.monotonic()
        self._recent_counts.append((now, len(sampled)))
        if urgent or now - self._last_flush >= _FLUSH_S:
            for row in self._rows.values():
                self._put_deltas(row)
            self._outbox.flush()
            self._last_flush = now

    def _embed(self, job: EmbeddingJob) -> None:
        job.step(shared=bool(self._rows))
        self._jobs.rotate(-1)  # jobs take turns
        if job.done:
            self._jobs.remove(job)
            self._outbox.send(job.reply())

    def _on_token(self, scheduler: RowScheduler, sampled: SampledToken) -> bool:
        """Process a sampled token; return True if its delta must be sent immediately."""
        row = sampled.row
        if row.id not in self._rows:
            return False
        first = row.first_token is None
        if first:
            row.first_token = time.monotonic()
        stopped = row.answer.push(sampled.token, sampled.logprobs, ends_turn=sampled.end == "stop")
        constraint = row.prompt.constraint
        if constraint is not None:
            stopped = constraint.completed_by(sampled.token, row.answer.tokens) or stopped
            if constraint.error is not None:
                self._fail_constraint(scheduler, sampled, constraint.error)
                return True
        if stopped and sampled.end is None:
            scheduler.remove(row)
        if stopped or sampled.end == "stop":
            self._end(row, FinishReason.STOP)
        elif sampled.end == "length":
            self._end(row, FinishReason.LENGTH)
        return first or stopped or sampled.end is not None

    def _fail_constraint(self, scheduler: RowScheduler, sampled: SampledToken, reason: str) -> None:
        """End a row whose grammar allows no further token."""
        row = sampled.row
        if sampled.end is None:
            scheduler.remove(row)
        del self._rows[row.id]
        message = f"The JSON schema cannot be followed any further: {reason}. Simplify it, or leave it out."
        self._outbox.put(RequestFailed(row.id, ErrorType.VALIDATION_ERROR.value, message))

    def _on_prefill(self, update: PrefillUpdate) -> None:
        row = update.row
        if row.id in self._rows and update.ended:
            self._end(row, FinishReason.LENGTH)
        total = len(row.prompt.tokens)
        if row.id in self._rows and total - row.cached >= _LONG_PROMPT:
            self._outbox.put(Streamed(row.id, PrefillProgress(update.done, total)))

    def _end(self, row: Row, reason: FinishReason) -> None:
        del self._rows[row.id]
        row.answer.finish(reason)
        if row.answer.stop_string is not None and reason is FinishReason.LENGTH:
            reason = FinishReason.STOP  # the text that was held back contains a stop sequence
        self._put_deltas(row)
        self._outbox.put(Streamed(row.id, row.finished(reason, mx.get_peak_memory())))

    def _put_deltas(self, row: Row) -> None:
        for delta in row.answer.take_deltas():
            self._outbox.put(Streamed(row.id, delta))

    # Heartbeats

    def _send_heartbeat(self, *, force: bool = False) -> None:
        if self._cores is not None:
            self._cores.update()
        now = time.monotonic()
        if not force and now - self._last_heartbeat < _HEARTBEAT_S:
            return
        self._last_heartbeat = now
        if self._preparer.busy_s > _PREPARING_LIMIT_S:
            message = f"Preparing a prompt took more than {_PREPARING_LIMIT_S:g} seconds."
            self._outbox.send(RequestFailed(0, ErrorType.ENGINE_CRASHED.value, message))
            os._exit(1)
        while self._recent_counts and now - self._recent_counts[0][0] > _RATE_WINDOW_S:
            self._recent_counts.popleft()
        span = now - self._recent_counts[0][0] if len(self._recent_counts) > 1 else 0.0
        rate = sum(count for _, count in self._recent_counts) / span if span > 0 else 0.0
        reporter = self._reporter
        reporter.memory_bytes = mx.get_active_memory()
        reporter.cache_bytes = self._scheduler.prompt_cache.bytes if self._scheduler is not None else 0
        reporter.tokens_per_s = rate if self._rows else 0.0
        reporter.streams = len(self._rows)
        reporter.tokenizing_bytes = self._pool.memory_bytes
        self._outbox.send(reporter.heartbeat())


def _device_memory() -> tuple[int, ...]:
    """Return memory numbers that change while a device executes a step, because it frees buffers."""
    return mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory()
