"""How many cores this process may use: its CPU set and the quota of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
)
"""What the libraries read at their start; what a user has set stays."""


def allowed_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy, at least one.

    That is the size of its CPU set (`sched_getaffinity`, which follows cgroup cpusets), or less where
    `cpu.max` (cgroup v2) or `cpu.cfs_quota_us` (v1) of its group, or of one above it, gives it less time.

    Args:
        root: where `proc` and `sys` are.
    """
    on_linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    return max(1, min([cores, *(round(quota) for quota in _quotas(root))]))


def thread_variables(environ: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    """Return the variables that keep a library to the allowed cores; none where the user set one."""
    if any(environ.get(name) for name in _THREAD_VARIABLES):
        return {}
    cores = str(allowed_cores())
    return {name: cores for name in _THREAD_VARIABLES if name not in ("GOTO_NUM_THREADS", "OMP_NUM_THREADS")}


def _quotas(root: Path) -> Iterator[float]:
    """Return the quotas of this process's groups and those above, in cores."""
    groups = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2
            for folder in _upwards(groups, path):
                yield from _ratio(*[*_text(folder / "cpu.max").split(), "", ""][:2])
        elif "cpu" in controllers.split(","):
            for folder in _upwards(groups / "cpu", path):
                yield from _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """Return a group's folder and all above it; in a container the path may not be visible, its end is."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:length])


def _ratio(quota: str, period: str) -> Iterator[float]:
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return
    if cores > 0:  # -1: no limit
        yield cores


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
