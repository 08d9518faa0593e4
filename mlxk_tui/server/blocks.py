"""An answer as blocks in their order: reasoning, text, tool calls; for APIs that write it so.

Both `/v1/messages` and `/v1/responses` do. What a client sees as a block of its own must hold something:
blanks between two others (a line break before a tool call) are dropped, leading ones wait for text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from mlxk_tui.engine.formats.tool_calls import Tools
from mlxk_tui.engine.formats.truncated_calls import forced_call
from mlxk_tui.engine.generation import Delta, Finished, FinishReason, TokenLogprob, ToolCall
from mlxk_tui.server.generation import Answers


class BlockKind(Enum):
    """What a block is."""

    REASONING = "reasoning"
    TEXT = "text"
    CALL = "call"


@dataclass
class Block:
    """A part of an answer; it grows until its end."""

    index: int
    kind: BlockKind
    call: ToolCall | None = None
    """Of a tool call, which always comes in one piece."""
    parts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.parts)


@dataclass(frozen=True)
class Begun:
    """A block begins; a tool call is whole with this."""

    block: Block


@dataclass(frozen=True)
class More:
    """Text of a block."""

    block: Block
    text: str
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True)
class Ended:
    """Nothing more comes of a block."""

    block: Block


Step = Begun | More | Ended


class Blocks:
    """Sorts what the engine says into blocks.

    Args:
        forced: the text is a call of one of these tools by its grammar, to be read at its end.
        reasoning: whether reasoning becomes blocks; else it is left out.
        one_call: leave out all tool calls but the first.
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
        self._held = ""
        self._held_logprobs: list[TokenLogprob] = []

    def push(self, delta: Delta) -> list[Step]:
        """Return what a delta adds."""
        steps: list[Step] = []
        if delta.reasoning and self._reasoning:
            steps += self._more(BlockKind.REASONING, delta.reasoning)
        if delta.text:
            if self._forced is not None:
                self._forced.append(delta.text)
            else:
                steps += self._more(BlockKind.TEXT, delta.text, delta.logprobs)
        for call in delta.tool_calls:
            steps += self._call(call)
        return steps

    def finish(self, event: Finished) -> list[Step]:
        """Return what the end adds."""
        self.finished = event
        steps: list[Step] = []
        if self._forced and self._tools is not None:
            ended = event.finish_reason is not FinishReason.LENGTH
            call = forced_call("".join(self._forced), self._tools, ended=ended)
            if call is not None:
                steps += self._call(call)
        return steps + self._close()

    @property
    def reason(self) -> FinishReason:
        """Why the answer ended."""
        reason = self.finished.finish_reason if self.finished is not None else FinishReason.STOP
        called = any(block.kind is BlockKind.CALL for block in self.blocks)
        return FinishReason.TOOL_CALLS if called and reason is FinishReason.STOP else reason

    def _more(self, kind: BlockKind, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[Step]:
        steps: list[Step] = []
        if self._open is None or self._open.kind is not kind:
            if self._kind is not kind:
                steps += self._close()
                self._kind = kind
            self._held += text
            self._held_logprobs += logprobs
            if not self._held.strip():
                return steps
            text, logprobs = self._held, self._held_logprobs
            self._held, self._held_logprobs = "", []
            self._open = self._add(kind)
            steps.append(Begun(self._open))
        self._open.parts.append(text)
        self._open.logprobs += logprobs
        steps.append(More(self._open, text, logprobs))
        return steps

    def _call(self, call: ToolCall) -> list[Step]:
        if self._one_call and any(block.kind is BlockKind.CALL for block in self.blocks):
            return []
        steps = self._close()
        block = self._add(BlockKind.CALL, call)
        return [*steps, Begun(block), Ended(block)]

    def _add(self, kind: BlockKind, call: ToolCall | None = None) -> Block:
        block = Block(len(self.blocks), kind, call)
        self.blocks.append(block)
        return block

    def _close(self) -> list[Step]:
        self._held, self._held_logprobs = "", []
        block, self._open = self._open, None
        return [Ended(block)] if block is not None else []


async def collect_blocks(answers: Answers, blocks: Blocks) -> None:
    """Take the whole answer of a request into `blocks`."""
    async for _, event in answers:
        if isinstance(event, Delta):
            blocks.push(event)
        elif isinstance(event, Finished):
            blocks.finish(event)
