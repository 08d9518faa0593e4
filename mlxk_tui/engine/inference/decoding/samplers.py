"""Samplers, shared by requests with equal parameters or seeded, and logits processors."""

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

from mlxk_tui.engine.generation import SamplingParams
from mlxk_tui.engine.inference.prompts.prompt_builder import Prompt

Sampler = Callable[[mx.array], mx.array]
"""Maps log-probabilities, (rows, vocabulary), to token ids, (rows,)."""
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]
"""Maps the token ids so far, (tokens,), and logits, (1, vocabulary), to logits, (1, vocabulary)."""

_GREEDY_TOP_P = 1e-6
"""Below this `top_p` only the most likely token remains; mlx-lm 0.31 would round it to 0, which means off."""


def greedy(logprobs: mx.array) -> mx.array:
    """Return the most likely token of each row, (rows,).

    Args:
        logprobs: log-probabilities, (rows, vocabulary).
    """
    return mx.argmax(logprobs, axis=-1)


def sampler_for(sampling: SamplingParams) -> Sampler:
    """Return a sampler for effective sampling parameters.

    Equal parameters return the same object, which mlx-lm then calls once for all of its rows. A request with
    a seed has its own sampler and random key, so that its answer does not depend on other requests.
    """
    temperature = sampling.temperature or 0.0
    parameters = (sampling.top_p or 0.0, sampling.min_p or 0.0, sampling.top_k or 0)
    if temperature == 0 or 0 < parameters[0] < _GREEDY_TOP_P:
        return greedy
    if sampling.seed is None:
        return _shared(temperature, *parameters)
    return _SeededSampler(sampling.seed, temperature, *parameters)


@lru_cache(maxsize=64)
def _shared(temperature: float, top_p: float, min_p: float, top_k: int) -> Sampler:
    return make_sampler(temperature, top_p=top_p, min_p=min_p, top_k=top_k)


class _SeededSampler:
    """The same as `mlx_lm.sample_utils.make_sampler`, with a random key for one request."""

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


def logits_processors_for(prompt: Prompt) -> list[LogitsProcessor]:
    """Return the logits processors of a request, in order; empty for most requests."""
    sampling = prompt.sampling
    processors: list[Any] = make_logits_processors(
        logit_bias=dict(sampling.logit_bias) or None,
        repetition_penalty=None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
    )
    if prompt.constraint is not None:
        processors.append(prompt.constraint)  # last, so that none can allow a token that it excludes
    return processors
