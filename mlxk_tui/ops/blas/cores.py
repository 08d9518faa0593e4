"""Determines the cores that this process may use, and those that other processes leave free."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
)
"""Variables that the libraries read when they are loaded; values set by the user stay."""

_UPDATE_S = 0.5
"""Interval between two measurements."""
_TOLERANCE = 0.35
"""Load by other processes, in cores, that still counts as none."""


def allowed_cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may keep busy, at least one.

    The size of its CPU set (`sched_getaffinity`, which follows cgroup cpusets), or less if `cpu.max`
    (cgroup v2) or `cpu.cfs_quota_us` (v1) of its group, or of a parent group, limits its time.

    Args:
        root: the folder that contains `proc` and `sys`.
    """
    on_linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    return max(1, min([cores, *(round(quota) for quota in _quotas(root))]))


def thread_variables(environ: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    """Return variables that limit a library to the allowed cores; none if the user set one."""
    if any(environ.get(name) for name in _THREAD_VARIABLES):
        return {}
    cores = str(allowed_cores())
    return {name: cores for name in _THREAD_VARIABLES if name not in ("GOTO_NUM_THREADS", "OMP_NUM_THREADS")}


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas of this process's groups and their parents, in cores."""
    groups = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2
            for folder in _group_and_parents(groups, path):
                yield from _ratio(*[*_text(folder / "cpu.max").split(), "", ""][:2])
        elif "cpu" in controllers.split(","):
            for folder in _group_and_parents(groups / "cpu", path):
                yield from _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _group_and_parents(base: Path, path: str) -> Iterator[Path]:
    """Yield a group's folder and its parents; in a container only the end of the path may be visible."""
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


class ThreadLimiter:
    """Limits a library's threads to the cores that other processes leave free.

    The threads of a BLAS library synchronize by spinning many times in each product. If another process uses
    one of their cores, each synchronization lasts until the next scheduling: as measured, two threads beside
    one busy process multiply 10 to 30 times slower than one thread alone.

    Args:
        set_threads: sets the library's number of threads.
        root: the folder that contains `proc`.
    """

    def __init__(self, set_threads: Callable[[int], None], root: Path = Path("/")) -> None:
        self.threads = self._max_threads = allowed_cores(root)
        """Number of threads in use."""
        self._set_threads = set_threads
        self._stat = root / "proc/stat"
        self._updated_at = time.monotonic()
        self._last_times = self._busy_times()
        self._calm = 0

    def update(self) -> None:
        """Measure and adapt the number of threads, at most every half second.

        The number is reduced immediately, but raised only after a second measurement.
        """
        now = time.monotonic()
        passed = now - self._updated_at
        if passed < _UPDATE_S or self._max_threads == 1:
            return
        self._updated_at = now
        last_times, self._last_times = self._last_times, self._busy_times()
        busy, own = (now - before for now, before in zip(self._last_times, last_times, strict=True))
        others = max(0.0, busy - own) / passed
        free = max(1, int(self._max_threads - others + _TOLERANCE))
        self._calm = self._calm + 1 if free > self.threads else 0
        if free < self.threads or self._calm >= 2:
            self._calm = 0
            self.threads = free
            self._set_threads(free)

    def _busy_times(self) -> tuple[float, float]:
        """Return the busy time of the allowed cores and that of this process, in seconds."""
        own = time.process_time()
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        ticks = 0
        for line in _text(self._stat).splitlines():
            name, *numbers = line.split()
            if name in cores and len(numbers) >= 8:  # user nice system idle iowait irq softirq steal
                ticks += sum(int(number) for at, number in enumerate(numbers[:8]) if at not in (3, 4))
        return ticks / os.sysconf("SC_CLK_TCK"), own
