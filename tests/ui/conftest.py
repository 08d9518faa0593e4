"""The app on real caches, with a fixed clock and machine; snapshots are in the top-level `snapshots/`."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_textual_snapshot  # type: ignore[import-untyped]  # it ships no types
import textual._doc
from syrupy.assertion import SnapshotAssertion
from syrupy.location import PyTestLocation
from textual.app import App
from textual.pilot import Pilot

from mlxk_tui.app import MlxkApp
from mlxk_tui.demo.sample import build_sample_cache
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.library import ScanPhase
from mlxk_tui.settings import load
from tests.support.waiting import PATIENCE_S

NOW = 1_767_225_600.0
"""2026-01-01 00:00 UTC: the clock of every test."""
MACHINE = Runtime(
    "0.32.0",
    frozenset(
        {"bert", "gemma2", "llama", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3"}
    ),
    memory_bytes=24_000_000_000,
)
"""The machine of every test."""
SNAPSHOTS = Path(__file__).parent.parent.parent / "snapshots"


class TopLevelSVG(pytest_textual_snapshot.SVGImageExtension):  # type: ignore[misc]  # untyped, as above
    """Stores the snapshots in one folder, with one subfolder per test module."""

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        """Return the folder of a test module's snapshots."""
        return str(SNAPSHOTS / Path(test_location.filepath).stem)


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch) -> SnapshotAssertion:
    """Make `snap_compare` use the top-level folder (syrupy 4.8 has no option for it)."""
    monkeypatch.setattr(pytest_textual_snapshot, "SVGImageExtension", TopLevelSVG)
    return snapshot


Unchanged = Callable[[str], bool]


@pytest.fixture
def unchanged(snap_compare: Callable[[App[None]], bool], monkeypatch: pytest.MonkeyPatch) -> Unchanged:
    """Return a function that compares a picture with the stored one; `snapshot_report.html` shows both."""

    def compare(drawn: str) -> bool:
        # The plugin would run an app for each picture; only its report is used.
        monkeypatch.setattr(textual._doc, "take_svg_screenshot", lambda **_: drawn)
        return snap_compare(App[None]())

    return compare


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Isolate the tests from the user's terminal, settings and clipboard."""
    for name in ("NO_COLOR", "TEXTUAL_THEME", "TEXTUAL_ANIMATIONS", "TMUX", "SSH_TTY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLXK_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("MLXK_VERDICTS", "off")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """Collect the garbage of this module's apps, and freeze the remaining objects."""
    yield
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sample_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the demo's sample cache for copying, which takes a fifth of the time of building it."""
    hub = tmp_path_factory.mktemp("sample") / "hub"
    build_sample_cache(hub, now=NOW)
    return hub


@pytest.fixture
def sample(sample_hub: Path, hub: Path) -> Cache:
    """Return a copy of the sample cache that the test may change."""
    copy_sample(sample_hub, hub)
    return Cache(hub)


def copy_sample(sample: Path, hub: Path) -> None:
    """Copy the sample to a hub folder."""
    shutil.copytree(sample, hub, symlinks=True, copy_function=_copy, dirs_exist_ok=True)


def _copy(source: str, target: str) -> None:
    """Copy a file with its times and holes."""
    size = os.stat(source).st_size
    with open(source, "rb") as old, open(target, "wb") as new:
        at = 0
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:  # only a hole is left
                break
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            os.pwrite(new.fileno(), os.pread(old.fileno(), end - at, at), at)
            at = end
        new.truncate(size)
    shutil.copystat(source, target)


NOWHERE = "http://127.0.0.1:9"
"""A hub that cannot be reached: no test of the panes asks the real one."""

AppMaker = Callable[..., MlxkApp]


@pytest.fixture
def make_app() -> AppMaker:
    """Return a function that creates the app for a cache and optionally a hub; settings as keywords."""

    def make(cache: Cache, *, hub: Hub | None = None, temporary: bool = False, **settings: object) -> MlxkApp:
        settings.setdefault("refresh_seconds", 0)
        return MlxkApp(
            load(settings),
            cache,
            clock=lambda: NOW,
            runtime=MACHINE,
            hub=hub or Hub(NOWHERE),
            temporary=temporary,
        )

    return make


async def wait_until(pilot: Pilot[Any], predicate: Callable[[], bool]) -> None:
    """Run the app until `predicate` holds; fail after the timeout.

    A predicate that reads the screen costs a frame, so it is called less often after a while.
    """
    end = time.monotonic() + PATIENCE_S
    pause = 0.01
    await pilot.pause()
    while not predicate():
        assert time.monotonic() < end, "the app never got there"
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, 0.08)
    await pilot.pause()


async def ready(pilot: Pilot[Any]) -> None:
    """Wait until the first scan has ended and its result is drawn."""
    app = pilot.app
    assert isinstance(app, MlxkApp)
    await wait_until(pilot, lambda: app.library.phase is not ScanPhase.LOADING and app.focused is not None)
    await pilot.pause()
