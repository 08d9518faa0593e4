"""Pictures of the Server pane in every state, with the real server and requests added to its log.

After an intended change, run `make snapshots`, and look at each picture that differs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import sin
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mlxk_tui.app import MlxkApp
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.status import EngineState, EngineStatus, ModelStatus
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.matrices import Blas, BlasState
from mlxk_tui.ops.contract.terms import BatchingReason, CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.server.http.keys import save_keys
from mlxk_tui.server.request_log import RequestEntry, RequestState
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.settings import load
from tests.support.hf_cache import HfCache, model_files
from tests.ui.conftest import MACHINE, NOW, Unchanged, wait_until
from tests.ui.gallery import NO_COLOR, THEMES, settle

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
QWEN = "mlx-community/Qwen3-4B-Instruct-2507-4bit"
LLAMA = "mlx-community/Llama-3.2-3B-Instruct-4bit"
KEYS = {"editor": "mlxk-0000-editor-0000", "phone": "mlxk-1111-phone-1111"}
LOADED = ModelStatus(QWEN, "folder", 40_960, 151_936, 2_280_000_000, 1.4, True, False, True)
READY = EngineStatus(EngineState.READY, LOADED, streams=2, tokens_per_s=61.3, memory_bytes=2_412_000_000)
COPIES = replace(LOADED, weights=CpuWeights.FLOAT32, memory_bytes=16_200_000_000, stored_bytes=2_280_000_000)
SLOW = (
    "Prompts are read slowly, with MLX's own matrix product. There is no fast BLAS library. "
    "Install one with 'pip install scipy-openblas32'."
)
ON_CPU = replace(
    READY, model=replace(COPIES, unbatched_reason=BatchingReason.DIFFERENT), memory_bytes=16_300_000_000
)
WITHOUT_BLAS = EngineStatus(
    EngineState.READY,
    replace(LOADED, weights=CpuWeights.STORED, stored_bytes=2_280_000_000),
    memory_bytes=2_412_000_000,
    blas=Blas(BlasState.BUILT_IN, message=SLOW),
)
DIED = EngineStatus(
    EngineState.FAILED,
    last_error=OpError(
        ErrorType.ENGINE_CRASHED,
        "The inference process was killed (SIGKILL), often because memory ran out.",
        remedy=Remedy.SEND_AGAIN,
    ),
)
LOADING = EngineStatus(EngineState.LOADING, loading=QWEN)


class Posed(Engine):
    """An engine with a fixed status, without a worker."""

    pose = EngineStatus()

    @property
    def status(self) -> EngineStatus:
        return self.pose


def _entry(number: int, ago: float, client: str, method: str, route: str, **facts: Any) -> RequestEntry:
    entry = RequestEntry(number, f"req-{number:04x}a1c2", client, method, route, NOW - ago)
    for name, value in facts.items():
        setattr(entry, name, value)
    return entry


HOME, PHONE = "127.0.0.1", "192.168.1.23"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
LONG_ERROR = (
    "The prompt has 52,118 tokens, and Qwen3-4B-Instruct-2507-4bit takes 40,960. Shorten the conversation, "
    "or choose a model with a longer context."
)
ENDED = (
    _entry(1, 611, HOME, "GET", "/v1/models", key="editor", status=200, duration_s=0.004),
    _entry(2, 604, HOME, "POST", CHAT, key="editor", model=QWEN, stream=True, status=200, prompt_tokens=1_204,
           cached_tokens=0, completion_tokens=388, ttft_s=0.412, duration_s=6.6, tokens_per_s=62.7,
           finish_reason="stop"),
    _entry(3, 580, "10.0.0.7", "POST", CHAT, status=401, duration_s=0.001, error_type="auth_error",
           error="The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'."),
    _entry(4, 490, PHONE, "POST", MESSAGES, key="phone", model=LLAMA, stream=True, status=200,
           prompt_tokens=88, completion_tokens=1_204, ttft_s=2.31, duration_s=21.8, tokens_per_s=61.8,
           finish_reason="end_turn"),
    _entry(5, 433, HOME, "GET", "-", status=404, duration_s=0.001, error_type="not_found",
           error="Not found: /chat/completions. Did you mean /v1/chat/completions?"),
    _entry(6, 402, HOME, "POST", "/v1/embeddings", key="editor",
           model="mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ", status=200, prompt_tokens=6_120,
           duration_s=0.8),
    _entry(7, 350, HOME, "POST", CHAT, key="editor", model=QWEN, stream=True, status=499, prompt_tokens=912,
           cached_tokens=640, completion_tokens=41, ttft_s=0.19, duration_s=0.9, tokens_per_s=58.2),
    _entry(8, 301, HOME, "POST", CHAT, key="editor", model=QWEN, stream=True, status=200, prompt_tokens=2_044,
           completion_tokens=112, ttft_s=0.22, duration_s=2.1, tokens_per_s=60.2, error_type="engine_crashed",
           error="The inference process ended while it wrote the answer. Ask again."),
    _entry(9, 222, HOME, "POST", CHAT, key="editor", model=QWEN, status=400, prompt_tokens=52_118,
           duration_s=0.6, error_type="context_length_exceeded", error=LONG_ERROR),
    _entry(10, 130, HOME, "POST", "/v1/completions", key="editor", model=QWEN, status=503, duration_s=1.2,
           error_type="insufficient_memory", error="[red]Not enough memory[/] \x1b[31mfor this model."),
    _entry(11, 41, HOME, "POST", CHAT, key="editor", model=QWEN, stream=True, status=200, prompt_tokens=3_310,
           cached_tokens=2_960, completion_tokens=742, ttft_s=0.208, duration_s=12.1, tokens_per_s=62.4,
           finish_reason="length"),
)  # fmt: skip
OPEN = (
    _entry(12, 9, HOME, "POST", CHAT, key="editor", model=QWEN, stream=True, state=RequestState.GENERATING,
           prompt_tokens=4_120, cached_tokens=3_310, completion_tokens=266, ttft_s=0.27, tokens_per_s=31.4),
    _entry(13, 4, PHONE, "POST", MESSAGES, key="phone", model=QWEN, stream=True,
           state=RequestState.READING, prompt_tokens=18_400),
    _entry(14, 1, HOME, "POST", "/v1/responses", key="editor", model=LLAMA, stream=True),
)  # fmt: skip
RATES = [
    max(0.0, 44 + 17 * sin(second / 6) + (second * 7) % 5 * 2 - (60 if second < 12 else 0))
    for second in range(60)
]
QUEUE = [0 if second < 12 else (second // 7) % 4 for second in range(60)]


@dataclass(frozen=True)
class Scene:
    """A picture: keys to press, the text on the screen afterwards, and keys to go back."""

    name: str
    keys: Sequence[str] = ()
    says: str = ""
    back: Sequence[str] = ()
    before: Callable[[MlxkApp], None] | None = None
    """What happens first."""


def fill(app: MlxkApp) -> None:
    """Add requests to the log, and a model to memory."""
    pose(READY)(app)
    server = app.server
    assert server.server is not None
    log = server.server.log
    log._finished.extend(ENDED)
    log._live.update({entry.number: entry for entry in OPEN})
    server.measurements.failed = 5
    server.measurements.rates.extend(RATES)
    server.measurements.queue.extend(QUEUE)
    server.changed.publish(True)


def pose(status: EngineStatus) -> Callable[[MlxkApp], None]:
    def strike(app: MlxkApp) -> None:
        engine = app.chats.engine
        assert isinstance(engine, Posed)
        engine.pose = status
        app.chats.engine_changed.publish(status)

    return strike


TAKEN = OpError(
    ErrorType.PORT_IN_USE,
    "Port 8000 of 127.0.0.1 is already in use by python3.12 (process 4711).",
    remedy=Remedy.CHOOSE_ANOTHER_PORT,
)
UNREADABLE = OpError(
    ErrorType.PERMISSION_DENIED,
    "Other users can read the API keys in /home/me/api-keys.",
    remedy=Remedy.RESTRICT_FILE,
)


def refuse(app: MlxkApp, problem: OpError) -> None:
    """Show a failed start of the server."""
    app.server.problem = problem
    app.server.free_port = 8001 if problem is TAKEN else None
    app.server.changed.publish(True)


def keep_keys(app: MlxkApp) -> None:
    """Store two keys, which are read when the server starts."""
    save_keys(Path(app.server.key_path), KEYS)


def empty(app: MlxkApp) -> None:
    """Remove all requests, so that the server can be stopped at once."""
    assert app.server.server is not None
    app.server.server.log._live.clear()
    app.server.server.log.clear()
    app.server.changed.publish(True)


SMALL = (
    Scene("off", (), "turn on"),
    Scene("setup", ("e",), "0 = any free port", ("escape",)),
    Scene("setup-refused", ("e", *["backspace"] * 9, *"0.0.0.0"), "needs an API", ("escape",)),
    Scene("new-key", ("n",), "will be refused", ("escape",)),
    Scene("port-taken", (), "Port already in use", before=lambda app: refuse(app, TAKEN)),
    Scene("unreadable-keys", (), "Other users can read", before=lambda app: refuse(app, UNREADABLE)),
    Scene("waiting", ("s",), "first request", before=keep_keys),
    Scene("loading", (), "loading …", before=pose(LOADING)),
    Scene("failed", (), "was killed", before=pose(DIED)),
    Scene("no-library", (), "read slowly", before=pose(WITHOUT_BLAS)),
    Scene("requests", (), "decode", before=fill),
    Scene("copies", (), "no batching", before=pose(ON_CPU)),
    Scene("slow", (), "read slowly", before=pose(WITHOUT_BLAS)),
    Scene("request", ("g", "j", "j", "j", "enter"), "Tokens out", ("escape",), pose(READY)),
    Scene("refused", ("G", "k", "k", "enter"), "missing or invalid", ("escape",)),
    Scene("curl", ("i",), "curl http", ()),
    Scene("keys", ("left",), "editor"),
    Scene("keys-shown", ("v",), "mlxk-0000", ("v", "escape")),
)  # fmt: skip


LOOKED_AT = {"off", "waiting", "requests"}
"""Scenes on the way to the one that is drawn in every look."""


@asynccontextmanager
async def opened(size: str, folder: Path) -> AsyncIterator[Pilot[Any]]:
    """Open the app on the Server pane with the server off."""
    HfCache(folder / "hub").repo(QWEN).add(model_files())
    config = folder / "config.toml"
    app = MlxkApp(
        load({"refresh_seconds": 0, "server_port": 0}, config), Cache(folder / "hub"), clock=lambda: NOW,
        runtime=MACHINE, remember=False, engine=Posed(), state=folder / "state",
    )  # fmt: skip
    app.server.measurements.sample_seconds = 3600
    async with app.run_test(size=SIZES[size], notifications=True) as pilot:
        await pilot.press("5")
        await settle(pilot, "mlxk")
        yield pilot
        if app.server.server is not None:
            empty(app)


async def draw(
    pilot: Pilot[Any], scenes: Sequence[Scene], looks: Sequence[str]
) -> dict[tuple[str, str], str]:
    """Return an SVG of each scene in each theme."""
    app = pilot.app
    assert isinstance(app, MlxkApp)
    pictures: dict[tuple[str, str], str] = {}
    for scene in scenes:
        if scene.before is not None:
            scene.before(app)
        await pilot.press(*scene.keys)
        if "s" in scene.keys:
            await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
        await settle(pilot, scene.says)
        for look in looks:
            if look != NO_COLOR and app.theme != THEMES[look]:
                app.theme = THEMES[look]
                await settle(pilot, scene.says)
            picture = app.export_screenshot(title=app.title, simplify=True)
            # The port differs each time; it has five digits.
            pictures[scene.name, look] = picture.replace(str(app.server.port or "no port"), "50000")
        for key in scene.back:
            await pilot.press(key)
            await settle(pilot, "")
    return pictures


@pytest.fixture(autouse=True)
def _one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use the same time zone everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Gallery:
    """The pictures drawn so far, by size and theme."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[str, str], dict[tuple[str, str], str]] = {}

    async def get(self, name: str, size: str, look: str, folder: Path) -> str:
        if (size, look) not in self._drawn:
            with pytest.MonkeyPatch.context() as patch:
                if look == NO_COLOR:
                    patch.setenv("NO_COLOR", "1")
                scenes = SMALL if look == "dark" else [scene for scene in SMALL if scene.name in LOOKED_AT]
                async with opened(size, folder) as pilot:
                    self._drawn[size, look] = await draw(pilot, scenes, [look])
        return self._drawn[size, look][name, look]


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return Gallery()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [scene.name for scene in SMALL])
async def test_dark(unchanged: Unchanged, gallery: Gallery, tmp_path: Path, name: str, size: str) -> None:
    assert unchanged(await gallery.get(name, size, "dark", tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("look", ["light", NO_COLOR])
async def test_looks(unchanged: Unchanged, gallery: Gallery, tmp_path: Path, look: str) -> None:
    assert unchanged(await gallery.get("requests", "120x40", look, tmp_path))
