"""Prompts are tokenized in separate processes: their contents, crashes and limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Delta, Finished, GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, chat, is_gone, needs_mlx, new_engine, run
from tests.engine.small_models import make_model
from tests.support.waiting import until

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="package")]

ENDLESS = (
    "{% for message in messages %}{% if message.content == 'loop' %}"
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    "{% endif %}<|im_start|>{{ message.content }}<|im_end|>\n{% endfor %}"
)
HUNGRY = "{% set x = 'x' * 20000000000 %}{{ messages[0].content }}"


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> RunnableModel:
    """Return a model whose template never ends for a certain message."""
    folder = make_model(
        tmp_path_factory.mktemp("endless") / "m", context=4096, template=ENDLESS, endless=True
    )
    return RunnableModel("test/endless", folder)


def family(engine: Engine) -> list[list[psutil.Process]]:
    """Return the first process of the pool, the one with the tokenizer, and the workers."""
    pid = engine.status.pid
    assert pid is not None
    first = psutil.Process(pid).children()
    loaded = [child for one in first for child in one.children()]
    return [first, loaded, [child for one in loaded for child in one.children()]]


def workers(engine: Engine) -> list[psutil.Process]:
    return family(engine)[2]


async def test_tokenizing_processes_have_a_tokenizer_and_no_mlx(engine: Engine, tiny: RunnableModel) -> None:
    await run(engine, tiny, chat("Hello", max_tokens=1))
    pid = engine.status.pid
    assert pid is not None
    assert any("libmlx" in one.path for one in psutil.Process(pid).memory_maps())
    first, loaded, working = family(engine)
    assert (len(first), len(loaded)) == (1, 1)
    assert working
    await run(engine, tiny, chat("Hello", max_tokens=1))  # its heartbeats contain earlier measurements
    await until(lambda: engine.status.tokenizing_bytes > 0)
    for process in (*first, *loaded, *working):
        assert not any("libmlx" in one.path for one in process.memory_maps())


async def test_lost_process_fails_no_request_or_stream(engine: Engine, babbler: RunnableModel) -> None:
    stream = engine.generate(babbler, GenerationRequest(prompt="Hello", max_tokens=3000, sampling=GREEDY))
    async for event in stream:
        if isinstance(event, Delta):
            break
    pid = engine.status.pid
    for process in workers(engine):
        os.kill(process.pid, signal.SIGKILL)
    assert (await run(engine, babbler, chat("Hello", max_tokens=1))).finished.usage.completion_tokens == 1
    (loaded,) = family(engine)[1]
    os.kill(loaded.pid, signal.SIGKILL)  # the workers end with it
    assert (await run(engine, babbler, chat("Hello", max_tokens=1))).finished.usage.completion_tokens == 1
    assert engine.status.pid == pid
    assert engine.status.streams == 1
    await stream.aclose()


@pytest.mark.slow  # it uses the allowed processor time
async def test_endless_template_fails_only_its_request(engine: Engine, endless: RunnableModel) -> None:
    await run(engine, endless, chat("Hello", max_tokens=1))
    pid = engine.status.pid
    looping = asyncio.create_task(run(engine, endless, chat("loop", max_tokens=1)))
    for _ in range(3):  # other requests are answered meanwhile
        assert not looping.done()
        await run(engine, endless, chat("Hello", max_tokens=1))
    with pytest.raises(OpError, match=r"^The chat template of test/endless used more than 5 seconds"):
        await looping
    assert engine.status.pid == pid


@pytest.mark.slow
async def test_request_whose_process_is_killed_twice_fails_alone(
    engine: Engine, endless: RunnableModel
) -> None:
    await run(engine, endless, chat("Hello", max_tokens=1))
    pid = engine.status.pid
    looping = asyncio.create_task(run(engine, endless, chat("loop", max_tokens=1)))

    def at_work() -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in workers(engine):
                if process.status() == psutil.STATUS_RUNNING and process.cpu_times().user > 0.3:
                    return process
        return None

    for _ in range(2):
        await until(lambda: at_work() is not None)
        process = at_work()
        if process is not None:
            os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(OpError) as lost:
        await looping
    assert lost.value.type in {ErrorType.ENGINE_CRASHED, ErrorType.MODEL_NOT_RUNNABLE}
    assert "test/endless" in lost.value.message
    assert engine.status.pid == pid
    await run(engine, endless, chat("Hello", max_tokens=1))


async def test_template_that_uses_too_much_memory_is_stopped(engine: Engine, tmp_path: Path) -> None:
    hungry = RunnableModel("test/hungry", make_model(tmp_path / "m", template=HUNGRY))
    with pytest.raises(OpError) as refused:
        await run(engine, hungry, chat("Hello", max_tokens=1))
    assert refused.value.type is ErrorType.MODEL_NOT_RUNNABLE
    assert "test/hungry" in refused.value.message


def optional_keys(count: int) -> str:
    """Return a schema with this many optional keys."""
    return json.dumps({"type": "object", "properties": {f"k{number}": {} for number in range(count)}})


@pytest.mark.slow  # it uses the allowed processor time
async def test_slow_schema_fails_only_its_request(engine: Engine, babbler: RunnableModel) -> None:
    await run(engine, babbler, chat("Hello", max_tokens=1))
    pid = engine.status.pid
    compiling = asyncio.create_task(
        run(engine, babbler, chat("Hello", max_tokens=1, grammar=optional_keys(9_000)))
    )
    for _ in range(3):  # other requests are answered meanwhile
        assert not compiling.done()
        await run(engine, babbler, chat("Hello", max_tokens=1))
    said = r"takes more than 4 seconds to compile|too large"
    with pytest.raises(OpError, match=said) as slow:
        await compiling
    assert slow.value.type is ErrorType.VALIDATION_ERROR
    assert engine.status.pid == pid


async def test_large_schema_is_followed_and_compiled_once(engine: Engine, babbler: RunnableModel) -> None:
    keys = {f"key_{number}": {"type": "boolean"} for number in range(600)}
    schema = json.dumps({"type": "object", "properties": keys, "required": list(keys)})
    for _ in range(2):
        result = await run(
            engine, babbler, GenerationRequest(prompt="Hello", max_tokens=30, sampling=GREEDY, grammar=schema)
        )
        assert result.text.startswith('{"key_0":')


async def test_far_too_long_text_is_rejected_before_it_is_fully_tokenized(
    engine: Engine, other: RunnableModel
) -> None:
    text = "The quick brown fox. " * 500_000
    for request in (chat(text), GenerationRequest(prompt=text)):
        with pytest.raises(OpError) as refused:
            await run(engine, other, request)
        assert refused.value.type is ErrorType.CONTEXT_LENGTH_EXCEEDED
        overflow = refused.value.overflow
        assert overflow is not None
        assert (overflow.context_length, overflow.at_least) == (256, True)
        assert 256 <= overflow.prompt_tokens < 100_000  # of 2.5 million
        assert "at least" in refused.value.message


@pytest.mark.slow
async def test_tokenizing_processes_end_with_their_model_and_the_worker(
    tiny: RunnableModel, other: RunnableModel
) -> None:
    engine = new_engine()
    try:
        await run(engine, tiny, chat("Hello", max_tokens=1))
        first, loaded, working = family(engine)
        await run(engine, other, chat("Hello", max_tokens=1))
        await until(lambda: all(is_gone(one.pid) for one in (*loaded, *working)))
        await engine.unload()
        await until(lambda: not family(engine)[1])
        assert [one.pid for one in family(engine)[0]] == [one.pid for one in first]
        await run(engine, tiny, chat("Hello", max_tokens=1))
        everyone = [one.pid for generation in family(engine) for one in generation]
        assert len(everyone) >= 3
        assert engine.status.pid is not None
        os.kill(engine.status.pid, signal.SIGKILL)
        await until(lambda: all(map(is_gone, everyone)))
    finally:
        await engine.stop()


async def test_suspended_processes_end_with_the_worker(tiny: RunnableModel) -> None:
    engine = new_engine()
    try:
        result = await run(engine, tiny, chat("Hello", max_tokens=1))
        assert isinstance(result.finished, Finished)
        everyone = [one.pid for generation in family(engine) for one in generation]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        assert engine.status.pid is not None
        os.kill(engine.status.pid, signal.SIGKILL)
        await until(lambda: all(map(is_gone, everyone)))
    finally:
        await engine.stop()
