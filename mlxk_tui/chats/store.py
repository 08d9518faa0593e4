"""The kept chats: sessions, each a tree of messages of which one path is shown.

    store = await ChatStore.open(path)
    session = await store.create_session(model="org/model")
    question = await store.add_message(session.id, Role.USER, "Hello")
    answer = await store.add_message(session.id, Role.ASSISTANT, state=State.STREAMING)
    store.update_streaming(answer.id, content="Hi")          # for every delta; costs nothing
    await store.finish_message(answer.id, finish_reason="stop")

A regenerated answer and an edited question are added with `sibling_of=` the old one, which stays: the
path shown is the one from the root to the session's head.
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
from mlxk_tui.chats.index import Index
from mlxk_tui.chats.model import Attachment, Listed, Message, MessageState, Role, Session
from mlxk_tui.chats.owners import Owner
from mlxk_tui.chats.rows import (
    attachments_json,
    one_line,
    session_by_id,
    storable,
    storable_or_none,
    to_json,
)
from mlxk_tui.chats.search import Query, list_sessions
from mlxk_tui.chats.streams import Streams
from mlxk_tui.chats.upkeep import purge, put_in_order, stop_message
from mlxk_tui.ops.core.errors import OpError


class ChatStore:
    """The chats of one user; several processes may have them open. Made by `open`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._index = Index(database)
        self._streams = Streams(database)
        self._owner = Owner(database.path)
        self._deleted: set[int] = set()

    @classmethod
    async def open(cls, path: Path, *, full_text: bool = True) -> ChatStore:
        """Open the chats in a file, which is made (for its owner alone) where there is none.

        Args:
            path: the database file; SQLite and this store put files of similar names beside it.
            full_text: use FTS5 where SQLite has it.

        Raises:
            OpError: the file cannot be used, or was written by a newer version; nothing was changed.
        """
        database = Database(path)
        await database.open(full_text=full_text)
        store = cls(database)
        try:
            await database.write(store._put_in_order)
            store._index.begin()
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
        """A sentence for the user about the opening, such as a damaged file that was put aside."""
        return self._database.notice

    @property
    def write_error(self) -> OpError | None:
        """Why streamed text cannot be stored now; it is kept in memory and tried again."""
        return self._streams.write_error

    def on_write_error(self, told: Callable[[], None]) -> None:
        """Call `told` whenever `write_error` has changed."""
        self._streams.told = told

    async def close(self) -> None:
        """Store what is in memory and close; answers still streaming become stopped ones.

        Raises:
            OpError: the last text could not be stored; the store is closed all the same.
        """
        if self._database.closed:
            return
        await self._index.stop()
        gone, self._deleted = self._deleted, set()

        def last(connection: sqlite3.Connection, streaming: set[int]) -> None:
            for message_id in streaming:
                stop_message(connection, self._index, message_id)
            purge(connection, self._index, gone)

        try:
            await self._streams.close(last)
        finally:
            await self._database.close()
            self._owner.leave()

    # Sessions

    async def create_session(
        self,
        *,
        title: str = "",
        model: str | None = None,
        system: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> Session:
        """Make an empty session; without a title it takes one from the first user message."""
        values = (one_line(title), storable_or_none(model), storable(system), to_json(dict(settings or {})))
        return await self._database.write(lambda connection: sessions.create(connection, *values))

    async def session(self, session_id: int) -> Session:
        """Return a session.

        Raises:
            OpError: `validation_error` where it is not there any more, as for every method with an id.
        """
        return await self._database.read(lambda connection: session_by_id(connection, session_id))

    async def list_sessions(
        self, query: str | None = None, *, limit: int = 50, offset: int = 0
    ) -> list[Listed]:
        """Return sessions, pinned ones first, then the newest.

        Args:
            query: words that a message or the title must hold, all of them; the beginning of a word
                is enough. None or blank for every session.
            limit: how many at most.
            offset: how many to leave out first.
        """
        words = Query.of(query or "")
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
        """Change what is given; a blank title brings back the one of the first user message."""
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

        return await self._database.write(lambda connection: sessions.change(connection, session_id, changes))

    async def rename_session(self, session_id: int, title: str) -> Session:
        """Give a session a title; a blank one brings back that of the first user message."""
        return await self.change_session(session_id, title=title)

    async def delete_session(self, session_id: int) -> None:
        """Take a session out of the list; `restore_session` brings it back until the store is closed."""
        await self._database.write(lambda connection: sessions.delete(connection, session_id))
        self._deleted.add(session_id)

    async def restore_session(self, session_id: int) -> Session:
        """Undo `delete_session`."""
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

    async def whole_session(self, session_id: int) -> tuple[Session, list[Message]]:
        """Return a session with the messages of all its branches, parents before children."""
        await self.flush()
        return await self._database.read(
            lambda connection: (session_by_id(connection, session_id), tree.all_of(connection, session_id))
        )

    async def import_session(self, session: Session, messages: Sequence[Message]) -> Session:
        """Add a session from elsewhere.

        Args:
            session: the session; its id counts for nothing.
            messages: its messages with ids from 1 on, parents before children; `head` and `parent_id`
                are such ids.
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
        """Return the last messages of the shown conversation, oldest first.

        Args:
            session_id: the session.
            before: a message of the conversation; only those above it are returned.
            limit: how many at most; fewer than that come back at the top. None for all.
        """
        await self.flush()

        def window(connection: sqlite3.Connection) -> list[Message]:
            return sessions.shown(connection, session_id, before, limit)

        found = await self._database.read(window)
        if any(
            message.state is MessageState.STREAMING and message.id not in self._streams for message in found
        ):
            await self._database.write(self._put_in_order)  # its process may be gone
            found = await self._database.read(window)
        return found

    async def message(self, message_id: int) -> Message:
        """Return one message as it is now."""
        await self.flush()
        return await self._database.read(lambda connection: tree.message(connection, message_id))

    async def siblings(self, message_id: int) -> list[Message]:
        """Return the message and those with the same parent, oldest first."""
        await self.flush()
        return await self._database.read(lambda connection: tree.siblings(connection, message_id))

    async def select_branch(self, message_id: int) -> Session:
        """Show the branch that goes through a message, down to its newest message."""
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
        """Add a message below the head, or beside another one, and make it the head.

        Args:
            session_id: the session.
            role: who says it.
            content: what it says.
            sibling_of: the message that this one stands for: an answer generated again, or a question
                edited. That one and all below it stay, as another branch.
            reasoning: what was thought before.
            tool_calls: calls in OpenAI's shape.
            tool_call_id: the call that is answered.
            attachments: text files that go with it.
            model: who answers.
            state: STREAMING for an answer that is about to be generated.
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
            row["owner"] = self._owner.name() if streaming else None
            message = tree.add(connection, session_id, row, sibling_of)
            added[:] = [message.id]
            if not streaming:
                self._index.add(connection, message.id)
            return message

        try:
            message = await self._database.write(add)
        except asyncio.CancelledError:
            if streaming and added:  # nobody will write it
                await self.finish_message(added[0], state=MessageState.STOPPED)
            raise
        if streaming:
            self._streams.begin(message.id)
        return message

    def update_streaming(self, message_id: int, *, content: str = "", reasoning: str = "") -> None:
        """Append to a message that this process streams; it is stored within a second.

        Raises:
            OpError: `validation_error` where the message is not streaming here.
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
        """Store the rest of a streamed message and what is known at its end.

        Raises:
            OpError: it cannot be stored now; it is as soon as that works, or when the store is closed.
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
        """Store what was streamed so far.

        Raises:
            OpError: it cannot be stored; it stays in memory.
        """
        await self._streams.flush()

    def _put_in_order(self, connection: sqlite3.Connection) -> None:
        put_in_order(connection, self._index, self._owner)
