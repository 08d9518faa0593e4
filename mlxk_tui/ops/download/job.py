"""One blob being fetched: which bytes are there, which are asked for, and the checksum behind them."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable

from filelock import BaseFileLock

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.download.byte_ranges import Spans
from mlxk_tui.ops.download.layout import DownloadLayout
from mlxk_tui.ops.download.partial_blob import BusyError, Partial
from mlxk_tui.ops.download.range_requests import Location
from mlxk_tui.ops.hub.remote_files import RemoteFile

_HASHED_AT_ONCE = 1 << 20


class Job:
    """The state of one blob; its attributes change under the engine's lock, its slow methods run outside."""

    def __init__(self, files: list[RemoteFile], place: DownloadLayout, *, distrusted: bool) -> None:
        first = files[0]
        self.etag = first.etag
        self.size = first.size
        self.paths = [file.path for file in files]
        self.path = first.path
        """The path that stands for it in requests and events."""
        self.distrusted = distrusted
        self.location = Location()
        self.have = Spans()
        """Bytes on disk."""
        self.claimed = Spans()
        """Those, and what is being asked for."""
        self.reused = 0
        """Bytes that an earlier process left."""
        self.done = False
        self.waiting = False
        """Whether another process has its lock."""
        self.lanes = 0
        """Connections at work on it."""
        self.users = 0
        """Threads that use its files."""
        self.alone = False
        """Whether the hub ignores ranges for it, so that one connection fetches all of it."""
        self.retry_at = 0.0
        """Time (monotonic) before which it is left alone."""
        self.failures = 0
        self.failed_at = 0.0
        self.gained = 0
        """New bytes since its failures were last forgotten."""
        self.hashing = False
        self.hashed = 0
        """Bytes that the checksum covers."""
        self.syncing = False
        self.synced = 0
        """Bytes there at the last mark that holds after a loss of power."""
        self.synced_at = time.monotonic()
        self._algorithm = first.algorithm
        self._digest = self._new_digest()
        self._restarts = 0
        self._place = place
        self._lock: BaseFileLock | None = None
        self._partial: Partial | None = None

    @property
    def partial(self) -> Partial:
        """The unfinished blob; only between `open` and `close`."""
        if self._partial is None:
            raise RuntimeError("the blob is not open")
        return self._partial

    def gap(self) -> tuple[int, int] | None:
        """Return the first range that nobody has asked for."""
        gaps = self.claimed.gaps(0, self.size)
        return gaps[0] if gaps else None

    @property
    def complete(self) -> bool:
        """Whether every byte is on disk."""
        return self.have.total == self.size

    def present(self) -> bool:
        """Return whether the blob, or every one of its files, is there and need not be fetched."""
        if self.distrusted:
            return False
        if self._place.has_blob(self.etag, self.size):
            return True
        return all(self._place.has_file(path, self.size) for path in self.paths)

    def open(self) -> str:
        """Take the lock and look again: `busy`, `present` (it is in the snapshot now) or `open`.

        Raises:
            OSError: the file system refused.
        """
        lock = self._place.lock(self.etag)
        if lock is None:
            return "busy"
        self._lock = lock
        try:
            if self.present():
                self.link(new=False)
                self._place.clean(self.etag)
                self.close()
                return "present"
            self._partial = Partial(self._place.blobs, self.etag, self.size)
        except BusyError:
            self.close()
            return "busy"
        except BaseException:
            self.close()
            raise
        self.have = self._partial.have
        self.claimed = Spans(self.have)
        self.reused = self.synced = self.have.total
        return "open"

    def link(self, *, new: bool) -> None:
        """Put the blob into the snapshot under all its paths."""
        in_blobs = new or self._place.has_blob(self.etag, self.size)
        for number, path in enumerate(self.paths, 1):
            if in_blobs:
                self._place.put(path, self.etag, last=number == len(self.paths), new=new)

    def hash_on(self, front: int, stopping: Callable[[], bool]) -> None:
        """Bring the checksum up to offset `front`, or stop early."""
        while self.hashed < front and not stopping():
            data = self.partial.read(self.hashed, min(_HASHED_AT_ONCE, front - self.hashed))
            if not data:
                raise OSError(0, "the unfinished file was changed by another program")
            self._digest.update(data)
            self.hashed += len(data)

    def settle(self) -> bool:
        """Judge the finished bytes; True when the blob is in the snapshot, False to fetch it once more.

        Raises:
            OpError: `checksum_mismatch` for the second time.
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
                f"{printable(self.path)}: the bytes that the hub sent differ from their checksum, twice. "
                "Nothing of it was kept.",
                remedy=Remedy.CHECK_PROXY,
            )
        return False

    def begin_again(self) -> None:
        """Forget what was there, after the bytes turned out to be wrong."""
        self.have = self.partial.have
        self.claimed = Spans()
        self.reused = self.hashed = self.synced = 0
        self.location.keep(None)
        self._digest = self._new_digest()

    def sync(self) -> None:
        """Bring what is recorded to the device, and mark it."""
        self.partial.checkpoint()

    def close(self) -> None:
        """Close the files and let go of the lock; an unfinished blob without a byte is removed."""
        if self._partial is not None:
            with contextlib.suppress(OSError):
                if not self.done and not self.have.total:
                    self._partial.discard()
            self._partial.close()
            self._partial = None
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.release()
            self._lock = None

    def close_if_unused(self) -> None:
        """Close, unless a thread is still at work with the files; that one closes them."""
        if self.users == 0:
            self.close()

    def _new_digest(self) -> hashlib._Hash:
        if self._algorithm == "sha256":
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
