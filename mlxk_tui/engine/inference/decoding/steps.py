"""Steps all running generations: one alone, several as a batch, joined and parted at any step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
from mlx_lm import sample_utils
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from mlxk_tui.engine.inference.decoding.pace import Pace
from mlxk_tui.engine.inference.decoding.prompt_cache import PromptCache
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.samplers import Processor
from mlxk_tui.engine.inference.decoding.scoring import Scoring
from mlxk_tui.engine.inference.decoding.solo import Solo, Speculative, check_alone
from mlxk_tui.engine.inference.vitals import UNKNOWN_S
from mlxk_tui.engine.inference.weights.loading import LoadedModel

_BATCH, _PREFILL_BATCH, _LARGEST_CHUNK = 32, 8, 2048

End = Literal["stop", "length"]


def _unchanged(tokens: mx.array, logits: mx.array) -> mx.array:
    del tokens
    return logits


# mlx-lm 0.31 loses count of rows without a processor when one of their neighbours has one.
_NO_PROCESSORS: list[Processor] = [] if hasattr(sample_utils, "greedy_sampler") else [_unchanged]


@dataclass(frozen=True)
class Drawn:
    """A token of a row."""

    row: Row
    token: int
    logprobs: mx.array
    end: End | None
    """`stop` for an end-of-turn token, `length` for the last one allowed."""


@dataclass(frozen=True)
class Read:
    """Part of a row's prompt was read."""

    row: Row
    done: int
    """Tokens, cached ones included."""
    over: bool = False
    """Nothing else was wanted: the row has ended."""


