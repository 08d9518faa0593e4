"""The tables of the chat database, and the migrations of older versions.

`PRAGMA user_version` is the version of the schema. A message's id is `session << 24 | number within the
session`, so a full-text search gets the session from the row id alone.
"""

from __future__ import annotations

import sqlite3

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

MESSAGE_BITS = 24
"""Bits of a message's id for its number within the session."""
MAX_MESSAGES = 2**MESSAGE_BITS - 1
"""Maximum number of messages in a session."""

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (  # 1: sessions and their messages
        """CREATE TABLE sessions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL DEFAULT '',
            model TEXT,
            system TEXT NOT NULL DEFAULT '',
            settings TEXT NOT NULL DEFAULT '{}',
            created REAL NOT NULL,
            updated REAL NOT NULL,
            head INTEGER REFERENCES messages(id) ON DELETE SET NULL
        )""",
        """CREATE TABLE messages (
            id INTEGER PRIMARY KEY,
            session_id INTEGER NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
            parent_id INTEGER REFERENCES messages(id) ON DELETE CASCADE,
            role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
            content TEXT NOT NULL DEFAULT '',
            reasoning TEXT NOT NULL DEFAULT '',
            tool_calls TEXT NOT NULL DEFAULT '[]',
            tool_call_id TEXT,
            attachments TEXT NOT NULL DEFAULT '[]',
            model TEXT,
            usage TEXT NOT NULL DEFAULT '{}',
            timings TEXT NOT NULL DEFAULT '{}',
            finish_reason TEXT,
            state TEXT NOT NULL DEFAULT 'done' CHECK (state IN ('streaming', 'done', 'stopped', 'failed')),
            error TEXT,
            created REAL NOT NULL
        )""",
        "CREATE INDEX messages_by_parent ON messages(session_id, parent_id)",
        "CREATE INDEX messages_children ON messages(parent_id) WHERE parent_id IS NOT NULL",
        "CREATE INDEX sessions_by_head ON sessions(head)",
    ),
    (  # 2: pinned and deleted sessions, who writes a streaming message, what the search index holds
        "ALTER TABLE sessions ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN deleted REAL",
        "ALTER TABLE messages ADD COLUMN owner TEXT",
        "ALTER TABLE messages ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX sessions_in_order ON sessions(pinned DESC, updated DESC) WHERE deleted IS NULL",
        "CREATE INDEX messages_streaming ON messages(owner) WHERE state = 'streaming'",
        "CREATE INDEX messages_unindexed ON messages(id) WHERE indexed = 0",
    ),
)
VERSION = len(_MIGRATIONS)
"""The current schema version."""

_SEARCH = """CREATE VIRTUAL TABLE IF NOT EXISTS message_search
    USING fts5(content, content='messages', content_rowid='id', tokenize='unicode61 remove_diacritics 2')"""


def migrate(connection: sqlite3.Connection) -> None:
    """Migrate a database to the current version, each step in a transaction.

    Raises:
        OpError: `validation_error` if it has a newer version, or belongs to another program.
        sqlite3.DatabaseError: the file is damaged.
    """
    while _version(connection) < VERSION:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _version(connection)  # another process may have migrated it meanwhile
            for statement in _MIGRATIONS[version] if version < VERSION else ():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {min(version + 1, VERSION)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> int:
    """Return the version of a database, after checking that this program can open it."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"The chat database has version {version}, but this version of mlxk-tui supports versions up to "
            f"{VERSION}. It was not changed.",
            remedy=Remedy.UPGRADE,
        )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version < 0 or (version == 0 and tables):
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            "The chat database belongs to another program. It was not changed.",
            remedy=Remedy.MOVE_FILE_AWAY,
        )
    return version


def create_search_index(connection: sqlite3.Connection) -> bool:
    """Create the full-text index if SQLite has FTS5 (https://sqlite.org/fts5.html); return whether it has.

    The store updates the index itself. Triggers would make every write fail in a Python whose SQLite lacks
    FTS5. `messages.indexed` records which messages are in the index.
    """
    found = connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone()
    if found is None:
        return False
    connection.execute(_SEARCH)
    return True
