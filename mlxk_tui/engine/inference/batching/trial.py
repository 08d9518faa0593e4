"""Tries whether a model answers several requests together as it answers each alone.

mlx-lm puts rows of different lengths into one batch, and some of its models take no account of that:
the rows get wrong positions or masks, the step fails, or the process dies. The trial takes the way that
requests take, through `Decoder`: rows of four lengths are read together, in two pieces, and begin to answer
one after the other; the longest leaves early, and a last one joins that goes on from what was read in the
batch. All tokens are forced, so that a difference does not grow into another text, and the distributions
over the vocabulary are compared with those of the same tokens read alone.

A large model takes a second for a few steps on a CPU, whatever the number of rows or tokens in them, so
there are few: one for each of two sequences, which all rows are pieces of, and a dozen of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from mlxk_tui.engine.generation import Generation, Sampling
from mlxk_tui.engine.inference.decoding.pace import Pace
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.steps import Decoder
from mlxk_tui.engine.inference.output.answer import DeltaAssembler
from mlxk_tui.engine.inference.prompts.prompting import Prompt
from mlxk_tui.engine.inference.weights.loading import LoadedModel

EXACT_TOLERANCE = 0.01
"""Largest distance of an innocent model that calculates in 32 bits.

Measured on the 110 architectures of `make families` with weights that exaggerate (scaled by four): at most
0.00001, and 0.07 to 0.96 for those that are wrong.
"""
TOLERANCE, SUSPICION, CONTRAST = 0.15, 0.02, 4.0
"""The same with 16 bits, where other shapes of a batch mean other kernels and other rounding.

The same models with all numbers rounded to bfloat16 are 0.007 to 0.066 away from themselves in 32 bits,
which no change of kernels exceeds. A row that is padded shows a fault that its longer neighbour, read by the
same kernels without padding, does not: from `SUSPICION` on it may not be `CONTRAST` times as far away.
"""
_CACHE_BYTES = 1 << 30
_SEED = 20261129


_CHUNK = 20
"""Tokens that are read in one step, of all rows together: the two longest prompts take two."""


@dataclass(frozen=True)
class _Part:
    """A row of the trial: a piece of a sequence, from its first token on."""

    name: str
    sequence: int
    prompt: int
    """Tokens that it begins with."""
    answer: int
    """Tokens that it is given to say."""


_LONG, _FOLLOWING = "long", "following"
_MORE = 3
"""How many times as much is said with 16 bits, where a median has to be told from rounding."""


def _parts(times: int) -> tuple[_Part, ...]:
    """Return the rows; the last one begins when the long one has left, and goes on from where it ended."""
    long = _Part(_LONG, 0, 10, 3 * times)
    return (
        long,
        _Part("short", 1, 3, 7 * times),
        _Part("middle", 1, 5, 7 * times),
        _Part("longer", 1, 8, 6 * times),
        _Part(_FOLLOWING, 0, long.prompt + long.answer + 1, 2 * times),
    )


@dataclass(frozen=True)
class Difference:
    """How far the distributions of one row in the batch are from those of the row alone."""

    row: str
    distances: tuple[float, ...]
    """Of each token, total variation: 0 is the same, 1 has nothing in common."""

    exact: bool
    """Whether it was calculated in 32 bits."""

    @property
    def distance(self) -> float:
        """What counts: in 32 bits the largest, else the median of all or of the first three.

        One expert that a rounding error has chosen otherwise accuses nobody, and a recurrent state that
        was spoilt shows in the first tokens, before it is forgotten.
        """
        if not self.distances:
            return 0.0
        if self.exact:
            return max(self.distances)
        return float(max(np.median(self.distances), np.median(self.distances[:3])))


def try_batching(model: LoadedModel, on_step: Callable[[], None]) -> list[Difference]:
    """Return how much the rows of a batch differ from the same ones alone.

    15 steps of one to four rows; 31 with 16 bits.

    Args:
        model: its caches can be put together.
        on_step: called before every step; raises to give the trial up.

    Raises:
        Exception: whatever mlx-lm raises where it cannot batch the model, and what `on_step` raises.
    """
    parts = _parts(1)
    sequences, alone = _alone(model, parts, on_step)
    exact = _is_exact(alone)
    if not exact:
        parts = _parts(_MORE)
        sequences, alone = _alone(model, parts, on_step)
    decoder = Decoder(model, _CACHE_BYTES, _SteadyPace())
    try:
        run = _Run(model, decoder, sequences, on_step)
        for part in parts[:-1]:
            run.add(part)
        run.until(lambda: len(run.said[_LONG]) == parts[0].answer)
        before = {name: len(said) for name, said in run.said.items()}
        run.add(parts[-1])
        run.until(lambda: not len(decoder))
    finally:
        decoder.close()
        mx.clear_cache()
    differences = []
    for part in parts:
        expected = alone[part.sequence][part.prompt - 1 :]
        distances = [
            _total_variation(one, other) for one, other in zip(expected, run.said[part.name], strict=False)
        ]
        left = before.get(part.name, 0)
        for name, some in ((part.name, distances[:left]), (f"{part.name}, later", distances[left:])):
            if some:
                differences.append(Difference(name, tuple(some), exact))
    return differences


def differs(differences: list[Difference]) -> bool:
    """Tell whether a model answers otherwise in a batch."""
    largest = max((each.distance for each in differences), default=0.0)
    if all(each.exact for each in differences):
        return largest > EXACT_TOLERANCE
    unpadded = max((each.distance for each in differences if each.row == _LONG), default=0.0)
    return largest > TOLERANCE or largest > max(SUSPICION, CONTRAST * unpadded)


class _Forced:
    """A sampler that says what it was given to say."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._next = 0

    def __call__(self, logprobs: mx.array) -> mx.array:
        token = self._tokens[min(self._next, len(self._tokens) - 1)]  # mlx-lm may draw one more at the end
        self._next += 1
        return mx.full(logprobs.shape[:1], token, dtype=mx.uint32)


