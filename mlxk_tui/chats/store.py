"""Saved chats: sessions, each a tree of messages with one selected branch.

    store = await ChatStore.open(path)
    session = await store.create_session(model="org/model")
    prompt = await store.add_message(session.id, Role.USER, "Hello")
    response = await store.add_message(session.id, Role.ASSISTANT, state=MessageState.STREAMING)
    store.update_streaming(response.id, content="Hi")        # for every delta; doesn't access the disk
    await store.finish_message(response.id, finish_reason="stop")

A regenerated response or an edited prompt is added with `sibling_of=` the old message, which is kept. The
selected branch is the path from the root to the session's head.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mlxk_tui.chats import sessions, tree
from mlxk_tui.chats.database import Database
from mlxk_tui.chats.maintenance import clean_up, purge, stop_message
from mlxk_tui.chats.model import Attachment, Message, MessageState, Role, Session, SessionListItem
from mlxk_tui.chats.rows import (
    attachments_json,
    one_line,
    session_by_id,
    storable,
    storable_or_none,
    to_json,
)
from mlxk_tui.chats.search import Query, list_sessions
from mlxk_tui.chats.search_index import SearchIndex
from mlxk_tui.chats.streams import StreamBuffer
from mlxk_tui.chats.writers import WriterLock
from mlxk_tui.ops.core.errors import OpError


class ChatStore:
    """The chat database of a user; several processes can use it at once. Create it with `open`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._index = SearchIndex(database)
        self._streams = StreamBuffer(database)
        self._writer = WriterLock(database.path)
        self._deleted: set[int] = set()

    @classmethod
    async def open(cls, path: Path, *, full_text: bool = True) -> ChatStore:
        """Open a database file; create it, readable for its owner only, if it doesn't exist.

        Args:
            path: the database file; SQLite and this store create files with the same prefix next to it.
            full_text: whether to use FTS5 if SQLite has it.

        Raises:
            OpError: the file can't be used, or has a newer version; it was not changed.
        """
        database = Database(path)
        await database.open(full_text=full_text)
        store = cls(database)
        try:
            await database.write(store._clean_up)
            store._index.start()
        except BaseException:
            await database.close()
            raise
        return store

    async def __aenter__(self) -> ChatStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def notice(self) -> str | None:
        """A message for the user about the opening, such as a damaged file that was renamed."""
        return self._database.notice

    @property
    def write_error(self) -> OpError | None:
        """Why streamed text can't be stored at the moment; it is kept in memory and retried."""
        return self._streams.write_error

    def on_write_error(self, callback: Callable[[], None]) -> None:
        """Set the function that is called when `write_error` changes."""
        self._streams.on_error_change = callback

    async def close(self) -> None:
        """Store all text in memory and close; messages that are still streaming become stopped.

        Raises:
            OpError: the last text could not be stored; the store is closed nevertheless.
        """
        if self._database.closed:
            return
        await self._index.stop()
        deleted, self._deleted = self._deleted, set()

        def finish(connection: sqlite3.Connection, streaming: set[int]) -> None:
            for message_id in streaming:
                stop_message(connection, self._index, message_id)
            purge(connection, self._index, deleted)

        try:
            await self._streams.close(finish)
        finally:
            await self._database.close()
            self._writer.release()

    # Sessions

    async def create_session(
        self,
        *,
        title: str = "",
        model: str | None = None,
        system: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> Session:
        """Create an empty session; without a title, the first user message provides one."""
        values = (one_line(title), storable_or_none(model), storable(system), to_json(dict(settings or {})))
        return await self._database.write(lambda connection: sessions.create(connection, *values))

    async def session(self, session_id: int) -> Session:
        """Return a session.

        Raises:
            OpError: `validation_error` if it doesn't exist, like every method with an id.
        """
        return await self._database.read(lambda connection: session_by_id(connection, session_id))

    async def list_sessions(
        self, query: str | None = None, *, limit: int = 50, offset: int = 0
    ) -> list[SessionListItem]:
        """Return sessions, pinned ones first, then by date.

        Args:
            query: words, all of which a message or the title must contain; prefixes of words match too.
                None or blank for all sessions.
            limit: maximum number of sessions.
            offset: number of sessions to skip.
        """
        words = Query.parse(query or "")
        indexed = self._index.complete

        return await self._database.read(
            lambda connection: list_sessions(connection, words, indexed=indexed, limit=limit, offset=offset)
        )

    async def change_session(
        self,
        session_id: int,
        *,
        title: str | None = None,
        model: str | None = None,
        system: str | None = None,
        settings: Mapping[str, Any] | None = None,
        pinned: bool | None = None,
    ) -> Session:
        """Update the given fields; a blank title is replaced with that of the first user message."""
        changes: dict[str, object] = {}
        if title is not None:
            changes["title"] = one_line(title)
        if model is not None:
            changes["model"] = storable(model)
        if system is not None:
            changes["system"] = storable(system)
        if settings is not None:
            changes["settings"] = to_json(dict(settings))
        if pinned is not None:
            changes["pinned"] = int(pinned)

        return await self._database.write(lambda connection: sessions.update(connection, session_id, changes))

    async def rename_session(self, session_id: int, title: str) -> Session:
        """Set the title of a session; a blank one is replaced with that of the first user message."""
        return await self.change_session(session_id, title=title)

    async def delete_session(self, session_id: int) -> None:
        """Delete a session; `restore_session` can undo it until the store is closed."""
        await self._database.write(lambda connection: sessions.delete(connection, session_id))
        self._deleted.add(session_id)

    async def restore_session(self, session_id: int) -> Session:
        """Undo `delete_session` and return the session."""
        session = await self._database.write(lambda connection: sessions.restore(connection, session_id))
        self._deleted.discard(session_id)
        return session

    async def duplicate_session(self, session_id: int) -> Session:
        """Copy a session with all its branches."""
        await self.flush()

        def duplicate(connection: sqlite3.Connection) -> Session:
            session_by_id(connection, session_id)
            copy = tree.duplicate(connection, session_id)
            self._index.add_session(connection, copy)
            return session_by_id(connection, copy)

        return await self._database.write(duplicate)

    async def full_session(self, session_id: int) -> tuple[Session, list[Message]]:
        """Return a session with the messages of all branches, parents before children."""
        await self.flush()
        return await self._database.read(
            lambda connection: (
                session_by_id(connection, session_id),
                tree.all_messages(connection, session_id),
            )
        )

    async def import_session(self, session: Session, messages: Sequence[Message]) -> Session:
        """Add a session from an exported chat.

        Args:
            session: the session; its id is ignored.
            messages: its messages, with ids starting at 1, parents before children; `head` and
                `parent_id` refer to these ids.
        """

        def add(connection: sqlite3.Connection) -> Session:
            new = tree.insert_session(connection, session, messages)
            self._index.add_session(connection, new)
            return session_by_id(connection, new)

        return await self._database.write(add)

    # Messages

    async def messages(
        self, session_id: int, *, before: int | None = None, limit: int | None = 50
    ) -> list[Message]:
        """Return the last messages of the selected branch, oldest first.

        Args:
            session_id: the session.
            before: a message of the branch; only messages before it are returned.
            limit: maximum number of messages; None for all.
        """
        await self.flush()

        def window(connection: sqlite3.Connection) -> list[Message]:
            return sessions.branch_messages(connection, session_id, before, limit)

        found = await self._database.read(window)
        if any(
            message.state is MessageState.STREAMING and message.id not in self._streams for message in found
        ):
            await self._database.write(self._clean_up)  # its process may have exited
            found = await self._database.read(window)
        return found

    async def message(self, message_id: int) -> Message:
        """Return one message, with all text streamed so far."""
        await self.flush()
        return await self._database.read(lambda connection: tree.message(connection, message_id))

    async def siblings(self, message_id: int) -> list[Message]:
        """Return a message and its siblings, oldest first."""
        await self.flush()
        return await self._database.read(lambda connection: tree.siblings(connection, message_id))

    async def select_branch(self, message_id: int) -> Session:
        """Select the branch of a message, down to its newest leaf."""
        return await self._database.write(lambda connection: sessions.select_branch(connection, message_id))

    async def add_message(
        self,
        session_id: int,
        role: Role,
        content: str = "",
        *,
        sibling_of: int | None = None,
        reasoning: str = "",
        tool_calls: Sequence[Mapping[str, Any]] = (),
        tool_call_id: str | None = None,
        attachments: Sequence[Attachment] = (),
        model: str | None = None,
        state: MessageState = MessageState.DONE,
    ) -> Message:
        """Add a message after the head, or as a sibling of another one, and make it the head.

        Args:
            session_id: the session.
            role: the author.
            content: the text.
            sibling_of: the message that this one replaces: a regenerated response or an edited prompt. It
                is kept with all its descendants, as another branch.
            reasoning: the reasoning before the text.
            tool_calls: tool calls in OpenAI's format.
            tool_call_id: the id of the call to which the message belongs.
            attachments: attached text files.
            model: the name of the model, for a response.
            state: STREAMING for a response that is about to be generated.
        """
        row: dict[str, object] = {
            "role": role.value,
            "content": storable(content),
            "reasoning": storable(reasoning),
            "tool_calls": to_json(list(tool_calls)),
            "tool_call_id": storable_or_none(tool_call_id),
            "attachments": attachments_json(attachments),
            "model": storable_or_none(model),
            "state": state.value,
        }
        streaming = state is MessageState.STREAMING
        added: list[int] = []

        def add(connection: sqlite3.Connection) -> Message:
            row["owner"] = self._writer.acquire() if streaming else None
            message = tree.add(connection, session_id, row, sibling_of)
            added[:] = [message.id]
            if not streaming:
                self._index.add(connection, message.id)
            return message

        try:
            message = await self._database.write(add)
        except asyncio.CancelledError:
            if streaming and added:  # no text will follow
                await self.finish_message(added[0], state=MessageState.STOPPED)
            raise
        if streaming:
            self._streams.begin(message.id)
        return message

    def update_streaming(self, message_id: int, *, content: str = "", reasoning: str = "") -> None:
        """Append text to a streaming message of this process; it is stored within a second.

        Raises:
            OpError: `validation_error` if the message isn't streaming in this process.
        """
        self._streams.append(message_id, content, reasoning)

    async def finish_message(
        self,
        message_id: int,
        *,
        state: MessageState = MessageState.DONE,
        finish_reason: str | None = None,
        tool_calls: Sequence[Mapping[str, Any]] = (),
        usage: Mapping[str, Any] | None = None,
        timings: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> Message:
        """Store the rest of a streaming message, its final state and its usage.

        Raises:
            OpError: it can't be stored now; this is retried until it succeeds or the store is closed.
        """
        now = time.time()
        values = (
            state.value,
            storable_or_none(finish_reason),
            to_json(list(tool_calls)),
            to_json(dict(usage or {})),
            to_json(dict(timings or {})),
            storable_or_none(error),
            message_id,
        )

        def finish(connection: sqlite3.Connection) -> Message:
            connection.execute(
                "UPDATE messages SET state = ?, finish_reason = ?, tool_calls = ?, usage = ?, timings = ?, "
                "error = ?, owner = NULL WHERE id = ?",
                values,
            )
            self._index.add(connection, message_id)
            message = tree.message(connection, message_id)
            sql = "UPDATE sessions SET updated = ? WHERE id = ?"
            connection.execute(sql, (now, message.session_id))
            return message

        return await self._streams.finish(message_id, finish)

    async def flush(self) -> None:
        """Store all text streamed so far.

        Raises:
            OpError: it can't be stored; it is kept in memory.
        """
        await self._streams.flush()

    def _clean_up(self, connection: sqlite3.Connection) -> None:
        clean_up(connection, self._index, self._writer)
