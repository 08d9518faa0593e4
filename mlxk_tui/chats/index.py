"""Keeps the full-text index: new messages at once, those that another Python left out in the background."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

from mlxk_tui.chats.database import Database
from mlxk_tui.ops.core.errors import OpError

_BATCH = 200
"""Messages put in at once; the others wait for a tenth of a second."""
_UNINDEXED = "indexed = 0 AND state <> 'streaming'"


class Index:
    """The full-text index of the messages' content; does nothing where there is none."""

    def __init__(self, database: Database) -> None:
        self.complete = False
        """Whether every finished message is in it, so that it can answer."""
        self._database = database
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start filling in what is missing."""
        if self._database.full_text:
            self._task = asyncio.create_task(self._catch_up())

    async def stop(self) -> None:
        """End the filling; the next opening goes on with it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _catch_up(self) -> None:
        try:
            while await self._database.write(self._next_batch):
                pass
        except (
            OpError
        ):  # busy or full: the search looks at the messages instead, the next opening tries again
            return
        self.complete = True

    def _next_batch(self, connection: sqlite3.Connection) -> bool:
        sql = f"SELECT id FROM messages WHERE {_UNINDEXED} LIMIT ?"  # noqa: S608 - a constant
        rows = connection.execute(sql, (_BATCH,)).fetchall()
        for row in rows:
            self.add(connection, row[0])
        return len(rows) == _BATCH

    def add(self, connection: sqlite3.Connection, message_id: int) -> None:
        """Put a finished message in; its content does not change any more."""
        if not self._database.full_text:
            return
        sql = "UPDATE messages SET indexed = 1 WHERE id = ? AND indexed = 0"
        if connection.execute(sql, (message_id,)).rowcount:
            connection.execute(
                "INSERT INTO message_search(rowid, content) SELECT id, content FROM messages WHERE id = ?",
                (message_id,),
            )

    def add_session(self, connection: sqlite3.Connection, session_id: int) -> None:
        """Put all messages of a session in."""
        sql = f"SELECT id FROM messages WHERE session_id = ? AND {_UNINDEXED}"  # noqa: S608 - a constant
        for row in connection.execute(sql, (session_id,)).fetchall():
            self.add(connection, row[0])

    def remove_session(self, connection: sqlite3.Connection, session_id: int) -> None:
        """Take all messages of a session out; they must still be there."""
        if self._database.full_text:
            connection.execute(
                "INSERT INTO message_search(message_search, rowid, content) "
                "SELECT 'delete', id, content FROM messages WHERE session_id = ? AND indexed = 1",
                (session_id,),
            )
