"""Answers being written: their text is kept in memory and stored every half second.

So a killed process loses less than a second of it, and a delta costs a list's append.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from mlxk_tui.chats.database import Database
from mlxk_tui.chats.rows import storable
from mlxk_tui.ops.errors import ErrorType, OpError

T = TypeVar("T")
_FLUSH_SECONDS = 0.5


class _Stream:
    """Text of one message that is not stored yet."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []


class Streams:
    """The messages that this process streams."""

    def __init__(self, database: Database) -> None:
        self.write_error: OpError | None = None
        """Why text could not be stored; it is kept in memory and tried again."""
        self._database = database
        self._streams: dict[int, _Stream] = {}
        self._flusher: asyncio.Task[None] | None = None

    def __contains__(self, message_id: int) -> bool:
        return message_id in self._streams

    def begin(self, message_id: int) -> None:
        """Take text for a message from now on."""
        self._streams[message_id] = _Stream()
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_regularly())

    def append(self, message_id: int, content: str, reasoning: str) -> None:
        """Add text to a message.

        Raises:
            OpError: `validation_error` where it is not streaming here.
        """
        stream = self._streams.get(message_id)
        if stream is None:
            raise OpError(ErrorType.VALIDATION_ERROR, "The answer is finished; nothing can be added to it.")
        if content:
            stream.content.append(content)
        if reasoning:
            stream.reasoning.append(reasoning)

    async def flush(self) -> None:
        """Store what there is.

        Raises:
            OpError: it cannot be stored; it stays in memory.
        """
        if any(stream.content or stream.reasoning for stream in self._streams.values()):
            await self._store(dict(self._streams), lambda connection: None)

    async def finish(self, message_id: int, work: Callable[[sqlite3.Connection], T]) -> T:
        """Store the rest of a message, then run `work` in the same transaction."""
        stream = self._streams.pop(message_id, None)
        stored = False

        def committed() -> None:
            nonlocal stored
            stored = True

        try:
            return await self._store({message_id: stream} if stream else {}, work, committed)
        finally:
            if stream is not None and not stored:
                self._streams[message_id] = stream  # not lost: it can be finished again

    async def close(self, work: Callable[[sqlite3.Connection, set[int]], None]) -> None:
        """Store everything, and run `work(connection, ids of the messages)` in the same transaction."""
        if self._flusher is not None:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
        streams, self._streams = self._streams, {}
        await self._store(streams, lambda connection: work(connection, set(streams)))

    async def _store(
        self,
        streams: dict[int, _Stream],
        work: Callable[[sqlite3.Connection], T],
        committed: Callable[[], None] = lambda: None,
    ) -> T:
        taken: list[tuple[list[str], int]] = []

        def store(connection: sqlite3.Connection) -> T:
            # On the database's thread: the event loop may append meanwhile, which does no harm.
            for message_id, stream in streams.items():
                for column, parts in (("content", stream.content), ("reasoning", stream.reasoning)):
                    count = len(parts)
                    if count:
                        sql = f"UPDATE messages SET {column} = {column} || ? WHERE id = ? AND state = 'streaming'"  # noqa: S608, E501 - constants
                        connection.execute(sql, (storable("".join(parts[:count])), message_id))
                        taken.append((parts, count))
            return work(connection)

        def forget() -> None:
            for parts, count in taken:
                del parts[:count]
            committed()

        return await self._database.write(store, committed=forget)

    async def _flush_regularly(self) -> None:
        while self._streams:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
                self.write_error = None
            except OpError as error:
                self.write_error = error
