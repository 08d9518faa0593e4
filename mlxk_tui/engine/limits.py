"""The token budget of an answer, and whether a model fits into memory."""

from __future__ import annotations

from dataclasses import dataclass

from mlxk_tui.engine.generation import Budget
from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.ops.core.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import format_size, plural
from mlxk_tui.ops.health.machine import Runtime

UNKNOWN_CONTEXT_TOKENS = 4096
"""Context length assumed for a model whose config.json has none, in tokens.

It only determines the default budget: a prompt is never rejected because of it.
"""


def token_budget(
    prompt_tokens: int,
    context_length: int | None,
    *,
    max_tokens: int | None = None,
    budget: Budget = "run",
    allow_zero: bool = False,
) -> int:
    """Return the token budget of an answer: at least 1, or 0 if that was requested and is allowed.

    This is `max_tokens`, limited to the rest of the context after the prompt. If `max_tokens` is None it
    is the whole rest for `run`, and at most half of the context for `server`, so that one request cannot
    occupy the model forever. If the context length is unknown, `max_tokens` is not limited, and its default
    is `UNKNOWN_CONTEXT_TOKENS` minus the prompt (at least half of it) for `run`, half of it for `server`.

    Args:
        prompt_tokens: number of prompt tokens.
        context_length: in tokens; None if unknown.
        max_tokens: the requested maximum.
        budget: selects the default.
        allow_zero: accept a `max_tokens` of 0.

    Raises:
        OpError: `validation_error` for a `max_tokens` below 1; `context_length_exceeded` if the prompt
            leaves no room for an answer.
    """
    if allow_zero and max_tokens == 0:
        if context_length and prompt_tokens > context_length:
            raise prompt_too_long(prompt_tokens, context_length)
        return 0
    if max_tokens is not None and max_tokens < 1:
        raise OpError(ErrorType.VALIDATION_ERROR, f"max_tokens is {max_tokens}; it must be at least 1.")
    if context_length is None or context_length < 1:
        half = UNKNOWN_CONTEXT_TOKENS // 2
        if max_tokens is not None:
            return max_tokens
        return max(half, UNKNOWN_CONTEXT_TOKENS - prompt_tokens) if budget == "run" else half
    left = context_length - prompt_tokens
    if left < 1:
        raise prompt_too_long(prompt_tokens, context_length)
    if max_tokens is not None:
        return min(max_tokens, left)
    return left if budget == "run" else min(left, max(1, context_length // 2))


def prompt_too_long(prompt_tokens: int, context_length: int, *, at_least: bool = False) -> OpError:
    """Return the error for a prompt that leaves no room for an answer.

    Args:
        prompt_tokens: number of prompt tokens.
        context_length: context length of the model, in tokens.
        at_least: counting stopped early, so the prompt may have more tokens.
    """
    counted = f"{'at least ' if at_least else ''}{plural(prompt_tokens, 'token')}"
    return OpError(
        ErrorType.CONTEXT_LENGTH_EXCEEDED,
        f"The prompt has {counted} and the model's context holds {context_length:,}, which leaves "
        "no room for an answer.",
        remedy=Remedy.SHORTEN_PROMPT,
        overflow=ContextOverflow(prompt_tokens, context_length, at_least),
    )


@dataclass(frozen=True)
class MemoryVerdict:
    """Whether a model fits into the memory that models can use on this machine."""

    fit: MemoryFit | None
    """None if the estimate or the memory is unknown."""
    needed_bytes: int | None
    usable_bytes: int
    message: str
    """One sentence with the numbers; empty if `fit` is None."""


def memory_verdict(needed_bytes: int | None, runtime: Runtime, *, name: str = "The model") -> MemoryVerdict:
    """Compare a model's memory estimate with this machine, as `list` and `show` do."""
    fit = runtime.fit(needed_bytes)
    available = format_size(runtime.memory_bytes)
    numbers = f"about {format_size(needed_bytes)} of memory; models can use {available} here"
    message = ""
    if fit is MemoryFit.TOO_LARGE:
        message = f"{name} does not fit into memory: it needs {numbers}."
    elif fit is MemoryFit.TIGHT:
        message = f"{name} fits tightly: it needs {numbers}."
    elif fit is MemoryFit.FITS:
        message = f"{name} fits: it needs {numbers}."
    return MemoryVerdict(fit, needed_bytes, runtime.memory_bytes, message)


def check_memory(
    needed_bytes: int | None, runtime: Runtime, *, name: str = "The model", force: bool = False
) -> MemoryVerdict:
    """Return the verdict, or raise if the model does not fit.

    Raises:
        OpError: `insufficient_memory`, with the numbers, unless `force` is set.
    """
    verdict = memory_verdict(needed_bytes, runtime, name=name)
    if verdict.fit is MemoryFit.TOO_LARGE and not force:
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            verdict.message,
            remedy=Remedy.CHOOSE_SMALLER_MODEL,
            facts=ErrorFacts(needed_bytes=needed_bytes, available_bytes=runtime.memory_bytes),
        )
    return verdict
