"""The download of one blob: which bytes are on disk or requested, and their checksum."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Callable

from filelock import BaseFileLock

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.ops.download.byte_ranges import ByteRanges
from mlxk_tui.ops.download.layout import DownloadLayout
from mlxk_tui.ops.download.options import DownloadOptions
from mlxk_tui.ops.download.partial_blob import BusyError, PartialBlob
from mlxk_tui.ops.download.transport.range_requests import RedirectCache, TransferError
from mlxk_tui.ops.hub.remote_files import RemoteFile

_HASHED_AT_ONCE = 1 << 20
_RESET_BYTES = 64 << 10
"""New bytes after which earlier failures no longer count."""


class BlobDownload:
    """State of one blob. Its attributes change under the scheduler's lock; slow methods run without it."""

    def __init__(self, files: list[RemoteFile], layout: DownloadLayout, *, redownload: bool) -> None:
        first = files[0]
        self.etag = first.etag
        self.size = first.size
        self.paths = [file.path for file in files]
        self.path = first.path
        """The path that is used in requests and events."""
        self.redownload = redownload
        self.location = RedirectCache()
        self.written = ByteRanges()
        """Ranges on disk."""
        self.claimed = ByteRanges()
        """Ranges on disk or requested."""
        self.reused = 0
        """Bytes that an earlier process downloaded."""
        self.done = False
        self.waiting = False
        """Whether another process holds its lock."""
        self.connections = 0
        """Number of connections that download it."""
        self.users = 0
        """Number of threads that use its files."""
        self.single_connection = False
        """Whether the hub ignores ranges for it, so that one connection downloads all of it."""
        self.retry_at = 0.0
        """Monotonic time of the next attempt."""
        self.failures = 0
        self.failed_at = 0.0
        self.new_bytes = 0
        """Bytes received since the last failure."""
        self.hashing = False
        self.hashed = 0
        """Bytes included in the checksum."""
        self.syncing = False
        self.synced = 0
        """Bytes on disk at the last checkpoint, which survive a loss of power."""
        self.synced_at = time.monotonic()
        self._algorithm = first.algorithm
        self._digest = self._new_digest()
        self._restarts = 0
        self._layout = layout
        self._lock: BaseFileLock | None = None
        self._partial: PartialBlob | None = None

    @property
    def partial(self) -> PartialBlob:
        """The unfinished blob; available between `open` and `close`."""
        if self._partial is None:
            raise RuntimeError("the blob is not open")
        return self._partial

    def gap(self) -> tuple[int, int] | None:
        """Return the first range that is neither on disk nor requested."""
        gaps = self.claimed.gaps(0, self.size)
        return gaps[0] if gaps else None

    @property
    def complete(self) -> bool:
        """Whether every byte is on disk."""
        return self.written.total == self.size

    def is_present(self) -> bool:
        """Return whether the blob, or each of its files, exists and need not be downloaded."""
        if self.redownload:
            return False
        if self._layout.has_blob(self.etag, self.size):
            return True
        return all(self._layout.has_file(path, self.size) for path in self.paths)

    def open(self) -> str:
        """Acquire the lock and check again: return `busy`, `present` (linked into the snapshot) or `open`.

        Raises:
            OSError: the file system refused.
        """
        lock = self._layout.lock(self.etag)
        if lock is None:
            return "busy"
        self._lock = lock
        try:
            if self.is_present():
                self.link(new=False)
                self._layout.remove_partial(self.etag)
                self.close()
                return "present"
            self._partial = PartialBlob(self._layout.blobs, self.etag, self.size)
        except BusyError:
            self.close()
            return "busy"
        except BaseException:
            self.close()
            raise
        self.written = self._partial.written
        self.claimed = ByteRanges(self.written)
        self.reused = self.synced = self.written.total
        return "open"

    def link(self, *, new: bool) -> None:
        """Link the blob into the snapshot under all its paths."""
        in_blobs = new or self._layout.has_blob(self.etag, self.size)
        for number, path in enumerate(self.paths, 1):
            if in_blobs:
                self._layout.place_file(path, self.etag, last=number == len(self.paths), new=new)

    def update_hash(self, end: int, is_stopping: Callable[[], bool]) -> None:
        """Update the checksum up to offset `end`, or stop early."""
        while self.hashed < end and not is_stopping():
            data = self.partial.read(self.hashed, min(_HASHED_AT_ONCE, end - self.hashed))
            if not data:
                raise OSError(0, "the unfinished file was changed by another program")
            self._digest.update(data)
            self.hashed += len(data)

    def verify_and_commit(self) -> bool:
        """Verify the checksum; return whether it matches. Then the blob is in the snapshot, else it is reset.

        Raises:
            OpError: `checksum_mismatch` if it failed a second time.
        """
        if self._digest.hexdigest() == self.etag:
            self.partial.commit()
            self.link(new=True)
            self.close()
            return True
        self.partial.restart()
        self._restarts += 1
        if self._restarts > 1:
            raise OpError(
                ErrorType.CHECKSUM_MISMATCH,
                f"{printable(self.path)}: the content from the hub differs from its checksum, twice. "
                "It was discarded.",
                remedy=Remedy.CHECK_PROXY,
            )
        return False

    def restart(self) -> None:
        """Reset the state after a checksum mismatch."""
        self.written = self.partial.written
        self.claimed = ByteRanges()
        self.reused = self.hashed = self.synced = 0
        self.location.set(None)
        self._digest = self._new_digest()

    def record_progress(self, count: int) -> None:
        """Record new bytes; earlier failures no longer count once there are enough of them."""
        self.new_bytes += count
        if self.new_bytes >= _RESET_BYTES:
            self.failures = 0

    def record_failure(
        self, failure: TransferError, options: DownloadOptions, began: float, now: float
    ) -> None:
        """Schedule another attempt, later after each failure without new bytes.

        Args:
            failure: the cause.
            options: number of attempts, and the pauses between them.
            began: monotonic time of the failed attempt. Attempts that were already running at the last
                failure are part of the same incident and do not count again.
            now: monotonic time.

        Raises:
            OpError: there is no attempt left, or the hub requests a longer pause than allowed.
        """
        if began >= self.failed_at:
            self.failures += 1
            self.new_bytes = 0
            self.failed_at = now
            pause = min(options.longest_backoff_s, options.backoff_s * 2 ** (self.failures - 1))
            self.retry_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads the load
        if failure.wait_s is not None and failure.wait_s > options.longest_wait_s:
            raise OpError(
                failure.kind,
                f"{printable(self.path)}: {failure.message} and requests a longer pause.",
                remedy=Remedy.PULL_LATER,
                facts=ErrorFacts(wait_s=int(failure.wait_s)),
            )
        if self.failures >= options.attempts:
            raise OpError(
                failure.kind,
                f"{printable(self.path)}: {failure.message}; stopped after "
                f"{plural(self.failures, 'attempt')} without progress.",
                remedy=Remedy.PULL_LATER,
            )

    def sync(self) -> None:
        """Write a checkpoint: the recorded bytes survive a loss of power from then on."""
        self.partial.checkpoint()

    def close(self) -> None:
        """Close the files and release the lock; delete an unfinished blob without a byte."""
        if self._partial is not None:
            with contextlib.suppress(OSError):
                if not self.done and not self.written.total:
                    self._partial.discard()
            self._partial.close()
            self._partial = None
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.release()
            self._lock = None

    def close_if_unused(self) -> None:
        """Close, unless a thread uses the files; the last one closes them then."""
        if self.users == 0:
            self.close()

    def _new_digest(self) -> hashlib._Hash:
        if self._algorithm == "sha256":
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
