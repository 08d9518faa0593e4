"""An unfinished blob on disk: its bytes, and a journal of the ranges that are present.

The bytes are in `<etag>.mlxk.incomplete`, at their final offsets, and the journal is in
`<etag>.mlxk-journal.incomplete`, both in the blobs folder. The ending marks unfinished downloads for
health, prune and huggingface_hub's cache scan.

The journal is a header and records of fixed size. Each ends with a CRC-32 of everything before it, so a
torn, corrupt or foreign record ends the journal. `WRITTEN` records that a range was handed to the system,
which suffices after a killed process, since the page cache survives it. `SYNCED` records that everything up
to some record is on the device; after a loss of power, which the header's boot id reveals, only that
counts. In any case the checksum of the finished file decides.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import struct
import sys
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from mlxk_tui.ops.core.files import sync
from mlxk_tui.ops.core.os_errors import IS_LINK, UNSUPPORTED
from mlxk_tui.ops.download.byte_ranges import ByteRanges

PARTIAL = ".mlxk.incomplete"
"""Ending of the file with the bytes, after the etag."""
JOURNAL = ".mlxk-journal.incomplete"
"""Ending of the journal's name."""
_JOURNAL_NEW = ".mlxk-journal-new.incomplete"

_MAGIC = b"mlxkjnl1"
_HEADER = struct.Struct("<8sQ32s16s")
_RECORD = struct.Struct("<BxxxQQ")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CRC.size
_RECORD_BYTES = _RECORD.size + _CRC.size
_WRITTEN, _SYNCED = 1, 2
_MAX_JOURNAL_BYTES = 64 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WORTH_FULL_SYNC = 1 << 20


class BusyError(Exception):
    """Another process is downloading the same blob."""


@dataclass(frozen=True)
class JournalContent:
    """The valid content of a journal."""

    written: ByteRanges
    """Ranges that were handed to the system."""
    durable: ByteRanges
    """The part of them that is on the device."""


class JournalWriter:
    """Creates the bytes of a journal, each piece with the CRC of everything before it."""

    def __init__(self) -> None:
        self._crc = 0
        self.records = 0
        """Number of records so far."""

    def header(self, etag: str, size: int, boot: bytes) -> bytes:
        """Return the header of a journal: its blob, and the boot in which it was started."""
        self._crc = 0
        self.records = 0
        return self._seal(_HEADER.pack(_MAGIC, size, bytes.fromhex(etag), boot))

    def written(self, start: int, end: int) -> bytes:
        """Return a record that a range was written."""
        self.records += 1
        return self._seal(_RECORD.pack(_WRITTEN, start, end))

    def synced(self, records: int) -> bytes:
        """Return a record that the content of the first `records` records is on the device."""
        self.records += 1
        return self._seal(_RECORD.pack(_SYNCED, records, 0))

    def _seal(self, body: bytes) -> bytes:
        self._crc = zlib.crc32(body, self._crc)
        return body + _CRC.pack(self._crc)


def parse_journal(raw: bytes, etag: str, size: int, boot: bytes) -> JournalContent | None:
    """Parse a journal up to its first invalid record; return None if it is not one of this blob.

    Args:
        raw: the whole file, which may be truncated or corrupt.
        etag: the expected blob.
        size: the blob's size in bytes.
        boot: id of the current boot: ranges of another boot count only if they were synced.
    """
    if len(raw) < _HEADER_BYTES:
        return None
    magic, stored_size, stored_etag, stored_boot = _HEADER.unpack_from(raw)
    crc = zlib.crc32(raw[: _HEADER.size])
    expected = bytes.fromhex(etag).ljust(32, b"\0")
    if crc != _CRC.unpack_from(raw, _HEADER.size)[0] or (magic, stored_size, stored_etag) != (
        _MAGIC,
        size,
        expected,
    ):
        return None
    written: list[tuple[int, int, int]] = []
    synced = 0
    for number, at in enumerate(range(_HEADER_BYTES, len(raw) - _RECORD_BYTES + 1, _RECORD_BYTES)):
        crc = zlib.crc32(raw[at : at + _RECORD.size], crc)
        if crc != _CRC.unpack_from(raw, at + _RECORD.size)[0]:
            break
        kind, first, second = _RECORD.unpack_from(raw, at)
        if kind == _WRITTEN and first < second <= size:
            written.append((number, first, second))
        elif kind == _SYNCED and first <= number:
            synced = max(synced, first)
        else:
            break
    durable = ByteRanges((start, end) for index, start, end in written if index < synced)
    if stored_boot != boot:
        return JournalContent(ByteRanges(durable), durable)
    return JournalContent(ByteRanges((start, end) for _, start, end in written), durable)


