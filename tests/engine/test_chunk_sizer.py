"""The size of prefill steps on fast, slow and increasingly slow machines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from mlxk_tui.engine.inference.decoding.chunk_sizer import ChunkSizer


def steps(cost: Callable[[int, int], float], total: int, *, shared: bool = False) -> list[tuple[int, float]]:
    """Process a prompt on a machine where a step of n tokens at a context takes `cost` seconds."""
    chunk_sizer = ChunkSizer()
    done, taken = 0, []
    while done < total:
        tokens = min(chunk_sizer.next_size(shared=shared, context=done), total - done)
        seconds = cost(tokens, done)
        chunk_sizer.record(tokens, seconds, done)
        taken.append((tokens, seconds))
        done += tokens
    return taken


@pytest.mark.parametrize("rate", [1, 6, 50, 1000])
@pytest.mark.parametrize("shared", [False, True])
def test_steps_take_about_a_second_at_most_on_any_machine(rate: float, shared: bool) -> None:
    first, *more = steps(lambda tokens, _: tokens / rate, 170, shared=shared)
    assert first[0] == 8  # the speed is not known yet
    assert all(seconds <= 1.0 for _, seconds in more)


def test_fast_machine_is_detected_after_a_few_steps() -> None:
    taken = steps(lambda tokens, _: 0.003 + tokens / 20_000, 20_000)
    assert max(tokens for tokens, _ in taken) == 2048
    assert len(taken) < 20
    assert all(later <= 4 * earlier for (earlier, _), (later, _) in pairwise(taken))


def test_slow_model_still_gets_chunks_of_several_tokens() -> None:
    taken = steps(lambda tokens, _: 0.09 + tokens / 2000, 2000, shared=True)
    assert all(tokens >= 32 for tokens, _ in taken[1:-1])


def test_steps_shrink_as_the_context_grows() -> None:
    taken = steps(lambda tokens, context: tokens * (1e-4 + context * 1e-6), 30_000)
    assert max(seconds for _, seconds in taken) < 1.0
    assert taken[-2][0] < max(tokens for tokens, _ in taken)


def test_long_cached_prompt_starts_with_small_steps() -> None:
    chunk_sizer = ChunkSizer()
    for _ in range(10):
        chunk_sizer.record(2048, 0.2, 0)
    assert chunk_sizer.next_size(shared=False, context=0) == 2048
    assert chunk_sizer.next_size(shared=False, context=32 * 1024) <= 64


def test_short_prompts_do_not_reset_the_measured_speed() -> None:
    chunk_sizer = ChunkSizer()
    for _ in range(10):
        chunk_sizer.record(1024, 0.05)
    before = chunk_sizer.next_size(shared=False)
    for _ in range(50):
        chunk_sizer.record(8, 0.01)
    assert chunk_sizer.next_size(shared=False) == before
    for _ in range(10):
        chunk_sizer.record(8, 4.0)  # so long that the machine must be busy
    assert chunk_sizer.next_size(shared=False) < 8


def test_implausibly_fast_step_increases_the_next_only_a_little() -> None:
    chunk_sizer = ChunkSizer()
    chunk_sizer.record(8, 0.0)
    assert chunk_sizer.next_size(shared=False) == 32
