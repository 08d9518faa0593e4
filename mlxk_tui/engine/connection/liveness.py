"""Distinguishes a stuck worker from a busy one, by its heartbeats and by sampling its process.

A slow, crowded or swapping machine, a slow disk or a suspended laptop do not make a worker stuck. It is
stuck if it sends no heartbeat although it could run, or if a step takes far longer than expected and the
process makes no progress in it.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mlxk_tui.engine.protocol import Heartbeat

UNRESPONSIVE_S = 3.0
"""Seconds without a message, or without progress, after which a worker is reported as unresponsive."""
_SAMPLE_AFTER_S = 1.0
"""Seconds without a message or progress after which the process is sampled."""
_CPU_S = 0.005
"""Processor time that counts as progress, in seconds: more than the heartbeat thread itself needs."""
_READ_BYTES = 4096
"""Bytes read that count as progress: more than those of the parent's pings."""
_MAX_QUEUED = 0.95
"""Maximum part of an interval that counts as waiting for a processor, so that no wait is unlimited."""
_GPU_FACTOR = 6
"""How many times longer a GPU worker may show no progress: the work of a GPU is hard to observe."""


@dataclass(frozen=True)
class LivenessLimits:
    """Limits after which a worker is considered stuck.

    Only time counts in which the parent ran and the worker was able to run.
    """

    silence_s: float = 10.0
    """Seconds without a heartbeat."""
    stall_s: float = 10.0
    """Seconds without progress of processor, disk or device in an overdue step."""
    overdue: float = 10.0
    """Multiple of its expected duration after which a step is overdue."""


@dataclass(frozen=True)
class ProcessSample:
    """Counters of a process from the operating system, which only grow, and its state."""

    disk: int = 0
    """Major page faults plus bytes read from a disk."""
    read: int = 0
    """Bytes read from any file or pipe."""
    waits_for_disk: bool = False
    """A thread is in uninterruptible sleep: even SIGKILL has no effect until the disk responds."""
    queued_s: dict[int, float] = field(default_factory=dict)
    """Seconds that each thread, by its id, was runnable but had no processor."""


def sample_process(pid: int) -> ProcessSample:
    """Sample a process of this user; fields that the system does not provide keep their defaults."""
    if not sys.platform.startswith("linux"):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            faults = int(getattr(process.memory_info(), "pageins", 0))
            waits = process.status() == psutil.STATUS_DISK_SLEEP
            return ProcessSample(disk=faults, waits_for_disk=waits)
        return ProcessSample()
    folder = Path("/proc") / str(pid)
    io: dict[str, int] = {}
    faults, waits = 0, False
    queued: dict[int, float] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "io").read_text().splitlines():
            name, _, value = line.partition(":")
            io[name] = int(value)
    with contextlib.suppress(OSError, ValueError, IndexError):
        faults = int(_stat(folder)[9])  # majflt, proc(5)
    with contextlib.suppress(OSError):
        for task in (folder / "task").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                waits = waits or _stat(task)[0] == "D"
                queued[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return ProcessSample(faults + io.get("read_bytes", 0), io.get("rchar", 0), waits, queued)


def _stat(folder: Path) -> list[str]:
    """Return the fields of a `stat` file after the program's name, beginning with the state; see proc(5)."""
    return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()


class LivenessMonitor:
    """Decides whether a worker with pending work is stuck.

    Args:
        limits: when the worker is considered stuck; may be changed at any time.
    """

    def __init__(self, limits: LivenessLimits) -> None:
        self.limits = limits
        self.gpu = False
        """Whether the worker computes on a GPU."""
        self._silent_s = self._stalled_s = self._step_s = 0.0
        self._heartbeat = Heartbeat(reads_files=True)
        """The last one. Until the first, a process imports modules, which takes seconds on a slow machine."""
        self._progress = Heartbeat()
        """The last heartbeat that showed progress."""
        self._sample: ProcessSample | None = None
        self._disk_progress: ProcessSample | None = None
        """The last sample that showed progress of the disk."""

    @property
    def silent_s(self) -> float:
        """Seconds without a message."""
        return self._silent_s

    @property
    def unresponsive(self) -> bool:
        """Whether there was no message, or no progress in an overdue step, for `UNRESPONSIVE_S` seconds."""
        return self._silent_s > UNRESPONSIVE_S or (self._overdue and self._stalled_s > UNRESPONSIVE_S)

    def start(self) -> None:
        """Start counting, because the worker has pending work from now on."""
        self._silent_s = self._stalled_s = self._step_s = 0.0
        self._sample = self._disk_progress = None

    def on_message(self, heartbeat: Heartbeat | None = None) -> None:
        """Process a heartbeat, or note that there was another message (None)."""
        self._silent_s = 0.0
        if heartbeat is None:
            return
        before = self._progress
        if heartbeat.step != before.step:
            self._step_s = 0.0
        if (
            heartbeat.step != before.step
            or heartbeat.expected_s == 0
            or heartbeat.cpu_s > before.cpu_s + _CPU_S
            or heartbeat.disk > before.disk
            or heartbeat.device > before.device
        ):
            self._stalled_s = 0.0
            self._progress = heartbeat
        self._heartbeat = heartbeat

    def advance(self, seconds: float, pid: int) -> None:
        """Count time, less what the worker spent waiting for a processor or a disk.

        Args:
            seconds: time in which the parent ran.
            pid: the worker, which is sampled if there was no message or progress for a second.
        """
        busy = self._heartbeat.expected_s > 0
        if max(self._silent_s, self._stalled_s if busy else 0.0) >= _SAMPLE_AFTER_S:
            before, self._sample = self._sample, sample_process(pid)
            if before is None or self._disk_progress is None:
                self._disk_progress = self._sample
            elif _disk_moved(self._disk_progress, self._sample, self._heartbeat.reads_files):
                self._silent_s = self._stalled_s = 0.0
                self._disk_progress = self._sample
                return
            else:
                seconds -= min(_queued_s(before, self._sample), _MAX_QUEUED * seconds)
        else:
            self._sample = self._disk_progress = None
        self._silent_s += seconds
        if busy:
            self._stalled_s += seconds
            self._step_s += seconds

    def stuck_reason(self) -> str | None:
        """Return why the worker is considered stuck, as a verb phrase; None if it is not."""
        if self._silent_s > self.limits.silence_s:
            return f"sent no heartbeat for {self.limits.silence_s:g} seconds"
        stall_s = self.limits.stall_s * (_GPU_FACTOR if self.gpu else 1)
        if self._overdue and self._stalled_s > stall_s:
            return f"made no progress for {stall_s:g} seconds"
        return None

    @property
    def _overdue(self) -> bool:
        expected = self._heartbeat.expected_s
        return 0 < expected * self.limits.overdue < self._step_s


def _disk_moved(before: ProcessSample, now: ProcessSample, reads_files: bool) -> bool:
    return (
        now.waits_for_disk or now.disk > before.disk or (reads_files and now.read > before.read + _READ_BYTES)
    )


def _queued_s(before: ProcessSample, now: ProcessSample) -> float:
    """Return the longest time that a thread waited for a processor between two samples."""
    return max((at - before.queued_s.get(task, at) for task, at in now.queued_s.items()), default=0.0)
