"""Answers being written: their text is kept in memory and stored every half second.

So a killed process loses less than a second of it, and a delta costs a list's append. What cannot be
stored, as on a full disk, is tried again until it is: the text, and the end of an answer as well.
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
End = Callable[[sqlite3.Connection], object]
_FLUSH_SECONDS = 0.5


class _Stream:
    """Text of one message that is not stored yet."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.end: End | None = None
        """What stores its end, where that was tried and could not be done."""

    @property
    def waits(self) -> bool:
        """Whether there is anything to store."""
        return bool(self.content or self.reasoning or self.end)


class Streams:
    """The messages that this process streams."""

    def __init__(self, database: Database) -> None:
        self.told: Callable[[], None] = lambda: None
        """Called when storing begins to fail, and when it works again."""
        self._error: OpError | None = None
        self._closed = False
        self._database = database
        self._streams: dict[int, _Stream] = {}
        self._flusher: asyncio.Task[None] | None = None

    def __contains__(self, message_id: int) -> bool:
        return message_id in self._streams

    @property
    def write_error(self) -> OpError | None:
        """Why text could not be stored; it is kept in memory and tried again."""
        return self._error

    def _tell(self, error: OpError | None) -> None:
        before, self._error = self._error, error
        if (before and before.message) != (error and error.message):
            self.told()

    def begin(self, message_id: int) -> None:
        """Take text for a message from now on."""
        self._hold(message_id, _Stream())

    def _hold(self, message_id: int, stream: _Stream) -> None:
        self._streams[message_id] = stream
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
        if any(stream.waits for stream in self._streams.values()):
            await self._store(dict(self._streams), lambda connection: None)

    async def finish(self, message_id: int, work: Callable[[sqlite3.Connection], T]) -> T:
        """Store the rest of a message, then run `work` in the same transaction.

        Raises:
            OpError: it cannot be stored. Unless the message is gone, it is tried again until it is stored.
        """
        stream = self._streams.pop(message_id, None) or _Stream()
        stream.end = None
        done = False

        def committed() -> None:
            nonlocal done
            done = True

        try:
            return await self._store({message_id: stream}, work, committed)
        except OpError as error:
            done = error.type is ErrorType.VALIDATION_ERROR  # another try would come to the same
            if not done:
                self._tell(error)
            raise
        finally:
            if not done and not self._closed:
                stream.end = work
                self._hold(message_id, stream)

    async def close(self, work: Callable[[sqlite3.Connection, set[int]], None]) -> None:
        """Store everything, and run `work(connection, ids without an end)` in the same transaction."""
        self._closed = True
        if self._flusher is not None:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
        streams, self._streams = self._streams, {}
        unfinished = {message_id for message_id, stream in streams.items() if stream.end is None}
        await self._store(streams, lambda connection: work(connection, unfinished))

    async def _store(
        self,
        streams: dict[int, _Stream],
        work: Callable[[sqlite3.Connection], T],
        committed: Callable[[], None] = lambda: None,
    ) -> T:
        taken: list[tuple[list[str], int]] = []
        ended: list[tuple[int, _Stream]] = []
        finished: list[tuple[int, _Stream]] = []

        def store(connection: sqlite3.Connection) -> T:
            # On the database's thread: the event loop may append meanwhile, which does no harm.
            for message_id, stream in streams.items():
                for column, parts in (("content", stream.content), ("reasoning", stream.reasoning)):
                    count = len(parts)
                    if count:
                        sql = f"UPDATE messages SET {column} = {column} || ? WHERE id = ? AND state = 'streaming'"  # noqa: S608, E501 - constants
                        connection.execute(sql, (storable("".join(parts[:count])), message_id))
                        taken.append((parts, count))
                if stream.end is not None:
                    with contextlib.suppress(OpError):  # the message is gone, and with it the need
                        stream.end(connection)
                    ended.append((message_id, stream))
            return work(connection)

        def forget() -> None:
            for parts, count in taken:
                del parts[:count]
            finished.extend(ended)
            committed()

        try:
            return await self._database.write(store, committed=forget)
        finally:  # a cancelled call may have stored it all the same
            for message_id, stream in finished:
                if self._streams.get(message_id) is stream:
                    del self._streams[message_id]

    async def _flush_regularly(self) -> None:
        while self._streams:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
            except OpError as error:
                self._tell(error)
            else:
                self._tell(None)
        self._tell(None)  # the last one may have been stored by another call