class Decoder:
    """All rows of one model.

    A row that is alone is decoded without mlx-lm's batch, which costs several percent; when a second
    one comes both go into the batch. A single newcomer with a short prompt is read by itself and says its
    first token before it joins: in the batch that token would wait for two or three steps of the others.
    Rows that cannot be in a batch (quantized cache, draft model, caches that do not merge) take their steps
    beside it.

    Args:
        model: what all rows are decoded with.
        cache_bytes: what kept caches may take.
        pace: how many tokens of the prompts are read in a step; learned by default.
    """

    def __init__(self, model: LoadedModel, cache_bytes: int, pace: Pace | None = None) -> None:
        self.kept = PromptCache(cache_bytes)
        """Caches of past prompts."""
        self._model = model
        self._pace = pace or Pace()
        self._scoring_pace = Pace()
        self._alone: list[Solo] = []
        self._lone: Solo | None = None
        self._newcomer: Solo | None = None
        self._batch: Any = BatchGenerator(
            model.model,
            stop_tokens=[[token] for token in model.stop_tokens],
            completion_batch_size=_BATCH,
            prefill_batch_size=_PREFILL_BATCH,
            prefill_step_size=_LARGEST_CHUNK,
        )
        self._rows: dict[int, Row] = {}
        self._boundaries: set[int] = set()
        self._reading: dict[int, int] = {}
        """Rows of the batch whose prompt is not all read, with the tokens that they hold."""
        self._moved: list[Drawn] = []
        self._decode_s, self._decode_rows = 0.0, 1
        """What the last step of the batch without reading took, and for how many rows."""
        self._solo_s = 0.0
        """The same of a row by itself."""
        self._steps = 0

    def __len__(self) -> int:
        return len(self._alone) + len(self._rows) + (self._lone is not None) + (self._newcomer is not None)

    def add(self, row: Row, draft: LoadedModel | None = None) -> None:
        """Let a row take part from the next step on.

        Raises:
            OpError: `validation_error`: a quantized cache or the draft model is not possible.
        """
        if row.kind is not None:
            check_alone(self._model, row, draft)
        if row.scores_prompt:
            self._alone.append(Scoring(row, self._model))
        elif draft is not None:
            self._alone.append(Speculative(row, self._model, draft, self.kept))
        elif row.kind is not None or not self._model.batchable:
            self._alone.append(Solo(row, self._model, self.kept))
        elif self._lone is None and not self._rows:
            self._lone = Solo(row, self._model, self.kept)
        else:
            self._add_to_others(Solo(row, self._model, self.kept))

    def _add_to_others(self, solo: Solo) -> None:
        single = self._newcomer is None and not self._reading
        if single and len(solo.rest) <= self._chunk(len(solo.tokens)):
            self._newcomer = solo
            return
        self._join()  # several are read together
        self._insert(solo)

    def remove(self, row: Row) -> None:
        """Free a row's place; what it read is kept for later."""
        self._moved = [drawn for drawn in self._moved if drawn.row is not row]
        if self._lone is not None and self._lone.row is row:
            self._lone.end()
            self._lone = None
            return
        if self._newcomer is not None and self._newcomer.row is row:
            self._newcomer.end()
            self._newcomer = None
            return
        for solo in self._alone:
            if solo.row is row:
                self._alone.remove(solo)
                solo.end()
                return
        for uid, other in self._rows.items():
            if other is row:
                del self._rows[uid]
                self._reading.pop(uid, None)
                self._boundaries.discard(uid)
                with mx.stream(self._batch.stream):
                    removed = self._batch.remove([uid], return_prompt_caches=True)
                    caches, tokens = removed.get(uid, ([], []))
                    self.kept.insert(tokens, caches)
                return

    def close(self) -> None:
        """Free everything."""
        self._alone.clear()
        self._lone = self._newcomer = None
        self._rows.clear()
        self._reading.clear()
        self._moved.clear()
        self._batch.close()
        self.kept.clear()

    @property
    def expected_s(self) -> float:
        """How long the next step should take, in seconds, as far as it is known."""
        total = 0.0
        reader = self._reader()
        for solo in self._solos():
            if solo is reader:
                context, pace = len(solo.tokens), self._pace_of(solo)
                total += pace.expected_s(self._chunk(context, pace), context) or UNKNOWN_S
            elif not solo.prefilling:
                total += self._solo_s or UNKNOWN_S
        if len(self._rows) > len(self._reading):
            total += self._decoding_s() or UNKNOWN_S
        if self._reading:
            context = max(self._reading.values())
            total += self._pace.expected_s(self._chunk(context), context) or UNKNOWN_S
        return total

    def _solos(self) -> list[Solo]:
        single = (self._newcomer, self._lone)
        return [*(solo for solo in single if solo is not None), *self._alone]

    def _reader(self) -> Solo | None:
        """Return whose prompt is read in the next step: one at a time, in turn.

        Everybody's next token then waits for a piece of one prompt only. Of prompts that are scored the first
        one is read to its end before the next takes any memory: a harness sends them by the dozen.
        """
        waiting = [solo for solo in self._solos() if solo.prefilling]
        scored = next((solo for solo in waiting if isinstance(solo, Scoring)), None)
        readers = [solo for solo in waiting if solo is scored or not isinstance(solo, Scoring)]
        return min(readers, key=lambda solo: solo.turn, default=None)

    def _pace_of(self, solo: Solo) -> Pace:
        return self._scoring_pace if isinstance(solo, Scoring) else self._pace

    def _chunk(self, context: int, pace: Pace | None = None) -> int:
        return (pace or self._pace).tokens(shared=len(self) > 1, context=context)

    def _decoding_s(self) -> float:
        """Return how long it should take to draw a token for every row of the batch that is so far."""
        rows = len(self._rows) - len(self._reading)
        return self._decode_s * max(1.0, rows / self._decode_rows) if rows else 0.0

    def step(self) -> tuple[list[Drawn], list[Read]]:
        """Take one step of every row: a token each, or a piece of a prompt."""
        if self._newcomer is not None and self._newcomer.row.emitted:
            self._join()
        drawn, self._moved = self._moved, []
        read: list[Read] = []
        self._steps += 1
        newcomer = self._newcomer
        while newcomer is not None and newcomer.prefilling:
            self._step_solo(newcomer, drawn, read)
        reader = self._reader()
        for solo in self._solos():
            if solo is reader or not solo.prefilling:
                self._step_solo(solo, drawn, read)
        if self._rows:
            self._step_batch(drawn, read)
        return drawn, read

    def _step_solo(self, solo: Solo, drawn: list[Drawn], read: list[Read]) -> None:
        row = solo.row
        if solo.prefilling:
            with self._pace_of(solo).measured() as reading:
                reading.context = len(solo.tokens)
                reading.tokens = solo.prefill(self._chunk(reading.context, self._pace_of(solo)))
            read.append(Read(row, len(solo.tokens)))
            solo.turn = self._steps
            return
        if isinstance(solo, Scoring) and solo.over:
            self._alone.remove(solo)
            read.append(Read(row, len(row.prompt.tokens), over=True))
            return
        begin = time.perf_counter()
        token, logprobs = solo.first() if solo is self._newcomer else solo.next()
        self._solo_s = time.perf_counter() - begin
        end = self._count(row, token)
        drawn.append(Drawn(row, token, logprobs, end))
        if end is not None:
            if solo is self._lone:
                self._lone = None
            elif solo is self._newcomer:
                self._newcomer = None
            else:
                self._alone.remove(solo)
            solo.end()

    def _count(self, row: Row, token: int) -> End | None:
        row.emitted += 1
        if token in self._model.stop_tokens:
            return "stop"
        return "length" if row.emitted >= row.prompt.max_tokens else None

    def _join(self) -> None:
        """Put rows that are by themselves, but could be in the batch, into it.

        A token that one has under way goes out with the next step.
        """
        rows = [solo for solo in (self._lone, self._newcomer) if solo is not None]
        self._lone = self._newcomer = None
        for solo in rows:
            pending = solo.pending()
            if pending is not None:
                token, logprobs = pending
                end = self._count(solo.row, token)
                self._moved.append(Drawn(solo.row, token, logprobs, end))
                if end is not None:
                    solo.end()
                    continue
                solo.rest = [token]
            self._insert(solo)

    def _insert(self, solo: Solo) -> None:
        row = solo.row
        segments = [solo.rest]
        split = row.prompt.boundary - len(solo.tokens)
        bounded = 0 < split < len(solo.rest)
        if bounded:
            segments = [solo.rest[:split], solo.rest[split:]]
        (uid,) = self._batch.insert_segments(
            [segments],
            max_tokens=[row.prompt.max_tokens - row.emitted],
            caches=[solo.caches if solo.tokens else make_prompt_cache(self._model.model)],
            all_tokens=[list(solo.tokens)],
            samplers=[row.sampler],
            logits_processors=[row.processors or _NO_PROCESSORS],
        )
        self._rows[uid] = row
        self._reading[uid] = len(solo.tokens)
        if bounded:
            self._boundaries.add(uid)

    def _step_batch(self, drawn: list[Drawn], read: list[Read]) -> None:
        context = max(self._reading.values(), default=0)
        wanted = self._chunk(context)
        # On a machine that reads a handful of tokens a second, eight prompts at once are too much for a step.
        self._batch.prefill_batch_size = min(_PREFILL_BATCH, max(2, wanted))
        rows = min(self._batch.prefill_batch_size, len(self._reading)) or 1
        self._batch.prefill_step_size = max(1, wanted // rows)
        decoding_s = self._decoding_s()
        begin = time.perf_counter()
        prompts, generated = self._batch.next()
        taken = time.perf_counter() - begin
        width = count = 0
        for progress in prompts:
            row = self._rows[progress.uid]
            if progress.end_of_prompt:
                self._reading.pop(progress.uid, None)
            else:
                done, total = progress.progress
                held = len(row.prompt.tokens) + row.emitted - total + done
                width, count = max(width, held - self._reading[progress.uid]), count + 1
                self._reading[progress.uid] = held
                read.append(Read(row, min(held, len(row.prompt.tokens))))
            if progress.end_of_segment and progress.uid in self._boundaries:
                self._boundaries.discard(progress.uid)
                with mx.stream(self._batch.stream):
                    caches, tokens = self._batch.extract_cache([progress.uid])[progress.uid]
                    self.kept.insert(tokens, caches)
        if count:
            self._pace.learn(width * count, max(taken - decoding_s, taken / 4), context)
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
                    self.kept.insert(response.all_tokens, response.prompt_cache)
            drawn.append(Drawn(row, response.token, response.logprobs, end))
