"""Versions of installed packages, for `version`; nothing is imported to find them."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from mlxk_tui import __version__
from mlxk_tui.ops.blas.choice import recorded_choice
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.results import SPEC_VERSION, BlasData, System, VersionData
from mlxk_tui.ops.core.blocking import run_blocking
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.health.machine import total_memory


async def version(cache: Cache | None = None) -> VersionData:
    """Return the versions of this program, of its JSON contract and of the packages it uses.

    Args:
        cache: the cache to report; by default the one that the environment names.
    """
    system = await run_blocking(lambda: _system(cache or Cache.from_environment()))
    return VersionData(cli_version=__version__, json_api_spec_version=SPEC_VERSION, system=system)


def _system(cache: Cache) -> System:
    return System(
        platform=platform.platform(),
        python=platform.python_version(),
        memory_bytes=total_memory(),
        mlx=_installed("mlx"),
        mlx_lm=_installed("mlx-lm"),
        huggingface_hub=_installed("huggingface_hub"),
        cache_dir=printable(str(cache.root)),
        blas=_blas(),
    )


def _blas() -> BlasData | None:
    """Return how MLX multiplies matrices; None except on Linux with MLX's build for the CPU."""
    mlx = _installed("mlx")
    if not sys.platform.startswith("linux") or mlx is None or _installed("mlx-cpu") is None:
        return None
    known = recorded_choice(mlx)
    return BlasData(
        state=known.state,
        library=known.library,
        path=printable(known.path) if known.path is not None else None,
        gain=known.gain,
        message=known.message,
    )


def _installed(distribution: str) -> str | None:
    """Return the version of an installed package; None when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
