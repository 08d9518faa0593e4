"""Loads a model, shard by shard with progress, and gathers what the rest needs to know of it."""

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
from mlxk_tui.engine.generation import Sampling
from mlxk_tui.engine.inference.detokenizing import TokenDecoder
from mlxk_tui.engine.inference.weights.holding import HeldWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable

Hold = Callable[[Any, Callable[[int, int], None]], HeldWeights]
"""Changes how a model's weights are held, and tells its progress in bytes."""
OnStage = Callable[[str, int, int], None]
"""Receives stage, bytes done and bytes in all; raises to stop the loading."""

load_tokenizer: Callable[..., Any] = utils.load_tokenizer  # mlx-lm 0.32 declares no types for it
_model_classes: Callable[..., Any] = utils._get_classes
_CHUNK_BYTES = 16 * 2**20
"""How much is read in one step."""
_TOLD_BYTES, _TOLD_S = 64 * 2**20, 0.5
"""After how much, or how many seconds, it is told: the sooner of the two."""
_MAX_HEADER_BYTES = 100_000_000
_HELD_FAULTS = (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError)
"""What a model raises whose code asks a layer for something that it has no more."""
_CONTEXT_KEYS = ("max_position_embeddings", "max_sequence_length", "model_max_length", "n_positions", "n_ctx")
_TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
)
"""Tokens that end a turn in the templates that name them, whatever eos_token_id says."""


@dataclass
class LoadedModel:
    """A model in memory with its tokenizer."""

    name: str
    folder: Path
    """The snapshot."""
    model: Any
    """mlx-lm's nn.Module."""
    tokenizer: Any
    """mlx-lm's TokenizerWrapper."""
    context_length: int | None
    vocab_size: int
    """Size of the logits."""
    defaults: Sampling
    """What generation_config.json recommends."""
    stop_tokens: frozenset[int]
    """Every token that ends a turn."""
    batchable: bool
    """Whether its rows may be put together into a batch; `batching` decides it."""
    trimmable: bool
    """Whether its caches can always be cut back to a shorter prompt."""
    window: int
    """Up to how many tokens caches that rotate can be cut back; 0 where none rotates or another cannot."""
    token_decoder: TokenDecoder
    """What its tokens stand for."""
    held: HeldWeights | None = None
    """How its weights are held on a CPU."""
    load_s: float = 0.0
    embedding_checked: bool = False
    """Whether it was tried, and found right, that texts read together or in pieces are as they are alone."""
    grammar_tokenizer: Any = None
    """Its tokenizer as `compiling` needs it, once it was needed."""
    grammars: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Compiled grammars by syntax and text."""
    drafts: dict[str, LoadedModel] = field(default_factory=dict)
    """Draft models by folder; at most one."""
    kv_groups: dict[int, int | None] = field(default_factory=dict)
    """Bits to the groups in which its cache is quantized, None where it cannot be; see `kv_bits`."""


def load(
    name: str, folder: Path, context_length: int | None, on_stage: OnStage, ways: Sequence[Hold] = ()
) -> LoadedModel:
    """Load the model of a snapshot folder.

    Args:
        name: as shown.
        folder: the snapshot.
        context_length: tokens; None leaves it to config.json.
        on_stage: hears of the progress.
        ways: how its weights may be held, the first in which the model runs; where there is none, as mlx-lm
            has them.

    Raises:
        OpError: `model_not_runnable` with what mlx-lm says, `insufficient_memory`.
        Exception: what `on_stage` raises.
    """
    begin = time.monotonic()
    try:
        _refuse_code(name, folder)
        running = _run(folder, ways, on_stage)
        on_stage("tokenizer", 0, 0)
        tokenizer: Any = load_tokenizer(folder, eos_token_ids=running.config.get("eos_token_id"))
    except (OpError, LoadStopped):
        raise
    except (Exception, SystemExit) as error:
        if memory_ran_out(error):
            raise _no_memory(name) from error
        raise OpError(
            ErrorType.MODEL_NOT_RUNNABLE,
            f"{name} could not be loaded: {_said(error)}",
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
        held=running.held,
        load_s=time.monotonic() - begin,
    )


@dataclass
class _Running:
    """A model that has read a token."""

    model: Any
    config: Mapping[str, Any]
    held: HeldWeights | None
    caches: list[Any]
    vocab_size: int


def _run(folder: Path, ways: Sequence[Hold], on_stage: OnStage) -> _Running:
    """Read a model and let it run, with its weights held in the first way in which it does."""
    fault = ""
    for way in (*ways, None):
        model, config = utils.load_model(folder, lazy=True, get_model_classes=_classes_for(folder))
        _read_weights(model, on_stage)
        held: HeldWeights | None = None
        try:
            if way is not None:
                held = way(model, partial(on_stage, "weights"))
            on_stage("warm-up", 0, 0)
            caches, logits = _warm_up(model)
        except _HELD_FAULTS as error:
            if way is None or "malloc" in str(error):
                raise
            fault = fault or f"{type(error).__name__}: {_said(error).rstrip('.')}"
            del model  # before it is read anew
            gc.collect()  # modules have reference cycles
            continue
        if fault and held is None:
            held = HeldWeights.unchanged(model)
        held = replace(held, fault=fault) if held is not None else None
        return _Running(model, config, held, caches, int(logits.shape[-1]))
    raise AssertionError("the last way returns or raises")


def _warm_up(model: Any) -> tuple[list[Any], mx.array]:
    """Let a model read one token; return its caches and the logits."""
    caches = make_prompt_cache(model)
    logits = model(mx.array([[0]]), cache=caches)
    mx.eval(logits)
    return caches, logits


def _window(caches: Sequence[Any]) -> int:
    if not all(type(cache) in (KVCache, RotatingKVCache) for cache in caches):
        return 0
    return min((int(cache.max_size) for cache in caches if type(cache) is RotatingKVCache), default=0)


def tokenizer_arguments(folder: Path) -> tuple[Any, Any]:
    """Return ids of the ends of turn, and mlx-lm's defaults for the architecture, as it passes them on."""
    config = _read_json(folder / "config.json")
    defaults: Callable[..., Any] | None = getattr(utils, "_tokenizer_defaults", None)
    eos = config.get("eos_token_id") if isinstance(config, Mapping) else None
    try:
        return eos, defaults(folder) if defaults is not None else None
    except (Exception, SystemExit):  # noqa: BLE001 - the loading tells what is wrong
        return eos, None


