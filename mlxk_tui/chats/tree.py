"""Database operations on the message tree of a session: paths, siblings, branches.

All functions run in the database thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence

from mlxk_tui.chats.model import Message, MessageState, Role, Session
from mlxk_tui.chats.rows import (
    attachments_json,
    message_from_row,
    one_line,
    session_by_id,
    storable,
    storable_or_none,
    title_from_message,
    to_json,
)
from mlxk_tui.chats.schema import MAX_MESSAGES, MESSAGE_BITS
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

_COPIED = (
    "role, content, reasoning, tool_calls, tool_call_id, attachments, model, usage, timings, finish_reason, "
    "error, created"
)
_PATH = """WITH RECURSIVE path(id, parent_id, height) AS (
    SELECT id, parent_id, 0 FROM messages WHERE id = ?
    UNION ALL
    SELECT messages.id, messages.parent_id, height + 1
        FROM path JOIN messages ON messages.id = path.parent_id
    LIMIT ?
) SELECT messages.* FROM path JOIN messages ON messages.id = path.id ORDER BY height DESC"""


def message_not_found(message_id: int) -> OpError:
    """Return the error for a message that doesn't exist."""
    return OpError(
        ErrorType.VALIDATION_ERROR,
        f"Message {message_id} no longer exists in the chat.",
        remedy=Remedy.REOPEN_CHAT,
    )


