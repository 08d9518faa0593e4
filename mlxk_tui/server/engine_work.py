"""Engine calls without a token stream: tokenizing, embeddings. Each counts as a generation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from mlxk_tui.engine.generation import GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.server.calls import Call
from mlxk_tui.server.generation import prompt_text
from mlxk_tui.server.request_log import RequestState

T = TypeVar("T")


class EngineWork(Generic[T]):
    """One engine call, counted and cancelled with the generations of a `Generator`.

    Args:
        call: the request.
        model: the model that the call uses.
        prompt: the text for the request log, if it keeps prompts.
    """

    def __init__(self, call: Call, model: RunnableModel, prompt: str) -> None:
        self._call = call
        self._model = model
        self._prompt = prompt
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel the call; `run` then raises `cancelled`."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` and return its result.

        Raises:
            ApiError: 429 if the queue is full.
            OpError: the errors of `work`; `cancelled` after `cancel`.
        """
        service, entry = self._call.service, self._call.entry
        try:
            service.generator.admit(self, 1)
        except BaseException:
            work.close()
            raise
        try:
            entry.model = self._model.name
            if service.generator.log_prompts:
                entry.prompt = self._prompt
            service.log.set_state(entry, RequestState.READING)
            self._task = asyncio.create_task(work)
            return await self._task
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            raise OpError(
                ErrorType.CANCELLED, "The server cancelled the request.", remedy=Remedy.TRY_LATER
            ) from None
        finally:
            service.generator.release(self, 1)


async def count_prompt(call: Call, model: RunnableModel, generation: GenerationRequest) -> int:
    """Return the number of prompt tokens of a conversation, chat template and tools included.

    Raises:
        ApiError: 429 if the queue is full.
        OpError: the errors of `Engine.count_tokens`.
    """
    counting = call.service.engine.count_tokens(
        model,
        generation.messages or (),
        tools=generation.tools,
        template_kwargs=generation.template_kwargs,
    )
    tokens = await EngineWork[int](call, model, prompt_text(generation)).run(counting)
    call.entry.prompt_tokens = tokens
    return tokens
