"""Tries whether a model answers several requests together as it answers each alone.

mlx-lm puts rows of different lengths into one batch, and some of its models take no account of that:
the rows get wrong positions or masks, the step fails, or the process dies. The trial takes the way that
requests take, through `Decoder`: one row alone, two that join it in the middle of its answer and are read
together, one of them leaving early, and a last one that goes on from what was read in the batch. All
tokens are forced, so that a difference does not grow into another text, and the distributions over the
vocabulary are compared with those of the same rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlxk_tui.engine.generation import Generation, Sampling
from mlxk_tui.engine.inference.answer import Answer
from mlxk_tui.engine.inference.decoding import Decoder
from mlxk_tui.engine.inference.loading import LoadedModel
from mlxk_tui.engine.inference.prompting import Prompt
from mlxk_tui.engine.inference.rows import Row

EXACT_TOLERANCE = 0.01
"""Largest distance of an innocent model that calculates in 32 bits.

Measured on the 110 architectures of `make families` with weights that exaggerate (scaled by four): at most
0.000003, and 0.03 to 0.9 for those that are wrong.
"""
TOLERANCE, SUSPICION, CONTRAST = 0.15, 0.02, 4.0
"""The same with 16 bits, where other shapes of a batch mean other kernels and other rounding.

The same models with all numbers rounded to bfloat16 are 0.007 to 0.066 away from themselves in 32 bits,
which no change of kernels exceeds. A row that is padded shows a fault that its longer neighbour, read by the
same kernels without padding, does not: from `SUSPICION` on it may not be `CONTRAST` times as far away.
"""
_CACHE_BYTES = 1 << 30
_SEED = 20261129


@dataclass(frozen=True)
class _Part:
    """A row of the trial."""

    prompt: int
    """Tokens that it begins with."""
    answer: int
    """Tokens that it is given to say."""


_FIRST, _LONG, _SHORT = _Part(3, 24), _Part(17, 12), _Part(6, 8)
_ALONE_STEPS = 5
"""How far the first one is when the others come."""
_NEXT_PROMPT, _NEXT_ANSWER = 3, 4


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

    About 75 steps of one to three rows and 70 tokens of prompts.

    Args:
        model: its caches can be put together.
        on_step: called before every step; raises to give the trial up.

    Raises:
        Exception: whatever mlx-lm raises where it cannot batch the model, and what `on_step` raises.
    """
    tokens = _forced_tokens(model)
    first, long, short = (_Script(part, tokens) for part in (_FIRST, _LONG, _SHORT))
    following = _Script(_Part(len(long.whole) + _NEXT_PROMPT, _NEXT_ANSWER), tokens, long.whole)
    alone = [_alone(model, script, on_step) for script in (first, long, short, following)]

    decoder = Decoder(model, _CACHE_BYTES)
    try:
        run = _Run(model, decoder, on_step)
        run.add("first", first)
        run.until(lambda: len(run.said["first"]) == _ALONE_STEPS)
        run.add("long", long)
        run.add("short", short)
        run.until(lambda: not len(decoder))
        run.add("following", following)
        run.until(lambda: not len(decoder))
    finally:
        decoder.close()
        mx.clear_cache()
    differences = []
    for expected, (name, said) in zip(alone, run.said.items(), strict=True):
        differences += _compared(name, expected, said)
    return differences


def differs(differences: list[Difference]) -> bool:
    """Tell whether a model answers otherwise in a batch."""
    largest = max((each.distance for each in differences), default=0.0)
    if all(each.exact for each in differences):
        return largest > EXACT_TOLERANCE
    unpadded = max((each.distance for each in differences if each.row == "long"), default=0.0)
    return largest > TOLERANCE or largest > max(SUSPICION, CONTRAST * unpadded)


class _Script:
    """The tokens of a row: what it reads and what it is made to say."""

    def __init__(self, part: _Part, tokens: Iterator[int], begin: list[int] | None = None) -> None:
        begin = begin or []
        self.prompt = begin + [next(tokens) for _ in range(part.prompt - len(begin))]
        self.answer = [next(tokens) for _ in range(part.answer)]

    @property
    def whole(self) -> list[int]:
        """The tokens that its caches hold in the end."""
        return self.prompt + self.answer[:-1]


class _Forced:
    """A sampler that says what it was given to say."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._next = 0

    def __call__(self, logprobs: mx.array) -> mx.array:
        token = self._tokens[min(self._next, len(self._tokens) - 1)]  # mlx-lm may draw one more at the end
        self._next += 1
        return mx.full(logprobs.shape[:1], token, dtype=mx.uint32)


class _Run:
    """Rows in a decoder and the distributions that they draw from."""

    def __init__(self, model: LoadedModel, decoder: Decoder, on_step: Callable[[], None]) -> None:
        self.said: dict[str, list[mx.array]] = {}
        """Log-probabilities of each token, (vocabulary,), by the row's name."""
        self._model = model
        self._decoder = decoder
        self._on_step = on_step
        self._names: dict[int, str] = {}

    def add(self, name: str, script: _Script) -> None:
        """Let a row begin."""
        prompt = Prompt(
            tokens=script.prompt,
            boundary=0,
            reasoning_open=False,
            implied_stops=(),
            max_tokens=len(script.answer),
            sampling=Sampling(temperature=0),
        )
        request = Generation(tokens=tuple(script.prompt))
        row = Row(
            id=len(self._names),
            request=request,
            prompt=prompt,
            answer=Answer(self._model, request, prompt),
            sampler=_Forced(script.answer),
            processors=[],
            arrived=0.0,
        )
        self._names[row.id] = name
        self.said[name] = []
        self._decoder.add(row)

    def until(self, condition: Callable[[], bool]) -> None:
        """Step until a condition holds."""
        while not condition():
            self._on_step()
            drawn, _ = self._decoder.step()
            for token in drawn:
                self.said[self._names[token.row.id]].append(token.logprobs)


def _alone(model: LoadedModel, script: _Script, on_step: Callable[[], None]) -> list[mx.array]:
    decoder = Decoder(model, 0)
    try:
        run = _Run(model, decoder, on_step)
        run.add("alone", script)
        run.until(lambda: not len(decoder))
    finally:
        decoder.close()
    return run.said["alone"]


def _compared(name: str, alone: list[mx.array], together: list[mx.array]) -> list[Difference]:
    """Return the difference of a row; that of the first one while it was alone is not counted."""
    begin = _ALONE_STEPS + 1 if name == "first" else 0
    exact = all(each.dtype == mx.float32 for each in alone)
    distances = [
        _total_variation(one, other) for one, other in zip(alone[begin:], together[begin:], strict=True)
    ]
    if name != "first":
        return [Difference(name, tuple(distances), exact)]
    left = _LONG.answer + 2  # the longest neighbour has left by then
    return [
        Difference("joined", tuple(distances[:left]), exact),
        Difference("left", tuple(distances[left:]), exact),
    ]


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
