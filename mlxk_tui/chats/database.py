"""One SQLite connection on a thread of its own, opened with care and with errors put into words."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mlxk_tui.chats.schema import make_search_index, migrate
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_type, reason_of
from mlxk_tui.ops.core.remedies import Remedy

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
_BUSY_SECONDS = 5.0
"""How long to wait for another process's write."""
_OPENING_SECONDS = 10.0
"""How long to wait for another process that makes, migrates or puts aside the file."""
_PARTS = ("", "-wal", "-shm")


class Database:
    """The connection; every method may be called from the event loop."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self.notice: str | None = None
        """What the user should know of the opening, such as a damaged file that was put aside."""
        self.full_text = False
        """SQLite has FTS5 here, and the index exists."""
        self._connection: sqlite3.Connection | None = None
        self.closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chats")

    async def open(self, *, full_text: bool = True) -> None:
        """Open the file, make it where there is none, and bring it to the present version.

        A damaged file is put aside, never deleted, and a new one begun: `notice` says so.

        Raises:
            OpError: the file cannot be used; nothing was changed.
        """
        try:
            await self._submit(lambda: self._open(full_text))
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def read(self, work: Work[T]) -> T:
        """Run `work(connection)` on the thread.

        Raises:
            OpError: SQLite or the file system refused.
        """
        return await self._submit(lambda: work(self._open_connection()))

    async def write(self, work: Work[T], *, committed: Callable[[], None] = lambda: None) -> T:
        """Run `work(connection)` on the thread in a transaction: all of it is stored, or nothing.

        Args:
            work: what to do.
            committed: called on the thread right after the transaction was stored.

        Raises:
            OpError: SQLite or the file system refused.
        """

        def transaction() -> T:
            connection = self._open_connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            committed()
            return result

        return await self._submit(transaction)

    async def close(self) -> None:
        """Close the connection and end the thread; closing again does nothing."""
        if self.closed:
            return
        try:
            await self._submit(self._close)
        finally:
            self.closed = True
            self._thread.shutdown(wait=False)

    async def _submit(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return work()
            except (sqlite3.Error, OSError) as error:
                raise self._in_words(error) from error

        if self.closed:
            raise _closed()
        running = asyncio.get_running_loop().run_in_executor(self._thread, guarded)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])  # milliseconds; then it is certain what was stored
            if not running.cancelled():
                running.exception()
            raise

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise _closed()
        return self._connection

    def _open(self, full_text: bool) -> None:
        folder = os.path.dirname(self.path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with _locked(f"{self.path}.lock"):
            try:
                self._connection = self._connect(full_text)
            except sqlite3.DatabaseError as error:
                if not _means_damage(error):
                    raise
                self._put_aside()
                self._connection = self._connect(full_text)

    def _connect(self, full_text: bool) -> sqlite3.Connection:
        # SQLite gives -wal and -shm the rights of the database.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            migrate(connection)
            if os.path.exists(self._suspected) and not _is_sound(connection):
                raise sqlite3.DatabaseError("database disk image is malformed")
            with contextlib.suppress(OSError):
                os.unlink(self._suspected)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA cache_size = -16000")
            self.full_text = full_text and make_search_index(connection)
            connection.execute("SELECT * FROM sessions, messages LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA optimize")
            connection.close()

    @property
    def _suspected(self) -> str:
        """File that asks the next opening for a full check, which takes too long to do it always."""
        return f"{self.path}.check"

    def _put_aside(self) -> None:
        stem = f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
        aside, number = stem, 1
        while any(os.path.lexists(aside + part) for part in _PARTS):
            number += 1
            aside = f"{stem}-{number}"
        for part in _PARTS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path + part, aside + part)
        with contextlib.suppress(OSError):
            os.unlink(self._suspected)
        self.notice = (
            f"The file of the chats was damaged. It was kept as {os.path.basename(aside)} beside the new, "
            "empty one; sqlite3's .recover may read it."
        )

    def _in_words(self, error: sqlite3.Error | OSError) -> OpError:
        text = str(error)
        if isinstance(error, OSError):
            return OpError(
                error_type(error) or ErrorType.PERMISSION_DENIED,
                f"The chats cannot be stored: {reason_of(error)}.",
                remedy=Remedy.CHECK_PERMISSIONS,
            )
        if "full" in text:
            return OpError(
                ErrorType.DISK_FULL, "The disk is full, so the chat was not stored.", remedy=Remedy.FREE_SPACE
            )
        if "locked" in text or "busy" in text:
            return OpError(
                ErrorType.LOCKS_PRESENT,
                "Another process has been writing to the chats for some seconds.",
                remedy=Remedy.TRY_AGAIN,
            )
        if "readonly" in text or "unable to open" in text or "not authorized" in text:
            return OpError(
                ErrorType.PERMISSION_DENIED,
                "The file of the chats cannot be written.",
                remedy=Remedy.CHECK_PERMISSIONS,
            )
        if _means_damage(error):
            with contextlib.suppress(OSError), open(self._suspected, "wb"):
                pass
            return OpError(
                ErrorType.INTERNAL_ERROR,
                "The file of the chats is damaged. It is checked when the app starts, and put aside if "
                "need be.",
                remedy=Remedy.RESTART_APP,
            )
        return OpError(
            ErrorType.INTERNAL_ERROR, f"The chats cannot be stored: {text}.", remedy=Remedy.TRY_AGAIN
        )


def _closed() -> OpError:
    return OpError(ErrorType.INTERNAL_ERROR, "The chats are closed.", remedy=Remedy.RESTART_APP)


def _means_damage(error: sqlite3.Error) -> bool:
    text = str(error)
    return "malformed" in text or "not a database" in text or "corrupt" in text


def _is_sound(connection: sqlite3.Connection) -> bool:
    return [row[0] for row in connection.execute("PRAGMA quick_check(1)")] == ["ok"]


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Let one process at a time open the file: making, migrating and putting aside are not SQLite's locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _OPENING_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise sqlite3.OperationalError("database is locked") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
