"""Checks whether a healthy model can run on a machine, and estimates the memory it needs."""

from __future__ import annotations

from collections.abc import Iterable

from mlxk_tui.ops.cache.documents import Documents, nonempty_str
from mlxk_tui.ops.contract.results import Finding, FindingCode, Fix, Framework, MemoryFit, Severity
from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.ops.health.detect import Detection
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.weights import Weights, loads_in_mlx

_CONTEXT_TOKENS = 4096
"""Length of the conversation that the memory estimate includes."""
_WORKING_BYTES = 250_000_000
"""Activations and buffers of a generation, in addition to weights and KV cache."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.txt", "vocab.json")


def estimate_memory(weights: Weights, detection: Detection) -> int | None:
    """Return the bytes needed to load a model and process a 4,096-token conversation, or None.

    The sum of the weights as stored, a 16-bit KV cache of two tensors per layer, and working buffers.
    """
    if weights.bytes == 0:
        return None
    facts = detection.facts
    cache = 0
    if facts.layers and facts.kv_heads and facts.head_dim:
        tokens = min(detection.context_length or _CONTEXT_TOKENS, _CONTEXT_TOKENS)
        cache = 2 * 2 * facts.layers * facts.kv_heads * facts.head_dim * tokens
    return weights.bytes + cache + _WORKING_BYTES


def estimate_float32(weights: Weights, detection: Detection) -> int | None:
    """Return the same estimate with float32 weights, caches and buffers, as on a CPU; None if unknown.

    A packed word (U32) holds 32/bits weights; their scales and biases are not needed in float32.
    """
    needed = estimate_memory(weights, detection)
    if needed is None or not weights.elements:
        return None
    quantization = detection.quantization
    packed = weights.elements.get("U32", 0)
    elements = sum(weights.elements.values()) - packed
    if quantization is not None and 1 <= quantization.bits <= 32:
        unpacked = packed * 32 // quantization.bits
        helpers = 2 * unpacked // quantization.group_size if quantization.group_size else 0
        packed, elements = unpacked, max(0, elements - helpers)
    cache = needed - weights.bytes - _WORKING_BYTES
    return 4 * (packed + elements) + 2 * cache + _WORKING_BYTES


def check_runtime(
    runtime: Runtime, detection: Detection, documents: Documents, memory_bytes: int | None
) -> tuple[Finding, ...]:
    """Return the findings that prevent a healthy model from running here, the first problem first."""
    if detection.framework is not Framework.MLX:
        return (
            _error(
                FindingCode.FRAMEWORK_UNSUPPORTED,
                None,
                f"MLX cannot run {detection.framework.value} weights; look for an MLX conversion."
                if detection.framework is not Framework.UNKNOWN
                else "It is not recognized as an MLX model.",
            ),
        )
    return (*_problems(runtime, documents), *_memory(runtime, memory_bytes))


def _problems(runtime: Runtime, documents: Documents) -> Iterable[Finding]:
    if runtime.mlx_lm is None:
        yield _error(
            FindingCode.MLX_LM_MISSING,
            None,
            "mlx-lm is not installed, so no model can run.",
            Fix.UPGRADE,
        )
        return
    if not any(loads_in_mlx(name) for name in documents.files):
        yield _error(
            FindingCode.WEIGHTS_NOT_LOADABLE, None, "It has no model*.safetensors file for mlx-lm to load."
        )
    config = documents.config.value or {}
    if config.get("model_file") is not None:
        yield _error(
            FindingCode.CUSTOM_CODE,
            "config.json",
            "It requires code from the repo (model_file), which is never executed.",
        )
    yield from _architecture(runtime, config)
    if not has_tokenizer(documents):
        yield _error(FindingCode.TOKENIZER_MISSING, None, "The tokenizer is missing.", Fix.PULL)


def has_tokenizer(documents: Documents) -> bool:
    """Return whether there is a tokenizer in a form that mlx-lm loads."""
    return any(name in _TOKENIZER_FILES or name.endswith(".tiktoken") for name in documents.files)


def _architecture(runtime: Runtime, config: dict[str, object]) -> Iterable[Finding]:
    architecture = nonempty_str(config.get("model_type"))
    if architecture is None:
        yield _error(FindingCode.ARCHITECTURE_UNKNOWN, "config.json", "config.json has no model_type.")
    elif runtime.module_for(architecture) is None:
        shown = printable(architecture[:60])
        if config.get("auto_map") is not None:
            yield _error(
                FindingCode.CUSTOM_CODE,
                "config.json",
                f"Architecture '{shown}' requires code from the repo (auto_map), which is never executed.",
            )
        else:
            yield _error(
                FindingCode.ARCHITECTURE_UNKNOWN,
                "config.json",
                f"mlx-lm {runtime.mlx_lm} does not support the architecture '{shown}'.",
                Fix.UPGRADE,
            )


def _memory(runtime: Runtime, memory_bytes: int | None) -> Iterable[Finding]:
    fit = runtime.fit(memory_bytes)
    usable = format_size(runtime.memory_bytes)
    if fit is MemoryFit.TOO_LARGE:
        yield Finding(
            code=FindingCode.MEMORY_TOO_LARGE,
            severity=Severity.WARNING,
            path=None,
            message=f"It needs about {format_size(memory_bytes)} of memory; only {usable} is available here.",
            fix=Fix.NONE,
        )
    elif fit is MemoryFit.TIGHT:
        yield Finding(
            code=FindingCode.MEMORY_TIGHT,
            severity=Severity.WARNING,
            path=None,
            message=f"Memory is tight: it needs about {format_size(memory_bytes)} of the {usable} available.",
            fix=Fix.NONE,
        )


def _error(code: FindingCode, path: str | None, message: str, fix: Fix = Fix.NONE) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, path=path, message=message, fix=fix)
