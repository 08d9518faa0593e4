"""Fixtures and helpers for the engine's tests."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from mlxk_tui.demo import tiny_model
from mlxk_tui.engine.client import Engine, EngineStatus
from mlxk_tui.engine.generation import (
    Delta,
    Event,
    Finished,
    GenerationRequest,
    SamplingParams,
    Started,
    TokenLogprob,
    ToolCall,
)
from mlxk_tui.engine.models import RunnableModel
from tests.engine.small_models import make_model
from tests.support.waiting import PATIENCE_S

needs_mlx = pytest.mark.skipif(
    importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm is not installed on this platform"
)
"""For everything that starts a worker."""
GREEDY = SamplingParams(temperature=0)
THOUGHT_OVER = "Why does a model not run here?"
"""A question that the demo model reasons about before it answers."""


@dataclass
class Result:
    """A finished generation."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tokens: int = 0
    events: list[Event] = field(default_factory=list)

    @property
    def started(self) -> Started:
        return next(event for event in self.events if isinstance(event, Started))

    @property
    def finished(self) -> Finished:
        last = self.events[-1]
        assert isinstance(last, Finished)
        return last


async def run(engine: Engine, model: RunnableModel, request: GenerationRequest) -> Result:
    """Generate to the end."""
    result = Result()
    async for event in engine.generate(model, request):
        result.events.append(event)
        if isinstance(event, Delta):
            result.text += event.text
            result.reasoning += event.reasoning
            result.tool_calls += event.tool_calls
            result.token_ids += event.token_ids
            result.logprobs += event.logprobs
            result.tokens += event.tokens
    return result


async def until(engine: Engine, condition: Callable[[EngineStatus], bool]) -> EngineStatus:
    """Wait until the engine's status satisfies the condition."""
    changed = asyncio.Event()
    unsubscribe = engine.subscribe(lambda status: changed.set())

    async def wait() -> None:
        while not condition(engine.status):
            changed.clear()
            await changed.wait()

    try:
        await asyncio.wait_for(wait(), PATIENCE_S)
    finally:
        unsubscribe()
    return engine.status


def chat(*contents: str, **more: Any) -> GenerationRequest:
    """Return a greedy request for a conversation with alternating messages, the user's first."""
    roles = ("user", "assistant")
    messages = tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(contents))
    return replace(GenerationRequest(messages=messages, sampling=GREEDY), **more)


def is_gone(pid: int) -> bool:
    """Return whether a process is neither running nor our zombie; init reaps orphans."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and process.ppid() != os.getpid()
    except psutil.NoSuchProcess:
        return True


def worker_environment(**more: str) -> dict[str, str]:
    """Return the environment of a worker in tests: without compilation, which takes seconds."""
    return {**os.environ, "MLX_DISABLE_COMPILE": "1", **more}


def new_engine(**options: Any) -> Engine:
    """Return an engine for tests; the caller must stop it."""
    return Engine(**{"environ": worker_environment(), **options})


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def engine() -> AsyncIterator[Engine]:
    """Return the engine shared by most tests, and check that it leaves nothing behind."""
    engine = new_engine()
    yield engine
    pid = engine.status.pid
    await engine.stop()
    assert pid is None or is_gone(pid)


@pytest.fixture(scope="session")
def tiny() -> RunnableModel:
    """Return the demo model, which is trained and gives clear answers."""
    return RunnableModel("mlxk-tui/tiny-demo", tiny_model.folder())


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> RunnableModel:
    """Return a model with random weights and long answers."""
    return RunnableModel(
        "test/babbler", make_model(tmp_path_factory.mktemp("babbler") / "m", context=4096, endless=True)
    )


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> RunnableModel:
    """Return a second model with random weights and a short context."""
    return RunnableModel(
        "test/other", make_model(tmp_path_factory.mktemp("other") / "m", context=256, seed=1, endless=True)
    )


def executable() -> str:
    """Return the interpreter of the tests."""
    return sys.executable


def folder_of(runnable: RunnableModel) -> str:
    """Return the path of a model's folder."""
    return str(Path(runnable.folder))