def _refuse_code(name: str, folder: Path) -> None:
    """Refuse a model that brings code along: mlx-lm 0.31 runs it unasked."""
    config = _read_json(folder / "config.json")
    if isinstance(config, Mapping) and config.get("model_file") is not None:
        raise OpError(
            ErrorType.MODEL_NOT_RUNNABLE,
            f"{name} needs code from its repo, which is never run.",
        )


def _classes_for(folder: Path) -> Callable[..., Any]:
    """Return how the classes of a model are found.

    Embedding models often hold the inner model alone: its weights lack the prefix that mlx-lm's
    classes expect, and there is no output layer.
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
    """Return the header of a file of weights; empty where there is none.

    mlx holds Python's lock while it opens a file, so that on a disk that hangs not even the end of the
    parent would be noticed. What was read here is at hand when mlx reads it.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, _MAX_HEADER_BYTES))
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return {}  # mlx says what is wrong
    return header if isinstance(header, Mapping) else {}


class LoadStopped(Exception):  # noqa: N818 - nothing is wrong: nobody wants the model any more
    """Raised by an `OnStage` to give a loading up."""


def _read_weights(model: Any, on_stage: OnStage) -> None:
    leaves: list[Any] = [leaf[1] for leaf in tree_flatten(model.parameters())]
    arrays = [leaf for leaf in leaves if isinstance(leaf, mx.array)]
    total = sum(array.nbytes for array in arrays)
    done = pending = told = 0
    told_at = time.monotonic()
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
        if done - told >= _TOLD_BYTES or now - told_at >= _TOLD_S:
            told, told_at = done, now
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


def _said(error: BaseException) -> str:
    """Return the first line of what an exception says, bounded and safe to show, as a sentence."""
    if isinstance(error, SystemExit):  # mlx-lm 0.32: `olmo`, without a package that it prints the name of
        return "mlx-lm needs a package for its architecture that is not installed; the log names it."
    text = printable((str(error).strip() or type(error).__name__).splitlines()[0])
    text = text if len(text) <= 300 else text[:299] + "…"
    return text if text.endswith((".", "…")) else f"{text}."


def memory_ran_out(error: BaseException) -> bool:
    """Tell whether an exception means that: MLX raises RuntimeError, and says it in its text alone."""
    return isinstance(error, MemoryError) or "malloc" in str(error) or "memory" in str(error).lower()


def _no_memory(name: str) -> OpError:
    return OpError(
        ErrorType.INSUFFICIENT_MEMORY,
        f"Memory ran out while {name} was loaded.",
        remedy=Remedy.FREE_MEMORY,
    )
