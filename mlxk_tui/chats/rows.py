"""Conversion between database rows and data classes, and of text for SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from mlxk_tui.chats.model import Attachment, Message, MessageState, Role, Session
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable

SESSION = "id, title, model, system, settings, created, updated, head, pinned"
"""Columns that `session_from_row` needs."""
_TITLE_WIDTH = 60
_MAX_TITLE = 200


def session_by_id(connection: sqlite3.Connection, session_id: int | None) -> Session:
    """Return a session.

    Raises:
        OpError: `validation_error` if it doesn't exist or is deleted.
    """
    sql = f"SELECT {SESSION} FROM sessions WHERE id = ? AND deleted IS NULL"  # noqa: S608 - constants
    row = connection.execute(sql, (session_id,)).fetchone()
    if row is None:
        raise OpError(
            ErrorType.VALIDATION_ERROR, "The chat no longer exists.", remedy=Remedy.CHOOSE_ANOTHER_CHAT
        )
    return session_from_row(row)


def session_from_row(row: sqlite3.Row) -> Session:
    """Convert a row of `sessions`."""
    return Session(
        id=row["id"],
        title=row["title"],
        model=row["model"],
        system=row["system"],
        settings=_mapping(row["settings"]),
        created=row["created"],
        updated=row["updated"],
        head=row["head"],
        pinned=bool(row["pinned"]),
    )


def message_from_row(row: sqlite3.Row, sibling: int = 1, siblings: int = 1) -> Message:
    """Convert a row of `messages`."""
    return Message(
        id=row["id"],
        session_id=row["session_id"],
        parent_id=row["parent_id"],
        role=Role(row["role"]),
        content=row["content"],
        created=row["created"],
        reasoning=row["reasoning"],
        tool_calls=tuple(item for item in _sequence(row["tool_calls"]) if isinstance(item, dict)),
        tool_call_id=row["tool_call_id"],
        attachments=tuple(
            Attachment(str(item.get("name", "")), str(item.get("text", "")))
            for item in _sequence(row["attachments"])
            if isinstance(item, dict)
        ),
        model=row["model"],
        usage=_mapping(row["usage"]),
        timings=_mapping(row["timings"]),
        finish_reason=row["finish_reason"],
        state=MessageState(row["state"]),
        error=row["error"],
        sibling=sibling,
        siblings=siblings,
    )


def storable(text: str) -> str:
    """Return text that SQLite can store: NUL and lone surrogates become U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if 0xD800 <= ord(char) <= 0xDFFF else char for char in text)
    return text


def storable_or_none(text: str | None) -> str | None:
    """Return `storable(text)`, or None for None."""
    return None if text is None else storable(text)


def to_json(value: object) -> str:
    """Serialize a value for a JSON column."""
    return storable(json.dumps(value, ensure_ascii=False))


def attachments_json(attachments: Sequence[Attachment]) -> str:
    """Serialize attachments for their column."""
    return to_json([{"name": item.name, "text": item.text} for item in attachments])


def one_line(text: str) -> str:
    """Return a title from the user on one line, at most 200 characters long."""
    return storable(" ".join(text[: 10 * _MAX_TITLE].split())[:_MAX_TITLE])


def title_from_message(text: str) -> str:
    """Return a title for a first message: its first line with words, shortened at a word boundary."""
    line = next((line for line in text.splitlines() if line.strip(" \t#*>`-")), "")
    line = printable(storable(" ".join(line[:500].split()).lstrip("#*> ")))
    if len(line) <= _TITLE_WIDTH:
        return line
    cut = line[: _TITLE_WIDTH - 1]
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) > _TITLE_WIDTH // 2 else cut).rstrip(" ,.;:") + "…"


def _mapping(text: str) -> Mapping[str, Any]:
    value = _parse(text)
    return value if isinstance(value, dict) else {}


def _sequence(text: str) -> list[Any]:
    value = _parse(text)
    return value if isinstance(value, list) else []


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # the database was edited by other programs
        return None
