"""What follows behind the bytes: the checksum, marks that outlive a loss of power, and the finish.

All of it runs in a few threads of its own, so that neither the connections nor the event loop wait for
the disk. Everything shared is used under the engine's condition.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from mlxk_tui.ops.download.job import Job
from mlxk_tui.ops.download.terms import DownloadOptions

_HASH_STEP = 1 << 20
"""Bytes behind which hashing is worth waking a thread for."""


class Workers:
    """A queue of steps, and the loop of the threads that take them."""

    def __init__(
        self,
        condition: threading.Condition,
        options: DownloadOptions,
        ended: Callable[[], bool],
        finished: Callable[[Job], None],
    ) -> None:
        """Prepare.

        Args:
            condition: guards the jobs; told about every change.
            options: how often to sync.
            ended: whether no more steps are to be begun.
            finished: called under the condition for a job that is in the snapshot now.
        """
        self._condition = condition
        self._options = options
        self._ended = ended
        self._finished = finished
        self._steps: deque[tuple[Callable[[Job], None], Job]] = deque()

    def look_at(self, job: Job) -> None:
        """Queue what can be hashed, synced or finished of an open job."""
        with self._condition:
            if self._ended():
                return
            ready = job.have.front - job.hashed
            complete = job.complete
            in_use = job.syncing or job.lanes  # whoever leaves it last looks again
            if not job.hashing and (ready >= _HASH_STEP or (complete and (ready or not in_use))):
                job.hashing = True
                self._queue(self._hash, job)
            fresh = job.have.total - job.synced
            late = time.monotonic() - job.synced_at > self._options.checkpoint_s
            due = fresh >= self._options.checkpoint_bytes or (fresh > 0 and late)
            if due and not job.syncing and not complete:
                job.syncing = True
                self._queue(self._sync, job)
            self._condition.notify_all()

    def run(self) -> None:
        """Take steps until the end; the loop of a thread."""
        while True:
            with self._condition:
                while not self._steps and not self._ended():
                    self._condition.wait(0.5)
                if not self._steps:
                    return
                step, job = self._steps.popleft()
            try:
                if not self._ended():
                    step(job)
            finally:
                with self._condition:
                    job.users -= 1
                    if self._ended():
                        job.close_if_unused()
                    self._condition.notify_all()

    def _queue(self, step: Callable[[Job], None], job: Job) -> None:
        job.users += 1
        self._steps.append((step, job))

    def _hash(self, job: Job) -> None:
        try:
            while not self._ended():
                with self._condition:
                    front, complete = job.have.front, job.complete
                    in_use = job.syncing or job.lanes
                if front - job.hashed < _HASH_STEP and not complete:
                    break
                job.hash_on(front, self._ended)
                if complete and job.hashed == job.size:
                    if not in_use:  # else its files are open elsewhere, and whoever leaves comes back to it
                        self._finish(job)
                    break
        finally:
            with self._condition:
                job.hashing = False
        if not job.done:
            self.look_at(job)  # more may have come between the last look and now

    def _finish(self, job: Job) -> None:
        settled = job.settle()
        with self._condition:
            if settled:
                job.done = True
                self._finished(job)
            else:
                job.begin_again()
            self._condition.notify_all()

    def _sync(self, job: Job) -> None:
        with self._condition:
            total, complete = job.have.total, job.complete
        try:
            if not complete:  # the finish syncs by itself
                job.sync()
        finally:
            with self._condition:
                job.syncing = False
                job.synced, job.synced_at = total, time.monotonic()
        self.look_at(job)
