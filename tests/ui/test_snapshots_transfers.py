"""Pictures of the Transfers pane in every state, and of dialogs over it.

The queue's pictures use jobs and a clock that stand still; the others use the local hub. After an intended
change, run `make snapshots`, and look at each picture that differs.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from math import sin
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from mlxk_tui.app import MlxkApp
from mlxk_tui.demo.hub import Fault, Generated, LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.events import OnEvent, Progress
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.settings import load
from mlxk_tui.transfers.jobs import Failure, Pull, Push, Transfer, TransferState
from mlxk_tui.transfers.queue import TransferQueue
from mlxk_tui.transfers.queue_file import QueueFile, to_document
from tests.support.hf_cache import model_files
from tests.ui.conftest import MACHINE, NOW, Unchanged, wait_until
from tests.ui.gallery import NO_COLOR, THEMES, settle

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
QWEN = "mlx-community/Qwen3-4B-Instruct-2507-4bit"


LOOKED_AT = {"running", "results"}
"""Scenes that are drawn in every look."""


class Text(str):
    """In a list of keys: text to enter in the focused field at once."""

    __slots__ = ()


@dataclass(frozen=True)
class Scene:
    """A picture: keys to press, the text on the screen afterwards, and keys to go back."""

    name: str
    keys: Sequence[str]
    says: str
    back: Sequence[str] = ()
    before: Callable[[LocalHub], object] = lambda hub: None
    """What happens to the hub first."""


async def draw(
    pilot: Pilot[Any], scenes: Sequence[Scene], looks: Sequence[str], hub: LocalHub | None = None
) -> dict[tuple[str, str], str]:
    """Return an SVG of each scene in each theme."""
    app = pilot.app
    pictures: dict[tuple[str, str], str] = {}
    for scene in scenes:
        if hub is not None:
            scene.before(hub)
        for key in scene.keys:
            if isinstance(key, Text):
                await wait_until(pilot, lambda: isinstance(app.focused, Input))
                assert isinstance(app.focused, Input)
                app.focused.value = key
                app.focused.cursor_position = len(key)
            else:
                await pilot.press(key)
        await settle(pilot, scene.says)
        for look in looks:
            if look == "light" and scene.name not in LOOKED_AT:
                continue
            if look != NO_COLOR and app.theme != THEMES[look]:
                app.theme = THEMES[look]
                await settle(pilot, scene.says)
            picture = app.export_screenshot(title=app.title, simplify=True)
            # The hub's port differs each time; it has five digits.
            port = hub.url.rpartition(":")[2] if hub is not None else "none"
            pictures[scene.name, look] = picture.replace(port, "50000")
        await pilot.press(*scene.back)
    return pictures


# -- the queue -----------------------------------------------------------------------------------------

STORED = (
    Transfer("1", Pull(QWEN)),
    Transfer("2", Push("/home/me/models/my-finetune-4bit", "me/my-finetune-4bit", create=True)),
    Transfer("3", Pull("mlx-community/Mixtral-8x7B-Instruct-v0.1-4bit"), TransferState.PAUSED,
             bytes_done=9_100_000_000, bytes_total=26_400_000_000, files_done=4, files_total=11),
    Transfer("4", Pull("google/gemma-3-27b-it"), TransferState.FAILED, ended=NOW - 400, attempts=1,
             failure=Failure(
        ErrorType.ACCESS_DENIED, "google/gemma-3-27b-it is gated, and the token's account has no access yet. "
        "Ask for it at https://huggingface.co/google/gemma-3-27b-it")),
    Transfer("5", Pull("mlx-community/Llama-3.2-3B-Instruct-4bit@v2")),
    Transfer("6", Pull("mlx-community/SmolLM3-3B-4bit"), TransferState.DONE, ended=NOW - 200,
             bytes_done=1_750_000_000, bytes_total=1_750_000_000,
             result="Pulled mlx-community/SmolLM3-3B-4bit at 9f1c2ab3d4e5: 9 files, 1.75GB."),
    Transfer("7", Pull("mlx-community/Phi-4-mini-instruct-4bit"), TransferState.CANCELLED, ended=NOW - 5_000,
             bytes_done=412_000_000, bytes_total=2_160_000_000),
)  # fmt: skip
CURVE = [
    int(4e7 + 1.4e7 * sin(second / 5) + 6e6 * ((second * 7) % 5 - 2) / 2 - (2.8e7 if 17 < second < 22 else 0))
    for second in range(45)
]
"""Bytes of each of the last seconds."""
FILES = (
    ("model-00001-of-00002.safetensors", 1_180_000_000, 1_180_000_000),
    ("model-00002-of-00002.safetensors", 214_000_000, 1_090_000_000),
    ("tokenizer.json", 11_400_000, 11_400_000),
)
QUEUE = (
    Scene("running", ("g",), "s ago"),
    Scene("paused", ("g", "j", "j"), "Paused at 34%"),
    Scene("failed", ("g", "j", "j", "j"), "has no access yet"),
    Scene("done", ("G", "k"), "Pulled mlx-community/SmolLM3"),
)
DETAILS = (
    Scene("running", ("g", "enter"), "1 min ago", ("escape",)),
    Scene("paused", ("g", "j", "j", "enter"), "Paused at 34%", ("escape",)),
    Scene("failed", ("g", "j", "j", "j", "enter"), "retry", ("escape",)),
    Scene("done", ("G", "k", "enter"), "9 files", ("escape",)),
    Scene("list", ("g",), "Finished"),
)
"""At 80 columns the detail is a screen of its own."""


async def stand(job: Pull | Push, on_event: OnEvent) -> str:
    """Run a job that makes no progress."""
    if isinstance(job, Pull):
        done, total = 1_405_400_000, 2_281_400_000
        for name, have, size in FILES:
            on_event(Progress("pull", name, done, total, 4.2e7, 2, 3, have, size))
    else:
        on_event(Progress("push", "", 0, 0, 0.0))
    await asyncio.Event().wait()
    return ""


@asynccontextmanager
async def standing(size: str, folder: Path, wait: str) -> AsyncIterator[Pilot[Any]]:
    """Open the app on the Transfers pane with a queue that stands still."""
    path = folder / "transfers.json"
    QueueFile(path).write(to_document(STORED))
    time = SimpleNamespace(now=1_000.0)
    queue = TransferQueue(path, {Pull: stand, Push: stand}, clock=lambda: NOW, monotonic=lambda: time.now)
    app = MlxkApp(
        load({"refresh_seconds": 0}), Cache(folder / "hub"), clock=lambda: NOW, runtime=MACHINE,
        remember=False, transfers=queue,
    )  # fmt: skip
    async with app.run_test(size=SIZES[size], notifications=True) as pilot:
        await wait_until(pilot, lambda: queue.ready and queue.transfers[0].bytes_done > 0)
        moving = queue.transfers[0]
        moving.rates.reset()
        for second in range(46):
            done = moving.bytes_done - sum(CURVE[second:])
            moving.rates.add(1_000.0 + second, done)
        time.now = 1_045.9
        await pilot.press("3")
        await settle(pilot, wait)
        yield pilot


# -- the hub -------------------------------------------------------------------------------------------

OVER = (
    Scene("empty", (), "No transfers yet"),
    Scene("starters", ("slash",), "Small models to start with", ("escape",)),
    Scene("results", ("slash", Text("qwen"), "enter"), "4 models"),
    Scene("preflight", ("g", "enter"), "Download", ("escape",)),
    Scene("preflight-gated", ("G", "enter"), "is gated", ("escape", "escape")),
    Scene("push", ("P",), "Enter the folder"),
    Scene("push-checked", (Text("./my-model"), "tab", Text("me/my-model")), "no problems found"),
    Scene("push-refused", ("enter",), "✗", ("escape",)),
    Scene(
        "searching", ("slash", Text("gemma"), "enter"), "Searching the hub", ("escape",),
        lambda hub: hub.faults.add(Fault(kind="silent", path="/api/models", times=None)),
    ),
)  # fmt: skip
UNREACHABLE = Scene("unreachable", ("slash", Text("qwen"), "enter"), "Search failed")


@pytest.fixture(scope="module")
def local() -> Iterator[LocalHub]:
    """A hub with a few models of fixed dates."""
    with LocalHub() as made:
        for number, (name, size, downloads) in enumerate(
            [
                ("mlx-community/Qwen3-4B-Instruct-2507-4bit", 22_814_000, 1_240_000),
                ("mlx-community/Qwen3-0.6B-4bit", 3_510_000, 48_300),
                ("lmstudio-community/Qwen3-30B-A3B-Thinking-2507-MLX-4bit", 17_200_000, 9_120),
            ]
        ):
            made.add_repo(
                name, {**model_files(), "model.safetensors": Generated(size, number)}, downloads=downloads,
                tags=["mlx"], modified=datetime(2025, 12 - number, 3, tzinfo=timezone.utc),
            )  # fmt: skip
        made.add_repo(
            "closed/Qwen3-Gated", model_files(), gated="manual", granted=(), downloads=980,
            modified=datetime(2024, 6, 3, tzinfo=timezone.utc),
        )  # fmt: skip
        yield made


@asynccontextmanager
async def with_hub(size: str, folder: Path, hub: Hub) -> AsyncIterator[Pilot[Any]]:
    """Open the app on the Transfers pane with an empty cache and a hub."""
    app = MlxkApp(
        load({"refresh_seconds": 0, "push": True}), Cache(folder / "hub"), clock=lambda: NOW,
        runtime=MACHINE, remember=False, hub=hub, state=folder / "state",
    )  # fmt: skip
    async with app.run_test(size=SIZES[size], notifications=True) as pilot:
        await wait_until(pilot, lambda: app.transfers.ready)
        await pilot.press("3")
        await settle(pilot, "No transfers yet")
        yield pilot


class Gallery:
    """The pictures drawn so far, by run."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}

    async def queue(self, name: str, size: str, look: str, folder: Path) -> str:
        if ("queue", size, look) not in self._drawn:
            with pytest.MonkeyPatch.context() as patch:
                if look == NO_COLOR:
                    patch.setenv("NO_COLOR", "1")
                async with standing(size, folder, "Finished") as pilot:
                    scenes: Sequence[Scene] = QUEUE if size == "120x40" else DETAILS
                    scenes = scenes if look == "dark" else scenes[:1]
                    self._drawn["queue", size, look] = await draw(pilot, scenes, [look])
        return self._drawn["queue", size, look][name, look]

    async def hub(self, name: str, size: str, look: str, folder: Path, local: LocalHub) -> str:
        if ("hub", size, look) not in self._drawn:
            folder.joinpath("my-model").mkdir()
            for file, content in model_files().items():
                folder.joinpath("my-model", file).write_bytes(content)
            local.faults.clear()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=412_000_000_000))
                if look == NO_COLOR:
                    patch.setenv("NO_COLOR", "1")
                async with with_hub(size, folder, Hub(local.url, local.GOOD_TOKEN)) as pilot:
                    scenes = OVER if look == "dark" else OVER[:3]
                    self._drawn["hub", size, look] = await draw(pilot, scenes, [look], local)
        return self._drawn["hub", size, look][name, look]


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return Gallery()


