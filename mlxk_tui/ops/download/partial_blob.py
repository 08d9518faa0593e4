"""An unfinished blob on disk: its bytes, and a journal of which of them are there.

Beside the finished blobs lie `<etag>.mlxk.incomplete` with the bytes, at their final offsets, and
`<etag>.mlxk-journal.incomplete`. Both endings are those of an unfinished download, so that health,
prune and huggingface_hub's own cache scan know them for what they are.

The journal is a header and records of fixed size. Each ends with a CRC-32 that also covers everything
before it, so a torn, flipped or foreign record ends the journal there. `HAVE` says that a range was
given to the system: enough for a killed process, since the page cache outlives it. `SYNCED` says that
everything recorded up to some record is on the device. After a loss of power, which the boot id of the
header tells, only that much is believed. Whatever the journal says, the checksum of the finished file
decides.
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
from mlxk_tui.ops.download.byte_ranges import Spans

PARTIAL = ".mlxk.incomplete"
"""How the file with the bytes ends, after the etag."""
JOURNAL = ".mlxk-journal.incomplete"
"""How the journal ends."""
_JOURNAL_NEW = ".mlxk-journal-new.incomplete"

_MAGIC = b"mlxkjnl1"
_HEADER = struct.Struct("<8sQ32s16s")
_RECORD = struct.Struct("<BxxxQQ")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _HEADER.size + _CRC.size
_RECORD_BYTES = _RECORD.size + _CRC.size
_HAVE, _SYNCED = 1, 2
_MAX_JOURNAL_BYTES = 64 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WORTH_FULL_SYNC = 1 << 20


class BusyError(Exception):
    """Another process works on the same unfinished blob."""


@dataclass(frozen=True)
class Replay:
    """What a journal proves."""

    have: Spans
    """Ranges that were written."""
    durable: Spans
    """The part of them that was on the device before the journal said so."""


class JournalWriter:
    """Makes the bytes of a journal, each piece sealed with the CRC of all before it."""

    def __init__(self) -> None:
        self._crc = 0
        self.records = 0
        """Records so far."""

    def header(self, etag: str, size: int, boot: bytes) -> bytes:
        """Return the first bytes of a journal: whose it is, and in which boot it was begun."""
        self._crc = 0
        self.records = 0
        return self._seal(_HEADER.pack(_MAGIC, size, bytes.fromhex(etag), boot))

    def have(self, start: int, end: int) -> bytes:
        """Return the record that a range was written."""
        self.records += 1
        return self._seal(_RECORD.pack(_HAVE, start, end))

    def synced(self, records: int) -> bytes:
        """Return the record that what the first `records` records say is on the device."""
        self.records += 1
        return self._seal(_RECORD.pack(_SYNCED, records, 0))

    def _seal(self, body: bytes) -> bytes:
        self._crc = zlib.crc32(body, self._crc)
        return body + _CRC.pack(self._crc)


def replay(raw: bytes, etag: str, size: int, boot: bytes) -> Replay | None:
    """Read a journal up to its first flaw; None where it is not one of this blob.

    Args:
        raw: the whole file, which may be torn or garbage.
        etag: the blob that it must be of.
        size: the blob's size in bytes.
        boot: this boot of the machine: ranges of another boot count only when they were synced.
    """
    if len(raw) < _HEADER_BYTES:
        return None
    magic, said_size, said_etag, said_boot = _HEADER.unpack_from(raw)
    crc = zlib.crc32(raw[: _HEADER.size])
    wanted = bytes.fromhex(etag).ljust(32, b"\0")
    if crc != _CRC.unpack_from(raw, _HEADER.size)[0] or (magic, said_size, said_etag) != (
        _MAGIC,
        size,
        wanted,
    ):
        return None
    written: list[tuple[int, int, int]] = []
    synced = 0
    for number, at in enumerate(range(_HEADER_BYTES, len(raw) - _RECORD_BYTES + 1, _RECORD_BYTES)):
        crc = zlib.crc32(raw[at : at + _RECORD.size], crc)
        if crc != _CRC.unpack_from(raw, at + _RECORD.size)[0]:
            break
        kind, first, second = _RECORD.unpack_from(raw, at)
        if kind == _HAVE and first < second <= size:
            written.append((number, first, second))
        elif kind == _SYNCED and first <= number:
            synced = max(synced, first)
        else:
            break
    durable = Spans((start, end) for index, start, end in written if index < synced)
    if said_boot != boot:
        return Replay(Spans(durable), durable)
    return Replay(Spans((start, end) for _, start, end in written), durable)


def boot_id() -> bytes:
    """Return 16 bytes that change with every boot; where the system tells none, with every call."""
    text = b""
    with contextlib.suppress(OSError, AttributeError):
        if sys.platform == "linux":
            with open("/proc/sys/kernel/random/boot_id", "rb") as file:
                text = file.read(64)
        elif sys.platform == "darwin":
            text = _sysctl(b"kern.bootsessionuuid")
    return hashlib.blake2b(text or secrets.token_bytes(16), digest_size=16).digest()


def _sysctl(name: bytes) -> bytes:
    import ctypes  # 10 ms that only macOS needs

    buffer = ctypes.create_string_buffer(64)
    length = ctypes.c_size_t(len(buffer))
    call = ctypes.CDLL(None).sysctlbyname
    return buffer.value if call(name, buffer, ctypes.byref(length), None, 0) == 0 else b""


class Partial:
    """The unfinished blob of one etag, open for writing by this process alone.

    Ranges may be written from several threads at once as long as they do not overlap.
    """

    def __init__(self, folder: int, etag: str, size: int, *, boot: bytes | None = None) -> None:
        """Open what an earlier process left, or begin anew.

        Args:
            folder: descriptor of the `blobs` folder.
            etag: name of the finished blob, 40 or 64 hex digits.
            size: its bytes.
            boot: this boot of the machine; None asks the system.

        Raises:
            BusyError: another process has it open.
            OSError: the file system refused.
        """
        self.etag = etag
        self.size = size
        self._folder = os.dup(folder)  # a thread that hangs may outlive the caller's
        self._boot = boot if boot is not None else boot_id()
        self._writer = JournalWriter()
        self._lock = threading.Lock()
        self._data = self._journal = -1
        try:
            self._data = _open_own(self._folder, etag + PARTIAL)
            self.have = self._load()
        except BaseException:
            self.close()
            raise

    have: Spans
    """Ranges that were there when it was opened; the caller keeps it up to date."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes at their place; `record` makes them count."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._data, view, offset)
            view = view[count:]
            offset += count

    def read(self, offset: int, length: int) -> bytes:
        """Read at most `length` bytes at an offset."""
        return os.pread(self._data, length, offset)

    def record(self, start: int, end: int) -> None:
        """Note in the journal that a range was written."""
        if start < end:
            with self._lock:
                self._append(self._writer.have(start, end))

    def checkpoint(self) -> None:
        """Bring everything recorded so far to the device and note that; may take seconds."""
        with self._lock:
            records = self._writer.records
        sync(self._data, full=True)
        with self._lock:
            self._append(self._writer.synced(records))
        sync(self._journal, full=True)

    def restart(self) -> None:
        """Throw all bytes away and begin anew."""
        with self._lock:
            os.ftruncate(self._journal, 0)
            os.ftruncate(self._data, 0)
            self.have = Spans()
            self._append(self._writer.header(self.etag, self.size, self._boot))

    def commit(self) -> None:
        """Make it the finished blob, replacing one of that name, and remove the journal.

        The bytes are on the device before they get the name: a loss of power leaves the whole blob
        or the unfinished one.
        """
        sync(self._data, full=self.size >= _WORTH_FULL_SYNC)
        os.replace(self.etag + PARTIAL, self.etag, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        remove(self._folder, [self.etag + JOURNAL, self.etag + _JOURNAL_NEW])

    def discard(self) -> None:
        """Remove both files; `close` is still to be called."""
        remove(self._folder, names(self.etag))

    def close(self) -> None:
        """Close the files; what they hold stays for the next process."""
        for fd in (self._journal, self._data, self._folder):
            if fd >= 0:
                os.close(fd)
        self._journal = self._data = self._folder = -1

    def _append(self, piece: bytes) -> None:
        """Add to the journal; a piece cut off by a full disk is cut away, or ends the journal."""
        at = os.lseek(self._journal, 0, os.SEEK_END)
        if os.write(self._journal, piece) != len(piece):
            with contextlib.suppress(OSError):
                os.ftruncate(self._journal, at)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _load(self) -> Spans:
        """Read the journal and write it anew, short and of this boot."""
        name = self.etag + JOURNAL
        fd = _open_own(self._folder, name)
        self._journal = fd
        length = os.fstat(fd).st_size
        found = None
        if 0 < length <= _MAX_JOURNAL_BYTES:
            found = replay(_read_all(fd, length), self.etag, self.size, self._boot)
        on_disk = os.fstat(self._data).st_size
        if found is None or on_disk == 0:
            os.ftruncate(fd, 0)
            os.ftruncate(self._data, 0)
            self._append(self._writer.header(self.etag, self.size, self._boot))
            return Spans()
        found.have.clip(on_disk)
        found.durable.clip(on_disk)
        self._rewrite(found)
        return found.have

    def _rewrite(self, found: Replay) -> None:
        # What an older boot claimed without proof must be gone before a later SYNCED would cover it.
        new = _open_own(self._folder, self.etag + _JOURNAL_NEW)
        try:
            os.ftruncate(new, 0)
            pieces = [self._writer.header(self.etag, self.size, self._boot)]
            pieces += [self._writer.have(start, end) for start, end in found.durable]
            pieces.append(self._writer.synced(self._writer.records))
            pieces += [self._writer.have(start, end) for start, end in found.have]
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
    """Return whether a file in `blobs` is one that a pull can go on with, or its journal."""
    return name.endswith((PARTIAL, JOURNAL))


def names(etag: str) -> list[str]:
    """Return the names of all files that an unfinished blob may have."""
    return [etag + PARTIAL, etag + JOURNAL, etag + _JOURNAL_NEW]


def resumable(folder: int, etag: str, size: int) -> int:
    """Return how many bytes of a blob an earlier process left, touching nothing."""
    try:
        length = os.stat(etag + PARTIAL, dir_fd=folder, follow_symlinks=False).st_size
        fd = os.open(etag + JOURNAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return 0
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_JOURNAL_BYTES:
            return 0
        found = replay(_read_all(fd, info.st_size), etag, size, boot_id())
    except OSError:
        return 0
    finally:
        os.close(fd)
    if found is None:
        return 0
    found.have.clip(length)
    return found.have.total


def remove(folder: int, which: Iterable[str]) -> int:
    """Delete files of a folder that are there and return the bytes they had."""
    freed = 0
    for name in which:
        with contextlib.suppress(FileNotFoundError):
            size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            os.unlink(name, dir_fd=folder)
            freed += size
    return freed


def _open_own(folder: int, name: str) -> int:
    """Open or make a regular file that has no other name, and lock it.

    Raises:
        BusyError: another process has locked it.
        OSError: the file system refused.
    """
    for _ in range(16):
        try:
            fd = os.open(name, _FLAGS, 0o666, dir_fd=folder)
        except OSError as error:
            if error.errno not in IS_LINK:
                raise
            remove(folder, [name])  # a link, which is never written through
            continue
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
                remove(folder, [name])
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
