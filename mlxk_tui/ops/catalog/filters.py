"""Parses the filter of the model list: words and `field:value` terms, all of which must match.

qwen                    text in the name
type:chat  org:mlx-community  framework:mlx  quant:4bit
health:bad  runs:yes  fit:tight
size>10GB  size<=500MB  context>=32k
update:available        a check found a newer commit on the hub
-type:base              a leading minus negates a term
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mlxk_tui.ops.contract.terms import Framework, Health, MemoryFit, ModelType
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Model

Predicate: TypeAlias = "Callable[[Model], bool]"

FIELDS = {
    "type": "chat, embedding, base or unknown",
    "health": "good or bad",
    "runs": "yes or no",
    "fit": "fits, tight or large",
    "org": "an organization, such as mlx-community",
    "framework": "mlx, gguf, pytorch or unknown",
    "quant": "bits, such as 4bit, or none",
    "size": "a comparison, such as size>10GB",
    "context": "a comparison, such as context>=32k",
    "update": "available",
}
"""The fields and the values they accept."""

_TERM = re.compile(r"(-?)([a-z]+)(:|>=|<=|>|<|=)(.*)", re.IGNORECASE | re.DOTALL)
_UPDATE = re.compile(r"(-?)update[:=]available", re.IGNORECASE)
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]{0,3})", re.IGNORECASE)
_FACTORS = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "t": 10**12,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_COMPARE: dict[str, Callable[[int, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
}


@dataclass(frozen=True)
class Filter:
    """A parsed filter; an empty one matches all models."""

    text: str = ""
    """The text that the user entered."""
    predicates: tuple[Predicate, ...] = ()
    updates: frozenset[bool] = frozenset()
    """Whether a model must have an update (True) or must not (False); it is no property of the model."""

    def matches(self, model: Model, *, has_update: bool = False) -> bool:
        """Return whether all terms match `model`; `has_update`: a check found an update of it."""
        return self.updates <= {has_update} and all(predicate(model) for predicate in self.predicates)


def parse(text: str) -> Filter:
    """Parse a filter.

    Raises:
        OpError: `validation_error`, whose message names the term, the problem and the accepted values.
    """
    words = text.split()
    updates = frozenset(not match[1] for word in words if (match := _UPDATE.fullmatch(word)))
    terms = tuple(_parse_term(word) for word in words if not _UPDATE.fullmatch(word))
    return Filter(text.strip(), terms, updates)


def _parse_term(word: str) -> Predicate:
    match = _TERM.fullmatch(word)
    if match is None:
        negated = len(word) > 1 and word.startswith("-")
        needle = (word[1:] if negated else word).casefold()
        return _negated_if(lambda model: needle in model.name.casefold(), negated)
    minus, name, sign, value = match[1], match[2].lower(), match[3], match[4]
    if name not in FIELDS:
        raise _invalid(f"Unknown field '{printable(name)}'; fields are {', '.join(FIELDS)}.")
    if name in {"size", "context"}:
        return _negated_if(_comparison(name, sign, value), bool(minus))
    if sign not in {":", "="}:
        raise _invalid(f"'{name}' is not a number: write {name}:… with {FIELDS[name]}.")
    if not value:
        raise _invalid(f"'{name}:' needs a value: {FIELDS[name]}.")
    return _negated_if(_equality(name, value.casefold()), bool(minus))


def _equality(name: str, value: str) -> Predicate:
    def invalid_value() -> OpError:
        return _invalid(f"'{name}:' takes {FIELDS[name]}, not '{printable(value)}'.")

    if name == "org":
        return lambda model: value in model.name.casefold().rpartition("/")[0]
    if name == "quant":
        return _quantization(value, invalid_value)
    if name == "health":
        healths = {"good": Health.HEALTHY, "bad": Health.UNHEALTHY, "healthy": Health.HEALTHY}
        healths["unhealthy"] = Health.UNHEALTHY
        return _member(healths.get(value), invalid_value, lambda model: model.health)
    if name == "update":
        raise invalid_value()
    if name == "runs":
        return _member(
            {"yes": True, "no": False}.get(value), invalid_value, lambda model: model.runtime_compatible
        )
    if name == "fit":
        fits = {"fits": MemoryFit.FITS, "tight": MemoryFit.TIGHT, "large": MemoryFit.TOO_LARGE}
        fits["too_large"] = MemoryFit.TOO_LARGE
        return _member(fits.get(value), invalid_value, lambda model: model.memory_fit)
    if name == "type":
        types = {item.value: item for item in ModelType} | {"embed": ModelType.EMBEDDING}
        return _member(types.get(value), invalid_value, lambda model: model.model_type)
    frameworks = {item.value.casefold(): item for item in Framework} | {"torch": Framework.PYTORCH}
    return _member(frameworks.get(value), invalid_value, lambda model: model.framework)


def _quantization(value: str, invalid_value: Callable[[], OpError]) -> Predicate:
    if value == "none":
        return lambda model: model.quantization is None
    digits = value.removesuffix("bit")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 4):
        raise invalid_value()
    bits = int(digits)
    return lambda model: model.quantization is not None and model.quantization.bits == bits


def _member(
    expected: object, invalid_value: Callable[[], OpError], get: Callable[[Model], object]
) -> Predicate:
    if expected is None:
        raise invalid_value()
    return lambda model: get(model) == expected


def _comparison(name: str, sign: str, value: str) -> Predicate:
    example = "10GB" if name == "size" else "32k"
    match = _NUMBER.fullmatch(value)
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise _invalid(f"'{name}{sign}' needs a number, such as {name}>{example}.")
    compare = _COMPARE.get(sign)
    if compare is None:
        raise _invalid(f"'{name}' is a number: write {name}>{example} or {name}<{example}.")
    limit = float(match[1]) * factor

    def predicate(model: Model) -> bool:
        number = model.size_bytes if name == "size" else model.context_length
        return number is not None and compare(number, limit)

    return predicate


def _negated_if(predicate: Predicate, negated: bool) -> Predicate:
    return (lambda model: not predicate(model)) if negated else predicate


def _invalid(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)
