"""Buffers the text of streaming messages and stores it every half second.

A killed process loses less than a second of text, and a delta costs only a list append. If storing fails,
for example on a full disk, it is retried until it succeeds, for the text and for the end of a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from mlxk_tui.chats.database import Database
from mlxk_tui.chats.rows import storable
from mlxk_tui.ops.core.errors import ErrorType, OpError

T = TypeVar("T")
Finish = Callable[[sqlite3.Connection], object]
_FLUSH_SECONDS = 0.5


class _Buffer:
    """The text of one message that is not stored yet."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.finish: Finish | None = None
        """Stores the end of the message, if a first attempt failed."""

    @property
    def unsaved(self) -> bool:
        """Whether there is anything to store."""
        return bool(self.content or self.reasoning or self.finish)


class StreamBuffer:
    """The streaming messages of this process."""

    def __init__(self, database: Database) -> None:
        self.on_error_change: Callable[[], None] = lambda: None
        """Called when storing starts to fail, and when it succeeds again."""
        self._error: OpError | None = None
        self._closed = False
        self._database = database
        self._buffers: dict[int, _Buffer] = {}
        self._flusher: asyncio.Task[None] | None = None

    def __contains__(self, message_id: int) -> bool:
        return message_id in self._buffers

    @property
    def write_error(self) -> OpError | None:
        """Why text can't be stored; it is kept in memory and retried."""
        return self._error

    def _set_error(self, error: OpError | None) -> None:
        before, self._error = self._error, error
        if (before and before.message) != (error and error.message):
            self.on_error_change()

    def begin(self, message_id: int) -> None:
        """Start buffering text for a message."""
        self._add(message_id, _Buffer())

    def _add(self, message_id: int, buffer: _Buffer) -> None:
        self._buffers[message_id] = buffer
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_regularly())

    def append(self, message_id: int, content: str, reasoning: str) -> None:
        """Append text to a message.

        Raises:
            OpError: `validation_error` if it isn't streaming in this process.
        """
        buffer = self._buffers.get(message_id)
        if buffer is None:
            raise OpError(ErrorType.VALIDATION_ERROR, "The response is finished and can't be changed.")
        if content:
            buffer.content.append(content)
        if reasoning:
            buffer.reasoning.append(reasoning)

    async def flush(self) -> None:
        """Store all buffered text.

        Raises:
            OpError: it can't be stored; it is kept in memory.
        """
        if any(buffer.unsaved for buffer in self._buffers.values()):
            await self._store(dict(self._buffers), lambda connection: None)

    async def finish(self, message_id: int, work: Callable[[sqlite3.Connection], T]) -> T:
        """Store the rest of a message, then run `work` in the same transaction.

        Raises:
            OpError: it can't be stored. Unless the message no longer exists, this is retried.
        """
        buffer = self._buffers.pop(message_id, None) or _Buffer()
        buffer.finish = None
        done = False

        def committed() -> None:
            nonlocal done
            done = True

        try:
            return await self._store({message_id: buffer}, work, committed)
        except OpError as error:
            done = error.type is ErrorType.VALIDATION_ERROR  # retrying can't help
            if not done:
                self._set_error(error)
            raise
        finally:
            if not done and not self._closed:
                buffer.finish = work
                self._add(message_id, buffer)

    async def close(self, work: Callable[[sqlite3.Connection, set[int]], None]) -> None:
        """Store everything, and run `work(connection, unfinished message ids)` in the same transaction."""
        self._closed = True
        if self._flusher is not None:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
        buffers, self._buffers = self._buffers, {}
        unfinished = {message_id for message_id, buffer in buffers.items() if buffer.finish is None}
        await self._store(buffers, lambda connection: work(connection, unfinished))

    async def _store(
        self,
        buffers: dict[int, _Buffer],
        work: Callable[[sqlite3.Connection], T],
        committed: Callable[[], None] = lambda: None,
    ) -> T:
        stored: list[tuple[list[str], int]] = []
        attempted: list[tuple[int, _Buffer]] = []
        finished: list[tuple[int, _Buffer]] = []

        def store(connection: sqlite3.Connection) -> T:
            # In the database thread: the event loop may append meanwhile, which is safe.
            for message_id, buffer in buffers.items():
                for column, parts in (("content", buffer.content), ("reasoning", buffer.reasoning)):
                    count = len(parts)
                    if count:
                        sql = f"UPDATE messages SET {column} = {column} || ? WHERE id = ? AND state = 'streaming'"  # noqa: S608, E501 - constants
                        connection.execute(sql, (storable("".join(parts[:count])), message_id))
                        stored.append((parts, count))
                if buffer.finish is not None:
                    with contextlib.suppress(OpError):  # the message no longer exists
                        buffer.finish(connection)
                    attempted.append((message_id, buffer))
            return work(connection)

        def discard_stored() -> None:
            for parts, count in stored:
                del parts[:count]
            finished.extend(attempted)
            committed()

        try:
            return await self._database.write(store, committed=discard_stored)
        finally:  # a cancelled call may have stored it nevertheless
            for message_id, buffer in finished:
                if self._buffers.get(message_id) is buffer:
                    del self._buffers[message_id]

    async def _flush_regularly(self) -> None:
        while self._buffers:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
            except OpError as error:
                self._set_error(error)
            else:
                self._set_error(None)
        self._set_error(None)  # another call may have stored the last text
