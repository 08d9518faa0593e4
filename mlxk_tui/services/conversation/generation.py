"""Requests with a draft model, and the result of a generation; used by the app and by `run`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mlxk_tui.engine.generation import Delta, Event, Finished, GenerationRequest, Started, ToolCall

if TYPE_CHECKING:
    from mlxk_tui.engine.models import RunnableModel


def with_draft_model(request: GenerationRequest, draft: RunnableModel | None) -> GenerationRequest:
    """Return a request whose tokens a draft model predicts; the same one without a draft model."""
    if draft is None:
        return request
    return replace(request, draft_model=str(draft.folder), draft_name=draft.name)


@dataclass
class GenerationResult:
    """The result of a generation so far, collected from the engine's events."""

    text_parts: list[str] = field(default_factory=list)
    reasoning_parts: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    """Generated so far."""
    finished: Finished | None = None
    """The last event; None until then, and of a stream that broke off."""

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.text_parts)

    @property
    def reasoning(self) -> str:
        """All reasoning so far."""
        return "".join(self.reasoning_parts)

    def add(self, event: Event) -> None:
        """Add the contents of an event."""
        if isinstance(event, Started):
            self.prompt_tokens, self.cached_tokens = event.prompt_tokens, event.cached_tokens
        elif isinstance(event, Delta):
            if event.text:
                self.text_parts.append(event.text)
            if event.reasoning:
                self.reasoning_parts.append(event.reasoning)
            self.tool_calls += event.tool_calls
            self.tokens += event.tokens
        elif isinstance(event, Finished):
            self.finished = event
