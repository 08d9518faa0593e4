"""Hashes, syncs and finishes blobs while they are downloaded.

Threads of their own do this, so that neither the connections nor the event loop wait for the disk. Shared
state is accessed under the scheduler's condition.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from mlxk_tui.ops.download.blob_download import BlobDownload
from mlxk_tui.ops.download.options import DownloadOptions

_HASH_STEP = 1 << 20
"""Unhashed bytes from which on a hashing step is scheduled."""


class CompletionQueue:
    """A queue of hashing, syncing and finishing steps, and the loop of the threads that run them."""

    def __init__(
        self,
        condition: threading.Condition,
        options: DownloadOptions,
        is_ended: Callable[[], bool],
        on_finished: Callable[[BlobDownload], None],
    ) -> None:
        """Create an empty queue.

        Args:
            condition: guards the jobs; notified of every change.
            options: how often to sync.
            is_ended: returns whether no further steps should start.
            on_finished: called under the condition for a job whose files are in the snapshot.
        """
        self._condition = condition
        self._options = options
        self._is_ended = is_ended
        self._on_finished = on_finished
        self._steps: deque[tuple[Callable[[BlobDownload], None], BlobDownload]] = deque()

    def schedule(self, job: BlobDownload) -> None:
        """Queue the due steps of an open job: hashing, syncing or finishing."""
        with self._condition:
            if self._is_ended():
                return
            ready = job.written.prefix_end - job.hashed
            complete = job.complete
            in_use = job.syncing or job.connections  # the last one to finish schedules again
            if not job.hashing and (ready >= _HASH_STEP or (complete and (ready or not in_use))):
                job.hashing = True
                self._queue(self._hash, job)
            fresh = job.written.total - job.synced
            late = time.monotonic() - job.synced_at > self._options.checkpoint_s
            due = fresh >= self._options.checkpoint_bytes or (fresh > 0 and late)
            if due and not job.syncing and not complete:
                job.syncing = True
                self._queue(self._sync, job)
            self._condition.notify_all()

    def run(self) -> None:
        """Run steps until the end; the loop of a thread."""
        while True:
            with self._condition:
                while not self._steps and not self._is_ended():
                    self._condition.wait(0.5)
                if not self._steps:
                    return
                step, job = self._steps.popleft()
            try:
                if not self._is_ended():
                    step(job)
            finally:
                with self._condition:
                    job.users -= 1
                    if self._is_ended():
                        job.close_if_unused()
                    self._condition.notify_all()

    def _queue(self, step: Callable[[BlobDownload], None], job: BlobDownload) -> None:
        job.users += 1
        self._steps.append((step, job))

    def _hash(self, job: BlobDownload) -> None:
        try:
            while not self._is_ended():
                with self._condition:
                    prefix_end, complete = job.written.prefix_end, job.complete
                    in_use = job.syncing or job.connections
                if prefix_end - job.hashed < _HASH_STEP and not complete:
                    break
                job.update_hash(prefix_end, self._is_ended)
                if complete and job.hashed == job.size:
                    if not in_use:  # otherwise the last user of its files schedules it again
                        self._finish(job)
                    break
        finally:
            with self._condition:
                job.hashing = False
        if not job.done:
            self.schedule(job)  # more bytes may have arrived meanwhile

    def _finish(self, job: BlobDownload) -> None:
        committed = job.verify_and_commit()
        with self._condition:
            if committed:
                job.done = True
                self._on_finished(job)
            else:
                job.restart()
            self._condition.notify_all()

    def _sync(self, job: BlobDownload) -> None:
        with self._condition:
            total, complete = job.written.total, job.complete
        try:
            if not complete:  # committing syncs by itself
                job.sync()
        finally:
            with self._condition:
                job.syncing = False
                job.synced, job.synced_at = total, time.monotonic()
        self.schedule(job)
