"""Schedules the steps of all running generations; rows join and leave the batch at any step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
from mlx_lm import sample_utils
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from mlxk_tui.engine.inference.decoding.chunk_sizer import ChunkSizer
from mlxk_tui.engine.inference.decoding.prompt_cache import PromptCache
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.samplers import LogitsProcessor
from mlxk_tui.engine.inference.decoding.scoring import ScoringRow
from mlxk_tui.engine.inference.decoding.unbatched import SpeculativeRow, UnbatchedRow, check_unbatched
from mlxk_tui.engine.inference.heartbeat import DEFAULT_STEP_S
from mlxk_tui.engine.inference.weights.loading import LoadedModel

_BATCH, _PREFILL_BATCH, _LARGEST_CHUNK = 32, 8, 2048

End = Literal["stop", "length"]


def _unchanged(tokens: mx.array, logits: mx.array) -> mx.array:
    del tokens
    return logits


# mlx-lm 0.31 mixes up rows if some have logits processors and others have none.
_NO_PROCESSORS: list[LogitsProcessor] = [] if hasattr(sample_utils, "greedy_sampler") else [_unchanged]


@dataclass(frozen=True)
class SampledToken:
    """A sampled token of a row."""

    row: Row
    token: int
    logprobs: mx.array
    """Log-probabilities that it was sampled from, (vocabulary,)."""
    end: End | None
    """`stop` for an end-of-turn token, `length` for the last token of the budget, else None."""


@dataclass(frozen=True)
class PrefillUpdate:
    """A chunk of a row's prompt was prefilled."""

    row: Row
    done: int
    """Tokens prefilled so far, including cached ones."""
    ended: bool = False
    """The row has ended, because only its prompt was requested."""


