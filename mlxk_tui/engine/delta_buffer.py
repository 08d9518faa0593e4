"""Merges the deltas of an answer into one."""

from __future__ import annotations

from mlxk_tui.engine.generation import Delta, TokenLogprob, ToolCall


class DeltaBuffer:
    """Collects deltas in linear time and keeps the order of reasoning, text and tool calls."""

    def __init__(self) -> None:
        self.tokens = 0
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: list[ToolCall] = []

    def can_append(self, delta: Delta) -> bool:
        """Return whether appending keeps the order: reasoning, then text, then tool calls."""
        if delta.reasoning and (self._text or self._tool_calls):
            return False
        return not (delta.text and self._tool_calls)

    def append(self, delta: Delta) -> None:
        """Append a delta; check `can_append` first."""
        if delta.text:
            self._text.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        self._tool_calls.extend(delta.tool_calls)
        self.tokens += delta.tokens
        self.token_ids.extend(delta.token_ids)
        self.logprobs.extend(delta.logprobs)

    def to_delta(self) -> Delta:
        """Return the collected deltas as one."""
        return Delta(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(self._tool_calls),
            tokens=self.tokens,
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
        )

    def __bool__(self) -> bool:
        return bool(self.tokens or self._text or self._reasoning or self._tool_calls or self.logprobs)
