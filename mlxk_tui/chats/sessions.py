"""Database operations on sessions: create, update, delete, select a branch."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from mlxk_tui.chats import tree
from mlxk_tui.chats.model import Message, Session
from mlxk_tui.chats.rows import session_by_id


def create(
    connection: sqlite3.Connection, title: str, model: str | None, system: str, settings: str
) -> Session:
    """Insert an empty session; the arguments are column values."""
    now = time.time()
    sql = "INSERT INTO sessions(title, model, system, settings, created, updated) VALUES (?,?,?,?,?,?)"
    cursor = connection.execute(sql, (title, model, system, settings, now, now))
    return session_by_id(connection, cursor.lastrowid)


def update(connection: sqlite3.Connection, session_id: int, changes: Mapping[str, object]) -> Session:
    """Update columns of a session; an empty title is replaced with that of the first user message.

    Args:
        connection: the database.
        session_id: the session.
        changes: values by column name; column names must not come from user input.

    Raises:
        OpError: `validation_error` if the session doesn't exist, like all functions in this module.
    """
    session_by_id(connection, session_id)
    for column, given in changes.items():
        value = tree.automatic_title(connection, session_id) if (column, given) == ("title", "") else given
        connection.execute(
            f"UPDATE sessions SET {column} = ? WHERE id = ?",  # noqa: S608 - column names from above
            (value, session_id),
        )
    return session_by_id(connection, session_id)


def delete(connection: sqlite3.Connection, session_id: int) -> None:
    """Mark a session as deleted."""
    session_by_id(connection, session_id)
    connection.execute("UPDATE sessions SET deleted = ? WHERE id = ?", (time.time(), session_id))


def restore(connection: sqlite3.Connection, session_id: int) -> Session:
    """Undo `delete` and return the session."""
    connection.execute("UPDATE sessions SET deleted = NULL WHERE id = ?", (session_id,))
    return session_by_id(connection, session_id)


def select_branch(connection: sqlite3.Connection, message_id: int) -> Session:
    """Select the branch of a message: set the head to the newest leaf below it."""
    session = tree.message(connection, message_id).session_id
    leaf = tree.newest_leaf(connection, message_id)
    connection.execute("UPDATE sessions SET head = ? WHERE id = ?", (leaf, session))
    return session_by_id(connection, session)


def branch_messages(
    connection: sqlite3.Connection, session_id: int, before: int | None, limit: int | None
) -> list[Message]:
    """Return the last messages of the selected branch, or the last ones before `before`, oldest first."""
    start = session_by_id(connection, session_id).head
    if before is not None:
        below = tree.message(connection, before)
        if below.session_id != session_id:
            raise tree.message_not_found(before)
        start = below.parent_id
    return tree.path(connection, start, limit)
