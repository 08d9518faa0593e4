"""Many clients at once: each gets its own answer, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from mlxk_tui.engine.generation import GenerationRequest
from mlxk_tui.engine.status import EngineState
from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, CHAT, COMPLETIONS, GREEDY, OTHER, TINY, Served
from tests.support.clients import openai
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = needs_mlx

REQUESTS = int(os.environ.get("MLXK2_MANY_REQUESTS", "1000"))
LONG: dict[str, Any] = {"model": BABBLER, "prompt": "Hello", "max_tokens": 4000, "logit_bias": {"0": -100}}


async def test_eight_clients_get_their_own_exact_answers(served: Served) -> None:
    prompts = [f"{word} the" for word in ("The", "quick", "brown", "fox", "jumps", "over", "a", "dog")]

    def own(prompt: str) -> str:
        return served.own(GenerationRequest(prompt=prompt, sampling=GREEDY, max_tokens=40), BABBLER)[0]

    expected = [await asyncio.to_thread(own, prompt) for prompt in prompts]
    assert len(set(expected)) == 8

    async with openai.AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client:

        async def ask(number: int, prompt: str) -> str:
            fixed: dict[str, Any] = {"model": BABBLER, "prompt": prompt, "max_tokens": 40, "temperature": 0}
            if number % 2:
                whole: str = (await client.completions.create(**fixed)).choices[0].text
                return whole
            stream = await client.completions.create(**fixed, stream=True)
            return "".join([chunk.choices[0].text async for chunk in stream])

        answers = await asyncio.gather(*(ask(number, prompt) for number, prompt in enumerate(prompts)))
    assert answers == expected


async def test_requests_beyond_the_queue_get_retry_after(served: Served) -> None:
    with served.options(max_queue=2):
        async with aiohttp.ClientSession(f"http://127.0.0.1:{served.address.port}") as client:
            running = [asyncio.create_task(client.post(COMPLETIONS, json=LONG)) for _ in range(2)]
            await asyncio.to_thread(served.until, lambda: served.engine.status.streams == 2)
            refused = await asyncio.to_thread(served.chat, "Hello!")
            assert (refused.status, refused.error["type"]) == (429, "server_busy")
            assert int(refused.headers["Retry-After"]) >= 1
            assert served.get("/health").json["status"] == "ready"
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        too_many = served.post(COMPLETIONS, {"model": BABBLER, "prompt": "x", "n": 3})
        assert too_many.status == 400
    await asyncio.to_thread(served.until, lambda: served.server.generations == 0)
    served.still_well()


async def test_health_answers_while_models_are_switched(served: Served) -> None:
    def ask(model: str) -> tuple[str, str]:
        body = {"model": model, "prompt": "Hello", "max_tokens": 60, "logit_bias": {"0": -100}}
        reply = served.post(COMPLETIONS, body).json
        return reply["model"], reply["choices"][0]["finish_reason"]

    wanted = [BABBLER, OTHER, BABBLER, OTHER]
    tasks = [asyncio.create_task(asyncio.to_thread(ask, model)) for model in wanted]
    states = set()
    while not all(task.done() for task in tasks):
        states.add((await asyncio.to_thread(served.get, "/health")).json["status"])
    assert await asyncio.gather(*tasks) == [(model, "length") for model in wanted]
    assert states <= {"ready", "loading"}
    assert "loading" in states


@pytest.mark.slow
async def test_killed_engine_fails_running_requests_and_restarts(served: Served) -> None:
    served.post(COMPLETIONS, {**LONG, "max_tokens": 1})
    restarts = served.get("/health").json["restarts"]
    streaming = asyncio.create_task(asyncio.to_thread(served.post, COMPLETIONS, {**LONG, "stream": True}))
    whole = asyncio.create_task(asyncio.to_thread(served.post, COMPLETIONS, LONG))
    await asyncio.to_thread(
        served.until, lambda: sum(entry.completion_tokens > 0 for entry in served.server.log.live) == 2
    )
    pid = served.engine.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    broken, failed = await streaming, await whole
    assert broken.status == 200
    assert broken.events[-1]["error"]["type"] == "engine_crashed"
    assert (failed.status, failed.error["type"]) == (503, "engine_crashed")
    assert "Retry-After" in failed.headers
    health = served.get("/health")
    assert (health.status, health.json["status"]) == (503, "restarting")
    await asyncio.to_thread(served.until, lambda: served.server.health.value == "ready")
    assert served.engine.status.model is not None
    assert served.engine.status.model.name == BABBLER
    assert served.get("/health").json["restarts"] == restarts + 1
    served.still_well()


@pytest.mark.slow
async def test_unresponsive_engine_is_reported_and_replaced(served: Served) -> None:
    served.post(COMPLETIONS, {**LONG, "max_tokens": 1})
    asked = asyncio.create_task(asyncio.to_thread(served.post, COMPLETIONS, LONG))
    await asyncio.to_thread(
        served.until, lambda: any(entry.completion_tokens for entry in served.server.log.live)
    )
    pid = served.engine.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await asyncio.to_thread(served.until, lambda: served.server.health.value == "unresponsive")
    assert served.get("/health").status == 503
    reply = await asked
    assert (reply.status, reply.error["type"]) == (503, "engine_crashed")
    await asyncio.to_thread(served.until, lambda: served.server.health.value == "ready")
    served.still_well()


@pytest.mark.slow
def test_idle_engine_crash_is_not_a_failure(model_hub: Path) -> None:
    # A separate server: the shared one has had so many crashes that another one is reported as failed.
    with contextlib.closing(Served(model_hub)) as served:
        served.post(COMPLETIONS, {**LONG, "max_tokens": 1})
        assert served.post("/v1/engine/unload", {}).status == 200
        restarts = served.get("/health").json["restarts"]
        pid = served.engine.status.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        served.until(lambda: served.engine.status.state is EngineState.FAILED)
        assert served.get("/health").json["restarts"] == restarts + 1
        health = served.get("/health")
        assert (health.status, health.json["status"]) == (200, "ready")
        assert served.post(COMPLETIONS, {**LONG, "max_tokens": 1}).status == 200
        served.still_well()


@pytest.mark.slow
def test_many_requests_leave_nothing_behind(served: Served) -> None:
    body = json.dumps({"model": TINY, "prompt": "Hello", "max_tokens": 1})
    me = psutil.Process()

    def some(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", served.address.port, timeout=PATIENCE_S)
        for number in range(count):
            if number % 4 == 0:
                connection.request("POST", COMPLETIONS, body)
            elif number % 4 == 1:
                connection.request("POST", CHAT, b'{"messages": 5}')
            else:
                connection.request("GET", "/health")
            assert connection.getresponse().read()
            if number % 50 == 49:
                connection.close()
        connection.close()

    some(100)  # warms up everything that is created only once
    wait_until(lambda: not served.server.log.live)
    files, memory = me.num_fds(), me.memory_info().rss
    some(REQUESTS)
    wait_until(lambda: me.num_fds() <= files)
    assert me.memory_info().rss - memory < 12_000_000  # the log keeps 1,000 entries
    assert len(served.server.log.finished) <= 1000


@pytest.mark.parametrize("stream", [False, True])
async def test_disconnected_clients_free_the_queue(served: Served, stream: bool) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.address.port}") as client:

        async def ask() -> None:
            async with client.post(COMPLETIONS, json={**LONG, "stream": stream}) as response:
                await response.read()

        tasks = [asyncio.create_task(ask()) for _ in range(6)]
        await asyncio.to_thread(served.until, lambda: served.engine.status.streams == 6)
        for task in tasks[:5]:
            task.cancel()
        await asyncio.to_thread(served.until, lambda: served.engine.status.streams == 1)
        assert served.server.generations == 1
        tasks[5].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(served.until, lambda: served.engine.status.streams == 0)
