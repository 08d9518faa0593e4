"""Finds sessions by words: through the full-text index, else by looking at every message."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from mlxk_tui.chats.model import Listed, SearchMatch
from mlxk_tui.chats.rows import SESSION, session_by_id, session_of
from mlxk_tui.chats.schema import MESSAGE_BITS
from mlxk_tui.ops.core.text import printable

_MAX_QUERY = 200
_MAX_TERMS = 10
_MANY = 10_000
"""Messages that are looked for first, newest first."""
_BEFORE, _WIDTH = 30, 120
_IN_ORDER = "WHERE deleted IS NULL ORDER BY pinned DESC, updated DESC, id DESC"
_WORD = re.compile(r"\w\w")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Scripts without spaces between words, which FTS5's tokenizer takes for one long word."""


@dataclass(frozen=True)
class Query:
    """Words to look for; a message matches that has them all, a title too."""

    terms: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Query | None:
        """Return the query that a user typed, or None where there are no words in it."""
        text = text.encode("utf-8", "replace").decode().replace("\x00", " ")[:_MAX_QUERY]
        terms = tuple(dict.fromkeys(text.casefold().split()))[:_MAX_TERMS]
        return cls(terms) if terms else None

    @property
    def by_words(self) -> bool:
        """Whether the full-text index can answer it: it knows words, not `C++` or parts of 日本語."""
        return all(_WORD.search(term) and not _UNSPACED.search(term) for term in self.terms)

    def in_title(self, title: str) -> bool:
        """Tell whether a title has all the words."""
        title = title.casefold()
        return all(term in title for term in self.terms)

    def match(self, message_id: int, content: str) -> SearchMatch:
        """Return the words around the first match in a message."""
        text, spans = _around(content, self.terms)
        return SearchMatch(message_id, text, spans)


def list_sessions(
    connection: sqlite3.Connection, query: Query | None, *, indexed: bool, limit: int, offset: int
) -> list[Listed]:
    """Return sessions, pinned ones first, then the newest; all of them or those that a query finds."""
    if query is None:
        sql = f"SELECT {SESSION} FROM sessions {_IN_ORDER} LIMIT ? OFFSET ?"  # noqa: S608 - constants
        return [Listed(session_of(row)) for row in connection.execute(sql, (limit, offset))]
    listed: list[Listed] = []
    for session, message in find(connection, query, indexed=indexed, limit=limit, offset=offset):
        match = None
        if message is not None:
            sql = "SELECT content FROM messages WHERE id = ?"
            match = query.match(message, connection.execute(sql, (message,)).fetchone()[0])
        listed.append(Listed(session_by_id(connection, session), match))
    return listed


def find(
    connection: sqlite3.Connection, query: Query, *, indexed: bool, limit: int, offset: int
) -> list[tuple[int, int | None]]:
    """Return ids of sessions, pinned ones first, then the newest, each with its newest message that matched.

    Args:
        connection: the database.
        query: what to look for.
        indexed: the full-text index is there and complete.
        limit: how many sessions at most.
        offset: how many to leave out first.
    """
    source = _Indexed(connection, query) if indexed and query.by_words else _Plain(connection, query)
    newest = source.newest(_MANY)
    hits: dict[int, int] = {}
    for message in newest:
        hits.setdefault(message >> MESSAGE_BITS, message)
    # Of a word that is everywhere only the newest sessions are known now, which is mostly enough.
    known_from = newest[-1] >> MESSAGE_BITS if len(newest) == _MANY else 0
    found: list[tuple[int, int | None]] = []
    for session, title in connection.execute(f"SELECT id, title FROM sessions {_IN_ORDER}"):  # noqa: S608
        if session < known_from:
            for message in source.newest_of_each_session(known_from << MESSAGE_BITS):
                hits.setdefault(message >> MESSAGE_BITS, message)
            known_from = 0
        message_id = hits.get(session)
        if message_id is not None or query.in_title(title):
            found.append((session, message_id))
            if len(found) == offset + limit:
                break
    return found[offset:]


class _Indexed:
    """Messages by the full-text index; a word in the query finds the words that begin with it."""

    def __init__(self, connection: sqlite3.Connection, query: Query) -> None:
        self._connection = connection
        self._match = " AND ".join('"' + term.replace('"', '""') + '"*' for term in query.terms)

    def newest(self, limit: int) -> list[int]:
        sql = "SELECT rowid FROM message_search WHERE message_search MATCH ? ORDER BY rowid DESC LIMIT ?"
        return [row[0] for row in self._connection.execute(sql, (self._match, limit))]

    def newest_of_each_session(self, below: int) -> list[int]:
        sql = (
            "SELECT max(rowid) FROM message_search WHERE message_search MATCH ? AND rowid < ? "  # noqa: S608
            f"GROUP BY rowid >> {MESSAGE_BITS}"
        )
        return [row[0] for row in self._connection.execute(sql, (self._match, below))]


class _Plain:
    """Messages by looking at each; letters beyond ASCII must match in case."""

    def __init__(self, connection: sqlite3.Connection, query: Query) -> None:
        self._connection = connection
        self._where = " AND ".join(["content LIKE ? ESCAPE '\\'"] * len(query.terms))
        self._values = ["%" + re.sub(r"([\\%_])", r"\\\1", term) + "%" for term in query.terms]

    def newest(self, limit: int) -> list[int]:
        sql = f"SELECT id FROM messages WHERE {self._where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - constants
        return [row[0] for row in self._connection.execute(sql, (*self._values, limit))]

    def newest_of_each_session(self, below: int) -> list[int]:
        sql = (
            f"SELECT max(id) FROM messages WHERE {self._where} AND id < ? "  # noqa: S608 - constants
            f"GROUP BY id >> {MESSAGE_BITS}"
        )
        return [row[0] for row in self._connection.execute(sql, (*self._values, below))]


def _around(content: str, terms: tuple[str, ...]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return a line of text around the first of the terms, and where terms stand in it."""
    pattern = re.compile("|".join(re.escape(term) for term in terms), re.IGNORECASE)
    first = pattern.search(content)
    start = max(0, (first.start() if first else 0) - _BEFORE)
    if start:  # begin with a whole word, if one begins soon
        space = content.find(" ", start, start + _BEFORE)
        start = space + 1 if space >= 0 else start
    part = " ".join(content[start : start + 2 * _WIDTH].split())
    cut = len(part) > _WIDTH or start + 2 * _WIDTH < len(content)
    line = ("…" if start else "") + printable(part[:_WIDTH]) + ("…" if cut else "")
    return line, tuple(_spans(pattern, line))


def _spans(pattern: re.Pattern[str], line: str) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(line):
        yield match.span()
