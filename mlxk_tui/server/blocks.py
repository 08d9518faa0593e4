"""Splits a response into ordered content blocks: reasoning, text, tool calls.

Used by `/v1/messages` and `/v1/responses`. No block consists of whitespace only: whitespace between two
other blocks (a line break before a tool call) is dropped, leading whitespace is held back until text
follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from mlxk_tui.engine.formats.tool_calls import Tools
from mlxk_tui.engine.formats.truncated_calls import parse_forced_call
from mlxk_tui.engine.generation import Delta, Finished, FinishReason, TokenLogprob, ToolCall
from mlxk_tui.server.generation import ChoiceStream


class BlockKind(Enum):
    """The kind of a content block."""

    REASONING = "reasoning"
    TEXT = "text"
    CALL = "call"


@dataclass
class Block:
    """A content block; text is appended until it ends."""

    index: int
    kind: BlockKind
    call: ToolCall | None = None
    """The tool call of a `CALL` block; it always arrives complete."""
    parts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.parts)


@dataclass(frozen=True)
class BlockStarted:
    """A block starts; a tool call is complete with this event."""

    block: Block


@dataclass(frozen=True)
class BlockDelta:
    """BlockDelta text of a block."""

    block: Block
    text: str
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True)
class BlockEnded:
    """A block is complete; no more events of it follow."""

    block: Block


BlockEvent = BlockStarted | BlockDelta | BlockEnded


class BlockBuilder:
    """Turns the engine's events into blocks.

    Args:
        forced: if set, a grammar makes the text a call of one of these tools; it is parsed at the end.
        reasoning: whether to include reasoning.
        one_call: whether to drop all tool calls but the first.
    """

    def __init__(
        self, *, forced: Tools | None = None, reasoning: bool = True, one_call: bool = False
    ) -> None:
        self.blocks: list[Block] = []
        self.finished: Finished | None = None
        self._tools = forced
        self._forced: list[str] | None = [] if forced is not None else None
        self._reasoning = reasoning
        self._one_call = one_call
        self._open: Block | None = None
        self._kind = BlockKind.TEXT
        self._pending = ""
        self._pending_logprobs: list[TokenLogprob] = []

    def push(self, delta: Delta) -> list[BlockEvent]:
        """Add a delta and return the resulting events."""
        events: list[BlockEvent] = []
        if delta.reasoning and self._reasoning:
            events += self._append(BlockKind.REASONING, delta.reasoning)
        if delta.text:
            if self._forced is not None:
                self._forced.append(delta.text)
            else:
                events += self._append(BlockKind.TEXT, delta.text, delta.logprobs)
        for call in delta.tool_calls:
            events += self._add_call(call)
        return events

    def finish(self, event: Finished) -> list[BlockEvent]:
        """Add the end of the generation and return the resulting events."""
        self.finished = event
        events: list[BlockEvent] = []
        if self._forced and self._tools is not None:
            ended = event.finish_reason is not FinishReason.LENGTH
            call = parse_forced_call("".join(self._forced), self._tools, ended=ended)
            if call is not None:
                events += self._add_call(call)
        return events + self._close()

    @property
    def finish_reason(self) -> FinishReason:
        """Why the generation ended; `TOOL_CALLS` if it ended regularly with a call."""
        reason = self.finished.finish_reason if self.finished is not None else FinishReason.STOP
        called = any(block.kind is BlockKind.CALL for block in self.blocks)
        return FinishReason.TOOL_CALLS if called and reason is FinishReason.STOP else reason

    def _append(self, kind: BlockKind, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[BlockEvent]:
        events: list[BlockEvent] = []
        if self._open is None or self._open.kind is not kind:
            if self._kind is not kind:
                events += self._close()
                self._kind = kind
            self._pending += text
            self._pending_logprobs += logprobs
            if not self._pending.strip():
                return events
            text, logprobs = self._pending, self._pending_logprobs
            self._pending, self._pending_logprobs = "", []
            self._open = self._add(kind)
            events.append(BlockStarted(self._open))
        self._open.parts.append(text)
        self._open.logprobs += logprobs
        events.append(BlockDelta(self._open, text, logprobs))
        return events

    def _add_call(self, call: ToolCall) -> list[BlockEvent]:
        if self._one_call and any(block.kind is BlockKind.CALL for block in self.blocks):
            return []
        events = self._close()
        block = self._add(BlockKind.CALL, call)
        return [*events, BlockStarted(block), BlockEnded(block)]

    def _add(self, kind: BlockKind, call: ToolCall | None = None) -> Block:
        block = Block(len(self.blocks), kind, call)
        self.blocks.append(block)
        return block

    def _close(self) -> list[BlockEvent]:
        self._pending, self._pending_logprobs = "", []
        block, self._open = self._open, None
        return [BlockEnded(block)] if block is not None else []


async def collect_blocks(stream: ChoiceStream, blocks: BlockBuilder) -> None:
    """Add all events of a request to `blocks`."""
    async for _, event in stream:
        if isinstance(event, Delta):
            blocks.push(event)
        elif isinstance(event, Finished):
            blocks.finish(event)
