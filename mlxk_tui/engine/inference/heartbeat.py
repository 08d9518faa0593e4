"""Sends the worker's heartbeats: the current step of the MLX thread and the progress counters.

A separate thread sends them, so that the parent also gets heartbeats while the MLX thread is inside a long
step, and can distinguish such a step from one that never ends.
"""

from __future__ import annotations

import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable

from mlxk_tui.engine.protocol import Heartbeat

INTERVAL_S = 1.0
"""Interval of the heartbeats while the worker is busy, in seconds."""
DEFAULT_STEP_S = 1.0
"""Expected duration of a step that was never measured, in seconds."""


class HeartbeatReporter:
    """Holds what the heartbeats contain; the working threads write it, the heartbeat thread reads it.

    There is no lock: each field has one writer, and values that are half a step old do no harm. The first
    step begins with the start of the process.
    """

    def __init__(self) -> None:
        self.memory_bytes = 0
        self.cache_bytes = 0
        self.tokens_per_s = 0.0
        self.streams = 0
        self.tokenizing_bytes = 0
        self.device: Callable[[], tuple[int, ...]] | None = None
        """Returns numbers that change while the device works; None until MLX is imported."""
        self._step = 1
        self._expected_s = DEFAULT_STEP_S
        self._reads_files = True
        self._excluded_s: dict[str, float] = {}
        """Processor time of excluded threads, by thread name."""
        self._device_seen: tuple[int, ...] = ()
        self._device_changes = 0
        self._wakeups: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """Wakes the heartbeat thread: True to send a heartbeat now, False because a step has begun."""

    @property
    def busy(self) -> bool:
        """Whether the MLX thread is inside a step."""
        return self._expected_s > 0

    def begin_step(self, expected_s: float = DEFAULT_STEP_S, *, reads_files: bool = False) -> None:
        """Note that a step begins.

        Args:
            expected_s: expected duration in seconds.
            reads_files: the step reads files, so that bytes read count as progress.
        """
        was_idle = not self.busy
        self._step += 1
        self._reads_files = reads_files
        self._expected_s = max(expected_s, 1e-3)
        if was_idle:
            self._wakeups.put(False)

    def set_idle(self) -> None:
        """Note that there is no work."""
        self._expected_s = 0.0

    def request_heartbeat(self) -> None:
        """Send a heartbeat as soon as possible."""
        self._wakeups.put(True)

    def exclude_thread(self) -> None:
        """Exclude the calling thread's processor time so far, because it is not progress of the model."""
        self._excluded_s[threading.current_thread().name] = time.thread_time()

    def heartbeat(self) -> Heartbeat:
        """Return the current heartbeat."""
        excluded_s = sum(list(self._excluded_s.values()))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Heartbeat(
            memory_bytes=self.memory_bytes,
            cache_bytes=self.cache_bytes,
            tokens_per_s=self.tokens_per_s,
            streams=self.streams,
            step=self._step,
            expected_s=round(self._expected_s, 4),
            reads_files=self._reads_files,
            cpu_s=round(max(0.0, time.process_time() - excluded_s), 4),
            disk=usage.ru_inblock + usage.ru_majflt,
            device=self._device_changes,
            tokenizing_bytes=self.tokenizing_bytes,
        )

    def run(self, send: Callable[[Heartbeat], None]) -> None:
        """Send a heartbeat every second while busy, and whenever one is requested; never returns."""
        try:
            while True:
                try:
                    if not self._wakeups.get(timeout=INTERVAL_S if self.busy else None):
                        continue  # a step has begun: the first heartbeat is due in a second
                except queue.Empty:
                    pass
                if self.device is not None:
                    seen = self.device()
                    self._device_changes += seen != self._device_seen
                    self._device_seen = seen
                self.exclude_thread()
                send(self.heartbeat())
        except BaseException:  # noqa: BLE001 - without heartbeats the parent kills the worker: log the reason
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def start(self, send: Callable[[Heartbeat], None]) -> None:
        """Start the heartbeat thread, which calls `send`."""
        threading.Thread(target=self.run, args=(send,), name="heartbeat", daemon=True).start()
