"""The messages of the engine's protocol as JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from mlxk_tui.engine.generation import (
    Delta,
    Finished,
    FinishReason,
    Generation,
    GenerationTimings,
    Loading,
    Prefill,
    Sampling,
    Started,
    TokenLogprob,
    TokenUsage,
    ToolCall,
    TopToken,
)
from mlxk_tui.engine.protocol import (
    Cancel,
    Counted,
    CountTokens,
    Detokenize,
    Detokenized,
    Done,
    Embed,
    Embedded,
    Generate,
    Heartbeat,
    Load,
    Loaded,
    Ping,
    Ready,
    RequestFault,
    Streamed,
    Tokenize,
    Tokenized,
    Unload,
)
from mlxk_tui.ops.contract.matrices import Blas, BlasState
from mlxk_tui.ops.contract.terms import BatchingReason, CpuWeights
from mlxk_tui.ops.core.errors import ContextOverflow
from mlxk_tui.ops.core.remedies import ErrorFacts, to_remedy

_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Loading, Started, Prefill, Delta, Finished),
        *(Load, Unload, Generate, Cancel, CountTokens, Tokenize, Detokenize, Embed, Ping),
        *(Ready, Loaded, Done, Counted, Tokenized, Detokenized, Embedded, RequestFault, Heartbeat, Streamed),
    )
}


def to_json(message: Any) -> dict[str, Any]:
    """Return a message, event or `Generation` as JSON values; fields at their default are left out."""
    values: dict[str, Any] = {"is": type(message).__name__}
    for item in fields(message):
        value = getattr(message, item.name)
        if value is not None and value not in (item.default, ()):
            values[item.name] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return to_json(value)
    if isinstance(value, (tuple, list)) and value and type(value[0]) is int:
        return list(value)  # token ids: there may be a million of them
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def from_json(values: Mapping[str, Any]) -> Any:
    """Return what `to_json` was given.

    Raises:
        KeyError, TypeError, ValueError: it is no message of this version.
    """
    given = dict(values)
    name = given.pop("is")
    return _READERS[name](given)


def _generation(given: dict[str, Any]) -> Generation:
    for name in ("messages", "tokens", "stop", "tools"):
        if name in given:
            given[name] = tuple(given[name])
    if "sampling" in given:
        given["sampling"] = _sampling(given["sampling"])
    return Generation(**given)


def _sampling(values: Mapping[str, Any]) -> Sampling:
    given = {name: value for name, value in values.items() if name != "is"}
    given["logit_bias"] = {int(token): bias for token, bias in given.get("logit_bias", {}).items()}
    return Sampling(**given)


def _delta(given: dict[str, Any]) -> Delta:
    given["tool_calls"] = tuple(map(from_json, given.get("tool_calls", ())))
    given["logprobs"] = tuple(map(from_json, given.get("logprobs", ())))
    given["token_ids"] = tuple(given.get("token_ids", ()))
    return Delta(**given)


def _token_logprob(given: dict[str, Any]) -> TokenLogprob:
    given["top"] = tuple(map(from_json, given.get("top", ())))
    given["raw"] = tuple(given.get("raw", ()))
    return TokenLogprob(**given)


def _top_token(given: dict[str, Any]) -> TopToken:
    given["raw"] = tuple(given.get("raw", ()))
    return TopToken(**given)


def _finished(given: dict[str, Any]) -> Finished:
    given["finish_reason"] = FinishReason(given["finish_reason"])
    return Finished(**{**given, "usage": from_json(given["usage"]), "timings": from_json(given["timings"])})


def _overflow(values: Mapping[str, Any] | None) -> ContextOverflow | None:
    if values is None:
        return None
    return ContextOverflow(**{name: value for name, value in values.items() if name != "is"})


def _fault(given: dict[str, Any]) -> RequestFault:
    given["overflow"] = _overflow(given.get("overflow"))
    given["remedy"] = to_remedy(given.get("remedy"))
    given["facts"] = ErrorFacts.from_dict(given.get("facts"))
    return RequestFault(**given)


def _with_tuples(kind: Any, *names: str) -> Any:
    def read(given: dict[str, Any]) -> Any:
        return kind(**{**given, **{name: tuple(given.get(name, ())) for name in names}})

    return read


def _count_tokens(given: dict[str, Any]) -> CountTokens:
    for name in ("messages", "tools"):
        given[name] = tuple(given.get(name, ()))
    return CountTokens(**given)


def _load(given: dict[str, Any]) -> Load:
    given["cpu_weights"] = CpuWeights(given.get("cpu_weights", CpuWeights.AUTO))
    return Load(**given)


def _loaded(given: dict[str, Any]) -> Loaded:
    if "weights" in given:
        given["weights"] = CpuWeights(given["weights"])
    if "in_turn" in given:
        given["in_turn"] = BatchingReason(given["in_turn"])
    return Loaded(**given)


def _ready(given: dict[str, Any]) -> Ready:
    if "blas" in given:
        given["blas"] = from_json(given["blas"])
    return Ready(**given)


def _blas(given: dict[str, Any]) -> Blas:
    given["state"] = BlasState(given["state"])
    return Blas(**given)


_READERS: dict[str, Any] = {
    **{name: (lambda given, kind=kind: kind(**given)) for name, kind in _KINDS.items()},
    "RequestFault": _fault,
    "ToolCall": lambda given: ToolCall(**given),
    "TopToken": _top_token,
    "TokenUsage": lambda given: TokenUsage(**given),
    "GenerationTimings": lambda given: GenerationTimings(**given),
    "Sampling": _sampling,
    "Generation": _generation,
    "TokenLogprob": _token_logprob,
    "Delta": _delta,
    "Finished": _finished,
    "Load": _load,
    "Loaded": _loaded,
    "Ready": _ready,
    "Blas": _blas,
    "Generate": lambda given: Generate(id=given["id"], request=from_json(given["request"])),
    "CountTokens": _count_tokens,
    "Tokenize": _with_tuples(Tokenize, "messages", "tools"),
    "Tokenized": _with_tuples(Tokenized, "tokens", "names"),
    "Detokenize": _with_tuples(Detokenize, "tokens"),
    "Embed": lambda given: Embed(id=given["id"], texts=tuple(given.get("texts", ()))),
    "Streamed": lambda given: Streamed(id=given["id"], event=from_json(given["event"])),
}
