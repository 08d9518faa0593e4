"""What the worker tells of itself while it works: the piece of work in hand, and what moved meanwhile.

A thread of its own tells it, so that the parent hears from a worker whose MLX thread is inside a step
that takes long, and can tell such a step from one that never ends.
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

BEAT_S = 1.0
"""How often a worker that is busy tells of itself, in seconds."""
UNKNOWN_S = 1.0
"""What a piece of work is expected to take that was never measured, in seconds."""


class Vitals:
    """Written by the threads that work, read by the one that beats; begins with the start of the process.

    No lock: each field has one writer, and a look that is half a step old does no harm.
    """

    def __init__(self) -> None:
        self.memory_bytes = 0
        self.cache_bytes = 0
        self.tokens_per_s = 0.0
        self.streams = 0
        self.tokenizing_bytes = 0
        self.device: Callable[[], tuple[int, ...]] | None = None
        """Returns numbers that change while the device works; None where there are none."""
        self._step = 1
        self._expected_s = UNKNOWN_S
        self._reads_files = True
        self._aside: dict[str, float] = {}
        self._device_seen: tuple[int, ...] = ()
        self._device_moves = 0
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """Wakes the thread that beats: True to have a heartbeat now, False because work has begun."""

    @property
    def busy(self) -> bool:
        """Whether the MLX thread is at work."""
        return self._expected_s > 0

    def begin(self, expected_s: float = UNKNOWN_S, *, reads_files: bool = False) -> None:
        """A piece of work begins.

        Args:
            expected_s: how long it should take, in seconds.
            reads_files: it takes in files, so that bytes read are a sign of progress.
        """
        rested = not self.busy
        self._step += 1
        self._reads_files = reads_files
        self._expected_s = max(expected_s, 1e-3)
        if rested:
            self._calls.put(False)

    def rest(self) -> None:
        """There is nothing to do."""
        self._expected_s = 0.0

    def ask(self) -> None:
        """Have a heartbeat sent at once."""
        self._calls.put(True)

    def aside(self) -> None:
        """Leave out the calling thread's processor time so far: it says nothing of the model's work."""
        self._aside[threading.current_thread().name] = time.thread_time()

    def heartbeat(self) -> Heartbeat:
        """Return how things stand."""
        aside = sum(list(self._aside.values()))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Heartbeat(
            memory_bytes=self.memory_bytes,
            cache_bytes=self.cache_bytes,
            tokens_per_s=self.tokens_per_s,
            streams=self.streams,
            step=self._step,
            expected_s=round(self._expected_s, 4),
            reads_files=self._reads_files,
            cpu_s=round(max(0.0, time.process_time() - aside), 4),
            disk=usage.ru_inblock + usage.ru_majflt,
            device=self._device_moves,
            tokenizing_bytes=self.tokenizing_bytes,
        )

    def beat(self, send: Callable[[Heartbeat], None]) -> None:
        """Send a heartbeat every second of work, and whenever one is asked for; never returns."""
        try:
            while True:
                try:
                    if not self._calls.get(timeout=BEAT_S if self.busy else None):
                        continue  # work has begun: the first beat is due in a second
                except queue.Empty:
                    pass
                if self.device is not None:
                    seen = self.device()
                    self._device_moves += seen != self._device_seen
                    self._device_seen = seen
                self.aside()
                send(self.heartbeat())
        except BaseException:  # noqa: BLE001 - without its beats the process is taken for dead: say why
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def start(self, send: Callable[[Heartbeat], None]) -> None:
        """Beat in a thread of its own, which calls `send`."""
        threading.Thread(target=self.beat, args=(send,), name="heartbeat", daemon=True).start()
