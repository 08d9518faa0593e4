"""The Server pane while the server is off: keys in the footer, and the last API key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.server.http.keys import read_keys, save_keys
from mlxk_tui.server.options import may_reach_beyond
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.settings import load
from mlxk_tui.ui.server.pane import ServerPane
from mlxk_tui.ui.server.screen import ServerScreen
from mlxk_tui.ui.server.side_panel import KEYS
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog
from tests.ui.conftest import MACHINE, wait_until
from tests.ui.gallery import words
from tests.ui.test_server_model import said

SIZES = {"wide": (120, 40), "narrow": (80, 24)}
KEY = "mlxk-0000-editor-0000"


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    """Return the key file with one key."""
    path = tmp_path / "api-keys"
    save_keys(path, {"editor": KEY})
    return path


def app_of(hub: Path, folder: Path, **settings: Any) -> MlxkApp:
    loaded = load({"refresh_seconds": 0, "server_port": 0, **settings}, folder / "config.toml")
    return MlxkApp(loaded, Cache(hub), runtime=MACHINE, state=folder / "state")


async def pane_of(pilot: Pilot[Any]) -> ServerPane:
    await pilot.press("f5")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, ServerPane) and pilot.app.screen.is_mounted)
    pane = pilot.app.screen
    assert isinstance(pane, ServerPane)
    await wait_until(pilot, lambda: pane.listed.has_focus)
    return pane


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
async def test_snippets_and_keys_are_shown_while_the_server_is_off(
    hub: Path, tmp_path: Path, keyed: Path, size: tuple[int, int]
) -> None:
    app = app_of(hub, tmp_path)
    async with app.run_test(size=size) as pilot:
        pane = await pane_of(pilot)
        await wait_until(pilot, lambda: "The server is off" in words(app))
        await pilot.press("i")
        await wait_until(pilot, lambda: isinstance(app.screen, ServerScreen) and "curl http" in words(app))
        await pilot.press("c")
        assert app.clipboard.startswith(f"curl {app.server.url}/v1/chat/completions")
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is pane)

        await pilot.press("v")
        await wait_until(pilot, lambda: isinstance(app.screen, ServerScreen) and "editor" in words(app))
        assert KEY not in words(app)
        await pilot.press("v")
        await wait_until(pilot, lambda: KEY in words(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is pane)

        await pilot.press("d")  # not visible: the keys are shown first
        await wait_until(pilot, lambda: isinstance(app.screen, ServerScreen) and app.screen.side.tab == KEYS)
        await pilot.press("d")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: not app.server.options.api_keys)
        await wait_until(pilot, lambda: isinstance(app.screen, ServerScreen))
        # Resizing the terminal does not close the view, because the tabs are only here.
        await pilot.resize_terminal(130, 42)
        await wait_until(pilot, lambda: app.screen.size.width == 130)
        assert isinstance(app.screen, ServerScreen)
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is pane)
    assert read_keys(keyed) == {}


@pytest.mark.parametrize(
    ("host", "beyond"),
    [
        *(("127.0.0.1", False), ("127.8.8.8", False), ("[::1]", False), ("localhost", False)),
        *((" LocalHost. ", False), ("0.0.0.0", True), ("::", True), ("192.168.1.5", True), ("", True)),
        *(("mymachine.local", True), ("localhost.example.org", True), ("0", True), ("127.1", True)),
    ],
)
def test_every_host_name_except_localhost_may_be_public(host: str, beyond: bool) -> None:
    assert may_reach_beyond(host) is beyond


async def delete_key(pilot: Pilot[Any]) -> None:
    """Press the keys that delete the API key, until the question or the error appears."""
    app = pilot.app
    assert isinstance(app, MlxkApp)
    await pilot.press("d")
    await wait_until(pilot, lambda: "•••" in words(app))
    await pilot.press("d")


@pytest.mark.parametrize(
    ("host", "verb"), [pytest.param("mymachine.local", "may be", marks=pytest.mark.slow), ("0.0.0.0", "is")]
)
async def test_last_key_cannot_be_deleted_with_a_public_host(
    hub: Path, tmp_path: Path, keyed: Path, host: str, verb: str
) -> None:
    app = app_of(hub, tmp_path, server_host=host)
    async with app.run_test(size=SIZES["wide"], notifications=True) as pilot:
        await pane_of(pilot)
        await delete_key(pilot)
        await wait_until(pilot, lambda: "Can't delete the only key" in words(app))
        assert f"{host} {verb} reachable from other machines" in said(app)
        assert not isinstance(app.screen, ConfirmDialog)
    assert read_keys(keyed) == {"editor": KEY}


@pytest.mark.slow
@pytest.mark.parametrize("bound", [("127.0.0.1",), ("127.0.0.1", "192.0.2.1")], ids=["here", "beyond"])
async def test_running_server_is_judged_by_its_actual_address(
    hub: Path, tmp_path: Path, keyed: Path, bound: tuple[str, ...]
) -> None:
    app = app_of(hub, tmp_path, server_host="127.1")  # resolves to 127.0.0.1
    async with app.run_test(size=SIZES["wide"], notifications=True) as pilot:
        await pane_of(pilot)
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
        server = app.server.server
        assert server is not None
        assert server._bound == ("127.0.0.1",)
        server._bound = bound  # tests only listen on loopback
        await delete_key(pilot)
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        if len(bound) == 1:
            await wait_until(pilot, lambda: not app.server.options.api_keys)
            assert read_keys(keyed) == {}
            assert not server.options.api_keys
        else:
            await wait_until(pilot, lambda: "it needs an API key" in said(app))
            assert "--api-key" not in words(app)
            assert read_keys(keyed) == {"editor": KEY}
            assert app.server.options.api_keys == server.options.api_keys == {"editor": KEY}


def occupy(path: Path) -> None:
    """Replace a file by a folder, so that not even root can write the file."""
    path.unlink()
    path.mkdir()


@pytest.mark.slow
async def test_keys_that_cannot_be_saved_stay_valid(hub: Path, tmp_path: Path, keyed: Path) -> None:
    app = app_of(hub, tmp_path)
    async with app.run_test(size=SIZES["wide"], notifications=True) as pilot:
        await pane_of(pilot)
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
        occupy(keyed)
        await delete_key(pilot)
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: "were not saved" in words(app))
        assert app.server.server is not None
        assert app.server.options.api_keys == app.server.server.options.api_keys == {"editor": KEY}
