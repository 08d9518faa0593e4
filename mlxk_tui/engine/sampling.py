"""Validates sampling parameters, and reads a model's defaults from its generation_config.json.

The ranges are those of the OpenAI API, where it has the parameter. For some values (a `top_k` of the
vocabulary's size, a `logit_bias` for an id beyond it) mlx-lm raises inside the batch, which would end all
streams. So a request is validated before it is queued.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeGuard

from mlxk_tui.engine.generation import SamplingParams
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, float):
        return math.isfinite(value)
    return _is_integer(value)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


class _Range(NamedTuple):
    low: float
    high: float

    def contains(self, value: object) -> bool:
        return _is_number(value) and self.low <= value <= self.high


RANGES: dict[str, _Range] = {
    "temperature": _Range(0, 2),
    "top_p": _Range(0, 1),
    "min_p": _Range(0, 1),
    "repetition_penalty": _Range(0, 2),
    "presence_penalty": _Range(-2, 2),
    "frequency_penalty": _Range(-2, 2),
}
"""Allowed values of the floating-point parameters, both ends included."""
BIAS_RANGE = _Range(-100, 100)
"""Allowed values of `logit_bias`."""
MIN_SEED, MAX_SEED = -(2**63), 2**64 - 1
"""Range of seeds: all signed and unsigned 64-bit integers."""
_MAX_EOS = 256
_GREEDY_TOP_P = 1e-9


def validate_sampling(sampling: SamplingParams, vocab_size: int) -> None:
    """Check that the parameters can be used with a model.

    Args:
        sampling: the requested parameters; values may be of any type.
        vocab_size: size of the model's logits.

    Raises:
        OpError: `validation_error`, with the parameter and its allowed values.
    """
    for name, allowed in RANGES.items():
        value = getattr(sampling, name)
        if value is not None and not allowed.contains(value):
            raise _invalid(name, value, f"a number from {allowed.low:g} to {allowed.high:g}")
    top_k = sampling.top_k
    if top_k is not None and not (_is_integer(top_k) and 0 <= top_k < vocab_size):
        raise _invalid("top_k", top_k, f"a whole number from 0 (all tokens) to {vocab_size - 1}")
    seed = sampling.seed
    if seed is not None and not (_is_integer(seed) and MIN_SEED <= seed <= MAX_SEED):
        raise _invalid("seed", seed, f"a whole number from {MIN_SEED} to {MAX_SEED}")
    for token, bias in sampling.logit_bias.items():
        if not (_is_integer(token) and 0 <= token < vocab_size):
            raise _invalid("logit_bias", token, f"token ids from 0 to {vocab_size - 1} as keys")
        if not BIAS_RANGE.contains(bias):
            raise _invalid("logit_bias", bias, f"numbers from {BIAS_RANGE.low:g} to {BIAS_RANGE.high:g}")


def default_sampling(generation_config: object, vocab_size: int | None = None) -> SamplingParams:
    """Return the default sampling parameters of a model.

    `do_sample: false` means greedy decoding; `do_sample: true` without a temperature means Transformers'
    default of 1. Values that are not valid are ignored.

    Args:
        generation_config: the parsed generation_config.json; any JSON value, or None.
        vocab_size: upper bound of `top_k`, exclusive.
    """
    if not isinstance(generation_config, Mapping):
        return SamplingParams()

    def number(name: str) -> float | None:
        value = generation_config.get(name)
        return float(value) if _is_number(value) and RANGES[name].contains(value) else None

    temperature = number("temperature")
    if generation_config.get("do_sample") is False:
        temperature = 0.0
    elif generation_config.get("do_sample") is True and temperature is None:
        temperature = 1.0
    top_k = generation_config.get("top_k")
    usable = _is_integer(top_k) and top_k >= 0 and (vocab_size is None or top_k < vocab_size)
    return SamplingParams(
        temperature=temperature,
        top_p=number("top_p"),
        min_p=number("min_p"),
        repetition_penalty=number("repetition_penalty"),
        top_k=top_k if usable else None,
    )


def eos_token_ids(generation_config: object, vocab_size: int | None = None) -> tuple[int, ...]:
    """Return the valid ids in the `eos_token_id` of a generation_config.json, an integer or a list."""
    if not isinstance(generation_config, Mapping):
        return ()
    value = generation_config.get("eos_token_id")
    ids = value if isinstance(value, list) else [value]
    limit = vocab_size if vocab_size is not None else 2**31
    return tuple(
        dict.fromkeys(token for token in ids[:_MAX_EOS] if _is_integer(token) and 0 <= token < limit)
    )


def merge_sampling(request: SamplingParams, model: SamplingParams) -> SamplingParams:
    """Return the effective parameters: the request's values, else the model's. Both must be valid.

    The seed is converted to unsigned. A `top_p` of 0, which mlx-lm treats as "off", becomes so small that
    only the most likely token remains.
    """

    def first(value: float | None, default: float | None) -> float | None:
        return default if value is None else value

    top_p = first(request.top_p, model.top_p)
    seed = request.seed if request.seed is not None else model.seed
    return SamplingParams(
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


def _invalid(name: str, value: object, allowed: str) -> OpError:
    shown = "so large" if _is_integer(value) and abs(value) >= 2**64 else printable(repr(value)[:60])
    return OpError(ErrorType.VALIDATION_ERROR, f"{name} cannot be {shown}. It takes {allowed}.")
