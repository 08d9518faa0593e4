"""Loads a model with progress, converts its weights for a CPU, and determines its properties."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm import utils
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from mlxk_tui.engine import sampling
from mlxk_tui.engine.generation import SamplingParams
from mlxk_tui.engine.inference.detokenizing import TokenDecoder
from mlxk_tui.engine.inference.weights.conversion import WeightFormat
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable

Conversion = Callable[[Any, Callable[[int, int], None]], WeightFormat]
"""Converts a model's weights in place; calls its second argument with the bytes converted and the total."""
OnStage = Callable[[str, int, int], None]
"""Receives the stage, the bytes done and the total; may raise to stop loading."""

load_tokenizer: Callable[..., Any] = utils.load_tokenizer  # mlx-lm 0.32 declares no types for it
_model_classes: Callable[..., Any] = utils._get_classes
_CHUNK_BYTES = 16 * 2**20
"""Weights that are evaluated in one step."""
_REPORT_BYTES, _REPORT_S = 64 * 2**20, 0.5
"""Progress is reported after this many bytes or seconds, whichever comes first."""
_MAX_HEADER_BYTES = 100_000_000
_CONVERSION_ERRORS = (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError)
"""Raised by a model whose code accesses an attribute that a converted layer no longer has."""
_CONTEXT_KEYS = ("max_position_embeddings", "max_sequence_length", "model_max_length", "n_positions", "n_ctx")
_TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
)
"""Tokens that end a turn if the chat template contains them, even if eos_token_id lacks them."""


