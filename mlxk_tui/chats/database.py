"""A SQLite connection in its own thread, with safe opening and user-readable errors."""

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

from mlxk_tui.chats.schema import create_search_index, migrate
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_reason, error_type
from mlxk_tui.ops.core.remedies import Remedy

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
_BUSY_SECONDS = 5.0
"""Seconds to wait for a write of another process (SQLite's busy timeout)."""
_OPENING_SECONDS = 10.0
"""Seconds to wait for another process that creates, migrates or moves the file."""
_SUFFIXES = ("", "-wal", "-shm")


class Database:
    """The database connection. All methods can be called from the event loop."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self.notice: str | None = None
        """A message for the user about the opening, such as a damaged file that was moved."""
        self.full_text = False
        """Whether SQLite has FTS5 and the full-text index exists."""
        self._connection: sqlite3.Connection | None = None
        self.closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chats")

    async def open(self, *, full_text: bool = True) -> None:
        """Open the file, create it if it doesn't exist, and migrate it to the current version.

        A damaged file is renamed, never deleted, and an empty one is created; `notice` then has a message.

        Raises:
            OpError: the file can't be used; it was not changed.
        """
        try:
            await self._submit(lambda: self._open(full_text))
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def read(self, work: Work[T]) -> T:
        """Run `work(connection)` in the database thread and return its result.

        Raises:
            OpError: an error of SQLite or the file system.
        """
        return await self._submit(lambda: work(self._open_connection()))

    async def write(self, work: Work[T], *, committed: Callable[[], None] = lambda: None) -> T:
        """Run `work(connection)` in the database thread, in a transaction.

        Args:
            work: reads and writes the database; if it raises, the transaction is rolled back.
            committed: called in the database thread right after the commit.

        Raises:
            OpError: an error of SQLite or the file system.
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
        """Close the connection and end the thread. Closing twice is allowed."""
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
                raise self._to_op_error(error) from error

        if self.closed:
            raise _closed_error()
        running = asyncio.get_running_loop().run_in_executor(self._thread, guarded)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])  # takes milliseconds; afterwards it is certain what was stored
            if not running.cancelled():
                running.exception()
            raise

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise _closed_error()
        return self._connection

    def _open(self, full_text: bool) -> None:
        folder = os.path.dirname(self.path)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with _locked(f"{self.path}.lock"):
            try:
                self._connection = self._connect(full_text)
            except sqlite3.DatabaseError as error:
                if not _is_corruption(error):
                    raise
                self._move_damaged()
                self._connection = self._connect(full_text)

    def _connect(self, full_text: bool) -> sqlite3.Connection:
        # SQLite creates -wal and -shm with the permissions of the database.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            migrate(connection)
            if os.path.exists(self._check_marker) and not _is_intact(connection):
                raise sqlite3.DatabaseError("database disk image is malformed")
            with contextlib.suppress(OSError):
                os.unlink(self._check_marker)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA cache_size = -16000")
            self.full_text = full_text and create_search_index(connection)
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
    def _check_marker(self) -> str:
        """A file that makes the next opening check the whole database, which is too slow to do every time."""
        return f"{self.path}.check"

    def _move_damaged(self) -> None:
        stem = f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
        target, number = stem, 1
        while any(os.path.lexists(target + suffix) for suffix in _SUFFIXES):
            number += 1
            target = f"{stem}-{number}"
        for suffix in _SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path + suffix, target + suffix)
        with contextlib.suppress(OSError):
            os.unlink(self._check_marker)
        self.notice = (
            f"The chat database was damaged. It was renamed to {os.path.basename(target)}, and an empty one "
            "was created. The .recover command of sqlite3 may restore the chats."
        )

    def _to_op_error(self, error: sqlite3.Error | OSError) -> OpError:
        text = str(error)
        if isinstance(error, OSError):
            return OpError(
                error_type(error) or ErrorType.PERMISSION_DENIED,
                f"The chats can't be saved: {error_reason(error)}.",
                remedy=Remedy.CHECK_PERMISSIONS,
            )
        if "full" in text:
            return OpError(
                ErrorType.DISK_FULL, "The disk is full, so the chat was not saved.", remedy=Remedy.FREE_SPACE
            )
        if "locked" in text or "busy" in text:
            return OpError(
                ErrorType.LOCKS_PRESENT,
                "Another process is writing to the chat database.",
                remedy=Remedy.TRY_AGAIN,
            )
        if "readonly" in text or "unable to open" in text or "not authorized" in text:
            return OpError(
                ErrorType.PERMISSION_DENIED,
                "The chat database can't be written.",
                remedy=Remedy.CHECK_PERMISSIONS,
            )
        if _is_corruption(error):
            with contextlib.suppress(OSError), open(self._check_marker, "wb"):
                pass
            return OpError(
                ErrorType.INTERNAL_ERROR,
                "The chat database is damaged. The next start of the app checks it, and replaces it if "
                "necessary.",
                remedy=Remedy.RESTART_APP,
            )
        return OpError(
            ErrorType.INTERNAL_ERROR, f"The chats can't be saved: {text}.", remedy=Remedy.TRY_AGAIN
        )


def _closed_error() -> OpError:
    return OpError(ErrorType.INTERNAL_ERROR, "The chat database is closed.", remedy=Remedy.RESTART_APP)


def _is_corruption(error: sqlite3.Error) -> bool:
    text = str(error)
    return "malformed" in text or "not a database" in text or "corrupt" in text


def _is_intact(connection: sqlite3.Connection) -> bool:
    return [row[0] for row in connection.execute("PRAGMA quick_check(1)")] == ["ok"]


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold a lock file while opening: SQLite's locks don't cover creating and renaming the database."""
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
