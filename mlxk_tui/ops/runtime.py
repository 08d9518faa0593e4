"""Whether a sound model will run here: what the installed mlx-lm knows, and what fits into memory.

mlx-lm is looked at on disk and never imported: importing it costs over a second.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mlxk_tui.ops.contract import Finding, FindingCode, Fix, Framework, MemoryFit, Severity
from mlxk_tui.ops.detect import Detection
from mlxk_tui.ops.documents import Documents, text_of
from mlxk_tui.ops.format import printable, size
from mlxk_tui.ops.weights import Weights, loads_in_mlx

_CONTEXT_TOKENS = 4096
"""Length of the conversation that the memory estimate allows for."""
_WORKING_BYTES = 250_000_000
"""Activations and buffers of a generation, beside weights and KV cache."""
_REMAPPING = re.compile(r"^MODEL_REMAPPING\s*(?::[^=]+)?=\s*(\{.*?^\})", re.MULTILINE | re.DOTALL)
_SHARED_MODULES = frozenset(
    {
        "activations",
        "base",
        "bitlinear_layers",
        "cache",
        "gated_delta",
        "mla",
        "pipeline",
        "rope_utils",
        "ssm",
        "switch_layers",
    }
)
"""Modules of mlx_lm.models that are no architecture (0.32)."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.txt", "vocab.json")


@dataclass(frozen=True)
class Runtime:
    """What this machine can run."""

    mlx_lm: str | None
    """Version of the installed mlx-lm, or None."""
    architectures: frozenset[str]
    """Values of `model_type` that mlx-lm has a module for."""
    remapping: dict[str, str] = field(default_factory=dict)
    """Values of `model_type` that mlx-lm runs with another one's module."""
    memory_bytes: int = 0
    """Memory that a model can use."""

    @classmethod
    def here(cls) -> Runtime:
        """Return the runtime of this machine."""
        memory = usable_memory(total_memory())
        spec = importlib.util.find_spec("mlx_lm")
        if spec is None or not spec.submodule_search_locations:
            return cls(None, frozenset(), memory_bytes=memory)
        package = next(iter(spec.submodule_search_locations))
        return cls(_version(package), _architectures(package), _remapping(package), memory)

    def module_of(self, architecture: str) -> str | None:
        """Return the mlx-lm module that runs a `model_type`, or None."""
        module = self.remapping.get(architecture, architecture)
        return module if module in self.architectures else None

    def fit(self, memory_bytes: int | None) -> MemoryFit | None:
        """Tell whether an estimate fits: comfortably, tightly (over 80 %), or not."""
        if memory_bytes is None or self.memory_bytes <= 0:
            return None
        if memory_bytes > self.memory_bytes:
            return MemoryFit.TOO_LARGE
        return MemoryFit.TIGHT if memory_bytes > 0.8 * self.memory_bytes else MemoryFit.FITS


