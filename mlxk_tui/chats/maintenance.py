"""Clean-up: messages whose writer has exited, and deleted sessions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from mlxk_tui.chats.search_index import SearchIndex
from mlxk_tui.chats.writers import WriterLock, remove_stale_locks

_KEEP_DELETED_SECONDS = 3600.0
"""Seconds before a deleted session is purged, if the process that deleted it was killed."""


def clean_up(connection: sqlite3.Connection, index: SearchIndex, writer: WriterLock) -> None:
    """Stop messages whose writer has exited, and purge sessions that were deleted an hour ago."""
    sql = "SELECT id, owner FROM messages WHERE state = 'streaming'"
    for message_id, name in connection.execute(sql).fetchall():
        if not writer.is_running(name):
            stop_message(connection, index, message_id)
    remove_stale_locks(writer.database)
    sql = "SELECT id FROM sessions WHERE deleted < ?"
    rows = connection.execute(sql, (time.time() - _KEEP_DELETED_SECONDS,)).fetchall()
    purge(connection, index, [row[0] for row in rows])


def stop_message(connection: sqlite3.Connection, index: SearchIndex, message_id: int) -> None:
    """Set the state of a streaming message to `stopped`."""
    sql = "UPDATE messages SET state = 'stopped', owner = NULL WHERE id = ? AND state = 'streaming'"
    connection.execute(sql, (message_id,))
    index.add(connection, message_id)


def purge(connection: sqlite3.Connection, index: SearchIndex, sessions: Iterable[int]) -> None:
    """Remove those of the given sessions that are marked as deleted, with their messages."""
    for session in sessions:
        row = connection.execute("SELECT deleted FROM sessions WHERE id = ?", (session,)).fetchone()
        if row is None or row[0] is None:  # restored by another process
            continue
        index.remove_session(connection, session)
        connection.execute("UPDATE sessions SET head = NULL WHERE id = ?", (session,))
        connection.execute("DELETE FROM messages WHERE session_id = ?", (session,))
        connection.execute("DELETE FROM sessions WHERE id = ?", (session,))
