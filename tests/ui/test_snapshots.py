"""Pictures of the panes that show the cache in every state, and of dialogs over them.

After an intended change, `make snapshots` redraws them; look at each one that differs. For another pane, add
a line to ROWS and one to each state of SAYS; for a dialog, add a Scene to OVER.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.terms import BatchingReason
from mlxk_tui.ops.health.batching_verdicts import (
    Arithmetic,
    BatchingVerdict,
    BatchingVerdicts,
    batching_key,
    model_key,
)
from mlxk_tui.ui.inspector import model_keys
from mlxk_tui.ui.shell.registry import PANES
from tests.ui.conftest import MACHINE, Unchanged, copy_sample
from tests.ui.gallery import NO_COLOR, Scene, draw, open_app

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
LOOKS = ("dark", "light", NO_COLOR)
SAYS = {
    "empty": {"models": "No models yet", "health": "No models to check"},
    "loading": {"models": "Scanning the cache", "health": "Checking models"},
    "error": {"models": "Can't read the cache", "health": "Can't read the cache"},
    "full": {"models": "6/25", "health": "Broken"},
}
"""What each pane says in each state of the cache, once it is drawn."""
ROWS: dict[str, Sequence[str]] = {"models": "jjjjj", "health": "j"}
"""How to get from the top of a full pane to a row that is worth a look."""
OVER = (
    Scene("inspector-overview", (*ROWS["models"], "enter"), "Context"),
    Scene("inspector-health", ("right",), "Ready to run"),
    Scene("inspector-files", ("right",), "config.json"),
    Scene("inspector-config", ("right",), "model_type"),
    Scene("inspector-card", ("right",), "Context of", back=("right", "escape")),
    Scene(
        "clone",
        (model_keys.CLONE.key,),
        "→ /tmp/mlxk-tui/my-model",
        text="/tmp/mlxk-tui/my-model",
        back=("escape",),
    ),
    Scene("prune", ("x",), "Frees", back=("escape",)),
    Scene("help", ("question_mark",), "esc close", back=("escape",)),
    Scene("palette", ("ctrl+p",), "Verify", back=("escape",)),
    Scene("palette-typed", ("ctrl+p",), "Model", text="qwen3-4", back=("escape",)),
    Scene("filter", ("slash",), "of 25", text="type:chat size>2GB", back=("escape",)),
    Scene("filter-bad", ("slash",), "takes good or bad", text="health:ugly", back=("escape",)),
    Scene("disk-use", ("u",), "mlx-community", back=("escape",)),
    Scene("marked", ("g", "space", "space", "space"), "3 marked"),
    Scene("delete", ("d",), "Frees", back=("escape", "escape", "g")),
)
"""What opens over the Models pane of a full cache; each begins where the one before it ended."""

NO_GPU = (Scene("inspector", (*ROWS["models"], "enter"), "Requests take turns", back=("escape", "g")),)
"""What differs where models run on the CPU; the model's requests take turns."""

Pictures = dict[tuple[str, str, str], str]
Picture = Callable[..., Awaitable[str]]


def _make(state: str, sample: Path) -> MlxkApp:
    """Return the app in a state, with relative paths, which are the same on every machine."""
    hub = Path("hub")
    if state == "error":
        hub.write_text("a file where a folder should be")
    if state == "full":
        copy_sample(sample, hub)
    return open_app(Cache(hub), loading=state == "loading")


def _take_turns(sample: Path) -> None:
    """Copy the sample, and store the verdict that none of its models can be batched."""
    copy_sample(sample, Path("hub"))
    for path in Path("hub").glob("models--*/snapshots/*/config.json"):
        with suppress(ValueError, OSError, AttributeError):  # the sample has faults of every kind
            config = json.loads(path.read_text())
            key = batching_key(model_key(config, version("mlx"), version("mlx-lm")), Arithmetic("cpu"))
            BatchingVerdicts().put(key, BatchingVerdict(False, BatchingReason.DIFFERENT))


async def _draw(state: str, size: str, look: str, sample: Path) -> Pictures:
    """Return the pictures of every pane in a state, or of the dialogs if the state is `over`."""
    sizes, looks = {size: SIZES[size]}, [look]
    if state == "over":
        return await draw(lambda: _make("full", sample), sizes, OVER, looks)
    if state == "no-gpu":
        runtime = replace(MACHINE, without_gpu=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLXK_BATCHING", "batching")
            _take_turns(sample)
            return await draw(lambda: open_app(Cache(Path("hub")), runtime=runtime), sizes, NO_GPU, looks)
    scenes = []
    for number, pane in enumerate(PANES, 1):
        if pane.id in ROWS:
            rows = ROWS[pane.id] if state == "full" else ()
            back = ("g",) if rows else ()
            scenes.append(Scene(pane.id, (f"f{number}", *rows), SAYS[state][pane.id], back=back))
    return await draw(lambda: _make(state, sample), sizes, scenes, looks)


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, str, str], Pictures | Exception]:
    """Return the pictures of each run of the app, by state, size and look."""
    return {}


@pytest.fixture
def picture(runs: dict[tuple[str, str, str], Pictures | Exception], sample_hub: Path) -> Picture:
    """Return a function that returns the picture of a scene; the first call waits for the run."""

    async def find(state: str, scene: str, size: str, look: str) -> str:
        run = (state, size, look)
        if run not in runs:
            try:
                runs[run] = await _draw(*run, sample_hub)
            except Exception as error:  # noqa: BLE001 - every test of this run fails of it, at once
                runs[run] = error
        drawn = runs[run]
        if isinstance(drawn, Exception):
            raise drawn
        return drawn[scene, size, look]

    return find


ALL_PANES = pytest.mark.parametrize("pane", ROWS)
ALL_SIZES = pytest.mark.parametrize("size", SIZES)


CASES = [
    pytest.param(state, pane, size, look, marks=() if look == "dark" else pytest.mark.slow)
    for state in SAYS
    for pane in ROWS
    for size in SIZES
    for look in (LOOKS if state == "full" else LOOKS[:1])
]
"""Colours come from the theme alone: a full pane shows them all."""


@pytest.mark.parametrize(("state", "pane", "size", "look"), CASES)
async def test_pane(
    unchanged: Unchanged, picture: Picture, state: str, pane: str, size: str, look: str
) -> None:
    assert unchanged(await picture(state, pane, size, look))


@pytest.mark.slow
@ALL_SIZES
@ALL_PANES
async def test_pane_in_the_colours_of_the_terminal(
    unchanged: Unchanged, picture: Picture, pane: str, size: str
) -> None:
    assert unchanged(await picture("full", pane, size, "ansi"))


@pytest.mark.slow
@ALL_SIZES
@pytest.mark.parametrize("scene", [scene.name for scene in OVER])
async def test_over(unchanged: Unchanged, picture: Picture, scene: str, size: str) -> None:
    assert unchanged(await picture("over", scene, size, "dark"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlx_lm") is None, reason="mlx-lm is not installed on this platform")
@ALL_SIZES
async def test_without_a_gpu(unchanged: Unchanged, picture: Picture, size: str) -> None:
    assert unchanged(await picture("no-gpu", "inspector", size, "dark"))