class _SteadyPace(Pace):
    """One that reads as many tokens at a time as the trial wants, on whatever machine."""

    def tokens(self, *, shared: bool, context: int = 0) -> int:
        """Return how many tokens the next step should read."""
        del shared, context
        return _CHUNK


class _Run:
    """Rows in a decoder and the distributions that they draw from."""

    def __init__(
        self,
        model: LoadedModel,
        decoder: Decoder,
        sequences: Sequence[list[int]],
        on_step: Callable[[], None],
    ) -> None:
        self.said: dict[str, list[mx.array]] = {}
        """Log-probabilities of each token, (vocabulary,), by the row's name."""
        self._model = model
        self._decoder = decoder
        self._sequences = sequences
        self._on_step = on_step
        self._parts: dict[int, _Part] = {}

    def add(self, part: _Part) -> None:
        """Let a row begin."""
        tokens = self._sequences[part.sequence]
        prompt = Prompt(
            tokens=tokens[: part.prompt],
            boundary=0,
            reasoning_open=False,
            implied_stops=(),
            max_tokens=part.answer,
            sampling=Sampling(temperature=0),
        )
        request = Generation(tokens=tuple(prompt.tokens))
        row = Row(
            id=len(self._parts),
            request=request,
            prompt=prompt,
            answer=DeltaAssembler(self._model, request, prompt),
            sampler=_Forced(tokens[part.prompt : part.prompt + part.answer]),
            processors=[],
            arrived=0.0,
        )
        self._parts[row.id] = part
        self.said[part.name] = []
        self._decoder.add(row)

    def until(self, condition: Callable[[], bool]) -> None:
        """Step until a condition holds."""
        while not condition():
            self._on_step()
            drawn, _ = self._decoder.step()
            for token in drawn:
                self.said[self._parts[token.row.id].name].append(token.logprobs)


def _alone(
    model: LoadedModel, parts: Sequence[_Part], on_step: Callable[[], None]
) -> tuple[list[list[int]], list[list[mx.array]]]:
    """Return sequences as long as the rows need them, and the log-probabilities of what follows each token.

    A sequence is read in one step.
    """
    tokens = _forced_tokens(model)
    length = max(part.prompt + part.answer for part in parts)
    sequences = [[next(tokens) for _ in range(length)] for _ in range(2)]
    said = []
    for sequence in sequences:
        on_step()
        logits = model.model(mx.array([sequence[:-1]]), cache=make_prompt_cache(model.model))[0]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        mx.eval(logprobs)
        said.append(list(logprobs))
    return sequences, said


def _is_exact(said: Sequence[Sequence[mx.array]]) -> bool:
    return all(each.dtype == mx.float32 for some in said for each in some)


def _total_variation(one: mx.array, other: mx.array) -> float:
    """Return half the sum of the differences of two distributions' probabilities, 0 to 1.

    A model that calculates no numbers alone has nothing to lose: the distance is 0. One that does so only
    in a batch is as far away as can be.
    """
    probable, other_probable = (mx.exp(each.astype(mx.float32)) for each in (one, other))
    value: Any = (mx.sum(mx.abs(probable - other_probable)) / 2).item()
    if math.isfinite(value):
        return float(value)
    alone: Any = mx.sum(probable).item()
    return 1.0 if math.isfinite(alone) else 0.0


def _forced_tokens(model: LoadedModel) -> Iterator[int]:
    """Yield ordinary tokens of the vocabulary, the same ones every time."""
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values(), *model.stop_tokens}
    size = min(len(tokenizer.get_vocab()), model.vocab_size)
    random = np.random.default_rng(_SEED)
    while True:
        token = int(random.integers(size))
        if token not in special:
            yield token
