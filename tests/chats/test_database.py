"""The database file of the chats: versions, damage, full disks and permissions."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlxk_tui.chats.model import MessageState, Role
from mlxk_tui.chats.schema import MESSAGE_BITS, VERSION
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from tests.support.waiting import PATIENCE_S

VERSION_1 = """
CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL DEFAULT '', model TEXT,
    system TEXT NOT NULL DEFAULT '', settings TEXT NOT NULL DEFAULT '{}', created REAL NOT NULL,
    updated REAL NOT NULL, head INTEGER REFERENCES messages(id) ON DELETE SET NULL);
CREATE TABLE messages (id INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
    parent_id INTEGER REFERENCES messages(id) ON DELETE CASCADE, role TEXT NOT NULL,
    content TEXT NOT NULL DEFAULT '', reasoning TEXT NOT NULL DEFAULT '',
    tool_calls TEXT NOT NULL DEFAULT '[]', tool_call_id TEXT, attachments TEXT NOT NULL DEFAULT '[]',
    model TEXT, usage TEXT NOT NULL DEFAULT '{}', timings TEXT NOT NULL DEFAULT '{}', finish_reason TEXT,
    state TEXT NOT NULL DEFAULT 'done', error TEXT, created REAL NOT NULL);
CREATE INDEX messages_by_parent ON messages(session_id, parent_id);
CREATE INDEX messages_children ON messages(parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX sessions_by_head ON sessions(head);
INSERT INTO sessions(id, title, created, updated) VALUES (7, 'old chat', 1000, 2000);
PRAGMA user_version = 1;
"""


def made_by_version_1(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        first = 7 << MESSAGE_BITS
        columns = "id, session_id, parent_id, role, content, state, created"
        sql = f"INSERT INTO messages({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        connection.execute(sql, (first + 1, 7, None, "user", "an old question", "done", 1000))
        connection.execute(sql, (first + 2, 7, first + 1, "assistant", "half", "streaming", 1001))
        connection.execute("UPDATE sessions SET head = ?", (first + 2,))
        connection.commit()


async def test_database_of_version_1_is_migrated(path: Path) -> None:
    made_by_version_1(path)
    async with await ChatStore.open(path) as store:
        (listed,) = await store.list_sessions("question")
        assert (listed.session.title, listed.session.pinned) == ("old chat", False)
        assert listed.session.updated == 2000
        contents = [(one.content, one.state.value) for one in await store.messages(7)]
        assert contents == [("an old question", "done"), ("half", "stopped")]
        await store.add_message(7, Role.USER, "a new one")
        assert len(await store.messages(7)) == 3
    assert version_of(path) == VERSION


async def test_failed_migration_changes_nothing(path: Path) -> None:
    made_by_version_1(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE messages ADD COLUMN owner TEXT")  # in the way of version 2
        connection.commit()
    with pytest.raises(OpError):
        await ChatStore.open(path)
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(sessions)")]
        assert "pinned" not in columns
    assert version_of(path) == 1


async def test_migrated_and_new_databases_have_the_same_tables(path: Path, tmp_path: Path) -> None:
    made_by_version_1(path)
    new = tmp_path / "new.db"
    for each in (path, new):
        async with await ChatStore.open(each):
            pass
    assert columns_of(path) == columns_of(new)


def columns_of(path: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for table in sorted(tables)
        }


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_newer_version_is_rejected_and_unchanged(path: Path) -> None:
    full(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(OpError) as refused:
        asyncio.run(ChatStore.open(path))
    assert refused.value.type is ErrorType.VALIDATION_ERROR
    assert f"version {VERSION + 1}" in refused.value.message
    assert refused.value.remedy is Remedy.UPGRADE
    assert path.read_bytes() == before


async def test_database_of_another_program_is_rejected_and_unchanged(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks(url)")
    with pytest.raises(OpError, match="another program"):
        await ChatStore.open(path)
    assert columns_of(path) == {"bookmarks": ["url"]}


def full(path: Path) -> bytes:
    """Create a store with one chat, and return the file's content."""

    async def fill() -> None:
        async with await ChatStore.open(path) as store:
            session = await store.create_session(title="precious")
            for number in range(200):
                await store.add_message(session.id, Role.USER, f"{number} precious words " * 20)

    asyncio.run(fill())
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "zeroed header", "text"])
def test_damaged_file_is_set_aside_and_replaced(path: Path, damage: str) -> None:
    good = full(path)
    bad = {
        "garbage": os.urandom(50_000),
        "truncated": good[:5_000],
        "zeroed header": bytes(4096) + good[4096:],
        "text": b"hello",
    }[damage]
    path.write_bytes(bad)

    async def use() -> str | None:
        async with await ChatStore.open(path) as store:
            session = await store.create_session(title="new")
            await store.add_message(session.id, Role.USER, "hello")
            return store.notice

    notice = asyncio.run(use())
    (aside,) = path.parent.glob("chats.db.damaged-*[0-9]")
    assert aside.read_bytes() == bad
    assert notice is not None
    assert aside.name in notice
    assert asyncio.run(use()) is None


