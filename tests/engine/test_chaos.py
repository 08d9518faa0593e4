"""After random commands the engine still works and leaves nothing behind.

A seed determines the commands; MLXK2_LONG_TESTS=1 runs five hundred of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Delta, Finished, FinishReason, GenerationRequest, SamplingParams
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, is_gone, needs_mlx, new_engine, run, until
from tests.support.waiting import PATIENCE_S

pytestmark = needs_mlx

LONG = bool(os.environ.get("MLXK2_LONG_TESTS"))
COMMANDS = 500 if LONG else 120
WEIGHTS = {
    "generate": 58,
    "cancel": 16,
    "bad": 14,
    "count": 5,
    "load": 3,
    "unload": 2,
    "corrupt": 1,
    "kill": 0.8,
}
_EXPECTED = {ErrorType.ENGINE_CRASHED, ErrorType.CANCELLED}
_BAD = (
    GenerationRequest(prompt=""),
    GenerationRequest(prompt="x", sampling=SamplingParams(top_k=10**6)),
    GenerationRequest(prompt="x", sampling=SamplingParams(logit_bias={10**6: 1.0})),
    GenerationRequest(tokens=(10**6,)),
    GenerationRequest(messages=()),
    GenerationRequest(prompt="words " * 5000),
    GenerationRequest(prompt="x", max_tokens=-1),
)
_REFUSALS = {ErrorType.VALIDATION_ERROR, ErrorType.CONTEXT_LENGTH_EXCEEDED}


class Chaos:
    """One run of commands, with counts of their results."""

    def __init__(
        self, engine: Engine, models: list[RunnableModel], corrupt: RunnableModel, seed: int
    ) -> None:
        self.engine = engine
        self.outcomes: Counter[str] = Counter()
        self.pids: set[int] = set()
        self._models = models
        self._corrupt = corrupt
        self._random = random.Random(seed)
        self._running: list[asyncio.Task[None]] = []

    async def go(self) -> None:
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for _ in range(COMMANDS):
            command = self._random.choices(names, weights)[0]
            if self.engine.status.pid is not None:
                self.pids.add(self.engine.status.pid)
            if command == "cancel":
                self._cancel()
            elif command == "kill":
                self._kill()
            else:
                self._running.append(asyncio.create_task(self._do(command, self._random.random())))
            for task in [task for task in self._running if task.done()]:
                self._running.remove(task)
                self._look(None if task.cancelled() else task.exception())
            while len(self._running) > 12:
                done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._running.remove(task)
                    self._look(None if task.cancelled() else task.exception())
            for _ in range(self._random.randrange(4)):
                await asyncio.sleep(0)
        for outcome in await asyncio.gather(*self._running, return_exceptions=True):
            self._look(outcome)

    def _look(self, outcome: BaseException | None) -> None:
        """Check that a command ended with an allowed result."""
        if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
            raise outcome

    def _model(self, chance: float) -> RunnableModel:
        return self._models[0] if chance < 0.95 else self._models[1]

    def _cancel(self) -> None:
        if self._running:
            self._random.choice(self._running).cancel()
            self.outcomes["cancelled"] += 1

    def _kill(self) -> None:
        pid = self.engine.status.pid
        if pid is not None:
            os.kill(pid, self._random.choice([signal.SIGKILL, signal.SIGABRT]))
            self.outcomes["killed"] += 1

    async def _do(self, command: str, chance: float) -> None:
        model = self._model(chance)
        try:
            if command == "generate":
                await self._generate(model, chance)
            elif command == "bad":
                await run(self.engine, model, _BAD[int(chance * 1000) % len(_BAD)])
                raise AssertionError("a bad request was taken")
            elif command == "corrupt":
                await self.engine.load(self._corrupt)
                raise AssertionError("a corrupt model was loaded")
            elif command == "count":
                assert await self.engine.count_tokens(model, [{"role": "user", "content": "Hello"}]) > 0
            elif command == "load":
                await self.engine.load(model)
            else:
                await self.engine.unload()
            self.outcomes[command] += 1
        except OpError as error:
            allowed = set(_EXPECTED)
            if command == "bad":
                allowed |= _REFUSALS
            if command == "corrupt":
                allowed |= {ErrorType.MODEL_NOT_RUNNABLE}
            if error.type not in allowed:
                raise
            self.outcomes[error.type.value] += 1

    async def _generate(self, model: RunnableModel, chance: float) -> None:
        request = GenerationRequest(
            prompt="Hello, world! " * (1 + int(chance * 100) % 20),
            max_tokens=1 + int(chance * 1000) % 40,
            sampling=GREEDY if chance < 0.5 else SamplingParams(temperature=1.0, top_p=0.9),
        )
        stream = self.engine.generate(model, request)
        tokens = 0
        async for event in stream:
            if isinstance(event, Delta):
                tokens += event.tokens
                if chance > 0.9:
                    await stream.aclose()
            elif isinstance(event, Finished):
                assert event.usage.completion_tokens == tokens
                assert event.finish_reason is not FinishReason.CANCELLED


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20])
async def test_engine_survives_random_commands(
    seed: int, babbler: RunnableModel, other: RunnableModel, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = {child.pid for child in psutil.Process().children()}
    engine = new_engine()
    chaos = Chaos(engine, [babbler, other], RunnableModel("test/corrupt", tmp_path), seed)
    tasks_before = len(asyncio.all_tasks())
    await asyncio.wait_for(chaos.go(), 4 * PATIENCE_S if LONG else 2 * PATIENCE_S)
    assert chaos.outcomes["generate"] > COMMANDS / 5
    assert chaos.outcomes["killed"] >= (2 if LONG else 1)
    assert chaos.outcomes["validation_error"] > COMMANDS / 50
    result = await run(engine, babbler, GenerationRequest(prompt="Hello", max_tokens=5, sampling=GREEDY))
    assert result.tokens == 5
    status = await until(engine, lambda status: status.streams == 0)
    assert (status.waiting, status.last_error) == (0, None)
    await engine.stop()
    assert all(is_gone(pid) for pid in chaos.pids)
    assert {child.pid for child in psutil.Process().children()} <= before
    assert len(asyncio.all_tasks()) <= tasks_before
