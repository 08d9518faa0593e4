"""The Chat pane: time from a key press to the screen while a model streams and in a long chat, and memory.

Everything runs in one process with the real app, the real engine and the tiny model, without a terminal. The
clock starts when the key is passed to the app and stops when the app has drawn it and is idle again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from benchmarks.measure import Row, arguments, finish, scratch, table
from mlxk_tui.app import MlxkApp
from mlxk_tui.chats.model import Role
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.demo import tiny_model
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.conversation.request import ChatSettings
from mlxk_tui.settings import load
from mlxk_tui.ui.chat.pane import ChatPane

KEYS = 120
KEY_BUDGET_MS = 50.0
"""Maximum p95 from a key press to the screen while a model streams."""
MEMORY_BUDGET = 120e6
HISTORY = 200
NOISE = 1.5
"""Maximum key time in a long chat relative to an empty one; medians of two runs may differ by this much."""
ANSWER = """Here is what **verify** does:

1. it reads every byte
2. it compares the checksums

```python
def verify(path: str) -> bool:
    return digest(path) == expected(path)
```

Text with `code`, *emphasis* and a [link](https://example.org).
"""


async def _chats(state: Path, messages: int) -> None:
    async with await ChatStore.open(state / "chats.db") as store:
        session = await store.create_session(model=tiny_model.NAME)
        for number in range(messages // 2):
            await store.add_message(session.id, Role.USER, f"Question {number}: what does verify do?")
            await store.add_message(session.id, Role.ASSISTANT, ANSWER, model=tiny_model.NAME)


class Session:
    """The app with the tiny model.

    Args:
        folder: folder for the cache and the state.
        messages: number of messages in the chat that is opened.
    """

    def __init__(self, folder: Path, messages: int = 0) -> None:
        state = folder / f"state-{messages}"
        state.mkdir(parents=True)
        tiny_model.install(folder / "hub")
        self._messages = messages
        self._state = state
        self.app = MlxkApp(
            load({"refresh_seconds": 0}),
            Cache(folder / "hub"),
            state=state,
            hub=Hub("http://127.0.0.1:9"),
        )

    async def prepare(self) -> None:
        """Create the saved chat."""
        if self._messages:
            await _chats(self._state, self._messages)


async def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("timeout while waiting for the app")
        await asyncio.sleep(0.01)


async def _keys(
    app: MlxkApp, pane: ChatPane, count: int, while_true: Callable[[], bool] = lambda: True
) -> list[float]:
    """Press keys in the composer and return the milliseconds until each was drawn."""
    taken: list[float] = []
    for number in range(count):
        if not while_true():
            break
        before = len(pane.composer.text)
        begin = time.perf_counter()
        app.simulate_key("abcdefghi"[number % 9])
        end = begin + 5
        while len(pane.composer.text) == before:
            if time.perf_counter() > end:
                raise SystemExit(f"the key did not arrive; the focus is on {app.focused}")
            await asyncio.sleep(0)
        drawn = asyncio.get_running_loop().create_future()
        app.call_after_refresh(lambda done=drawn: done.done() or done.set_result(None))
        await drawn
        taken.append(1000 * (time.perf_counter() - begin))
        await asyncio.sleep(0.013)
    return taken


async def _streaming(folder: Path) -> tuple[list[float], list[float], float, list[float], int]:
    """Return key times idle and streaming, tokens/s, loop lags (ms) and memory (bytes)."""
    session = Session(folder)
    app = session.app
    async with app.run_test(size=(120, 40)) as pilot:
        await _until(lambda: bool(app.library.entries))
        await pilot.press("f4")
        pane = app.screen
        assert isinstance(pane, ChatPane)
        await _until(lambda: pane.store_state.done and pane.controller.session.model is not None)
        await _ask(pane, "What do the panes do?")
        await _until(lambda: bool(app.chats.answers))
        await _until(lambda: not app.chats.answers)
        pane.composer.set_text("")
        idle = await _keys(app, pane, KEYS)
        streaming: list[float] = []
        lags: list[float] = []
        rates: list[float] = []
        watch = asyncio.create_task(_lag(lags))
        for _ in range(12):
            await pane.controller.use_settings(_long())
            await _ask(pane, "Give me a tour of the app")
            await _until(lambda: pane.controller.answer is not None and pane.controller.answer.tokens > 0)
            pane.composer.set_text("")
            streaming += await _keys(app, pane, KEYS, lambda: pane.controller.answer is not None)
            await _until(lambda: not app.chats.answers)
            rates.append(pane.conversation.blocks[-1].message.timings.get("generation_tps", 0.0))
            if len(streaming) >= KEYS:
                break
        watch.cancel()
        memory = psutil.Process().memory_info().rss
    return idle, streaming, statistics.median(rates), lags, memory


def _long() -> ChatSettings:
    # A high temperature makes the tiny model generate up to the limit.
    return ChatSettings("", {"temperature": 1.6, "max_tokens": 1500, "seed": 7})


async def _lag(lags: list[float]) -> None:
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(0.005)
        lags.append(1000 * (time.perf_counter() - begin - 0.005))


async def _ask(pane: ChatPane, text: str) -> None:
    pane.composer.set_text(text)
    pane.composer.action_send()
    await asyncio.sleep(0)


def _longer(pane: ChatPane, known: int) -> bool:
    return len(pane.conversation.blocks) > known


async def _history(folder: Path, messages: int) -> list[float]:
    """Return the key times in the composer of a chat with this many messages."""
    session = Session(folder, messages)
    await session.prepare()
    app = session.app
    async with app.run_test(size=(120, 40)) as pilot:
        await _until(lambda: bool(app.library.entries))
        await pilot.press("f4")
        pane = app.screen
        assert isinstance(pane, ChatPane)
        await _until(lambda: pane.store_state.done and (not messages or bool(pane.conversation.blocks)))
        while messages and len(pane.conversation.blocks) < messages:  # scroll up until all are loaded
            known = len(pane.conversation.blocks)
            pane.messages.load_earlier()
            await _until(partial(_longer, pane, known))
        await pilot.pause()
        return await _keys(app, pane, KEYS)


def p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


def measure(rounds: int) -> list[Row]:
    """Return the rows of the table."""
    del rounds  # each key is a round
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    gc.disable()  # like the command's startup; the app enables it again
    sys.setswitchinterval(0.0005)
    with scratch("chat") as folder:
        idle, streaming, rate, lags, memory = asyncio.run(_streaming(folder))
        empty = asyncio.run(_history(folder / "empty", 0))
        long = asyncio.run(_history(folder / "long", HISTORY))
    budget = "the budget"
    now, quiet = statistics.median(streaming), statistics.median(idle)
    lag = statistics.quantiles(lags, n=100)[-1]
    short, many = statistics.median(empty), statistics.median(long)
    return [
        Row(f"key, streaming {rate:,.0f} tok/s, median", now, "idle", quiet),
        Row(f"key, streaming, p95 of {len(streaming)}", p95(streaming), budget, KEY_BUDGET_MS, budget=1.0),
        Row("key, idle, p95", p95(idle), budget, KEY_BUDGET_MS, budget=1.0),
        Row("event loop's lag, streaming, p99", lag, budget, KEY_BUDGET_MS),
        Row(f"key, {HISTORY} messages, median", many, "an empty chat", short, budget=NOISE),
        Row(f"key, {HISTORY} messages, p95", p95(long), "an empty chat", p95(empty)),
        Row("memory of the UI process", memory / 1e6, budget, MEMORY_BUDGET / 1e6, unit="MB", budget=1.0),
    ]


def main() -> int:
    """Run the benchmark and print its results."""
    parser: argparse.ArgumentParser = arguments(__doc__ or "")
    options = parser.parse_args()
    rows = measure(options.rounds)
    loaded = {name for name in sys.modules if name.partition(".")[0] in {"mlx", "mlx_lm", "transformers"}}
    if loaded:
        raise SystemExit(f"The app's process has loaded MLX: {sorted(loaded)[:5]}")
    table("Chat pane: key to screen, without MLX in the process", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