def test_damaged_files_of_the_same_second_are_all_kept(path: Path) -> None:
    path.parent.mkdir()

    async def use() -> None:
        async with await ChatStore.open(path):
            pass

    for content in (b"one" * 500, b"two" * 500, b"three" * 500):
        path.write_bytes(content)
        asyncio.run(use())
    kept = {aside.read_bytes()[:3] for aside in path.parent.glob("chats.db.damaged-*")}
    assert kept == {b"one", b"two", b"thr"}


def test_damage_found_in_use_is_handled_at_the_next_opening(path: Path) -> None:
    good = full(path)
    page = good.index(b"150 precious") // 4096 * 4096
    path.write_bytes(good[:page] + b"\xff" * 4096 + good[page + 4096 :])

    async def read() -> tuple[list[str], str | None]:
        async with await ChatStore.open(path) as store:
            titles = [listed.session.title for listed in await store.list_sessions()]
            for title in titles:
                assert title == "precious"
                await store.messages(1, limit=None)
            return titles, store.notice

    with pytest.raises(OpError, match="damaged"):
        asyncio.run(read())
    titles, notice = asyncio.run(read())
    assert titles == []
    assert notice is not None
    assert len(list(path.parent.glob("chats.db.damaged-*[0-9]"))) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root has all permissions")
def test_read_only_folder_is_permission_denied(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    with pytest.raises(OpError) as refused:
        asyncio.run(ChatStore.open(path))
    assert refused.value.type is ErrorType.PERMISSION_DENIED


def test_folder_instead_of_the_file_is_permission_denied(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(OpError) as refused:
        asyncio.run(ChatStore.open(path))
    assert refused.value.type is ErrorType.PERMISSION_DENIED


async def fill(store: ChatStore) -> int:
    """Stop the database from growing, as on a full disk; return its number of pages."""
    pages: int = await store._database.read(
        lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone()[0]
    )
    return pages


async def make_room(store: ChatStore, pages: int) -> None:
    """Allow the database to grow again."""
    await store._database.read(
        lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 1000}").fetchone()
    )


async def test_full_disk_keeps_streamed_text_in_memory(path: Path) -> None:
    async with await ChatStore.open(path) as store:
        session = await store.create_session()
        answer = await store.add_message(session.id, Role.ASSISTANT, "", state=MessageState.STREAMING)
        pages = await fill(store)
        store.update_streaming(answer.id, content="long " * 10_000)
        with pytest.raises(OpError) as refused:
            await store.flush()
        assert refused.value.type is ErrorType.DISK_FULL
        with pytest.raises(OpError):
            await store.finish_message(answer.id)
        store.update_streaming(answer.id, content="end")
        await make_room(store, pages)
        assert (await store.finish_message(answer.id)).content == "long " * 10_000 + "end"


@pytest.mark.parametrize("closed", [False, True], ids=["by-itself", "at-the-end"])
async def test_answer_that_ended_on_a_full_disk_is_stored_later(path: Path, closed: bool) -> None:
    told: list[str | None] = []
    changed = asyncio.Event()

    async with await ChatStore.open(path) as store:

        def changes() -> None:
            error = store.write_error
            told.append(error.type.value if error else None)
            changed.set()

        store.on_write_error(changes)
        session = await store.create_session()
        answer = await store.add_message(session.id, Role.ASSISTANT, "", state=MessageState.STREAMING)
        pages = await fill(store)
        store.update_streaming(answer.id, content="long " * 10_000)
        with pytest.raises(OpError) as refused:
            await store.finish_message(
                answer.id, finish_reason="stop", usage={"completion_tokens": 7}, timings={"total_s": 1.5}
            )
        assert refused.value.type is ErrorType.DISK_FULL
        changed.clear()
        assert told == ["disk_full"]
        await make_room(store, pages)
        if not closed:
            # It is retried every half second.
            await asyncio.wait_for(changed.wait(), PATIENCE_S)
            assert told == ["disk_full", None]
    async with await ChatStore.open(path) as store:
        kept = await store.message(answer.id)
    assert kept.content == "long " * 10_000
    assert (kept.state, kept.finish_reason) == (MessageState.DONE, "stop")
    assert (kept.usage, kept.timings) == ({"completion_tokens": 7}, {"total_s": 1.5})


def remove(connection: sqlite3.Connection, session_id: int) -> None:
    """Remove a chat, like another process an hour after its deletion."""
    connection.execute("UPDATE sessions SET head = NULL WHERE id = ?", (session_id,))
    connection.execute("DELETE FROM messages WHERE session_id = ?", (session_id,))
    connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))


async def test_answer_of_a_removed_chat_is_not_retried(path: Path) -> None:
    async with await ChatStore.open(path) as store:
        session = await store.create_session()
        answer = await store.add_message(session.id, Role.ASSISTANT, "", state=MessageState.STREAMING)
        store.update_streaming(answer.id, content="text")
        await store._database.write(lambda connection: remove(connection, session.id))
        with pytest.raises(OpError) as refused:
            await store.finish_message(answer.id)
        assert refused.value.type is ErrorType.VALIDATION_ERROR
        assert store.write_error is None
        with pytest.raises(OpError):
            store.update_streaming(answer.id, content="more")