@pytest.mark.parametrize("size", ["80x24", pytest.param("120x40", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [scene.name for scene in OVER])
async def test_hub(
    unchanged: Unchanged, gallery: Gallery, local: LocalHub, tmp_path: Path, name: str, size: str
) -> None:
    assert unchanged(await gallery.hub(name, size, "dark", tmp_path, local))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(pytest.param(scene.name, "120x40", marks=pytest.mark.slow) for scene in QUEUE),
        *((scene.name, "80x24") for scene in DETAILS),
    ],
)
async def test_queue(unchanged: Unchanged, gallery: Gallery, tmp_path: Path, name: str, size: str) -> None:
    assert unchanged(await gallery.queue(name, size, "dark", tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("look", ["light", NO_COLOR])
async def test_looks(
    unchanged: Unchanged, gallery: Gallery, local: LocalHub, tmp_path: Path, look: str
) -> None:
    assert unchanged(await gallery.queue("running", "120x40", look, tmp_path))
    assert unchanged(await gallery.hub("results", "120x40", look, tmp_path, local))


@pytest.mark.slow
async def test_a_hub_that_cannot_be_reached(unchanged: Unchanged, tmp_path: Path) -> None:
    async with with_hub("80x24", tmp_path, Hub("http://127.0.0.1:9")) as pilot:
        pictures = await draw(pilot, [UNREACHABLE], ["dark"])
    assert unchanged(pictures["unreachable", "dark"])
