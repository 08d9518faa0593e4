"""What has to be put in order: messages of writers that are gone, and sessions that were deleted."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from mlxk_tui.chats.index import Index
from mlxk_tui.chats.owners import Owner, sweep

_KEEP_DELETED_SECONDS = 3600.0
"""How long a session deleted by a process that was killed can still be brought back."""


def put_in_order(connection: sqlite3.Connection, index: Index, owner: Owner) -> None:
    """Stop the messages of writers that are gone, and remove what was deleted an hour ago."""
    sql = "SELECT id, owner FROM messages WHERE state = 'streaming'"
    for message_id, name in connection.execute(sql).fetchall():
        if not owner.writes(name):
            stop_message(connection, index, message_id)
    sweep(owner.database)
    sql = "SELECT id FROM sessions WHERE deleted < ?"
    rows = connection.execute(sql, (time.time() - _KEEP_DELETED_SECONDS,)).fetchall()
    purge(connection, index, [row[0] for row in rows])


def stop_message(connection: sqlite3.Connection, index: Index, message_id: int) -> None:
    """Make a streaming message a stopped one."""
    sql = "UPDATE messages SET state = 'stopped', owner = NULL WHERE id = ? AND state = 'streaming'"
    connection.execute(sql, (message_id,))
    index.add(connection, message_id)


def purge(connection: sqlite3.Connection, index: Index, sessions: Iterable[int]) -> None:
    """Remove those of some sessions that are deleted, with their messages."""
    for session in sessions:
        row = connection.execute("SELECT deleted FROM sessions WHERE id = ?", (session,)).fetchone()
        if row is None or row[0] is None:  # brought back by another process
            continue
        index.remove_session(connection, session)
        connection.execute("UPDATE sessions SET head = NULL WHERE id = ?", (session,))
        connection.execute("DELETE FROM messages WHERE session_id = ?", (session,))
        connection.execute("DELETE FROM sessions WHERE id = ?", (session,))
