"""How a token is drawn: samplers shared by equal requests, samplers with a seed, logits processors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mlx.core as mx
from mlx_lm.sample_utils import (
    apply_min_p,
    apply_top_k,
    apply_top_p,
    make_logits_processors,
    make_sampler,
)

from mlxk_tui.engine.generation import Sampling
from mlxk_tui.engine.inference.prompts.prompting import Prompt

Sampler = Callable[[mx.array], mx.array]
"""Log-probabilities (rows, vocabulary) to token ids (rows)."""
Processor = Callable[[mx.array, mx.array], mx.array]
"""Tokens so far and logits (1, vocabulary) to logits."""

_ONE_TOKEN_TOP_P = 1e-6
"""Below it only the likeliest token is left; mlx-lm 0.31 would round it away."""


def greedy(logprobs: mx.array) -> mx.array:
    """Return the likeliest tokens."""
    return mx.argmax(logprobs, axis=-1)


def sampler_of(sampling: Sampling) -> Sampler:
    """Return a sampler; equal parameters give the same object, which mlx-lm then calls once for all rows.

    With a seed the request draws with a key of its own, so that its answer does not depend on its
    neighbours; such a row is sampled alone.
    """
    temperature = sampling.temperature or 0.0
    parameters = (sampling.top_p or 0.0, sampling.min_p or 0.0, sampling.top_k or 0)
    if temperature == 0 or 0 < parameters[0] < _ONE_TOKEN_TOP_P:
        return greedy
    if sampling.seed is None:
        return _shared(temperature, *parameters)
    return _Seeded(sampling.seed, temperature, *parameters)


@lru_cache(maxsize=64)
def _shared(temperature: float, top_p: float, min_p: float, top_k: int) -> Sampler:
    return make_sampler(temperature, top_p=top_p, min_p=min_p, top_k=top_k)


class _Seeded:
    """mlx-lm's chain of samplers with a random key that belongs to one request."""

    def __init__(self, seed: int, temperature: float, top_p: float, min_p: float, top_k: int) -> None:
        self._key = mx.random.key(seed)
        self._scale = 1.0 / temperature
        self._filters: list[Callable[[mx.array], mx.array]] = []
        if 0 < top_p < 1:
            self._filters.append(lambda logprobs: apply_top_p(logprobs, top_p))
        if min_p > 0:
            self._filters.append(lambda logprobs: apply_min_p(logprobs, min_p))
        if top_k > 0:
            self._filters.append(lambda logprobs: apply_top_k(logprobs, top_k))

    def __call__(self, logprobs: mx.array) -> mx.array:
        for apply in self._filters:
            logprobs = apply(logprobs)
        self._key, key = mx.random.split(self._key)
        return mx.random.categorical(logprobs * self._scale, key=key)


def processors_of(prompt: Prompt) -> list[Processor]:
    """Return what changes the logits before sampling; empty for most requests."""
    sampling = prompt.sampling
    processors: list[Any] = make_logits_processors(
        logit_bias=dict(sampling.logit_bias) or None,
        repetition_penalty=None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
    )
    if prompt.constraint is not None:
        processors.append(prompt.constraint)  # last: nothing can lift again what it rules out
    return processors