def total_memory() -> int:
    """Return the memory of this machine in bytes (POSIX sysconf; Linux and macOS both have it)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        import psutil  # noqa: PLC0415 - costs 10 ms, and only systems without sysconf need it

        return int(psutil.virtual_memory().total)


def usable_memory(total: int) -> int:
    """Return how many bytes of a machine's memory a model can use.

    On Apple silicon Metal lets a process wire about two thirds of the memory up to 36 GB and
    three quarters above (recommendedMaxWorkingSetSize); elsewhere 90 % is taken.
    """
    if platform.system() == "Darwin":
        return total * 2 // 3 if total <= 36 * 2**30 else total * 3 // 4
    return total * 9 // 10


def _version(package: str) -> str:
    """Read mlx_lm/_version.py, which importlib.metadata would need 15 ms to find."""
    try:
        with open(os.path.join(package, "_version.py"), encoding="utf-8") as stream:
            match = re.search(r"__version__\s*=\s*[\"']([^\"']+)", stream.read(2000))
    except OSError:
        match = None
    return match.group(1) if match else "unknown"


def _architectures(package: str) -> frozenset[str]:
    try:
        with os.scandir(os.path.join(package, "models")) as entries:
            return (
                frozenset(
                    entry.name.removesuffix(".py")
                    for entry in entries
                    if not entry.name.startswith("_") and (entry.name.endswith(".py") or entry.is_dir())
                )
                - _SHARED_MODULES
            )
    except OSError:
        return frozenset()


def _remapping(package: str) -> dict[str, str]:
    """Read MODEL_REMAPPING of mlx_lm/utils.py (0.32) as the literal that it is."""
    try:
        with open(os.path.join(package, "utils.py"), encoding="utf-8") as stream:
            match = _REMAPPING.search(stream.read())
        value = ast.literal_eval(match.group(1)) if match else {}
    except (OSError, ValueError, SyntaxError):
        return {}
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, dict) else {}


def estimate_memory(weights: Weights, detection: Detection) -> int | None:
    """Return the bytes needed to load a model and hold a 4,096-token conversation, or None.

    Weights as they lie on disk, a 16-bit KV cache of two tensors a layer, and working buffers.
    """
    if weights.bytes == 0:
        return None
    facts = detection.facts
    cache = 0
    if facts.layers and facts.kv_heads and facts.head_dim:
        tokens = min(detection.context_length or _CONTEXT_TOKENS, _CONTEXT_TOKENS)
        cache = 2 * 2 * facts.layers * facts.kv_heads * facts.head_dim * tokens
    return weights.bytes + cache + _WORKING_BYTES


def check_runtime(
    runtime: Runtime, detection: Detection, documents: Documents, memory_bytes: int | None
) -> tuple[Finding, ...]:
    """Return what keeps a sound model from running here, the first problem first."""
    if detection.framework is not Framework.MLX:
        return (
            _error(
                FindingCode.FRAMEWORK_UNSUPPORTED,
                None,
                f"{detection.framework.value} weights do not run in MLX; look for an MLX conversion."
                if detection.framework is not Framework.UNKNOWN
                else "It is not recognised as an MLX model.",
            ),
        )
    return (*_problems(runtime, documents), *_memory(runtime, memory_bytes))


def _problems(runtime: Runtime, documents: Documents) -> Iterable[Finding]:
    if runtime.mlx_lm is None:
        yield _error(
            FindingCode.MLX_LM_MISSING,
            None,
            "mlx-lm is not installed here, so no model can run.",
            Fix.UPGRADE,
        )
        return
    if not any(loads_in_mlx(name) for name in documents.files):
        yield _error(
            FindingCode.WEIGHTS_NOT_LOADABLE, None, "mlx-lm loads model*.safetensors, and there is none."
        )
    config = documents.config.value or {}
    if config.get("model_file") is not None:
        yield _error(
            FindingCode.CUSTOM_CODE,
            "config.json",
            "It needs code from the repo (model_file), which is never run.",
        )
    yield from _architecture(runtime, config)
    if not any(name in documents.files for name in _TOKENIZER_FILES) and not any(
        name.endswith(".tiktoken") for name in documents.files
    ):
        yield _error(FindingCode.TOKENIZER_MISSING, None, "It has no tokenizer.", Fix.PULL)


def _architecture(runtime: Runtime, config: dict[str, object]) -> Iterable[Finding]:
    architecture = text_of(config.get("model_type"))
    if architecture is None:
        yield _error(FindingCode.ARCHITECTURE_UNKNOWN, "config.json", "config.json names no model_type.")
    elif runtime.module_of(architecture) is None:
        shown = printable(architecture[:60])
        if config.get("auto_map") is not None:
            yield _error(
                FindingCode.CUSTOM_CODE,
                "config.json",
                f"Architecture '{shown}' needs code from the repo (auto_map), which is never run.",
            )
        else:
            yield _error(
                FindingCode.ARCHITECTURE_UNKNOWN,
                "config.json",
                f"mlx-lm {runtime.mlx_lm} does not know the architecture '{shown}'.",
                Fix.UPGRADE,
            )


def _memory(runtime: Runtime, memory_bytes: int | None) -> Iterable[Finding]:
    fit = runtime.fit(memory_bytes)
    usable = size(runtime.memory_bytes)
    if fit is MemoryFit.TOO_LARGE:
        yield Finding(
            code=FindingCode.MEMORY_TOO_LARGE,
            severity=Severity.WARNING,
            path=None,
            message=f"It needs about {size(memory_bytes)} of memory; models can use {usable} here.",
            fix=Fix.NONE,
        )
    elif fit is MemoryFit.TIGHT:
        yield Finding(
            code=FindingCode.MEMORY_TIGHT,
            severity=Severity.WARNING,
            path=None,
            message=f"It needs about {size(memory_bytes)} of the {usable} that models can use: tight.",
            fix=Fix.NONE,
        )


def _error(code: FindingCode, path: str | None, message: str, fix: Fix = Fix.NONE) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, path=path, message=message, fix=fix)
