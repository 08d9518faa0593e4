"""What is installed where: the facts of `version`, without importing any of it."""

from __future__ import annotations

import platform
from importlib import metadata

from mlxk_tui import __version__
from mlxk_tui.ops.blocking import blocking
from mlxk_tui.ops.cache import Cache
from mlxk_tui.ops.contract import SPEC_VERSION, System, VersionData
from mlxk_tui.ops.format import printable
from mlxk_tui.ops.machine import total_memory


async def version(cache: Cache | None = None) -> VersionData:
    """Return the versions of this program, its contract and its surroundings.

    Args:
        cache: the cache in use; that of the environment when left out.
    """
    system = await blocking(lambda: _system(cache or Cache.from_environment()))
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
    )


def _installed(distribution: str) -> str | None:
    """Return the version of an installed package, None when it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