def boot_id() -> bytes:
    """Return 16 bytes that change with every boot, or with every call if the system has no boot id."""
    text = b""
    with contextlib.suppress(OSError, AttributeError):
        if sys.platform == "linux":
            with open("/proc/sys/kernel/random/boot_id", "rb") as file:
                text = file.read(64)
        elif sys.platform == "darwin":
            text = _sysctl(b"kern.bootsessionuuid")
    return hashlib.blake2b(text or secrets.token_bytes(16), digest_size=16).digest()


def _sysctl(name: bytes) -> bytes:
    import ctypes  # costs 10 ms; only macOS needs it

    buffer = ctypes.create_string_buffer(64)
    length = ctypes.c_size_t(len(buffer))
    call = ctypes.CDLL(None).sysctlbyname
    return buffer.value if call(name, buffer, ctypes.byref(length), None, 0) == 0 else b""


class PartialBlob:
    """An unfinished blob, open for writing by this process alone.

    Several threads may write at once if their ranges do not overlap.
    """

    def __init__(self, folder: int, etag: str, size: int, *, boot: bytes | None = None) -> None:
        """Open an existing partial blob, or start a new one.

        Args:
            folder: descriptor of the `blobs` folder.
            etag: name of the finished blob, 40 or 64 hex digits.
            size: its size in bytes.
            boot: id of the current boot; None reads it from the system.

        Raises:
            BusyError: another process has it open.
            OSError: the file system refused.
        """
        self.etag = etag
        self.size = size
        self._folder = os.dup(folder)  # a blocked thread may outlive the caller's descriptor
        self._boot = boot if boot is not None else boot_id()
        self._writer = JournalWriter()
        self._lock = threading.Lock()
        self._data = self._journal = -1
        try:
            self._data = _open_exclusive(self._folder, etag + PARTIAL)
            self.written = self._load()
        except BaseException:
            self.close()
            raise

    written: ByteRanges
    """Ranges on disk; set when the file is opened, and updated by the caller."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes at their offset; they count only after `record`."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._data, view, offset)
            view = view[count:]
            offset += count

    def read(self, offset: int, length: int) -> bytes:
        """Read at most `length` bytes at an offset."""
        return os.pread(self._data, length, offset)

    def record(self, start: int, end: int) -> None:
        """Record in the journal that a range was written."""
        if start < end:
            with self._lock:
                self._append(self._writer.written(start, end))

    def checkpoint(self) -> None:
        """Flush everything recorded so far to the device and record that; may take seconds."""
        with self._lock:
            records = self._writer.records
        sync(self._data, full=True)
        with self._lock:
            self._append(self._writer.synced(records))
        sync(self._journal, full=True)

    def restart(self) -> None:
        """Discard all bytes and start again."""
        with self._lock:
            os.ftruncate(self._journal, 0)
            os.ftruncate(self._data, 0)
            self.written = ByteRanges()
            self._append(self._writer.header(self.etag, self.size, self._boot))

    def commit(self) -> None:
        """Rename it to the finished blob, replacing an existing one, and remove the journal.

        The bytes are flushed first, so that after a loss of power either the complete blob or the partial one
        exists.
        """
        sync(self._data, full=self.size >= _WORTH_FULL_SYNC)
        os.replace(self.etag + PARTIAL, self.etag, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        remove_files(self._folder, [self.etag + JOURNAL, self.etag + _JOURNAL_NEW])

    def discard(self) -> None:
        """Delete its files; call `close` afterwards."""
        remove_files(self._folder, partial_file_names(self.etag))

    def close(self) -> None:
        """Close the files, which stay for the next process."""
        for fd in (self._journal, self._data, self._folder):
            if fd >= 0:
                os.close(fd)
        self._journal = self._data = self._folder = -1

    def _append(self, piece: bytes) -> None:
        """Append to the journal; undo a partial write on a full disk."""
        at = os.lseek(self._journal, 0, os.SEEK_END)
        if os.write(self._journal, piece) != len(piece):
            with contextlib.suppress(OSError):
                os.ftruncate(self._journal, at)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _load(self) -> ByteRanges:
        """Read the journal and rewrite it compactly for the current boot."""
        name = self.etag + JOURNAL
        fd = _open_exclusive(self._folder, name)
        self._journal = fd
        length = os.fstat(fd).st_size
        found = None
        if 0 < length <= _MAX_JOURNAL_BYTES:
            found = parse_journal(_read_all(fd, length), self.etag, self.size, self._boot)
        on_disk = os.fstat(self._data).st_size
        if found is None or on_disk == 0:
            os.ftruncate(fd, 0)
            os.ftruncate(self._data, 0)
            self._append(self._writer.header(self.etag, self.size, self._boot))
            return ByteRanges()
        found.written.clip(on_disk)
        found.durable.clip(on_disk)
        self._rewrite(found)
        return found.written

    def _rewrite(self, found: JournalContent) -> None:
        # Unproven ranges of an older boot must be removed before a later SYNCED would confirm them.
        new = _open_exclusive(self._folder, self.etag + _JOURNAL_NEW)
        try:
            os.ftruncate(new, 0)
            pieces = [self._writer.header(self.etag, self.size, self._boot)]
            pieces += [self._writer.written(start, end) for start, end in found.durable]
            pieces.append(self._writer.synced(self._writer.records))
            pieces += [self._writer.written(start, end) for start, end in found.written]
            text = b"".join(pieces)
            if os.write(new, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(new, full=False)
            os.replace(
                self.etag + _JOURNAL_NEW,
                self.etag + JOURNAL,
                src_dir_fd=self._folder,
                dst_dir_fd=self._folder,
            )
        except BaseException:
            os.close(new)
            raise
        os.close(self._journal)
        self._journal = new


def is_resumable(name: str) -> bool:
    """Return whether a file in `blobs` is a resumable partial blob or its journal."""
    return name.endswith((PARTIAL, JOURNAL))


def partial_file_names(etag: str) -> list[str]:
    """Return the names of all files that a partial blob can have."""
    return [etag + PARTIAL, etag + JOURNAL, etag + _JOURNAL_NEW]


def resumable_bytes(folder: int, etag: str, size: int) -> int:
    """Return the bytes of a blob that a download can resume with; changes nothing."""
    try:
        length = os.stat(etag + PARTIAL, dir_fd=folder, follow_symlinks=False).st_size
        fd = os.open(etag + JOURNAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return 0
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_JOURNAL_BYTES:
            return 0
        found = parse_journal(_read_all(fd, info.st_size), etag, size, boot_id())
    except OSError:
        return 0
    finally:
        os.close(fd)
    if found is None:
        return 0
    found.written.clip(length)
    return found.written.total


def remove_files(folder: int, which: Iterable[str]) -> int:
    """Delete files in a folder if they exist; return the bytes freed."""
    freed = 0
    for name in which:
        with contextlib.suppress(FileNotFoundError):
            size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            os.unlink(name, dir_fd=folder)
            freed += size
    return freed


def _open_exclusive(folder: int, name: str) -> int:
    """Open or create a regular file without other hard links, and lock it.

    Raises:
        BusyError: another process holds the lock.
        OSError: the file system refused.
    """
    for _ in range(16):
        try:
            fd = os.open(name, _FLAGS, 0o666, dir_fd=folder)
        except OSError as error:
            if error.errno not in IS_LINK:
                raise
            remove_files(folder, [name])  # never write through a link
            continue
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
                remove_files(folder, [name])
                os.close(fd)
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise BusyError from None
        except OSError as error:
            if error.errno not in UNSUPPORTED | {errno.ENOLCK}:
                os.close(fd)
                raise
        with contextlib.suppress(FileNotFoundError):
            now = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if os.path.samestat(os.fstat(fd), now):
                return fd
        os.close(fd)
    raise OSError(errno.EAGAIN, "another process keeps replacing it", name)


def _read_all(fd: int, length: int) -> bytes:
    parts: list[bytes] = []
    at = 0
    while at < length:
        part = os.pread(fd, min(length - at, 1 << 20), at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)
