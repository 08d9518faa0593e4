"""Keeps the queue's file: takes it over, follows it while another process has it, and writes it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxk_tui.ops.core.os_errors import reason_of
from mlxk_tui.ops.core.text import printable
from mlxk_tui.transfers.store import Store, Stored

_FOLLOW_SECONDS = 1.0

Take = Callable[[Stored, bool], None]
"""Receives what the file holds and whether this process runs the queue."""


class QueuePersistence:
    """The file of one queue; all blocking work runs in threads.

    Args:
        path: the file.
        take: receives what the file holds, at first and whenever another process changed it.
        document: returns what is to be written.
        trouble: receives why it cannot be written, as a sentence.
    """

    def __init__(
        self,
        path: Path,
        *,
        take: Take,
        document: Callable[[], dict[str, Any]],
        trouble: Callable[[str], None],
    ) -> None:
        self.owner = False
        """Whether this process runs the queue."""
        self._store = Store(path)
        self._take = take
        self._document = document
        self._trouble = trouble
        self._seen = 0
        self._unsaved = False
        self._writing: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Read the file, and follow it where another process runs the queue."""
        try:
            self.owner = await asyncio.to_thread(self._store.claim)
        except OSError as error:  # the queue works all the same, for as long as the program does
            self._unkept(self._store.path.parent, error)
            self.owner = True
        await self._read()
        if not self.owner and not self._closed:
            self._following = asyncio.create_task(self._follow())

    async def _read(self) -> None:
        self._seen = self._stamp()
        stored = await asyncio.to_thread(self._store.read, repair=self.owner)
        if self._closed:
            await asyncio.to_thread(self._store.release)
        else:
            self._take(stored, self.owner)

    async def _follow(self) -> None:
        """Show what the other process does; take over once it has ended."""
        while not self.owner:
            await asyncio.sleep(_FOLLOW_SECONDS)
            with suppress(OSError):
                self.owner = await asyncio.to_thread(self._store.claim)
            if self.owner or self._stamp() != self._seen:
                await self._read()

    def _stamp(self) -> int:
        try:
            return os.stat(self._store.path).st_mtime_ns
        except OSError:
            return 0

    def save(self) -> None:
        """Have the file written soon."""
        self._unsaved = True
        if self.owner and not self._closed and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._unsaved:
            self._unsaved = False
            document = self._document()
            try:
                await asyncio.to_thread(self._store.write, document)
            except OSError as error:
                self._unkept(self._store.path, error)
                return

    def _unkept(self, path: Path, error: OSError) -> None:
        cause = reason_of(error)
        self._trouble(f"Transfers cannot be kept over a restart: {printable(str(path))}: {cause}.")

    async def close(self) -> None:
        """Write the file once more and let another process have the queue."""
        self._closed = True
        if self._following is not None:
            self._following.cancel()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self.owner:
            document = self._document()
            if document["transfers"] or self._stamp():
                with suppress(OSError):  # said when it happened first; there is nobody left to tell
                    await asyncio.to_thread(self._store.write, document)
        await asyncio.to_thread(self._store.release)
