"""Tests whether a model's output in a batch equals its output for a single request.

mlx-lm batches rows of different lengths, and some of its models do not handle that: rows get wrong positions
or masks, the step fails, or the process dies. The trial uses `RowScheduler`, as requests do: prompts of four
lengths are prefilled together, in two chunks, and begin to decode one after another; the longest row leaves
early, and a last row joins that continues from caches of the batch. All tokens are forced, so that a small
difference does not grow, and the distributions over the vocabulary are compared with those of the same tokens
in a single forward pass.

On a CPU a large model takes a second for a few steps, whatever their number of rows or tokens. So there are
few steps: one for each of two sequences, whose prefixes are the rows, and a dozen of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from mlxk_tui.engine.generation import GenerationRequest, SamplingParams
from mlxk_tui.engine.inference.decoding.chunk_sizer import ChunkSizer
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.scheduler import RowScheduler
from mlxk_tui.engine.inference.output.delta_assembler import DeltaAssembler
from mlxk_tui.engine.inference.prompts.prompt_builder import Prompt
from mlxk_tui.engine.inference.weights.loading import LoadedModel

FLOAT32_TOLERANCE = 0.01
"""Maximum distance for a model that computes in float32.

Measured with the 110 architectures of `make families` with weights scaled by four: at most 0.00001 for
correct ones, 0.07 to 0.96 for wrong ones.
"""
HALF_TOLERANCE, HALF_SUSPECT, HALF_RATIO = 0.15, 0.02, 4.0
"""Maximum distance for a model that computes in 16 bits, where different shapes of a batch mean different
kernels and rounding.

The same models rounded to bfloat16 have a distance of 0.007 to 0.066 from themselves in float32, which a
change of kernels does not exceed. A padded row shows an error that the longest row, computed by the same
kernels without padding, does not: above `HALF_SUSPECT` its distance may be at most `HALF_RATIO` times that of
the longest row.
"""
_CACHE_BYTES = 1 << 30
_SEED = 20261129


_CHUNK = 20
"""Prefill chunk size in tokens, all rows together: the two longest prompts take two chunks."""


@dataclass(frozen=True)
class _TrialRow:
    """A row of the trial: a prefix of a sequence."""

    name: str
    sequence: int
    """Index of the sequence."""
    prompt: int
    """Number of prompt tokens."""
    answer: int
    """Number of forced answer tokens."""


_LONG, _FOLLOWING = "long", "following"
_HALF_FACTOR = 3
"""How many times as many tokens are generated in 16 bits, to distinguish the median from rounding."""


def _trial_rows(factor: int) -> tuple[_TrialRow, ...]:
    """Return the rows. The last one begins after the long one has left, and continues it."""
    long = _TrialRow(_LONG, 0, 10, 3 * factor)
    return (
        long,
        _TrialRow("short", 1, 3, 7 * factor),
        _TrialRow("middle", 1, 5, 7 * factor),
        _TrialRow("longer", 1, 8, 6 * factor),
        _TrialRow(_FOLLOWING, 0, long.prompt + long.answer + 1, 2 * factor),
    )


@dataclass(frozen=True)
class Difference:
    """The distance between the distributions of one row in the batch and alone."""

    row: str
    distances: tuple[float, ...]
    """Total variation distance of each token, from 0 (equal) to 1 (disjoint)."""

    float32: bool
    """Whether the model computes in float32."""

    @property
    def distance(self) -> float:
        """The row's distance: the maximum in float32, else the median of all or of the first three tokens.

        The median tolerates a single token for which rounding selected a different expert. The first tokens
        count separately, because only they show a wrong recurrent state, before it decays.
        """
        if not self.distances:
            return 0.0
        if self.float32:
            return max(self.distances)
        return float(max(np.median(self.distances), np.median(self.distances[:3])))


def try_batching(model: LoadedModel, on_step: Callable[[], None]) -> list[Difference]:
    """Run the trial: 15 steps of one to four rows, or 31 in 16 bits.

    Args:
        model: a model whose caches can be merged.
        on_step: called before each step; may raise to stop the trial.

    Returns:
        The differences between each row in the batch and alone, before and after the last row joined.

    Raises:
        Exception: anything that mlx-lm raises if it cannot batch the model, or that `on_step` raises.
    """
    rows = _trial_rows(1)
    sequences, alone = _run_alone(model, rows, on_step)
    float32 = _is_float32(alone)
    if not float32:
        rows = _trial_rows(_HALF_FACTOR)
        sequences, alone = _run_alone(model, rows, on_step)
    scheduler = RowScheduler(model, _CACHE_BYTES, _FixedChunkSizer())
    try:
        run = _BatchRun(model, scheduler, sequences, on_step)
        for row in rows[:-1]:
            run.add(row)
        run.step_until(lambda: len(run.logprobs[_LONG]) == rows[0].answer)
        before = {name: len(logprobs) for name, logprobs in run.logprobs.items()}
        run.add(rows[-1])
        run.step_until(lambda: not len(scheduler))
    finally:
        scheduler.close()
        mx.clear_cache()
    differences = []
    for row in rows:
        expected = alone[row.sequence][row.prompt - 1 :]
        distances = [
            _total_variation(one, other) for one, other in zip(expected, run.logprobs[row.name], strict=False)
        ]
        split = before.get(row.name, 0)
        for name, some in ((row.name, distances[:split]), (f"{row.name}, later", distances[split:])):
            if some:
                differences.append(Difference(name, tuple(some), float32))
    return differences


def differs(differences: list[Difference]) -> bool:
    """Return whether a model's output in a batch is different, so that it must not be batched."""
    largest = max((each.distance for each in differences), default=0.0)
    if all(each.float32 for each in differences):
        return largest > FLOAT32_TOLERANCE
    unpadded = max((each.distance for each in differences if each.row == _LONG), default=0.0)
    return largest > HALF_TOLERANCE or largest > max(HALF_SUSPECT, HALF_RATIO * unpadded)


