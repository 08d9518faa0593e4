"""Rows in the decoder: their order, and that it does not affect their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mlxk_tui.engine.generation import GenerationRequest, SamplingParams
from mlxk_tui.engine.models import RunnableModel
from tests.engine.conftest import needs_mlx

pytestmark = needs_mlx

TOKENS = 24


@pytest.fixture(scope="module")
def model(babbler: RunnableModel) -> Any:
    from mlxk_tui.engine.inference.weights.loading import load

    return load(babbler.name, babbler.folder, None, lambda *_: None)


def row(model: Any, number: int, length: int) -> Any:
    """Return a greedy row with a unique prompt."""
    import mlx.core as mx

    from mlxk_tui.engine.inference.decoding.rows import Row
    from mlxk_tui.engine.inference.output.delta_assembler import DeltaAssembler
    from mlxk_tui.engine.inference.prompts.prompt_builder import Prompt

    prompt = Prompt(
        tokens=[7 + (31 * number + at) % 250 for at in range(length)],
        boundary=0,
        reasoning_open=False,
        implied_stops=(),
        max_tokens=TOKENS,
        sampling=SamplingParams(temperature=0),
    )
    request = GenerationRequest(tokens=tuple(prompt.tokens))
    return Row(
        id=number,
        request=request,
        prompt=prompt,
        answer=DeltaAssembler(model, request, prompt),
        sampler=lambda logprobs: mx.argmax(logprobs, axis=-1),
        processors=[],
        arrived=0.0,
    )


class Running:
    """A decoder and the tokens of its rows."""

    def __init__(self, model: Any) -> None:
        from mlxk_tui.engine.inference.decoding.chunk_sizer import ChunkSizer
        from mlxk_tui.engine.inference.decoding.scheduler import RowScheduler

        chunk_sizer = ChunkSizer()
        chunk_sizer.record(64, 0.001)  # a fast machine
        self.scheduler = RowScheduler(model, 0, chunk_sizer)
        self.said: dict[int, list[int]] = {}

    def add(self, *rows: Any) -> None:
        for each in rows:
            self.said[each.id] = []
            self.scheduler.add(each)

    def step(self) -> None:
        for drawn in self.scheduler.step()[0]:
            self.said[drawn.row.id].append(drawn.token)

    def finish(self) -> dict[int, list[int]]:
        while len(self.scheduler):
            self.step()
        self.scheduler.close()
        return self.said


@pytest.fixture(scope="module")
def alone(model: Any) -> Sequence[list[int]]:
    """Return the tokens of each row alone."""
    said: list[list[int]] = []
    for number in range(6):
        running = Running(model)
        running.add(row(model, number, 5 + 7 * number))
        said += running.finish().values()
    assert len(set(map(tuple, said))) == 6
    return said


@pytest.mark.parametrize("others", [1, 3])
def test_new_request_gets_its_first_token_in_the_next_step(model: Any, alone: Any, others: int) -> None:
    running = Running(model)
    running.add(*(row(model, number, 5 + 7 * number) for number in range(others)))
    while len(running.said[0]) < 4:
        running.step()
    before = {number: len(said) for number, said in running.said.items()}
    running.add(row(model, 5, 40))
    running.step()
    assert running.said[5] == alone[5][:1]
    assert all(len(running.said[number]) == count + 1 for number, count in before.items())
    assert running.finish() == {**dict(enumerate(alone[:others])), 5: alone[5]}


def test_requests_can_join_and_leave_at_any_step(model: Any, alone: Any) -> None:
    for gap in range(4):
        running = Running(model)
        running.add(row(model, 0, 5))
        for number in range(1, 6):
            for _ in range(gap):
                running.step()
            running.add(row(model, number, 5 + 7 * number))
        gone = row(model, 9, 12)
        running.add(gone)
        for _ in range(gap % 2):
            running.step()
        running.scheduler.remove(gone)
        del running.said[9]
        assert running.finish() == dict(enumerate(alone)), gap
