"""What is gathered of an answer from the engine's events, and a request with a draft model."""

from __future__ import annotations

from pathlib import Path

from mlxk_tui.engine.generation import (
    Delta,
    Finished,
    FinishReason,
    GenerationRequest,
    GenerationTimings,
    LoadProgress,
    Started,
    TokenUsage,
    ToolCall,
)
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.services.conversation.generation import GenerationResult, with_draft_model

END = Finished(
    FinishReason.TOOL_CALLS,
    TokenUsage(prompt_tokens=9, cached_tokens=4, completion_tokens=7, reasoning_tokens=2),
    GenerationTimings(0.0, 0.1, 0.1, 0.2, 90.0, 35.0, 0),
)


def test_events_add_up() -> None:
    first, second = ToolCall(0, "a", "look", "{}"), ToolCall(1, "b", "look", '{"at": 1}')
    result = GenerationResult()
    for event in (
        LoadProgress("weights", 1, 2),
        Started(prompt_tokens=9, cached_tokens=4, max_tokens=100, context_length=4096),
        Delta(reasoning="I think", tokens=2),
        Delta(text="So", tokens=1),
        Delta(text=" be it.", tokens=2),
        Delta(tool_calls=(first,), tokens=1),
        Delta(tool_calls=(second,), tokens=1),
    ):
        result.add(event)
    assert (result.reasoning, result.text, result.tool_calls) == ("I think", "So be it.", [first, second])
    assert (result.prompt_tokens, result.cached_tokens, result.tokens) == (9, 4, 7)
    assert result.finished is None
    result.add(END)
    assert result.finished is END


def test_a_draft_model_is_named_in_the_request() -> None:
    request = GenerationRequest(prompt="Hello", kv_bits=4)
    assert with_draft_model(request, None) is request
    drafted = with_draft_model(request, RunnableModel("org/small", Path("folder")))
    assert (drafted.prompt, drafted.kv_bits) == ("Hello", 4)
    assert (drafted.draft_model, drafted.draft_name) == ("folder", "org/small")
