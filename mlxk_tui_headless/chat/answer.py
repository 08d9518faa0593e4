"""Generates one answer, prints it while it is generated, and returns the result of the JSON contract."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from mlxk_tui.engine.generation import Delta, FinishReason
from mlxk_tui.ops.contract.inference import RunData, Timings, Usage
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui_headless import output

if TYPE_CHECKING:
    from mlxk_tui.engine.client import Engine
    from mlxk_tui.engine.generation import Event, GenerationRequest
    from mlxk_tui.engine.models import RunnableModel
    from mlxk_tui.services.conversation.generation import GenerationResult

INTERRUPTED = "[Generation interrupted by user]"
"""Printed after an answer that Ctrl-C interrupted."""
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class OutputClosedError(Exception):
    """Stdout can no longer be written: the reader closed it, or the disk is full.

    Attributes:
        status: the exit status of the command.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def run_data(
    result: GenerationResult, model: str, prompt: str, seconds: float, *, load_s: float = 0.0
) -> RunData:
    """Return the result of the JSON contract; an unfinished answer counts as cancelled.

    Args:
        result: what has been generated.
        model: the model's name.
        prompt: the prompt.
        seconds: the duration, including loading.
        load_s: the part of it spent on loading.
    """
    finished = result.finished
    if finished is None:
        usage = Usage(
            prompt_tokens=result.prompt_tokens,
            cached_tokens=result.cached_tokens,
            completion_tokens=result.tokens,
            reasoning_tokens=0,
            total_tokens=result.prompt_tokens + result.tokens,
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
        counts, durations = finished.usage, finished.timings
        usage = Usage(
            prompt_tokens=counts.prompt_tokens,
            cached_tokens=counts.cached_tokens,
            completion_tokens=counts.completion_tokens,
            reasoning_tokens=counts.reasoning_tokens,
            total_tokens=counts.prompt_tokens + counts.completion_tokens,
        )
        timings = Timings(
            load_s=load_s + durations.load_s,
            time_to_first_token_s=durations.time_to_first_token_s,
            prompt_tokens_per_s=durations.prompt_tps or None,
            tokens_per_s=durations.generation_tps or None,
            peak_memory_bytes=durations.peak_memory_bytes or None,
        )
        reason = finished.finish_reason
    return RunData(
        model=model,
        prompt=prompt,
        response=result.text,
        reasoning=result.reasoning or None,
        tool_calls=[
            f'{{"name": "{call.name}", "arguments": {call.arguments}}}' for call in result.tool_calls
        ],
        finish_reason=reason.value,
        tokens_generated=usage.completion_tokens,
        generation_time_s=seconds,
        usage=usage,
        timings=timings,
    )


class AnswerPrinter:
    """Prints an answer to stdout while it is generated; reasoning is dimmed, and only shown at a terminal."""

    def __init__(self, *, show_reasoning: bool) -> None:
        self._terminal = output.is_terminal(sys.stdout)
        self._reasoning = show_reasoning and self._terminal
        self._dim = False
        self._line_open = False

    def show(self, delta: Delta) -> None:
        """Print the next part of the answer.

        Raises:
            OutputClosedError: stdout can no longer be written.
        """
        if delta.reasoning and self._reasoning:
            self._write(("" if self._dim else _DIM) + printable(delta.reasoning, keep_newlines=True))
            self._dim = True
        if delta.text:
            self._end_reasoning()
            self._write(printable(delta.text, keep_newlines=True))
            self._line_open = not delta.text.endswith("\n")
        for call in delta.tool_calls:
            self._end_reasoning()
            self._write(f"{printable(call.name)}({printable(call.arguments)})\n")
            self._line_open = False

    def close(self, note: str = "") -> None:
        """End the last line and print a note on a line of its own.

        Raises:
            OutputClosedError: stdout can no longer be written.
        """
        self._end_reasoning()
        self._write(("\n" if self._line_open else "") + (f"{note}\n" if note else ""))
        self._line_open = False

    def _end_reasoning(self) -> None:
        if self._dim:
            self._dim = False
            self._write(f"{_PLAIN}\n\n")

    def _write(self, text: str) -> None:
        if text and (status := output.write(text)):
            raise OutputClosedError(status)


def summary(data: RunData) -> str:
    """Return token counts and timings in one line."""
    parts = [f"{data.usage.completion_tokens:,} tokens"]
    if data.timings.tokens_per_s:
        parts.append(f"{data.timings.tokens_per_s:.1f} tok/s")
    if data.timings.time_to_first_token_s is not None:
        parts.append(f"first token {data.timings.time_to_first_token_s:.2f} s")
    parts.append(f"prompt {data.usage.prompt_tokens:,} tokens ({data.usage.cached_tokens:,} cached)")
    parts.append(f"finish reason {data.finish_reason}")
    return "[" + ", ".join(parts) + "]"


async def generate_answer(
    engine: Engine,
    model: RunnableModel,
    request: GenerationRequest,
    *,
    into: GenerationResult,
    printer: AnswerPrinter | None = None,
) -> None:
    """Generate one answer into `into` and print it on the way.

    Raises:
        OpError: as `Engine.generate`.
        OutputClosedError: stdout can no longer be written; the generation has been stopped.
    """
    events: AsyncIterator[Event]
    async with aclosing(engine.generate(model, request)) as events:
        async for event in events:
            into.add(event)
            if printer is not None and isinstance(event, Delta):
                printer.show(event)
    if into.finished is None:
        raise OpError(ErrorType.ENGINE_CRASHED, "The answer ended unexpectedly. Ask again.")
