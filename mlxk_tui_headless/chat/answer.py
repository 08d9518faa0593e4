"""One answer of a model: asked for, shown while it comes, and returned as the contract's result."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlxk_tui.engine.generation import Delta, Finished, FinishReason, Started
from mlxk_tui.ops.contract.inference import RunData, Timings, Usage
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui_headless import output

if TYPE_CHECKING:
    from mlxk_tui.engine.client import Engine
    from mlxk_tui.engine.generation import Event, Generation
    from mlxk_tui.engine.models import Runnable

INTERRUPTED = "[Generation interrupted by user]"
"""What stands behind an answer that Ctrl-C ended."""
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class ReaderGoneError(Exception):
    """Whoever read stdout has left, or the disk behind it is full.

    Attributes:
        status: the exit status that this leads to.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class TerminalAnswer:
    """What has come of an answer so far."""

    response: str = ""
    reasoning: str = ""
    calls: list[str] = field(default_factory=list)
    """Tool calls, as JSON."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    finished: Finished | None = None

    def take(self, event: Event) -> None:
        """Add what an event brings."""
        if isinstance(event, Started):
            self.prompt_tokens, self.cached_tokens = event.prompt_tokens, event.cached_tokens
        elif isinstance(event, Delta):
            self.response += event.text
            self.reasoning += event.reasoning
            self.calls += [
                f'{{"name": "{call.name}", "arguments": {call.arguments}}}' for call in event.tool_calls
            ]
            self.tokens += event.tokens
        elif isinstance(event, Finished):
            self.finished = event

    def data(self, model: str, prompt: str, seconds: float, *, load_s: float = 0.0) -> RunData:
        """Return the result; an answer without an end was cancelled.

        Args:
            model: the model's name.
            prompt: what was asked.
            seconds: how long it took, loading included.
            load_s: how much of that the loading took.
        """
        done = self.finished
        if done is None:
            usage = Usage(
                prompt_tokens=self.prompt_tokens,
                cached_tokens=self.cached_tokens,
                completion_tokens=self.tokens,
                reasoning_tokens=0,
                total_tokens=self.prompt_tokens + self.tokens,
            )
            timings = Timings(
                load_s=load_s,
                time_to_first_token_s=None,
                prompt_tokens_per_s=None,
                tokens_per_s=None,
                peak_memory_bytes=None,
            )
            reason = FinishReason.CANCELLED
        else:
            counted, took = done.usage, done.timings
            usage = Usage(
                prompt_tokens=counted.prompt_tokens,
                cached_tokens=counted.cached_tokens,
                completion_tokens=counted.completion_tokens,
                reasoning_tokens=counted.reasoning_tokens,
                total_tokens=counted.prompt_tokens + counted.completion_tokens,
            )
            timings = Timings(
                load_s=load_s + took.load_s,
                time_to_first_token_s=took.time_to_first_token_s,
                prompt_tokens_per_s=took.prompt_tps or None,
                tokens_per_s=took.generation_tps or None,
                peak_memory_bytes=took.peak_memory_bytes or None,
            )
            reason = done.finish_reason
        return RunData(
            model=model,
            prompt=prompt,
            response=self.response,
            reasoning=self.reasoning or None,
            tool_calls=self.calls,
            finish_reason=reason.value,
            tokens_generated=usage.completion_tokens,
            generation_time_s=seconds,
            usage=usage,
            timings=timings,
        )


class Screen:
    """Writes an answer to stdout as it comes: the answer plain, the reasoning dim and at a terminal only."""

    def __init__(self, *, show_reasoning: bool) -> None:
        self._terminal = output.is_terminal(sys.stdout)
        self._reasoning = show_reasoning and self._terminal
        self._dim = False
        self._line_open = False

    def show(self, delta: Delta) -> None:
        """Write what has come.

        Raises:
            ReaderGoneError: nobody reads it any more.
        """
        if delta.reasoning and self._reasoning:
            self._put(("" if self._dim else _DIM) + printable(delta.reasoning, keep_newlines=True))
            self._dim = True
        if delta.text:
            self._end_reasoning()
            self._put(printable(delta.text, keep_newlines=True))
            self._line_open = not delta.text.endswith("\n")
        for call in delta.tool_calls:
            self._end_reasoning()
            self._put(f"{printable(call.name)}({printable(call.arguments)})\n")
            self._line_open = False

    def close(self, note: str = "") -> None:
        """End the last line; a note stands on a line of its own.

        Raises:
            ReaderGoneError: nobody reads it any more.
        """
        self._end_reasoning()
        self._put(("\n" if self._line_open else "") + (f"{note}\n" if note else ""))
        self._line_open = False

    def _end_reasoning(self) -> None:
        if self._dim:
            self._dim = False
            self._put(f"{_PLAIN}\n\n")

    def _put(self, text: str) -> None:
        if text and (status := output.write(text)):
            raise ReaderGoneError(status)


def summary(data: RunData) -> str:
    """Return what an answer cost, in one line."""
    parts = [f"{data.usage.completion_tokens:,} tokens"]
    if data.timings.tokens_per_s:
        parts.append(f"{data.timings.tokens_per_s:.1f} tok/s")
    if data.timings.time_to_first_token_s is not None:
        parts.append(f"first token after {data.timings.time_to_first_token_s:.2f} s")
    parts.append(f"prompt {data.usage.prompt_tokens:,} tokens, {data.usage.cached_tokens:,} of them cached")
    parts.append(f"ended by {data.finish_reason}")
    return "[" + ", ".join(parts) + "]"


async def answer(
    engine: Engine,
    model: Runnable,
    request: Generation,
    *,
    into: TerminalAnswer,
    screen: Screen | None = None,
) -> None:
    """Generate one answer into `into`, showing it on the way.

    Raises:
        OpError: as `Engine.generate`.
        ReaderGoneError: nobody reads stdout any more; the generation has been stopped.
    """
    events: AsyncIterator[Event]
    async with aclosing(engine.generate(model, request)) as events:
        async for event in events:
            into.take(event)
            if screen is not None and isinstance(event, Delta):
                screen.show(event)
    if into.finished is None:
        raise OpError(ErrorType.ENGINE_CRASHED, "The answer ended without an end. Ask again.")
