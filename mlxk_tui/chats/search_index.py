"""Maintains the full-text index (FTS5) of messages.

New messages are indexed at once. Messages written by a Python without FTS5 are indexed in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

from mlxk_tui.chats.database import Database
from mlxk_tui.ops.core.errors import OpError

_BATCH = 200
"""Messages per transaction; one takes about 0.1 s, during which other calls wait."""
_UNINDEXED = "indexed = 0 AND state <> 'streaming'"


class SearchIndex:
    """The full-text index of message content; all methods do nothing if SQLite lacks FTS5."""

    def __init__(self, database: Database) -> None:
        self.complete = False
        """Whether all finished messages are indexed, so that searches can use the index."""
        self._database = database
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start indexing missing messages in the background."""
        if self._database.full_text:
            self._task = asyncio.create_task(self._index_missing())

    async def stop(self) -> None:
        """Stop indexing; the next opening continues."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _index_missing(self) -> None:
        try:
            while await self._database.write(self._next_batch):
                pass
        except OpError:  # busy or full: searches scan the messages; the next opening tries again
            return
        self.complete = True

    def _next_batch(self, connection: sqlite3.Connection) -> bool:
        sql = f"SELECT id FROM messages WHERE {_UNINDEXED} LIMIT ?"  # noqa: S608 - a constant
        rows = connection.execute(sql, (_BATCH,)).fetchall()
        for row in rows:
            self.add(connection, row[0])
        return len(rows) == _BATCH

    def add(self, connection: sqlite3.Connection, message_id: int) -> None:
        """Index a finished message; its content no longer changes."""
        if not self._database.full_text:
            return
        sql = "UPDATE messages SET indexed = 1 WHERE id = ? AND indexed = 0"
        if connection.execute(sql, (message_id,)).rowcount:
            connection.execute(
                "INSERT INTO message_search(rowid, content) SELECT id, content FROM messages WHERE id = ?",
                (message_id,),
            )

    def add_session(self, connection: sqlite3.Connection, session_id: int) -> None:
        """Index all finished messages of a session."""
        sql = f"SELECT id FROM messages WHERE session_id = ? AND {_UNINDEXED}"  # noqa: S608 - a constant
        for row in connection.execute(sql, (session_id,)).fetchall():
            self.add(connection, row[0])

    def remove_session(self, connection: sqlite3.Connection, session_id: int) -> None:
        """Remove the messages of a session from the index; call it before deleting them."""
        if self._database.full_text:
            connection.execute(
                "INSERT INTO message_search(message_search, rowid, content) "
                "SELECT 'delete', id, content FROM messages WHERE session_id = ? AND indexed = 1",
                (session_id,),
            )
