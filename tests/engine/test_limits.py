"""Limits of tokens and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from mlxk_tui.engine.limits import UNKNOWN_CONTEXT_TOKENS, check_memory, memory_verdict, token_budget
from mlxk_tui.engine.models import RunnableModel, with_draft
from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.health.machine import Runtime


@pytest.mark.parametrize(
    ("prompt", "context", "asked", "budget", "expected"),
    [
        (100, 4096, None, "run", 3996),
        (100, 4096, None, "server", 2048),
        (3000, 4096, None, "server", 1096),
        (100, 4096, 50, "run", 50),
        (100, 4096, 3000, "server", 3000),
        (100, 4096, 100_000, "run", 3996),
        (4095, 4096, None, "run", 1),
        (0, 1, None, "server", 1),
        (10, None, None, "run", UNKNOWN_CONTEXT_TOKENS - 10),
        (100_000, None, None, "run", UNKNOWN_CONTEXT_TOKENS // 2),
        (10, None, None, "server", UNKNOWN_CONTEXT_TOKENS // 2),
        (10, None, 100_000, "server", 100_000),
        (10, 0, 7, "run", 7),
    ],
)
def test_answer_may_use_the_rest_of_the_context(
    prompt: int, context: int | None, asked: int | None, budget: Literal["run", "server"], expected: int
) -> None:
    assert token_budget(prompt, context, max_tokens=asked, budget=budget) == expected


@pytest.mark.parametrize("prompt", [4096, 5000])
def test_prompt_that_fills_the_context_is_rejected_with_token_counts(prompt: int) -> None:
    with pytest.raises(OpError) as refused:
        token_budget(prompt, 4096, max_tokens=1)
    assert refused.value.type is ErrorType.CONTEXT_LENGTH_EXCEEDED
    assert f"{prompt:,}" in refused.value.message
    assert "4,096" in refused.value.message


@pytest.mark.parametrize("asked", [0, -1])
def test_zero_max_tokens_are_rejected(asked: int) -> None:
    with pytest.raises(OpError) as refused:
        token_budget(10, 4096, max_tokens=asked)
    assert refused.value.type is ErrorType.VALIDATION_ERROR
    assert str(asked) in refused.value.message


HERE = Runtime("0.32", frozenset(), memory_bytes=10_000_000_000)


@pytest.mark.parametrize(
    ("needed", "fit", "says"),
    [
        (2_000_000_000, MemoryFit.FITS, "fits"),
        (9_000_000_000, MemoryFit.TIGHT, "tight"),
        (11_000_000_000, MemoryFit.TOO_LARGE, "does not fit"),
        (None, None, ""),
    ],
)
def test_memory_verdict_contains_the_sizes(needed: int | None, fit: MemoryFit | None, says: str) -> None:
    verdict = memory_verdict(needed, HERE, name="org/model")
    assert verdict.fit is fit
    assert says in verdict.message
    assert needed is None or ("10.0 GB" in verdict.message and "org/model" in verdict.message)


def test_model_that_does_not_fit_is_rejected_unless_forced() -> None:
    with pytest.raises(OpError) as refused:
        check_memory(11_000_000_000, HERE)
    assert refused.value.type is ErrorType.INSUFFICIENT_MEMORY
    assert "11.0 GB" in refused.value.message
    assert check_memory(11_000_000_000, HERE, force=True).fit is MemoryFit.TOO_LARGE
    assert check_memory(9_000_000_000, HERE).fit is MemoryFit.TIGHT


def test_memory_check_includes_the_draft_model() -> None:
    usable = Runtime.detect().memory_bytes
    large = RunnableModel("org/Large", Path("large"), memory_bytes=int(0.7 * usable), fit=MemoryFit.FITS)
    small = RunnableModel("org/Small", Path("small"), memory_bytes=int(0.1 * usable))
    both = with_draft(large, small)
    assert both.memory_bytes == int(0.7 * usable) + int(0.1 * usable)
    assert both.folder == large.folder
    with pytest.raises(OpError) as refused:
        with_draft(large, large)
    assert refused.value.type is ErrorType.INSUFFICIENT_MEMORY
    assert "together" in refused.value.message
    assert with_draft(large, large, force=True).fit is MemoryFit.TOO_LARGE
    unknown = RunnableModel("org/Unknown", Path("unknown"))
    assert with_draft(large, unknown) == large
