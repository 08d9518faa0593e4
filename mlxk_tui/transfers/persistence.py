"""Loads and saves the queue's file, and watches it while another process runs the queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.text import printable
from mlxk_tui.transfers.queue_file import QueueFile, StoredQueue

_POLL_SECONDS = 1.0

OnLoad = Callable[[StoredQueue, bool], None]
"""Receives the stored queue and whether this process runs it."""


class QueuePersistence:
    """Persistence of one queue; file access runs in threads.

    Args:
        path: the JSON file.
        on_load: called after the first read, and whenever another process has changed the file.
        document: returns the JSON document to write.
        on_error: called with a message if the file can't be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        on_load: OnLoad,
        document: Callable[[], dict[str, Any]],
        on_error: Callable[[str], None],
    ) -> None:
        self.owner = False
        """Whether this process runs the queue."""
        self._file = QueueFile(path)
        self._on_load = on_load
        self._document = document
        self._on_error = on_error
        self._read_mtime = 0
        self._unsaved = False
        self._write_task: asyncio.Task[None] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Read the file, and watch it if another process runs the queue."""
        try:
            self.owner = await asyncio.to_thread(self._file.claim)
        except OSError as error:  # the queue works without a file until the program exits
            self._report(self._file.path.parent, error)
            self.owner = True
        await self._read()
        if not self.owner and not self._closed:
            self._watch_task = asyncio.create_task(self._watch())

    async def _read(self) -> None:
        self._read_mtime = self._mtime()
        stored = await asyncio.to_thread(self._file.read, repair=self.owner)
        if self._closed:
            await asyncio.to_thread(self._file.release)
        else:
            self._on_load(stored, self.owner)

    async def _watch(self) -> None:
        """Reload the file when the other process changes it; take over once that has exited."""
        while not self.owner:
            await asyncio.sleep(_POLL_SECONDS)
            with suppress(OSError):
                self.owner = await asyncio.to_thread(self._file.claim)
            if self.owner or self._mtime() != self._read_mtime:
                await self._read()

    def _mtime(self) -> int:
        try:
            return os.stat(self._file.path).st_mtime_ns
        except OSError:
            return 0

    def save(self) -> None:
        """Schedule a write of the file."""
        self._unsaved = True
        if self.owner and not self._closed and (self._write_task is None or self._write_task.done()):
            self._write_task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._unsaved:
            self._unsaved = False
            document = self._document()
            try:
                await asyncio.to_thread(self._file.write, document)
            except OSError as error:
                self._report(self._file.path, error)
                return

    def _report(self, path: Path, error: OSError) -> None:
        cause = error_reason(error)
        self._on_error(f"Transfers can't be saved and will be lost on exit: {printable(str(path))}: {cause}.")

    async def close(self) -> None:
        """Write the file a last time and release the lock."""
        self._closed = True
        if self._watch_task is not None:
            self._watch_task.cancel()
        if self._write_task is not None:
            await asyncio.wait([self._write_task])
        if self.owner:
            document = self._document()
            if document["transfers"] or self._mtime():
                with suppress(OSError):  # an earlier write has reported it
                    await asyncio.to_thread(self._file.write, document)
        await asyncio.to_thread(self._file.release)