class _ForcedSampler:
    """A sampler that returns given tokens."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._next = 0

    def __call__(self, logprobs: mx.array) -> mx.array:
        token = self._tokens[min(self._next, len(self._tokens) - 1)]  # mlx-lm may sample one more at the end
        self._next += 1
        return mx.full(logprobs.shape[:1], token, dtype=mx.uint32)


class _FixedChunkSizer(ChunkSizer):
    """A chunk sizer whose size does not depend on the machine's speed."""

    def next_size(self, *, shared: bool, context: int = 0) -> int:
        """Return the chunk size of the trial."""
        del shared, context
        return _CHUNK


class _BatchRun:
    """Runs rows in a scheduler and collects the distributions of their tokens."""

    def __init__(
        self,
        model: LoadedModel,
        scheduler: RowScheduler,
        sequences: Sequence[list[int]],
        on_step: Callable[[], None],
    ) -> None:
        self.logprobs: dict[str, list[mx.array]] = {}
        """Log-probabilities of each token, (vocabulary,), by the row's name."""
        self._model = model
        self._scheduler = scheduler
        self._sequences = sequences
        self._on_step = on_step
        self._rows: dict[int, _TrialRow] = {}

    def add(self, trial_row: _TrialRow) -> None:
        """Add a row to the scheduler."""
        tokens = self._sequences[trial_row.sequence]
        prompt = Prompt(
            tokens=tokens[: trial_row.prompt],
            boundary=0,
            reasoning_open=False,
            implied_stops=(),
            max_tokens=trial_row.answer,
            sampling=SamplingParams(temperature=0),
        )
        request = GenerationRequest(tokens=tuple(prompt.tokens))
        row = Row(
            id=len(self._rows),
            request=request,
            prompt=prompt,
            answer=DeltaAssembler(self._model, request, prompt),
            sampler=_ForcedSampler(tokens[trial_row.prompt : trial_row.prompt + trial_row.answer]),
            processors=[],
            arrived=0.0,
        )
        self._rows[row.id] = trial_row
        self.logprobs[trial_row.name] = []
        self._scheduler.add(row)

    def step_until(self, condition: Callable[[], bool]) -> None:
        """Run steps until `condition` returns true."""
        while not condition():
            self._on_step()
            sampled, _ = self._scheduler.step()
            for token in sampled:
                self.logprobs[self._rows[token.row.id].name].append(token.logprobs)


def _run_alone(
    model: LoadedModel, rows: Sequence[_TrialRow], on_step: Callable[[], None]
) -> tuple[list[list[int]], list[list[mx.array]]]:
    """Run each of two sequences in a single forward pass.

    Returns:
        The token ids of the sequences, as long as the rows need them, and the log-probabilities after each
        token, (vocabulary,).
    """
    tokens = _forced_tokens(model)
    length = max(row.prompt + row.answer for row in rows)
    sequences = [[next(tokens) for _ in range(length)] for _ in range(2)]
    results = []
    for sequence in sequences:
        on_step()
        logits = model.model(mx.array([sequence[:-1]]), cache=make_prompt_cache(model.model))[0]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        mx.eval(logprobs)
        results.append(list(logprobs))
    return sequences, results


def _is_float32(logprobs: Sequence[Sequence[mx.array]]) -> bool:
    return all(each.dtype == mx.float32 for some in logprobs for each in some)


def _total_variation(alone: mx.array, batched: mx.array) -> float:
    """Return the total variation distance of two distributions: half the sum of differences, 0 to 1.

    If the distribution is not finite even alone, the distance is 0: batching makes nothing worse. If it is
    not finite only in the batch, the distance is 1.

    Args:
        alone: log-probabilities, (vocabulary,).
        batched: log-probabilities, (vocabulary,).
    """
    probabilities, batched_probabilities = (mx.exp(each.astype(mx.float32)) for each in (alone, batched))
    value: Any = (mx.sum(mx.abs(probabilities - batched_probabilities)) / 2).item()
    if math.isfinite(value):
        return float(value)
    total: Any = mx.sum(probabilities).item()
    return 1.0 if math.isfinite(total) else 0.0


def _forced_tokens(model: LoadedModel) -> Iterator[int]:
    """Yield ordinary tokens of the vocabulary, in the same order each time."""
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values(), *model.stop_tokens}
    size = min(len(tokenizer.get_vocab()), model.vocab_size)
    random = np.random.default_rng(_SEED)
    while True:
        token = int(random.integers(size))
        if token not in special:
            yield token