class RowScheduler:
    """Runs prefill and decode for all rows of one model.

    A single row is decoded without mlx-lm's `BatchGenerator`, which costs several percent. When a second one
    arrives, both join the batch. A new row with a short prompt is prefilled and emits its first token before
    it joins, because in the batch that token would wait for two or three steps of the others. Rows that
    cannot be in a batch (quantized KV cache, draft model, caches that do not merge) take their own steps.

    Args:
        model: the model.
        cache_bytes: maximum size of the prompt cache.
        chunk_sizer: chooses the chunk size of prefill; by default from measured times.
    """

    def __init__(self, model: LoadedModel, cache_bytes: int, chunk_sizer: ChunkSizer | None = None) -> None:
        self.prompt_cache = PromptCache(cache_bytes)
        self._model = model
        self._chunk_sizer = chunk_sizer or ChunkSizer()
        self._scoring_chunk_sizer = ChunkSizer()
        self._unbatched: list[UnbatchedRow] = []
        """Rows that cannot be in the batch."""
        self._single: UnbatchedRow | None = None
        """The only row, if it could be in the batch."""
        self._newcomer: UnbatchedRow | None = None
        """A row that joins the batch after its first token."""
        self._batch: Any = BatchGenerator(
            model.model,
            stop_tokens=[[token] for token in model.stop_tokens],
            completion_batch_size=_BATCH,
            prefill_batch_size=_PREFILL_BATCH,
            prefill_step_size=_LARGEST_CHUNK,
        )
        self._rows: dict[int, Row] = {}
        self._boundaries: set[int] = set()
        self._prefilling: dict[int, int] = {}
        """Number of cached tokens of each row in the batch that is not completely prefilled, by its id."""
        self._pending: list[SampledToken] = []
        """Tokens of rows that joined the batch, for the next `step`."""
        self._decode_s, self._decode_rows = 0.0, 1
        """Duration of the last decode step of the batch, and its number of rows."""
        self._unbatched_s = 0.0
        """Duration of the last decode step of an unbatched row."""
        self._steps = 0

    def __len__(self) -> int:
        single = (self._single is not None) + (self._newcomer is not None)
        return len(self._unbatched) + len(self._rows) + single

    def add(self, row: Row, draft: LoadedModel | None = None) -> None:
        """Add a row, from the next step on.

        Raises:
            OpError: `validation_error`: its quantized KV cache or draft model is not supported.
        """
        if row.kind is not None:
            check_unbatched(self._model, row, draft)
        if row.scores_prompt:
            self._unbatched.append(ScoringRow(row, self._model))
        elif draft is not None:
            self._unbatched.append(SpeculativeRow(row, self._model, draft, self.prompt_cache))
        elif row.kind is not None or not self._model.batchable:
            self._unbatched.append(UnbatchedRow(row, self._model, self.prompt_cache))
        elif self._single is None and not self._rows:
            self._single = UnbatchedRow(row, self._model, self.prompt_cache)
        else:
            self._add_newcomer(UnbatchedRow(row, self._model, self.prompt_cache))

    def _add_newcomer(self, unbatched: UnbatchedRow) -> None:
        no_prefill = self._newcomer is None and not self._prefilling
        if no_prefill and len(unbatched.rest) <= self._chunk(len(unbatched.tokens)):
            self._newcomer = unbatched
            return
        self._join()  # several rows are prefilled together
        self._insert(unbatched)

    def remove(self, row: Row) -> None:
        """Remove a row before its end, and store its KV cache in the prompt cache."""
        self._pending = [sampled for sampled in self._pending if sampled.row is not row]
        if self._single is not None and self._single.row is row:
            self._single.end()
            self._single = None
            return
        if self._newcomer is not None and self._newcomer.row is row:
            self._newcomer.end()
            self._newcomer = None
            return
        for unbatched in self._unbatched:
            if unbatched.row is row:
                self._unbatched.remove(unbatched)
                unbatched.end()
                return
        for uid, other in self._rows.items():
            if other is row:
                del self._rows[uid]
                self._prefilling.pop(uid, None)
                self._boundaries.discard(uid)
                with mx.stream(self._batch.stream):
                    removed = self._batch.remove([uid], return_prompt_caches=True)
                    caches, tokens = removed.get(uid, ([], []))
                    self.prompt_cache.insert(tokens, caches)
                return

    def close(self) -> None:
        """Drop all rows and the prompt cache."""
        self._unbatched.clear()
        self._single = self._newcomer = None
        self._rows.clear()
        self._prefilling.clear()
        self._pending.clear()
        self._batch.close()
        self.prompt_cache.clear()

    @property
    def expected_s(self) -> float:
        """Expected duration of the next step, in seconds."""
        total = 0.0
        prefilling_row = self._prefilling_row()
        for unbatched in self._unbatched_rows():
            if unbatched is prefilling_row:
                context, chunk_sizer = len(unbatched.tokens), self._chunk_sizer_for(unbatched)
                total += chunk_sizer.expected_s(self._chunk(context, chunk_sizer), context) or DEFAULT_STEP_S
            elif not unbatched.prefilling:
                total += self._unbatched_s or DEFAULT_STEP_S
        if len(self._rows) > len(self._prefilling):
            total += self._decoding_s() or DEFAULT_STEP_S
        if self._prefilling:
            context = max(self._prefilling.values())
            total += self._chunk_sizer.expected_s(self._chunk(context), context) or DEFAULT_STEP_S
        return total

    def _unbatched_rows(self) -> list[UnbatchedRow]:
        single = (self._newcomer, self._single)
        return [*(unbatched for unbatched in single if unbatched is not None), *self._unbatched]

    def _prefilling_row(self) -> UnbatchedRow | None:
        """Return the unbatched row that prefills in the next step: one at a time, in turn.

        So the other rows' next tokens wait for one chunk only. Prompts that are scored are prefilled one
        after another, so that only one of them takes memory: evaluation harnesses send dozens at once.
        """
        waiting = [unbatched for unbatched in self._unbatched_rows() if unbatched.prefilling]
        scored = next((each for each in waiting if isinstance(each, ScoringRow)), None)
        candidates = [each for each in waiting if each is scored or not isinstance(each, ScoringRow)]
        return min(candidates, key=lambda unbatched: unbatched.last_prefill, default=None)

    def _chunk_sizer_for(self, unbatched: UnbatchedRow) -> ChunkSizer:
        return self._scoring_chunk_sizer if isinstance(unbatched, ScoringRow) else self._chunk_sizer

    def _chunk(self, context: int, chunk_sizer: ChunkSizer | None = None) -> int:
        return (chunk_sizer or self._chunk_sizer).next_size(shared=len(self) > 1, context=context)

    def _decoding_s(self) -> float:
        """Return the expected duration of a decode step of the batch, in seconds."""
        rows = len(self._rows) - len(self._prefilling)
        return self._decode_s * max(1.0, rows / self._decode_rows) if rows else 0.0

    def step(self) -> tuple[list[SampledToken], list[PrefillUpdate]]:
        """Run one step: sample a token of each decoding row, and prefill a chunk of the others.

        Returns:
            The sampled tokens and the prefill updates.
        """
        if self._newcomer is not None and self._newcomer.row.emitted:
            self._join()
        sampled, self._pending = self._pending, []
        updates: list[PrefillUpdate] = []
        self._steps += 1
        newcomer = self._newcomer
        while newcomer is not None and newcomer.prefilling:
            self._step_unbatched(newcomer, sampled, updates)
        prefilling_row = self._prefilling_row()
        for unbatched in self._unbatched_rows():
            if unbatched is prefilling_row or not unbatched.prefilling:
                self._step_unbatched(unbatched, sampled, updates)
        if self._rows:
            self._step_batch(sampled, updates)
        return sampled, updates

    def _step_unbatched(
        self, unbatched: UnbatchedRow, sampled: list[SampledToken], updates: list[PrefillUpdate]
    ) -> None:
        row = unbatched.row
        if unbatched.prefilling:
            chunk_sizer = self._chunk_sizer_for(unbatched)
            with chunk_sizer.measure() as measurement:
                measurement.context = len(unbatched.tokens)
                measurement.tokens = unbatched.prefill(self._chunk(measurement.context, chunk_sizer))
            updates.append(PrefillUpdate(row, len(unbatched.tokens)))
            unbatched.last_prefill = self._steps
            return
        if isinstance(unbatched, ScoringRow) and unbatched.done:
            self._unbatched.remove(unbatched)
            updates.append(PrefillUpdate(row, len(row.prompt.tokens), ended=True))
            return
        begin = time.perf_counter()
        token, logprobs = unbatched.first() if unbatched is self._newcomer else unbatched.next()
        self._unbatched_s = time.perf_counter() - begin
        end = self._count(row, token)
        sampled.append(SampledToken(row, token, logprobs, end))
        if end is not None:
            if unbatched is self._single:
                self._single = None
            elif unbatched is self._newcomer:
                self._newcomer = None
            else:
                self._unbatched.remove(unbatched)
            unbatched.end()

    def _count(self, row: Row, token: int) -> End | None:
        row.emitted += 1
        if token in self._model.stop_tokens:
            return "stop"
        return "length" if row.emitted >= row.prompt.max_tokens else None

    def _join(self) -> None:
        """Move the single row and the newcomer into the batch.

        A token whose step has already been started is returned by the next `step`.
        """
        rows = [unbatched for unbatched in (self._single, self._newcomer) if unbatched is not None]
        self._single = self._newcomer = None
        for unbatched in rows:
            pending = unbatched.pending()
            if pending is not None:
                token, logprobs = pending
                end = self._count(unbatched.row, token)
                self._pending.append(SampledToken(unbatched.row, token, logprobs, end))
                if end is not None:
                    unbatched.end()
                    continue
                unbatched.rest = [token]
            self._insert(unbatched)

    def _insert(self, unbatched: UnbatchedRow) -> None:
        row = unbatched.row
        segments = [unbatched.rest]
        split = row.prompt.boundary - len(unbatched.tokens)
        bounded = 0 < split < len(unbatched.rest)
        if bounded:
            segments = [unbatched.rest[:split], unbatched.rest[split:]]
        (uid,) = self._batch.insert_segments(
            [segments],
            max_tokens=[row.prompt.max_tokens - row.emitted],
            caches=[unbatched.caches if unbatched.tokens else make_prompt_cache(self._model.model)],
            all_tokens=[list(unbatched.tokens)],
            samplers=[row.sampler],
            logits_processors=[row.processors or _NO_PROCESSORS],
        )
        self._rows[uid] = row
        self._prefilling[uid] = len(unbatched.tokens)
        if bounded:
            self._boundaries.add(uid)

    def _step_batch(self, sampled: list[SampledToken], updates: list[PrefillUpdate]) -> None:
        context = max(self._prefilling.values(), default=0)
        chunk = self._chunk(context)
        # On a machine that prefills a few tokens per second, eight prompts are too much for one step.
        self._batch.prefill_batch_size = min(_PREFILL_BATCH, max(2, chunk))
        rows = min(self._batch.prefill_batch_size, len(self._prefilling)) or 1
        self._batch.prefill_step_size = max(1, chunk // rows)
        decoding_s = self._decoding_s()
        begin = time.perf_counter()
        prompts, generated = self._batch.next()
        taken = time.perf_counter() - begin
        width = count = 0
        for progress in prompts:
            row = self._rows[progress.uid]
            if progress.end_of_prompt:
                self._prefilling.pop(progress.uid, None)
            else:
                done, total = progress.progress
                held = len(row.prompt.tokens) + row.emitted - total + done
                width, count = max(width, held - self._prefilling[progress.uid]), count + 1
                self._prefilling[progress.uid] = held
                updates.append(PrefillUpdate(row, min(held, len(row.prompt.tokens))))
            if progress.end_of_segment and progress.uid in self._boundaries:
                self._boundaries.discard(progress.uid)
                with mx.stream(self._batch.stream):
                    caches, tokens = self._batch.extract_cache([progress.uid])[progress.uid]
                    self.prompt_cache.insert(tokens, caches)
        if count:
            self._chunk_sizer.record(width * count, max(taken - decoding_s, taken / 4), context)
        else:
            self._decode_s, self._decode_rows = taken, max(1, len(generated))
        for response in generated:
            row = self._rows[response.uid]
            row.emitted += 1
            end: End | None = None
            if response.finish_reason is not None:
                end = "stop" if response.token in self._model.stop_tokens else "length"
                del self._rows[response.uid]
                with mx.stream(self._batch.stream):
                    self.prompt_cache.insert(response.all_tokens, response.prompt_cache)
            sampled.append(SampledToken(row, response.token, response.logprobs, end))