def message(connection: sqlite3.Connection, message_id: int) -> Message:
    """Return one message.

    Raises:
        OpError: `validation_error` if it doesn't exist.
    """
    row = connection.execute("SELECT * FROM messages WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise message_not_found(message_id)
    return _with_siblings(connection, [row])[0]


def path(connection: sqlite3.Connection, start: int | None, limit: int | None) -> list[Message]:
    """Return the path from the root to `start`, at most the last `limit` messages of it."""
    rows = connection.execute(_PATH, (start, -1 if limit is None else limit)).fetchall()
    return _with_siblings(connection, rows)


def siblings(connection: sqlite3.Connection, message_id: int) -> list[Message]:
    """Return a message and its siblings, oldest first."""
    one = message(connection, message_id)
    sql = "SELECT * FROM messages WHERE session_id = ? AND parent_id IS ? ORDER BY id"
    rows = connection.execute(sql, (one.session_id, one.parent_id)).fetchall()
    return _with_siblings(connection, rows)


def newest_leaf(connection: sqlite3.Connection, message_id: int) -> int:
    """Return the last message of the newest branch below a message."""
    sql = "SELECT max(id) FROM messages WHERE parent_id = ?"
    while (child := connection.execute(sql, (message_id,)).fetchone()[0]) is not None:
        message_id = int(child)
    return message_id


def add(
    connection: sqlite3.Connection, session_id: int, row: Mapping[str, object], sibling_of: int | None
) -> Message:
    """Add a message after the head of a session, or as a sibling, and make it the head.

    Args:
        connection: the database.
        session_id: the session; its first user message sets its title.
        row: the columns of the message, without its position in the tree.
        sibling_of: the message whose sibling it becomes.

        Raises:
            OpError: `validation_error` if the session or sibling doesn't exist, or the session is full.
    """
    session = session_by_id(connection, session_id)
    parent = session.head
    if sibling_of is not None:
        beside = message(connection, sibling_of)
        if beside.session_id != session_id:
            raise message_not_found(sibling_of)
        parent = beside.parent_id
    number = _next_number(connection, session_id)
    if number > MAX_MESSAGES:
        raise OpError(
            ErrorType.VALIDATION_ERROR, "The chat has too many messages.", remedy=Remedy.START_NEW_CHAT
        )
    new, now = session_id << MESSAGE_BITS | number, time.time()
    _insert(connection, {**row, "id": new, "session_id": session_id, "parent_id": parent, "created": now})
    title = session.title
    if row["role"] == Role.USER.value and not title:
        title = title_from_message(str(row["content"]))
    sql = "UPDATE sessions SET head = ?, updated = ?, title = ? WHERE id = ?"
    connection.execute(sql, (new, now, title, session_id))
    return message(connection, new)


def _next_number(connection: sqlite3.Connection, session_id: int) -> int:
    """Return the number of a session's next message, starting at 1."""
    first = session_id << MESSAGE_BITS
    sql = "SELECT max(id) FROM messages WHERE id BETWEEN ? AND ?"
    newest = connection.execute(sql, (first, first + MAX_MESSAGES)).fetchone()[0]
    return 1 if newest is None else int(newest) - first + 1


def _insert(connection: sqlite3.Connection, row: Mapping[str, object]) -> None:
    """Insert a row of `messages`; the keys are column names and must not come from user input."""
    columns, places = ", ".join(row), ", ".join("?" * len(row))
    sql = f"INSERT INTO messages({columns}) VALUES ({places})"  # noqa: S608 - column names, no values
    connection.execute(sql, tuple(row.values()))


def all_messages(connection: sqlite3.Connection, session_id: int) -> list[Message]:
    """Return the messages of all branches, parents before children."""
    rows = connection.execute("SELECT * FROM messages WHERE session_id = ? ORDER BY id", (session_id,))
    return _with_siblings(connection, rows.fetchall())


def insert_session(connection: sqlite3.Connection, session: Session, messages: Sequence[Message]) -> int:
    """Insert a session whose message ids start at 1; return the id of the session."""
    values = (one_line(session.title), storable_or_none(session.model), storable(session.system))
    cursor = connection.execute(
        "INSERT INTO sessions(title, model, system, settings, created, updated) VALUES (?,?,?,?,?,?)",
        (*values, to_json(dict(session.settings)), session.created, session.updated),
    )
    new = cursor.lastrowid or 0
    first = new << MESSAGE_BITS
    for item in messages:
        row = {
            "id": first + item.id,
            "session_id": new,
            "parent_id": None if item.parent_id is None else first + item.parent_id,
            "role": item.role.value,
            "content": storable(item.content),
            "reasoning": storable(item.reasoning),
            "tool_calls": to_json([dict(call) for call in item.tool_calls]),
            "tool_call_id": storable_or_none(item.tool_call_id),
            "attachments": attachments_json(item.attachments),
            "model": storable_or_none(item.model),
            "usage": to_json(dict(item.usage)),
            "timings": to_json(dict(item.timings)),
            "finish_reason": storable_or_none(item.finish_reason),
            "state": (MessageState.STOPPED if item.state is MessageState.STREAMING else item.state).value,
            "error": storable_or_none(item.error),
            "created": item.created,
        }
        _insert(connection, row)
    if session.head is not None:
        connection.execute("UPDATE sessions SET head = ? WHERE id = ?", (first + session.head, new))
    return new


def automatic_title(connection: sqlite3.Connection, session_id: int) -> str:
    """Return the title derived from a session's first user message; empty if there is none."""
    sql = "SELECT content FROM messages WHERE session_id = ? AND role = ? ORDER BY id LIMIT 1"
    row = connection.execute(sql, (session_id, Role.USER.value)).fetchone()
    return "" if row is None else title_from_message(row[0])


def duplicate(connection: sqlite3.Connection, session_id: int) -> int:
    """Copy a session and its messages; return the id of the copy."""
    now = time.time()
    cursor = connection.execute(
        "INSERT INTO sessions(title, model, system, settings, created, updated) "
        "SELECT CASE title WHEN '' THEN '' ELSE title || ' (copy)' END, model, system, settings, ?, ? "
        "FROM sessions WHERE id = ?",
        (now, now, session_id),
    )
    copy = cursor.lastrowid or 0
    shift = (copy - session_id) << MESSAGE_BITS
    connection.execute(
        f"INSERT INTO messages(id, session_id, parent_id, state, {_COPIED}) "  # noqa: S608 - constants
        "SELECT id + ?, ?, parent_id + ?, CASE state WHEN 'streaming' THEN 'stopped' ELSE state END, "
        f"{_COPIED} FROM messages WHERE session_id = ? ORDER BY id",
        (shift, copy, shift, session_id),
    )
    sql = "UPDATE sessions SET head = (SELECT head + ? FROM sessions WHERE id = ?) WHERE id = ?"
    connection.execute(sql, (shift, session_id, copy))
    return copy


def _with_siblings(connection: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> list[Message]:
    sql = (
        "SELECT count(*), count(CASE WHEN id <= ? THEN 1 END) FROM messages "
        "WHERE session_id = ? AND parent_id IS ?"
    )
    found: list[Message] = []
    for row in rows:
        values = (row["id"], row["session_id"], row["parent_id"])
        count, number = connection.execute(sql, values).fetchone()
        found.append(message_from_row(row, number, count))
    return found
