"""Checks sampling parameters, and takes a model's own defaults from its generation_config.json.

The ranges are those of the OpenAI API where it has the parameter. mlx-lm raises on some values inside
the batch (a `top_k` of the vocabulary's size, a `logit_bias` beyond it), which would end everybody's
streams, so a request is checked before it is queued.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeGuard

from mlxk_tui.engine.generation import Sampling
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, float):
        return math.isfinite(value)
    return _is_whole(value)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


class _Range(NamedTuple):
    low: float
    high: float

    def holds(self, value: object) -> bool:
        return _is_number(value) and self.low <= value <= self.high


RANGES: dict[str, _Range] = {
    "temperature": _Range(0, 2),
    "top_p": _Range(0, 1),
    "min_p": _Range(0, 1),
    "repetition_penalty": _Range(0, 2),
    "presence_penalty": _Range(-2, 2),
    "frequency_penalty": _Range(-2, 2),
}
"""Allowed values of the parameters that are real numbers, both ends included."""
BIAS_RANGE = _Range(-100, 100)
"""Allowed values of `logit_bias`."""
MIN_SEED, MAX_SEED = -(2**63), 2**64 - 1
"""Seeds: every signed and unsigned 64-bit number."""
_MAX_EOS = 256
_GREEDY_TOP_P = 1e-9


def validate(sampling: Sampling, vocab_size: int) -> None:
    """Refuse parameters that cannot be used with a model.

    Args:
        sampling: what was asked for; a value may be of any type.
        vocab_size: tokens that the model has logits for.

    Raises:
        OpError: `validation_error`, naming the parameter and what it may be.
    """
    for name, allowed in RANGES.items():
        value = getattr(sampling, name)
        if value is not None and not allowed.holds(value):
            raise _refuse(name, value, f"a number from {allowed.low:g} to {allowed.high:g}")
    top_k = sampling.top_k
    if top_k is not None and not (_is_whole(top_k) and 0 <= top_k < vocab_size):
        raise _refuse("top_k", top_k, f"a whole number from 0 (all tokens) to {vocab_size - 1}")
    seed = sampling.seed
    if seed is not None and not (_is_whole(seed) and MIN_SEED <= seed <= MAX_SEED):
        raise _refuse("seed", seed, f"a whole number from {MIN_SEED} to {MAX_SEED}")
    for token, bias in sampling.logit_bias.items():
        if not (_is_whole(token) and 0 <= token < vocab_size):
            raise _refuse("logit_bias", token, f"token ids from 0 to {vocab_size - 1} as keys")
        if not BIAS_RANGE.holds(bias):
            raise _refuse("logit_bias", bias, f"numbers from {BIAS_RANGE.low:g} to {BIAS_RANGE.high:g}")


def defaults(generation_config: object, vocab_size: int | None = None) -> Sampling:
    """Return the sampling that a model's authors recommend.

    `do_sample: false` is greedy; `do_sample: true` without a temperature is Transformers' default of 1.
    Of a file that holds anything else, whatever is no usable number is left out.

    Args:
        generation_config: the parsed generation_config.json; any JSON value, or None.
        vocab_size: tokens of the model, which `top_k` must stay below.
    """
    if not isinstance(generation_config, Mapping):
        return Sampling()

    def number(name: str) -> float | None:
        value = generation_config.get(name)
        return float(value) if _is_number(value) and RANGES[name].holds(value) else None

    temperature = number("temperature")
    if generation_config.get("do_sample") is False:
        temperature = 0.0
    elif generation_config.get("do_sample") is True and temperature is None:
        temperature = 1.0
    top_k = generation_config.get("top_k")
    usable = _is_whole(top_k) and top_k >= 0 and (vocab_size is None or top_k < vocab_size)
    return Sampling(
        temperature=temperature,
        top_p=number("top_p"),
        min_p=number("min_p"),
        repetition_penalty=number("repetition_penalty"),
        top_k=top_k if usable else None,
    )


def eos_token_ids(generation_config: object, vocab_size: int | None = None) -> tuple[int, ...]:
    """Return the end-of-turn token ids of a generation_config.json: one number or a list, in order."""
    if not isinstance(generation_config, Mapping):
        return ()
    value = generation_config.get("eos_token_id")
    ids = value if isinstance(value, list) else [value]
    limit = vocab_size if vocab_size is not None else 2**31
    return tuple(dict.fromkeys(token for token in ids[:_MAX_EOS] if _is_whole(token) and 0 <= token < limit))


def merged(request: Sampling, model: Sampling) -> Sampling:
    """Return what is used: the request's values, else the model's; both valid already.

    A seed becomes unsigned. A `top_p` of 0, which mlx-lm takes for "off", becomes a number so small
    that only the likeliest token is left.
    """

    def first(asked: float | None, default: float | None) -> float | None:
        return default if asked is None else asked

    top_p = first(request.top_p, model.top_p)
    seed = request.seed if request.seed is not None else model.seed
    return Sampling(
        temperature=first(request.temperature, model.temperature),
        top_p=_GREEDY_TOP_P if top_p == 0 else top_p,
        min_p=first(request.min_p, model.min_p),
        repetition_penalty=first(request.repetition_penalty, model.repetition_penalty),
        presence_penalty=first(request.presence_penalty, model.presence_penalty),
        frequency_penalty=first(request.frequency_penalty, model.frequency_penalty),
        top_k=request.top_k if request.top_k is not None else model.top_k,
        logit_bias=dict(request.logit_bias or model.logit_bias),
        seed=None if seed is None else seed % 2**64,
    )


def _refuse(name: str, value: object, allowed: str) -> OpError:
    shown = "so large" if _is_whole(value) and abs(value) >= 2**64 else printable(repr(value)[:60])
    return OpError(ErrorType.VALIDATION_ERROR, f"{name} cannot be {shown}. It takes {allowed}.")