@dataclass
class LoadedModel:
    """A loaded model with its tokenizer and properties."""

    name: str
    folder: Path
    """The snapshot folder."""
    model: Any
    """mlx-lm's nn.Module."""
    tokenizer: Any
    """mlx-lm's TokenizerWrapper."""
    context_length: int | None
    """In tokens; None if unknown."""
    vocab_size: int
    """Size of the logits."""
    defaults: SamplingParams
    """Default sampling parameters, from generation_config.json."""
    stop_tokens: frozenset[int]
    """Ids of all end-of-turn tokens."""
    batchable: bool
    """Whether its rows may be batched: after loading, whether its caches can be merged; then the verdict."""
    trimmable: bool
    """Whether its KV caches can always be trimmed to a shorter prompt."""
    window: int
    """Tokens up to which its rotating caches can be trimmed; 0 if it has none, or other kinds of caches."""
    token_decoder: TokenDecoder
    weight_format: WeightFormat | None = None
    """How its weights are stored on a CPU; None on a GPU."""
    load_s: float = 0.0
    embedding_checked: bool = False
    """Whether padded and chunked texts are known to have the same hidden states as texts alone."""
    grammar_tokenizer: Any = None
    """Its `GrammarTokenizer`; created when it is first needed."""
    grammars: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Compiled grammars by syntax and text."""
    drafts: dict[str, LoadedModel] = field(default_factory=dict)
    """Draft models by folder; at most one."""
    kv_groups: dict[int, int | None] = field(default_factory=dict)
    """Group size of a quantized KV cache by bits; None if not supported. See `kv_quantization`."""


def load(
    name: str,
    folder: Path,
    context_length: int | None,
    on_stage: OnStage,
    conversions: Sequence[Conversion] = (),
) -> LoadedModel:
    """Load the model in a snapshot folder.

    Args:
        name: name for error messages.
        folder: the snapshot folder.
        context_length: in tokens; None takes it from config.json.
        on_stage: receives the progress.
        conversions: conversions of the weights, in order of preference. The first one with which the model
            runs is used, else none.

    Raises:
        OpError: `model_not_runnable` with the error of mlx-lm, `insufficient_memory`.
        Exception: anything that `on_stage` raises.
    """
    begin = time.monotonic()
    try:
        _check_no_code(name, folder)
        running = _load_running(folder, conversions, on_stage)
        on_stage("tokenizer", 0, 0)
        tokenizer: Any = load_tokenizer(folder, eos_token_ids=running.config.get("eos_token_id"))
    except (OpError, LoadStopped):
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise _out_of_memory(name) from error
        raise OpError(
            ErrorType.MODEL_NOT_RUNNABLE,
            f"{name} could not be loaded: {_error_line(error)}",
            remedy=Remedy.CHECK_HEALTH,
        ) from error
    vocab_size, caches = running.vocab_size, running.caches
    generation_config = _read_json(folder / "generation_config.json")
    plain = all(type(cache) is KVCache for cache in caches)
    return LoadedModel(
        name=name,
        folder=folder,
        model=running.model,
        tokenizer=tokenizer,
        context_length=context_length or _context_length(running.config),
        vocab_size=vocab_size,
        defaults=sampling.default_sampling(generation_config, vocab_size),
        stop_tokens=_stop_tokens(tokenizer, generation_config, vocab_size),
        batchable=all(hasattr(cache, "merge") for cache in caches),
        trimmable=plain,
        window=_window(caches),
        token_decoder=TokenDecoder(tokenizer),
        weight_format=running.weight_format,
        load_s=time.monotonic() - begin,
    )


@dataclass
class _Running:
    """A model that has processed a token."""

    model: Any
    config: Mapping[str, Any]
    weight_format: WeightFormat | None
    caches: list[Any]
    vocab_size: int


def _load_running(folder: Path, conversions: Sequence[Conversion], on_stage: OnStage) -> _Running:
    """Load a model and warm it up, with the first conversion with which it runs, else with none."""
    first_error = ""
    for convert in (*conversions, None):
        model, config = utils.load_model(folder, lazy=True, get_model_classes=_classes_for(folder))
        _read_weights(model, on_stage)
        weight_format: WeightFormat | None = None
        try:
            if convert is not None:
                weight_format = convert(model, partial(on_stage, "weights"))
            on_stage("warm-up", 0, 0)
            caches, logits = _warm_up(model)
        except _CONVERSION_ERRORS as error:
            if convert is None or "malloc" in str(error):
                raise
            first_error = first_error or f"{type(error).__name__}: {_error_line(error).rstrip('.')}"
            del model  # before it is loaded again
            gc.collect()  # modules have reference cycles
            continue
        if first_error and weight_format is None:
            weight_format = WeightFormat.unconverted(model)
        weight_format = replace(weight_format, error=first_error) if weight_format is not None else None
        return _Running(model, config, weight_format, caches, int(logits.shape[-1]))
    raise AssertionError("the last iteration returns or raises")


def _warm_up(model: Any) -> tuple[list[Any], mx.array]:
    """Run a model on one token; return its caches and the logits, (1, 1, vocabulary)."""
    caches = make_prompt_cache(model)
    logits = model(mx.array([[0]]), cache=caches)
    mx.eval(logits)
    return caches, logits


def _window(caches: Sequence[Any]) -> int:
    if not all(type(cache) in (KVCache, RotatingKVCache) for cache in caches):
        return 0
    return min((int(cache.max_size) for cache in caches if type(cache) is RotatingKVCache), default=0)


def tokenizer_arguments(folder: Path) -> tuple[Any, Any]:
    """Return the arguments of mlx-lm's tokenizer loader for a model.

    These are the `eos_token_id` of config.json and mlx-lm's tokenizer defaults for the architecture.
    """
    config = _read_json(folder / "config.json")
    defaults: Callable[..., Any] | None = getattr(utils, "_tokenizer_defaults", None)
    eos = config.get("eos_token_id") if isinstance(config, Mapping) else None
    try:
        return eos, defaults(folder) if defaults is not None else None
    except (Exception, SystemExit):  # noqa: BLE001 - loading the model reports the error
        return eos, None


def _check_no_code(name: str, folder: Path) -> None:
    """Raise if a model contains code, which mlx-lm 0.31 would run without asking."""
    config = _read_json(folder / "config.json")
    if isinstance(config, Mapping) and config.get("model_file") is not None:
        raise OpError(
            ErrorType.MODEL_NOT_RUNNABLE,
            f"{name} needs code from its repo, which is never run.",
        )


def _classes_for(folder: Path) -> Callable[..., Any]:
    """Return the `get_model_classes` function for a model.

    Embedding models often contain only the inner model: their weights lack the prefix that mlx-lm's classes
    expect, and there is no output layer.
    """
    headers = [_header(path) for path in sorted(folder.glob("model*.safetensors"))]
    if not any(name.startswith(("layers.", "embed_tokens.")) for names in headers for name in names):
        return _model_classes

    def classes(config: dict[str, Any]) -> tuple[Any, Any]:
        config["tie_word_embeddings"] = True
        outer, arguments = _model_classes(config)

        def sanitize(self: Any, weights: dict[str, Any]) -> Any:
            weights = {f"model.{name}": value for name, value in weights.items()}
            inherited = getattr(outer, "sanitize", None)
            return inherited(self, weights) if inherited is not None else weights

        return type(outer.__name__, (outer,), {"sanitize": sanitize}), arguments

    return classes


def _header(path: Path) -> Mapping[str, Any]:
    """Return the header of a safetensors file; empty if it has none.

    MLX holds the GIL while it opens a file, so on a disk that hangs the worker could not even notice the end
    of its parent. Reading the header here first puts it into the page cache.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, _MAX_HEADER_BYTES))
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return {}  # mlx reports the error
    return header if isinstance(header, Mapping) else {}


