"""Search for sessions by words, with the full-text index or by scanning all messages."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from mlxk_tui.chats.model import SearchMatch, SessionListItem
from mlxk_tui.chats.rows import SESSION, session_by_id, session_from_row
from mlxk_tui.chats.schema import MESSAGE_BITS
from mlxk_tui.ops.core.text import printable

_MAX_QUERY = 200
_MAX_TERMS = 10
_FIRST_BATCH = 10_000
"""Number of newest matching messages that are fetched first."""
_BEFORE, _WIDTH = 30, 120
_LIST_ORDER = "WHERE deleted IS NULL ORDER BY pinned DESC, updated DESC, id DESC"
_WORD = re.compile(r"\w\w")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Scripts without spaces between words; FTS5's tokenizer treats such text as one word."""


@dataclass(frozen=True)
class Query:
    """The words of a search; a message or title matches if it contains all of them."""

    terms: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Query | None:
        """Return the query for a user's input, or None if it is blank."""
        text = text.encode("utf-8", "replace").decode().replace("\x00", " ")[:_MAX_QUERY]
        terms = tuple(dict.fromkeys(text.casefold().split()))[:_MAX_TERMS]
        return cls(terms) if terms else None

    @property
    def indexable(self) -> bool:
        """Whether the full-text index can be used: it contains words, not `C++` or parts of 日本語."""
        return all(_WORD.search(term) and not _UNSPACED.search(term) for term in self.terms)

    def matches_title(self, title: str) -> bool:
        """Return whether a title contains all words."""
        title = title.casefold()
        return all(term in title for term in self.terms)

    def match(self, message_id: int, content: str) -> SearchMatch:
        """Return an excerpt around the first match in a message."""
        text, spans = _excerpt(content, self.terms)
        return SearchMatch(message_id, text, spans)


def list_sessions(
    connection: sqlite3.Connection, query: Query | None, *, indexed: bool, limit: int, offset: int
) -> list[SessionListItem]:
    """Return sessions, pinned ones first, then by date; all of them, or those that match a query."""
    if query is None:
        sql = f"SELECT {SESSION} FROM sessions {_LIST_ORDER} LIMIT ? OFFSET ?"  # noqa: S608 - constants
        return [SessionListItem(session_from_row(row)) for row in connection.execute(sql, (limit, offset))]
    items: list[SessionListItem] = []
    for session, message in find_sessions(connection, query, indexed=indexed, limit=limit, offset=offset):
        match = None
        if message is not None:
            sql = "SELECT content FROM messages WHERE id = ?"
            match = query.match(message, connection.execute(sql, (message,)).fetchone()[0])
        items.append(SessionListItem(session_by_id(connection, session), match))
    return items


def find_sessions(
    connection: sqlite3.Connection, query: Query, *, indexed: bool, limit: int, offset: int
) -> list[tuple[int, int | None]]:
    """Return matching sessions, pinned ones first, then by date, with the id of their newest match.

    Args:
        connection: the database.
        query: the query.
        indexed: whether the full-text index exists and is complete.
        limit: maximum number of sessions.
        offset: number of sessions to skip.
    """
    use_index = indexed and query.indexable
    source = _IndexSearch(connection, query) if use_index else _ScanSearch(connection, query)
    newest = source.newest(_FIRST_BATCH)
    hits: dict[int, int] = {}
    for message in newest:
        hits.setdefault(message >> MESSAGE_BITS, message)
    # For a frequent word the first batch covers only the newest sessions, which is usually enough.
    covered_from = newest[-1] >> MESSAGE_BITS if len(newest) == _FIRST_BATCH else 0
    found: list[tuple[int, int | None]] = []
    for session, title in connection.execute(f"SELECT id, title FROM sessions {_LIST_ORDER}"):  # noqa: S608 - constants
        if session < covered_from:
            for message in source.newest_of_each_session(covered_from << MESSAGE_BITS):
                hits.setdefault(message >> MESSAGE_BITS, message)
            covered_from = 0
        message_id = hits.get(session)
        if message_id is not None or query.matches_title(title):
            found.append((session, message_id))
            if len(found) == offset + limit:
                break
    return found[offset:]


class _IndexSearch:
    """Finds messages with the full-text index; a term matches words that start with it."""

    def __init__(self, connection: sqlite3.Connection, query: Query) -> None:
        self._connection = connection
        self._match = " AND ".join('"' + term.replace('"', '""') + '"*' for term in query.terms)

    def newest(self, limit: int) -> list[int]:
        sql = "SELECT rowid FROM message_search WHERE message_search MATCH ? ORDER BY rowid DESC LIMIT ?"
        return [row[0] for row in self._connection.execute(sql, (self._match, limit))]

    def newest_of_each_session(self, below: int) -> list[int]:
        sql = (
            "SELECT max(rowid) FROM message_search WHERE message_search MATCH ? AND rowid < ? "  # noqa: S608 - constants
            f"GROUP BY rowid >> {MESSAGE_BITS}"
        )
        return [row[0] for row in self._connection.execute(sql, (self._match, below))]


class _ScanSearch:
    """Finds messages with LIKE, which is case-sensitive for non-ASCII letters."""

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


def _excerpt(content: str, terms: tuple[str, ...]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return a line of text around the first match, and the positions of all matches in it."""
    pattern = re.compile("|".join(re.escape(term) for term in terms), re.IGNORECASE)
    first = pattern.search(content)
    start = max(0, (first.start() if first else 0) - _BEFORE)
    if start:  # start at a word boundary, if there is one nearby
        space = content.find(" ", start, start + _BEFORE)
        start = space + 1 if space >= 0 else start
    part = " ".join(content[start : start + 2 * _WIDTH].split())
    cut = len(part) > _WIDTH or start + 2 * _WIDTH < len(content)
    line = ("…" if start else "") + printable(part[:_WIDTH]) + ("…" if cut else "")
    return line, tuple(_spans(pattern, line))


def _spans(pattern: re.Pattern[str], line: str) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(line):
        yield match.span()
