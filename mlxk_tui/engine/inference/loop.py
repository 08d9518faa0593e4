"""The MLX thread: takes commands between steps, steps what runs, tells what came of it."""

from __future__ import annotations

import gc
import os
import queue
import time
from collections import deque
from functools import partial
from pathlib import Path

import mlx.core as mx

from mlxk_tui.engine.generation import FinishReason, Generation, Loading, Prefill, Started
from mlxk_tui.engine.inference.batching.choice import choose_batching
from mlxk_tui.engine.inference.blas.borrowing import Borrowed
from mlxk_tui.engine.inference.channel import Inbox, Outbox
from mlxk_tui.engine.inference.decoding.pace import Pace
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.samplers import processors_of, sampler_of
from mlxk_tui.engine.inference.decoding.steps import Decoder, Drawn, Read
from mlxk_tui.engine.inference.embedding import EmbeddingJob
from mlxk_tui.engine.inference.output.answer import DeltaAssembler
from mlxk_tui.engine.inference.prompts.kinds import Result
from mlxk_tui.engine.inference.prompts.preparing import Prepared, Preparer
from mlxk_tui.engine.inference.prompts.prompting import Prompt
from mlxk_tui.engine.inference.prompts.tokenizing.pool import Pool
from mlxk_tui.engine.inference.vitals import Vitals
from mlxk_tui.engine.inference.weights.holding import Holder
from mlxk_tui.engine.inference.weights.loading import (
    Hold,
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

_BEAT_S = 0.2
_FLUSH_S = 0.008
"""Deltas that come quicker than this go out together: nobody reads a hundred writes a second."""
_PREPARING_LIMIT_S = 30.0
_RATE_WINDOW_S = 1.5
_LONG_PROMPT = 256
"""Tokens from which on the reading of a prompt is told."""


class Loop:
    """Everything that happens to the model, one thing at a time."""

    def __init__(self, inbox: Inbox, outbox: Outbox, vitals: Vitals, pool: Pool, borrowed: Borrowed) -> None:
        self._cores = borrowed.cores
        self._blas = borrowed.blas
        self._holder = Holder(borrowed.blas)
        self._ways: tuple[Hold, ...] = ()
        self._outbox = outbox
        self._vitals = vitals
        vitals.device = _device_memory
        self._inbox: queue.SimpleQueue[Command | Prepared] = inbox.queue
        self._cancelled = inbox.cancelled
        self._on_trial = partial(setattr, inbox, "trial")
        self._pool = pool
        self._preparer = Preparer(self._inbox.put, pool)
        self._model: LoadedModel | None = None
        self._decoder: Decoder | None = None
        self._rows: dict[int, Row] = {}
        self._jobs: deque[EmbeddingJob] = deque()
        self._embedding_pace = Pace()
        self._preparing: set[int] = set()
        self._resting = False
        self._beaten = self._flushed = 0.0
        self._drawn: deque[tuple[float, int]] = deque()

    def run(self) -> None:
        """Work until the process ends."""
        while True:
            self._handle_all()
            if self._decoder is not None and self._rows:
                self._vitals.begin(self._decoder.expected_s)
                self._step(self._decoder)
            if self._jobs:
                self._vitals.begin(self._jobs[0].expected_s(shared=bool(self._rows)))
                self._embed(self._jobs[0])
            self._beat()

    # Commands

    def _handle_all(self) -> None:
        """Handle what has come; wait for something where there is nothing else to do."""
        try:
            if not (self._rows or self._jobs):
                self._vitals.rest()
                self._beat(force=not self._resting)
                self._outbox.flush()
                self._resting = True
                wait = _BEAT_S if self._preparing else None
                self._handle(self._inbox.get(timeout=wait))
                self._resting = False
            while True:
                self._handle(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _handle(self, item: Command | Prepared) -> None:
        self._vitals.begin(reads_files=isinstance(item, Load))
        if isinstance(item, Prepared):
            self._begin(item)
        elif isinstance(item, (Generate, CountTokens, Tokenize, Detokenize, Embed)):
            if self._model is None:
                self._outbox.put(
                    RequestFailed(item.id, ErrorType.INTERNAL_ERROR.value, "No model is loaded.")
                )
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
            self._vitals.begin(reads_files=True)
            self._outbox.put(Streamed(command.id, Loading(stage, done, total)))
            self._beat(force=True)
            self._outbox.flush()

        try:
            self._pool.load(command.folder, *tokenizer_arguments(Path(command.folder)))
            mx.reset_peak_memory()
            self._ways = self._holder.ways(command.cpu_weights, command.cache_bytes)
            model = load(command.name, Path(command.folder), command.context_length, on_stage, self._ways)
            verdict = choose_batching(model, command.batching, self._blas, on_stage, self._on_trial)
            model.batchable = verdict is not None and verdict.together
            self._decoder = Decoder(model, command.cache_bytes)
        except LoadStopped:
            self._free()
            self._outbox.put(
                RequestFailed(command.id, ErrorType.CANCELLED.value, "The loading was given up.")
            )
        except OpError as error:
            self._free()
            self._outbox.put(RequestFailed.from_error(command.id, error))
        else:
            self._model = model
            tokenizer = model.tokenizer
            self._outbox.put(
                Loaded(
                    id=command.id,
                    context_length=model.context_length or 0,
                    vocab_size=model.vocab_size,
                    memory_bytes=mx.get_active_memory(),
                    load_s=model.load_s,
                    weights=model.held.kind if model.held is not None else None,
                    stored_bytes=model.held.stored_bytes if model.held is not None else 0,
                    weights_fault=model.held.fault if model.held is not None else "",
                    has_chat_template=bool(tokenizer.has_chat_template),
                    has_thinking=bool(tokenizer.has_thinking),
                    has_tools=bool(tokenizer.has_tool_calling),
                    batched=model.batchable,
                    in_turn=verdict.reason if verdict is not None else None,
                )
            )
        self._cancelled.discard(command.id)
        self._beat(force=True)

    def _unload(self, command: Unload) -> None:
        self._free()
        self._outbox.put(Done(command.id))
        self._beat(force=True)

    def _free(self) -> None:
        self._pool.unload()
        for row in list(self._rows.values()):
            self._end(row, FinishReason.CANCELLED)
        self._jobs.clear()
        self._embedding_pace = Pace()
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = self._model = None
        gc.collect()  # modules refer to each other in circles
        mx.clear_cache()

    def _begin(self, prepared: Prepared) -> None:
        """Start a request that came out of preparation."""
        command, result = prepared.command, prepared.result
        self._preparing.discard(command.id)
        if isinstance(result, OpError):
            self._outbox.put(RequestFailed.from_error(command.id, result))
        elif isinstance(command, CountTokens):
            if isinstance(result, int):
                self._outbox.put(Counted(command.id, result))
        elif isinstance(result, (Tokenized, Detokenized)):
            self._outbox.put(result)
        else:
            try:
                if isinstance(command, Embed):
                    self._queue_texts(command, result)
                elif isinstance(command, Generate) and isinstance(result, Prompt):
                    self._start(command, result, prepared.arrived)
            except OpError as error:
                self._outbox.put(RequestFailed.from_error(command.id, error))
        self._cancelled.discard(command.id)
        self._outbox.flush()

    def _start(self, command: Generate, prompt: Prompt, arrived: float) -> None:
        model, decoder = self._model, self._decoder
        if model is None or decoder is None:
            raise OpError(ErrorType.INTERNAL_ERROR, "The model was unloaded meanwhile.")
        request = command.request
        row = Row(
            id=command.id,
            request=request,
            prompt=prompt,
            answer=DeltaAssembler(model, request, prompt),
            sampler=sampler_of(prompt.sampling),
            processors=processors_of(prompt),
            arrived=arrived,
        )
        if command.id in self._cancelled:
            self._outbox.put(Streamed(row.id, row.finished(FinishReason.CANCELLED, mx.get_peak_memory())))
            return
        draft = self._draft(model, request)
        decoder.add(row, draft)
        self._rows[row.id] = row
        self._outbox.put(
            Streamed(
                row.id,
                Started(len(prompt.tokens), row.cached, prompt.max_tokens, model.context_length or 0),
            )
        )

    def _queue_texts(self, command: Embed, result: Result) -> None:
        if self._model is not None and isinstance(result, list) and command.id not in self._cancelled:
            self._jobs.append(EmbeddingJob(command.id, self._model, result, self._embedding_pace))

    def _draft(self, model: LoadedModel, request: Generation) -> LoadedModel | None:
        folder = request.draft_model
        if folder is None:
            return None
        if folder not in model.drafts:
            self._vitals.begin(reads_files=True)
            model.drafts.clear()

            def on_stage(*_: object) -> None:
                self._vitals.begin(reads_files=True)
                self._beat(force=True)

            name = request.draft_name or Path(folder).name
            model.drafts[folder] = load(name, Path(folder), None, on_stage, self._ways)
        return model.drafts[folder]

    def _cancel(self, id: int) -> None:  # noqa: A002 - the protocol's own name
        row = self._rows.get(id)
        if row is not None and self._decoder is not None:
            self._decoder.remove(row)
            self._end(row, FinishReason.CANCELLED)
            self._outbox.flush()
        self._jobs = deque(job for job in self._jobs if job.id != id)
        if id not in self._preparing:
            self._cancelled.discard(id)

    # Steps

    def _step(self, decoder: Decoder) -> None:
        drawn, read = decoder.step()
        urgent = bool(read)
        for token in drawn:
            urgent = self._on_token(decoder, token) or urgent
        for progress in read:
            self._on_read(progress)
        now = time.monotonic()
        self._drawn.append((now, len(drawn)))
        if urgent or now - self._flushed >= _FLUSH_S:
            for row in self._rows.values():
                self._tell(row)
            self._outbox.flush()
            self._flushed = now

    def _embed(self, job: EmbeddingJob) -> None:
        job.step(shared=bool(self._rows))
        self._jobs.rotate(-1)  # several are read in turn
        if job.done:
            self._jobs.remove(job)
            self._outbox.send(job.answer())

    def _on_token(self, decoder: Decoder, drawn: Drawn) -> bool:
        """Take a token in; return True where somebody waits for it."""
        row = drawn.row
        if row.id not in self._rows:
            return False
        first = row.first_token is None
        if first:
            row.first_token = time.monotonic()
        stopped = row.answer.push(drawn.token, drawn.logprobs, ends_turn=drawn.end == "stop")
        constraint = row.prompt.constraint
        if constraint is not None:
            stopped = constraint.completed_by(drawn.token, row.answer.tokens) or stopped
            if constraint.error is not None:
                self._give_up(decoder, drawn, constraint.error)
                return True
        if stopped and drawn.end is None:
            decoder.remove(row)
        if stopped or drawn.end == "stop":
            self._end(row, FinishReason.STOP)
        elif drawn.end == "length":
            self._end(row, FinishReason.LENGTH)
        return first or stopped or drawn.end is not None

    def _give_up(self, decoder: Decoder, drawn: Drawn, why: str) -> None:
        """End a row whose schema leads nowhere."""
        row = drawn.row
        if drawn.end is None:
            decoder.remove(row)
        del self._rows[row.id]
        message = f"The JSON schema cannot be followed any further: {why}. Make it simpler, or leave it out."
        self._outbox.put(RequestFailed(row.id, ErrorType.VALIDATION_ERROR.value, message))

    def _on_read(self, progress: Read) -> None:
        row = progress.row
        if row.id in self._rows and progress.over:
            self._end(row, FinishReason.LENGTH)
        total = len(row.prompt.tokens)
        if row.id in self._rows and total - row.cached >= _LONG_PROMPT:
            self._outbox.put(Streamed(row.id, Prefill(progress.done, total)))

    def _end(self, row: Row, reason: FinishReason) -> None:
        del self._rows[row.id]
        row.answer.finish(reason)
        if row.answer.stop_string is not None and reason is FinishReason.LENGTH:
            reason = FinishReason.STOP  # the text held back at the end held a stop string
        self._tell(row)
        self._outbox.put(Streamed(row.id, row.finished(reason, mx.get_peak_memory())))

    def _tell(self, row: Row) -> None:
        for delta in row.answer.take():
            self._outbox.put(Streamed(row.id, delta))

    # Signs of life

    def _beat(self, *, force: bool = False) -> None:
        if self._cores is not None:
            self._cores.update()
        now = time.monotonic()
        if not force and now - self._beaten < _BEAT_S:
            return
        self._beaten = now
        if self._preparer.busy_s > _PREPARING_LIMIT_S:
            self._outbox.send(
                RequestFailed(
                    0,
                    ErrorType.ENGINE_CRASHED.value,
                    "A prompt took too long to read, and was stopped.",
                )
            )
            os._exit(1)
        while self._drawn and now - self._drawn[0][0] > _RATE_WINDOW_S:
            self._drawn.popleft()
        span = now - self._drawn[0][0] if len(self._drawn) > 1 else 0.0
        rate = sum(count for _, count in self._drawn) / span if span > 0 else 0.0
        vitals = self._vitals
        vitals.memory_bytes = mx.get_active_memory()
        vitals.cache_bytes = self._decoder.kept.bytes if self._decoder is not None else 0
        vitals.tokens_per_s = rate if self._rows else 0.0
        vitals.streams = len(self._rows)
        vitals.tokenizing_bytes = self._pool.memory_bytes
        self._outbox.send(vitals.heartbeat())


def _device_memory() -> tuple[int, ...]:
    """Return numbers that change while a device works through a step: what it frees on the way."""
    return mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory()