class LoadStopped(Exception):  # noqa: N818 - not an error: loading was cancelled
    """Raised by an `OnStage` callback to stop loading."""


def _read_weights(model: Any, on_stage: OnStage) -> None:
    leaves: list[Any] = [leaf[1] for leaf in tree_flatten(model.parameters())]
    arrays = [leaf for leaf in leaves if isinstance(leaf, mx.array)]
    total = sum(array.nbytes for array in arrays)
    done = pending = reported = 0
    reported_at = time.monotonic()
    chunk: list[mx.array] = []
    on_stage("weights", 0, total)
    for array in arrays:
        chunk.append(array)
        pending += array.nbytes
        if pending < _CHUNK_BYTES:
            continue
        mx.eval(chunk)
        done, pending = done + pending, 0
        chunk.clear()
        now = time.monotonic()
        if done - reported >= _REPORT_BYTES or now - reported_at >= _REPORT_S:
            reported, reported_at = done, now
            on_stage("weights", done, total)
    mx.eval(chunk)
    mx.eval(model.parameters())
    on_stage("weights", total, total)


def _stop_tokens(tokenizer: Any, generation_config: object, vocab_size: int) -> frozenset[int]:
    tokens = set(tokenizer.eos_token_ids) | set(sampling.eos_token_ids(generation_config, vocab_size))
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, Mapping) else (template,)
    named = "".join(text for text in texts if isinstance(text, str))
    known = tokenizer.get_added_vocab() if hasattr(tokenizer, "get_added_vocab") else {}
    tokens |= {known[word] for word in _TURN_ENDS if word in named and word in known}
    return frozenset(int(token) for token in tokens)


def _context_length(config: Mapping[str, Any]) -> int | None:
    inner = config.get("text_config")
    for place in (config, inner if isinstance(inner, Mapping) else {}):
        for key in _CONTEXT_KEYS:
            value = place.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _error_line(error: BaseException) -> str:
    """Return the first line of an exception's message as a sentence, shortened and printable."""
    if isinstance(error, SystemExit):  # mlx-lm 0.32's `olmo` prints which package is missing and exits
        return "mlx-lm needs a package for this architecture that is not installed; see the log."
    text = printable((str(error).strip() or type(error).__name__).splitlines()[0])
    text = text if len(text) <= 300 else text[:299] + "…"
    return text if text.endswith((".", "…")) else f"{text}."


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: MLX raises RuntimeError then, and only its message shows the reason."""
    return isinstance(error, MemoryError) or "malloc" in str(error) or "memory" in str(error).lower()


def _out_of_memory(name: str) -> OpError:
    return OpError(
        ErrorType.INSUFFICIENT_MEMORY,
        f"Memory ran out while loading {name}.",
        remedy=Remedy.FREE_MEMORY,
    )
