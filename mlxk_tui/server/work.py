"""Work of the engine that is no stream: it counts as a generation, and ends with them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from mlxk_tui.engine.generation import Generation
from mlxk_tui.engine.models import Runnable
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.server.calls import Call
from mlxk_tui.server.generation import text_of
from mlxk_tui.server.request_log import RequestState

T = TypeVar("T")


class EngineWork(Generic[T]):
    """One request among those that generate.

    Args:
        call: the request.
        model: what works on it.
        prompt: what is asked, for a log that holds prompts.
    """

    def __init__(self, call: Call, model: Runnable, prompt: str) -> None:
        self._call = call
        self._model = model
        self._prompt = prompt
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End it from outside."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the engine makes of it.

        Raises:
            ApiError: 429: too many others are there.
            OpError: those of `work`; `cancelled` by `cancel`.
        """
        service, entry = self._call.service, self._call.entry
        try:
            service.generator.enter(self, 1)
        except BaseException:
            work.close()
            raise
        try:
            entry.model = self._model.name
            if service.generator.log_prompts:
                entry.prompt = self._prompt
            service.log.move(entry, RequestState.READING)
            self._task = asyncio.create_task(work)
            return await self._task
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            raise OpError(
                ErrorType.CANCELLED, "The server stopped the request.", remedy=Remedy.TRY_LATER
            ) from None
        finally:
            service.generator.leave(self, 1)


async def count_prompt(call: Call, model: Runnable, generation: Generation) -> int:
    """Return how many tokens a conversation is as the model reads it, its tools included.

    Raises:
        ApiError: 429: too many others are there.
        OpError: those of `Engine.count_tokens`.
    """
    counting = call.service.engine.count_tokens(
        model,
        generation.messages or (),
        tools=generation.tools,
        template_kwargs=generation.template_kwargs,
    )
    tokens = await EngineWork[int](call, model, text_of(generation)).run(counting)
    call.entry.prompt_tokens = tokens
    return tokens
