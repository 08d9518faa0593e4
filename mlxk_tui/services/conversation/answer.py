"""One answer while it is generated: follows the engine's events and stores the text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from mlxk_tui.chats.model import Message, MessageState, Session
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Delta, Event, FinishReason, LoadProgress, PrefillProgress, Started
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.engine.stream import GenerationStream
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import format_size
from mlxk_tui.services.conversation.generation import GenerationResult
from mlxk_tui.services.conversation.request import request_of

_STAGES = {
    "start": "Starting the engine",
    "import": "Starting the engine",
    "weights": "Loading the model",
    "tokenizer": "Loading the tokenizer",
    "warm-up": "Warming up",
    "batching": "Checking batching",
}


class Stage(Enum):
    """How far an answer is."""

    WAITING = "waiting"
    LOADING = "loading"
    PREFILL = "prefill"
    GENERATING = "generating"
    ENDED = "ended"


@dataclass(frozen=True)
class AnswerProgress:
    """How far an answer is that is being generated."""

    activity: str = ""
    """What happens while there is no text yet: `Processing prompt`."""
    thinking: bool = False
    """Whether the model is reasoning now."""
    reasoning_s: float = 0.0
    """Seconds spent on reasoning so far."""
    reasoning_tokens: int = 0
    tokens: int = 0
    tokens_per_s: float = 0.0


class Answer:
    """One generation of a chat, with its result so far.

    Args:
        session: the chat.
        message: the message that the answer is stored in.
        model: the model that answers.
        engine: runs the model.
        store: where the message is stored.
        error_text: returns what is stored of an error, for people.
        draft: the draft model.
    """

    def __init__(
        self,
        session: Session,
        message: Message,
        model: RunnableModel,
        engine: Engine,
        store: ChatStore,
        error_text: Callable[[OpError], str],
        draft: RunnableModel | None = None,
    ) -> None:
        self.session = session
        self.message = message
        """The stored message; the finished one once the answer has ended."""
        self.model = model
        self.stage = Stage.WAITING
        self.error: OpError | None = None
        """Why it failed."""
        self.store_error: OpError | None = None
        """Why its end could not be stored at once; the store goes on trying."""
        self.context_length = model.context_length or 0
        """Tokens; 0 where the model names none."""
        self._error_text = error_text
        self._draft = draft
        self._engine = engine
        self._store = store
        self._stream: GenerationStream | None = None
        self._cancelled = False
        self._result = GenerationResult()
        self._returned = (0, 0)
        self._loading: LoadProgress | None = None
        self._prefill: PrefillProgress | None = None
        self._reasoning_began = self._reasoning_ended = 0.0
        self._reasoning_tokens = 0
        self._first_at = self._last_at = 0.0
        self._first_tokens = 0

    @property
    def content(self) -> str:
        """All text so far."""
        return self._result.text

    @property
    def reasoning(self) -> str:
        """All reasoning so far."""
        return self._result.reasoning

    @property
    def tokens(self) -> int:
        """Tokens generated so far."""
        return self._result.tokens

    @property
    def used(self) -> int:
        """Tokens of the context that prompt and answer take."""
        return self._result.prompt_tokens + self._result.tokens

    def new_text(self) -> tuple[str, str]:
        """Return content and reasoning since the last call; there is one caller, which draws them."""
        text, reasoning = self._result.text_parts, self._result.reasoning_parts
        text_from, reasoning_from = self._returned
        self._returned = (len(text), len(reasoning))
        return "".join(text[text_from:]), "".join(reasoning[reasoning_from:])

    def all_text(self) -> tuple[str, str]:
        """Return content and reasoning from the beginning; `new_text` goes on from there."""
        self._returned = (0, 0)
        return self.new_text()

    def progress(self) -> AnswerProgress:
        """Return how far it is."""
        thinking = bool(self._reasoning_began) and not self._reasoning_ended
        seconds = (self._reasoning_ended or time.monotonic()) - self._reasoning_began
        spent = self._last_at - self._first_at
        speed = (self.tokens - self._first_tokens) / spent if spent > 0.2 else 0.0
        return AnswerProgress(
            activity=self._activity(),
            thinking=thinking,
            reasoning_s=seconds if self._reasoning_began else 0.0,
            reasoning_tokens=self._reasoning_tokens,
            tokens=self.tokens,
            tokens_per_s=speed,
        )

    def _activity(self) -> str:
        if self.stage is Stage.WAITING:
            return "Waiting for the engine"
        if self.stage is Stage.LOADING and self._loading is not None:
            text = _STAGES.get(self._loading.stage, "Loading the model")
            if self._loading.total:
                share = self._loading.done / self._loading.total
                done, total = format_size(self._loading.done), format_size(self._loading.total)
                text += f" {share:.0%} · {done} of {total}"
            return text
        if self.stage is Stage.PREFILL:
            if self._prefill is not None and self._prefill.total:
                return f"Processing prompt {self._prefill.done / self._prefill.total:.0%}"
            return "Processing prompt"
        return ""

    @property
    def loading(self) -> LoadProgress | None:
        """How far the model is loaded, while it is."""
        return self._loading if self.stage is Stage.LOADING else None

    def stop(self) -> None:
        """End it at its next token; what has been generated is stored."""
        self._cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    async def run(self) -> None:
        """Generate the answer and store it; never raises an `OpError`."""
        try:
            history = await self._store.messages(self.session.id, before=self.message.id, limit=None)
            request = request_of(self.session, history, self._draft)
            self._stream = self._engine.generate(self.model, request)
            if self._cancelled:
                self._stream.cancel()
            async for event in self._stream:
                self._on_event(event)
        except OpError as error:
            if not (self._cancelled and error.type is ErrorType.CANCELLED):
                self.error = error
        finally:
            self.stage = Stage.ENDED
            if self._stream is not None:
                await self._stream.aclose()
            await self._finish()

    def _on_event(self, event: Event) -> None:
        self._result.add(event)
        if isinstance(event, LoadProgress):
            self.stage, self._loading = Stage.LOADING, event
        elif isinstance(event, Started):
            self.stage = Stage.PREFILL
            self.context_length = event.context_length or self.context_length
        elif isinstance(event, PrefillProgress):
            self._prefill = event
        elif isinstance(event, Delta):
            self.stage = Stage.GENERATING
            self._on_delta(event, time.monotonic())

    def _on_delta(self, delta: Delta, now: float) -> None:
        if delta.reasoning:
            self._reasoning_began = self._reasoning_began or now
            self._reasoning_tokens += delta.tokens
        if delta.text and self._reasoning_began and not self._reasoning_ended:
            self._reasoning_ended = now
        if not self._first_at:
            self._first_at, self._first_tokens = now, self.tokens
        self._last_at = now
        if delta.text or delta.reasoning:
            self._store.update_streaming(self.message.id, content=delta.text, reasoning=delta.reasoning)

    async def _finish(self) -> None:
        finished = self._result.finished
        usage: dict[str, Any] = {}
        timings: dict[str, Any] = {}
        state, reason = MessageState.DONE, None
        if finished is not None:
            usage, timings = asdict(finished.usage), asdict(finished.timings)
            reason = finished.finish_reason.value
            if finished.finish_reason is FinishReason.CANCELLED:
                state = MessageState.STOPPED
        elif self.error is not None:
            state = MessageState.FAILED
        else:
            state = MessageState.STOPPED
        if not usage and self.tokens:  # it broke off without a count
            usage = {"completion_tokens": self.tokens}
        if self._reasoning_began:
            ended = self._reasoning_ended or self._last_at
            timings["reasoning_s"] = round(ended - self._reasoning_began, 3)
        usage["context_length"] = self.context_length
        error = self._error_text(self.error) if self.error else None
        tool_calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self._result.tool_calls
        ]
        try:
            self.message = await self._store.finish_message(
                self.message.id,
                state=state,
                finish_reason=reason,
                tool_calls=tool_calls,
                usage=usage,
                timings=timings,
                error=error,
            )
        except OpError as store_error:
            self.store_error = store_error
            self.message = replace(  # as it will be stored
                self.message,
                content=self.content,
                reasoning=self.reasoning,
                state=state,
                finish_reason=reason,
                tool_calls=tuple(tool_calls),
                usage=usage,
                timings=timings,
                error=error,
            )
