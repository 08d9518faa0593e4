"""What all chats share: the engine, the store, and the running answers.

Each is made when it is first needed, because the first frame of the app needs none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mlxk_tui.engine.status import EngineStatus
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.events import Publisher, Unsubscribe

if TYPE_CHECKING:
    from mlxk_tui.chats.store import ChatStore
    from mlxk_tui.engine.client import Engine
    from mlxk_tui.engine.memory import WeightsPolicy
    from mlxk_tui.services.conversation.answer import Answer

_FILE = "chats.db"
_PATIENCE_SECONDS = 3.0
"""How long running answers may take to be stored when the program ends."""


class ChatBackend:
    """Engine, store and answers of one app.

    Args:
        folder: where the chats are stored.
        error_text: returns what is stored of an answer's error, for people.
        idle_unload_s: seconds without a request after which a model is unloaded; 0 never.
        weights: returns how weights are held where there is no GPU.
        engine: an engine to use, which its owner stops.
    """

    def __init__(
        self,
        folder: Path,
        *,
        error_text: Callable[[OpError], str],
        idle_unload_s: float = 0,
        weights: Callable[[], WeightsPolicy] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.answers: dict[int, Answer] = {}
        """The running answers, by the id of their session."""
        self.engine_changed: Publisher[EngineStatus] = Publisher()
        self.answers_changed: Publisher[Answer] = Publisher()
        """An answer started or ended."""
        self.write_error_changed: Publisher[ChatStore] = Publisher()
        """The store failed to write, or can write again; its `write_error` says which."""
        self.unsent: Callable[[], int] = lambda: 0
        """Returns how many drafts of questions there are; set by whoever has them."""
        self.folder = folder
        self._idle_unload_s = idle_unload_s
        self._weights = weights
        self.error_text = error_text
        self._given = engine
        self._engine: Engine | None = None
        self._unsubscribe: Unsubscribe | None = None
        self._store: ChatStore | None = None
        self._opening: asyncio.Task[ChatStore] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def status(self) -> EngineStatus:
        """The status of the engine; asking for it starts nothing."""
        return self._engine.status if self._engine is not None else EngineStatus()

    @property
    def engine(self) -> Engine:
        """The engine, made with the first access."""
        if self._engine is None:
            from mlxk_tui.engine.client import Engine

            self._engine = self._given or Engine(
                idle_unload_s=self._idle_unload_s, weights=self._weights() if self._weights else None
            )
            self._unsubscribe = self._engine.subscribe(self.engine_changed.publish)
        return self._engine

    @property
    def opened(self) -> ChatStore | None:
        """The store, where it is open."""
        return self._store

    async def store(self) -> ChatStore:
        """Return the store, opened with the first call.

        Raises:
            OpError: the chats cannot be opened; the next call tries again.
        """
        if self._store is not None:
            return self._store
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        try:
            self._store = await asyncio.shield(self._opening)
        finally:
            if self._opening.done():
                self._opening = None
        return self._store

    @property
    def has_chats(self) -> bool:
        """Whether there may be chats; asking for it neither opens nor creates anything."""
        return self._store is not None or os.path.exists(self.folder / _FILE)

    async def _open(self) -> ChatStore:
        # When it is first needed, and on a thread: the palette opens it while somebody types.
        await asyncio.to_thread(import_module, "mlxk_tui.chats.store")
        from mlxk_tui.chats.store import ChatStore

        store = await ChatStore.open(self.folder / _FILE)
        store.on_write_error(lambda: None if self._closed else self.write_error_changed.publish(store))
        return store

    def start(self, answer: Answer) -> None:
        """Run an answer to its end, whichever chat is open meanwhile."""
        self.answers[answer.session.id] = answer
        task = asyncio.create_task(self._run(answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, answer: Answer) -> None:
        self.answers_changed.publish(answer)
        try:
            await answer.run()
        finally:
            if self.answers.get(answer.session.id) is answer:
                del self.answers[answer.session.id]
            if not self._closed:
                self.answers_changed.publish(answer)

    async def close(self) -> None:
        """Stop the running answers, store them, and end the engine."""
        self._closed = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        for answer in list(self.answers.values()):
            answer.stop()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_PATIENCE_SECONDS)
        if self._engine is not None and self._given is None:
            await self._engine.stop()
        if self._tasks:  # those that only the end of the engine could end
            await asyncio.wait(set(self._tasks), timeout=_PATIENCE_SECONDS)
        if self._opening is not None:
            with contextlib.suppress(OpError):
                self._store = await self._opening
        if self._store is not None:
            with contextlib.suppress(OpError):  # shown while it ran
                await self._store.close()
