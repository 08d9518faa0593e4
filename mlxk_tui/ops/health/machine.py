"""Capabilities of this machine: the installed mlx-lm, inspected on disk, and the memory for models.

mlx-lm is never imported, because that takes over a second.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import platform
import re
import sys
from dataclasses import dataclass, field

from mlxk_tui.ops.contract.terms import MemoryFit

_REMAPPING = re.compile(r"^MODEL_REMAPPING\s*(?::[^=]+)?=\s*\{(.*?)^\}", re.MULTILINE | re.DOTALL)
_PAIR = re.compile(r"""["']([^"']+)["']\s*:\s*["']([^"']+)["']""")
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
"""Modules of mlx_lm.models that are not architectures (0.32)."""


@dataclass(frozen=True)
class Runtime:
    """The installed mlx-lm and the memory of a machine."""

    mlx_lm: str | None
    """Version of the installed mlx-lm; None if it is not installed."""
    architectures: frozenset[str]
    """Values of `model_type` with a module in mlx-lm."""
    remapping: dict[str, str] = field(default_factory=dict)
    """Values of `model_type` that another module runs, with that module."""
    memory_bytes: int = 0
    """Bytes of memory available for models."""
    without_gpu: bool = False
    """MLX runs only on the CPU, with float32 copies of the weights if they fit."""

    @classmethod
    def detect(cls) -> Runtime:
        """Return the runtime of this machine."""
        memory = usable_memory(total_memory())
        spec = importlib.util.find_spec("mlx_lm")
        if spec is None or not spec.submodule_search_locations:
            return cls(None, frozenset(), memory_bytes=memory, without_gpu=not may_have_gpu())
        package = next(iter(spec.submodule_search_locations))
        known = _version(package), _architectures(package), _remapping(package)
        return cls(*known, memory, without_gpu=not may_have_gpu())

    def module_for(self, architecture: str) -> str | None:
        """Return the mlx-lm module that runs a `model_type`, or None."""
        module = self.remapping.get(architecture, architecture)
        return module if module in self.architectures else None

    def fit(self, memory_bytes: int | None) -> MemoryFit | None:
        """Return how a memory estimate fits: comfortably, tightly (over 80 %), or not at all."""
        if memory_bytes is None or self.memory_bytes <= 0:
            return None
        if memory_bytes > self.memory_bytes:
            return MemoryFit.TOO_LARGE
        return MemoryFit.TIGHT if memory_bytes > 0.8 * self.memory_bytes else MemoryFit.FITS


def total_memory() -> int:
    """Return the total memory in bytes (POSIX sysconf, available on Linux and macOS)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        import psutil  # costs 10 ms; needed only without sysconf

        return int(psutil.virtual_memory().total)


def usable_memory(total: int) -> int:
    """Return the bytes of memory that a model can use.

    On Apple silicon Metal allows a process about two thirds of the memory up to 36 GB, and three quarters
    above that (recommendedMaxWorkingSetSize). Elsewhere 90 % is assumed.
    """
    if platform.system() == "Darwin":
        return total * 2 // 3 if total <= 36 * 2**30 else total * 3 // 4
    return total * 9 // 10


def _version(package: str) -> str:
    """Read the version from mlx_lm/_version.py; importlib.metadata would take 15 ms."""
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
    """Read MODEL_REMAPPING, a literal dict of strings in mlx_lm/utils.py (0.32)."""
    try:
        with open(os.path.join(package, "utils.py"), encoding="utf-8") as stream:
            match = _REMAPPING.search(stream.read())
    except (OSError, UnicodeDecodeError):
        return {}
    return dict(_PAIR.findall(match.group(1))) if match else {}


def may_have_gpu() -> bool:
    """Return whether MLX can run on a GPU: on Apple silicon, or with a CUDA build."""
    if not sys.platform.startswith("linux"):
        return True
    return any(glob.glob(os.path.join(folder, "mlx_cuda*")) for folder in _mlx_parents())


def _mlx_parents() -> list[str]:
    """Return the folders in which the package mlx is installed."""
    spec = importlib.util.find_spec("mlx")
    return [os.path.dirname(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]
