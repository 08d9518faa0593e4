"""The engine's client: loading, switching models, cancellation, slow consumers, status."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from pathlib import Path

import pytest

from mlxk_tui.demo import tiny_model
from mlxk_tui.engine.client import Engine, EngineState, EngineStatus
from mlxk_tui.engine.generation import Delta, Finished, FinishReason, GenerationRequest, LoadProgress, Started
from mlxk_tui.engine.models import RunnableModel, find_runnable
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from tests.engine.conftest import GREEDY, is_gone, needs_mlx, new_engine, run, until
from tests.engine.small_models import make_model

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="package")]

LONG = GenerationRequest(prompt="Hello, world! How are", sampling=GREEDY, max_tokens=3000)
SHORT = replace(LONG, max_tokens=5)


async def test_loading_reports_progress_and_status(engine: Engine, babbler: RunnableModel) -> None:
    seen: list[EngineStatus] = []
    events: list[Progress] = []
    unsubscribe = engine.subscribe(seen.append)
    loaded = await engine.load(babbler, on_event=events.append)
    unsubscribe()
    assert (loaded.name, loaded.context_length, loaded.has_chat_template) == ("test/babbler", 4096, True)
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages[:4] == ["start", "weights", "warm-up", "tokenizer"]
    assert stages[4:] in ([], ["batching"])  # not tried by any test before this one
    weights = [event for event in events if event.stage == "weights"]
    assert weights[-1].bytes_done == weights[-1].bytes_total > 100_000
    assert any(status.loading_done == status.loading_total == weights[-1].bytes_total for status in seen)
    assert (engine.status.loading_done, engine.status.loading_total) == (0, 0)
    states = list(dict.fromkeys(status.state for status in seen))
    assert states == [EngineState.STARTING, EngineState.LOADING, EngineState.READY]
    assert engine.status.model == loaded
    assert engine.status.memory_bytes > 100_000


async def test_request_loads_its_model_and_reports_it(
    engine: Engine, other: RunnableModel, babbler: RunnableModel
) -> None:
    await engine.load(babbler)
    result = await run(engine, other, SHORT)
    kinds = list(dict.fromkeys(type(event) for event in result.events))
    assert kinds == [LoadProgress, Started, Delta, Finished]
    assert 0 < result.finished.timings.load_s < result.finished.timings.time_to_first_token_s
    assert engine.status.model is not None
    assert engine.status.model.name == "test/other"


async def test_closing_a_stream_frees_its_row(engine: Engine, babbler: RunnableModel) -> None:
    stream = engine.generate(babbler, LONG)
    async for event in stream:
        if isinstance(event, Delta):
            break
    assert engine.status.streams == 1
    await stream.aclose()
    await until(engine, lambda status: status.streams == 0)
    assert [event async for event in stream] == []


async def test_garbage_collected_stream_frees_its_row(engine: Engine, babbler: RunnableModel) -> None:
    async for event in engine.generate(babbler, LONG):
        if isinstance(event, Delta):
            break
    gc.collect()
    await until(engine, lambda status: status.streams == 0)


async def test_cancelling_the_task_frees_its_row(engine: Engine, babbler: RunnableModel) -> None:
    task = asyncio.create_task(run(engine, babbler, LONG))
    await until(engine, lambda status: status.streams == 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await until(engine, lambda status: status.streams == 0)


async def test_cancelled_stream_still_returns_its_counts(engine: Engine, babbler: RunnableModel) -> None:
    stream = engine.generate(babbler, LONG)
    tokens, last = 0, None
    async for event in stream:
        if isinstance(event, Delta):
            tokens += event.tokens
            stream.cancel()
        last = event
    assert isinstance(last, Finished)
    assert last.finish_reason is FinishReason.CANCELLED
    assert last.usage.completion_tokens == tokens < 3000


async def test_prefill_can_be_cancelled(engine: Engine, babbler: RunnableModel) -> None:
    prompt = "How are you today? " * 480
    stream = engine.generate(babbler, replace(LONG, prompt=prompt))
    async for event in stream:
        if isinstance(event, Started):
            stream.cancel()
        elif isinstance(event, Finished):
            assert event.finish_reason is FinishReason.CANCELLED
            assert event.usage.completion_tokens == 0


async def test_stream_cancelled_before_it_runs_ends(
    engine: Engine, babbler: RunnableModel, other: RunnableModel
) -> None:
    running = asyncio.create_task(run(engine, babbler, replace(LONG, max_tokens=300)))
    await until(engine, lambda status: status.streams == 1)
    waiting = engine.generate(other, SHORT)
    task = asyncio.create_task(anext(waiting))
    await until(engine, lambda status: status.waiting == 1)
    waiting.cancel()
    event = await task
    assert isinstance(event, Finished)
    assert event.finish_reason is FinishReason.CANCELLED
    assert (await running).finished.finish_reason is not FinishReason.CANCELLED
    unused = engine.generate(other, SHORT)
    unused.cancel()
    assert [type(event) async for event in unused] == [Finished]


async def test_slow_consumer_does_not_block_others_or_use_memory(
    engine: Engine, babbler: RunnableModel
) -> None:
    slow = engine.generate(babbler, replace(LONG, max_tokens=300))
    async for event in slow:
        if isinstance(event, Delta):
            break
    quick = await run(engine, babbler, replace(LONG, max_tokens=300))
    await until(engine, lambda status: status.streams == 0)
    rest = [event async for event in slow]
    assert (
        len(rest) <= 4
    )  # one or two deltas for all that was generated meanwhile, and the end: nothing accumulated
    assert isinstance(rest[-1], Finished)
    assert quick.tokens == rest[-1].usage.completion_tokens


async def test_requests_for_different_models_alternate_without_starvation(
    engine: Engine, babbler: RunnableModel, other: RunnableModel
) -> None:
    order: list[str] = []

    async def ask(name: str, model: RunnableModel, request: GenerationRequest) -> None:
        async for event in engine.generate(model, request):
            if isinstance(event, Started):
                order.append(f"{name} starts")
            if isinstance(event, Finished):
                assert event.finish_reason is FinishReason.LENGTH
                order.append(f"{name} ends")

    await engine.load(babbler)
    first = asyncio.create_task(ask("first", babbler, replace(LONG, max_tokens=200)))
    await until(engine, lambda status: status.streams == 1)
    tasks = [first]
    for name, model in (("switch", other), ("second", other), ("back", babbler)):
        tasks.append(asyncio.create_task(ask(name, model, SHORT)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order.index("first ends") < order.index("switch starts")
    assert max(order.index("switch ends"), order.index("second ends")) < order.index("back starts")
    assert order[:2] == ["first starts", "first ends"]


async def test_idle_model_is_unloaded_and_reloaded(engine: Engine, babbler: RunnableModel) -> None:
    engine.idle_unload_s = 0.1
    try:
        await run(engine, babbler, SHORT)
        before = engine.status.memory_bytes
        await until(engine, lambda status: status.state is EngineState.IDLE and status.memory_bytes < before)
        assert (await run(engine, babbler, SHORT)).tokens == 5
    finally:
        engine.idle_unload_s = 0


async def test_unloading_waits_for_running_requests(engine: Engine, babbler: RunnableModel) -> None:
    running = asyncio.create_task(run(engine, babbler, replace(LONG, max_tokens=100)))
    await until(engine, lambda status: status.streams == 1)
    await engine.unload()
    assert (await running).finished.finish_reason is FinishReason.LENGTH
    assert engine.status.model is None
    await engine.unload()


async def test_model_that_does_not_fit_is_rejected_unless_forced(
    engine: Engine, babbler: RunnableModel
) -> None:
    huge = replace(babbler, name="test/huge", memory_bytes=10**15)
    with pytest.raises(OpError) as caught:
        await engine.load(huge)
    assert caught.value.type is ErrorType.INSUFFICIENT_MEMORY
    assert "1.00 PB" in caught.value.message
    assert (await engine.load(replace(huge, forced=True))).name == "test/huge"


async def test_failed_load_has_a_reason_and_the_engine_keeps_working(
    engine: Engine, babbler: RunnableModel, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    with pytest.raises(OpError) as caught:
        await run(engine, RunnableModel("test/corrupt", folder), SHORT)
    assert caught.value.type is ErrorType.MODEL_NOT_RUNNABLE
    assert caught.value.message.startswith("test/corrupt could not be loaded")
    assert str(engine.status.last_error) == caught.value.message
    assert (await run(engine, babbler, SHORT)).tokens == 5
    assert engine.status.last_error is None


async def test_cancelled_load_keeps_the_engine_working(
    engine: Engine, babbler: RunnableModel, other: RunnableModel
) -> None:
    await engine.load(babbler)
    task = asyncio.create_task(engine.load(other))
    await until(engine, lambda status: status.loading == "test/other")
    task.cancel()
    await asyncio.wait([task])
    assert (await run(engine, babbler, SHORT)).tokens == 5


async def test_tokens_are_counted(engine: Engine, babbler: RunnableModel) -> None:
    message = {"role": "user", "content": "Hello"}
    counted = await engine.count_tokens(babbler, [message])
    result = await run(engine, babbler, GenerationRequest(messages=(message,), max_tokens=2))
    assert counted == result.finished.usage.prompt_tokens


async def test_token_count_includes_tools_and_template_variables(engine: Engine, tiny: RunnableModel) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    messages = ({"role": "user", "content": "Hello"},)
    counts = set()
    for tools in ((), (tool,)):
        for kwargs in ({}, {"enable_thinking": False}):
            request = GenerationRequest(messages=messages, tools=tools, template_kwargs=kwargs, max_tokens=1)
            counted = await engine.count_tokens(tiny, messages, tools=tools, template_kwargs=kwargs)
            assert counted == (await run(engine, tiny, request)).finished.usage.prompt_tokens
            counts.add(counted)
    assert len(counts) == 4


async def test_long_conversation_is_counted_and_an_empty_one_rejected(
    engine: Engine, other: RunnableModel
) -> None:
    loaded = await engine.load(other)
    message = {"role": "user", "content": "word " * 400}
    assert await engine.count_tokens(other, [message]) > loaded.context_length
    with pytest.raises(OpError) as caught:
        await engine.count_tokens(other, [])
    assert caught.value.type is ErrorType.VALIDATION_ERROR


async def test_stopping_ends_streams_and_the_process(babbler: RunnableModel) -> None:
    engine = new_engine()
    running = asyncio.create_task(run(engine, babbler, LONG))
    await until(engine, lambda status: status.streams == 1)
    pid = engine.status.pid
    assert pid is not None
    await asyncio.gather(engine.stop(), engine.stop())
    assert is_gone(pid)
    with pytest.raises(OpError) as caught:
        await running
    assert caught.value.type is ErrorType.CANCELLED
    with pytest.raises(OpError):
        await run(engine, babbler, SHORT)
    assert engine.status == EngineStatus()


async def test_the_demo_model_is_found_by_name(hub: Path, cache: Cache) -> None:
    snapshot = tiny_model.install(hub)
    found = await find_runnable(cache, "tiny-demo")
    assert (found.name, found.folder, found.context_length) == (tiny_model.NAME, snapshot, 4096)
    assert found.memory_bytes
    with pytest.raises(OpError) as caught:
        await find_runnable(cache, "nothing")
    assert caught.value.type is ErrorType.MODEL_NOT_FOUND
    (snapshot / "config.json").unlink()
    with pytest.raises(OpError) as caught:
        await find_runnable(cache, "tiny-demo")
    assert caught.value.type is ErrorType.MODEL_NOT_RUNNABLE
    assert "config.json" in caught.value.message
