"""One answer while it is written: takes the engine's events, keeps the text, and stores it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from mlxk_tui.chats.model import Message, MessageState, Session
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Delta, Event, Finished, FinishReason, Loading, Prefill, Started
from mlxk_tui.engine.models import Runnable
from mlxk_tui.engine.stream import GenerationStream
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import spaced_size
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
    READING = "reading"
    WRITING = "writing"
    ENDED = "ended"


@dataclass(frozen=True)
class Live:
    """How far an answer is that is being written."""

    doing: str = ""
    """What happens while there is no text yet: `Reading the question`."""
    thinking: bool = False
    reasoning_s: float = 0.0
    reasoning_tokens: int = 0
    tokens: int = 0
    tokens_per_s: float = 0.0


class Answer:
    """A generation and what came of it so far; `run` goes on whether anybody looks or not.

    Args:
        session: the chat.
        message: the message that the answer is written into.
        model: the model that answers.
        engine: the engine.
        store: where it is kept.
        words: returns what is kept of an error, for people.
        draft: the model that guesses ahead.
    """

    def __init__(
        self,
        session: Session,
        message: Message,
        model: Runnable,
        engine: Engine,
        store: ChatStore,
        words: Callable[[OpError], str],
        draft: Runnable | None = None,
    ) -> None:
        self.session = session
        self.message = message
        """The stored message; the finished one once the answer has ended."""
        self.model = model
        self.stage = Stage.WAITING
        self.error: OpError | None = None
        """Why it failed."""
        self.lost: OpError | None = None
        """Why its end could not be stored at once; the store goes on trying."""
        self.context_length = model.context_length or 0
        self.used = 0
        """Tokens of the context that prompt and answer take."""
        self.tokens = 0
        self._words = words
        self._draft = draft
        self._engine = engine
        self._store = store
        self._stream: GenerationStream | None = None
        self._unwanted = False
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._taken = (0, 0)
        self._loading: Loading | None = None
        self._prefill: Prefill | None = None
        self._reasoning_began = self._reasoning_ended = 0.0
        self._reasoning_tokens = 0
        self._first_at = self._last_at = 0.0
        self._first_tokens = 0
        self._calls: list[dict[str, Any]] = []

    @property
    def content(self) -> str:
        """All text so far."""
        return "".join(self._content)

    @property
    def reasoning(self) -> str:
        """All reasoning so far."""
        return "".join(self._reasoning)

    def new_text(self) -> tuple[str, str]:
        """Return content and reasoning since the last call, for the one who draws it."""
        content, reasoning = self._taken
        self._taken = (len(self._content), len(self._reasoning))
        return "".join(self._content[content:]), "".join(self._reasoning[reasoning:])

    def all_text(self) -> tuple[str, str]:
        """Return content and reasoning from the beginning, for one who begins to draw it."""
        self._taken = (0, 0)
        return self.new_text()

    def live(self) -> Live:
        """Return how far it is."""
        thinking = bool(self._reasoning_began) and not self._reasoning_ended
        seconds = (self._reasoning_ended or time.monotonic()) - self._reasoning_began
        spent = self._last_at - self._first_at
        speed = (self.tokens - self._first_tokens) / spent if spent > 0.2 else 0.0
        return Live(
            doing=self._doing(),
            thinking=thinking,
            reasoning_s=seconds if self._reasoning_began else 0.0,
            reasoning_tokens=self._reasoning_tokens,
            tokens=self.tokens,
            tokens_per_s=speed,
        )

    def _doing(self) -> str:
        if self.stage is Stage.WAITING:
            return "Waiting for the engine"
        if self.stage is Stage.LOADING and self._loading is not None:
            said = _STAGES.get(self._loading.stage, "Loading the model")
            if self._loading.total:
                share = self._loading.done / self._loading.total
                done, total = spaced_size(self._loading.done), spaced_size(self._loading.total)
                said += f" {share:.0%} · {done} of {total}"
            return said
        if self.stage is Stage.READING:
            if self._prefill is not None and self._prefill.total:
                return f"Reading the chat {self._prefill.done / self._prefill.total:.0%}"
            return "Reading the chat"
        return ""

    @property
    def loading(self) -> Loading | None:
        """How far the model is loaded, while it is."""
        return self._loading if self.stage is Stage.LOADING else None

    def stop(self) -> None:
        """End it at its next token; what is there is kept."""
        self._unwanted = True
        if self._stream is not None:
            self._stream.cancel()

    async def run(self) -> None:
        """Write the answer to its end and store it; never raises."""
        finished: Finished | None = None
        try:
            history = await self._store.messages(self.session.id, before=self.message.id, limit=None)
            request = request_of(self.session, history, self._draft)
            self._stream = self._engine.generate(self.model, request)
            if self._unwanted:
                self._stream.cancel()
            async for event in self._stream:
                if isinstance(event, Finished):
                    finished = event
                else:
                    self._take(event)
        except OpError as error:
            if not (self._unwanted and error.type is ErrorType.CANCELLED):
                self.error = error
        finally:
            self.stage = Stage.ENDED
            if self._stream is not None:
                await self._stream.aclose()
            await self._finish(finished)

    def _take(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Loading):
            self.stage, self._loading = Stage.LOADING, event
        elif isinstance(event, Started):
            self.stage = Stage.READING
            self.used = event.prompt_tokens
            self.context_length = event.context_length or self.context_length
        elif isinstance(event, Prefill):
            self._prefill = event
        elif isinstance(event, Delta):
            self.stage = Stage.WRITING
            self._take_text(event, now)

    def _take_text(self, delta: Delta, now: float) -> None:
        self.tokens += delta.tokens
        self.used += delta.tokens
        if delta.reasoning:
            self._reasoning_began = self._reasoning_began or now
            self._reasoning_tokens += delta.tokens
            self._reasoning.append(delta.reasoning)
        if delta.text:
            if self._reasoning_began and not self._reasoning_ended:
                self._reasoning_ended = now
            self._content.append(delta.text)
        if not self._first_at:
            self._first_at, self._first_tokens = now, self.tokens
        self._last_at = now
        if delta.text or delta.reasoning:
            self._store.update_streaming(self.message.id, content=delta.text, reasoning=delta.reasoning)
        if delta.tool_calls:
            self._calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in delta.tool_calls
            ]

    async def _finish(self, finished: Finished | None) -> None:
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
        if not usage and self.tokens:  # it ended without a count: what was seen
            usage = {"completion_tokens": self.tokens}
        if self._reasoning_began:
            ended = self._reasoning_ended or self._last_at
            timings["reasoning_s"] = round(ended - self._reasoning_began, 3)
        usage["context_length"] = self.context_length
        error = self._words(self.error) if self.error else None
        try:
            self.message = await self._store.finish_message(
                self.message.id,
                state=state,
                finish_reason=reason,
                tool_calls=self._calls,
                usage=usage,
                timings=timings,
                error=error,
            )
        except OpError as lost:
            self.lost = lost
            self.message = replace(  # as it will be stored
                self.message,
                content=self.content,
                reasoning=self.reasoning,
                state=state,
                finish_reason=reason,
                tool_calls=tuple(self._calls),
                usage=usage,
                timings=timings,
                error=error,
            )
