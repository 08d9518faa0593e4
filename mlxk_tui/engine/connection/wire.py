"""Converts the messages of the engine's protocol to JSON values and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from mlxk_tui.engine.generation import (
    Delta,
    Finished,
    FinishReason,
    GenerationRequest,
    GenerationTimings,
    LoadProgress,
    PrefillProgress,
    SamplingParams,
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
    RequestFailed,
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
        *(LoadProgress, Started, PrefillProgress, Delta, Finished),
        *(Load, Unload, Generate, Cancel, CountTokens, Tokenize, Detokenize, Embed, Ping),
        *(Ready, Loaded, Done, Counted, Tokenized, Detokenized, Embedded, RequestFailed, Heartbeat, Streamed),
    )
}


def to_json(message: Any) -> dict[str, Any]:
    """Return a message, event or `GenerationRequest` as JSON values, without fields at their defaults."""
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
        return list(value)  # token ids, of which there may be a million: skip the recursion
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def from_json(values: Mapping[str, Any]) -> Any:
    """Return the message, event or `GenerationRequest` that `to_json` was called with.

    Raises:
        KeyError, TypeError, ValueError: the values are not a message of this version.
    """
    items = dict(values)
    name = items.pop("is")
    return _READERS[name](items)


def _generation(items: dict[str, Any]) -> GenerationRequest:
    for name in ("messages", "tokens", "stop", "tools"):
        if name in items:
            items[name] = tuple(items[name])
    if "sampling" in items:
        items["sampling"] = _sampling(items["sampling"])
    return GenerationRequest(**items)


def _sampling(values: Mapping[str, Any]) -> SamplingParams:
    items = {name: value for name, value in values.items() if name != "is"}
    items["logit_bias"] = {int(token): bias for token, bias in items.get("logit_bias", {}).items()}
    return SamplingParams(**items)


def _delta(items: dict[str, Any]) -> Delta:
    items["tool_calls"] = tuple(map(from_json, items.get("tool_calls", ())))
    items["logprobs"] = tuple(map(from_json, items.get("logprobs", ())))
    items["token_ids"] = tuple(items.get("token_ids", ()))
    return Delta(**items)


def _token_logprob(items: dict[str, Any]) -> TokenLogprob:
    items["top"] = tuple(map(from_json, items.get("top", ())))
    items["raw"] = tuple(items.get("raw", ()))
    return TokenLogprob(**items)


def _top_token(items: dict[str, Any]) -> TopToken:
    items["raw"] = tuple(items.get("raw", ()))
    return TopToken(**items)


def _finished(items: dict[str, Any]) -> Finished:
    items["finish_reason"] = FinishReason(items["finish_reason"])
    return Finished(**{**items, "usage": from_json(items["usage"]), "timings": from_json(items["timings"])})


def _overflow(values: Mapping[str, Any] | None) -> ContextOverflow | None:
    if values is None:
        return None
    return ContextOverflow(**{name: value for name, value in values.items() if name != "is"})


def _request_failed(items: dict[str, Any]) -> RequestFailed:
    items["overflow"] = _overflow(items.get("overflow"))
    items["remedy"] = to_remedy(items.get("remedy"))
    items["facts"] = ErrorFacts.from_dict(items.get("facts"))
    return RequestFailed(**items)


def _with_tuples(kind: Any, *names: str) -> Any:
    def read(items: dict[str, Any]) -> Any:
        return kind(**{**items, **{name: tuple(items.get(name, ())) for name in names}})

    return read


def _count_tokens(items: dict[str, Any]) -> CountTokens:
    for name in ("messages", "tools"):
        items[name] = tuple(items.get(name, ()))
    return CountTokens(**items)


def _load(items: dict[str, Any]) -> Load:
    items["cpu_weights"] = CpuWeights(items.get("cpu_weights", CpuWeights.AUTO))
    return Load(**items)


def _loaded(items: dict[str, Any]) -> Loaded:
    if "weights" in items:
        items["weights"] = CpuWeights(items["weights"])
    if "unbatched_reason" in items:
        items["unbatched_reason"] = BatchingReason(items["unbatched_reason"])
    return Loaded(**items)


def _ready(items: dict[str, Any]) -> Ready:
    if "blas" in items:
        items["blas"] = from_json(items["blas"])
    return Ready(**items)


def _blas(items: dict[str, Any]) -> Blas:
    items["state"] = BlasState(items["state"])
    return Blas(**items)


_READERS: dict[str, Any] = {
    **{name: (lambda items, kind=kind: kind(**items)) for name, kind in _KINDS.items()},
    "RequestFailed": _request_failed,
    "ToolCall": lambda items: ToolCall(**items),
    "TopToken": _top_token,
    "TokenUsage": lambda items: TokenUsage(**items),
    "GenerationTimings": lambda items: GenerationTimings(**items),
    "SamplingParams": _sampling,
    "GenerationRequest": _generation,
    "TokenLogprob": _token_logprob,
    "Delta": _delta,
    "Finished": _finished,
    "Load": _load,
    "Loaded": _loaded,
    "Ready": _ready,
    "Blas": _blas,
    "Generate": lambda items: Generate(id=items["id"], request=from_json(items["request"])),
    "CountTokens": _count_tokens,
    "Tokenize": _with_tuples(Tokenize, "messages", "tools"),
    "Tokenized": _with_tuples(Tokenized, "tokens", "token_strs"),
    "Detokenize": _with_tuples(Detokenize, "tokens"),
    "Embed": lambda items: Embed(id=items["id"], texts=tuple(items.get("texts", ()))),
    "Streamed": lambda items: Streamed(id=items["id"], event=from_json(items["event"])),
}
