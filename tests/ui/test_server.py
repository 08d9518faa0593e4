"""The Server pane with the real server and engine, the tiny model, and OpenAI's client."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Input, Static

from mlxk_tui.app import MlxkApp
from mlxk_tui.demo import tiny_model
from mlxk_tui.demo.layout import RepoLayout
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.status import EngineState
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.server.http.keys import read_keys, save_keys
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.settings import load
from mlxk_tui.ui.server.form import ServerForm
from mlxk_tui.ui.server.pane import ServerPane
from mlxk_tui.ui.server.screen import ServerScreen
from mlxk_tui.ui.server.side_panel import KEYS, REQUEST
from mlxk_tui.ui.widgets.choice_dialogs import ChoiceDialog, InputDialog
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog
from tests.engine.conftest import is_gone, needs_mlx, new_engine
from tests.engine.small_models import make_model
from tests.support.clients import openai
from tests.support.waiting import PATIENCE_S, until
from tests.test_import_hygiene import modules_of
from tests.ui.conftest import NOWHERE, wait_until
from tests.ui.gallery import words

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="module")]
WIDE, NARROW = (120, 40), (80, 24)
TINY = tiny_model.NAME
ENDLESS = "mlx-community/Endless"
BABBLE: dict[str, Any] = {"model": ENDLESS, "stream": True, "max_tokens": 60_000, "temperature": 0}
"""An answer that does not end by itself."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    """Return the engine shared by the apps of this module."""
    engine = new_engine()
    yield engine
    await engine.stop()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Return a cache with the tiny model and one with answers that take minutes; tests do not change it."""
    folder = tmp_path_factory.mktemp("models")
    tiny_model.install(folder / "hub")
    repo = RepoLayout(folder / "hub", ENDLESS)
    made = make_model(folder / "made", context=65_536, endless=True)
    repo.add_snapshot("e" * 40, {path.name: path.read_bytes() for path in made.iterdir()})
    repo.set_ref("main", "e" * 40)
    return Cache(folder / "hub")


@pytest.fixture
def open_app(engine: Engine, models: Cache, tmp_path: Path) -> Callable[..., MlxkApp]:
    """Return a function that creates the app with these models; settings as keywords."""

    def make(own_engine: bool = False, **settings: Any) -> MlxkApp:
        settings = {"refresh_seconds": 0, "server_port": 0, **settings}
        return MlxkApp(
            load(settings),
            models,
            hub=Hub(NOWHERE),
            state=tmp_path / "state",
            engine=None if own_engine else engine,
        )

    return make


OpenApp = Callable[..., MlxkApp]


async def pane_of(pilot: Pilot[Any], *, on: bool = True) -> ServerPane:
    """Open the pane, and start the server."""
    app = pilot.app
    assert isinstance(app, MlxkApp)
    await wait_until(pilot, lambda: bool(app.library.entries))
    await pilot.press("5")
    await wait_until(pilot, lambda: isinstance(app.screen, ServerPane))
    if on:
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
    pane = app.screen
    assert isinstance(pane, ServerPane)
    return pane


def client_of(app: MlxkApp, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{app.server.url}/v1", api_key=key, max_retries=0)


def ask(client: openai.AsyncOpenAI, question: str = "hello", **more: Any) -> Awaitable[Any]:
    more = {"model": TINY, "max_tokens": 8, **more}
    return client.chat.completions.create(messages=[{"role": "user", "content": question}], **more)


def can_listen(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def test_requests_are_shown_live_and_with_their_figures_afterwards(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=WIDE) as pilot:
        pane = await pane_of(pilot)
        assert "Waiting for the first request" in words(app)
        assert f"▲ server :{app.server.port}" in words(app)
        client = client_of(app)
        answer = await ask(client)
        await wait_until(pilot, lambda: " 200 " in words(app))
        entry = pane.selected
        assert entry is not None
        assert entry.completion_tokens == answer.usage.completion_tokens
        assert f"{answer.usage.prompt_tokens}" in words(app)
        assert "127.0.0.1" in words(app)
        assert "/v1/chat/completions" in words(app)

        stream = await ask(client, **BABBLE)
        await wait_until(pilot, lambda: "1 open" in words(app))
        await wait_until(pilot, lambda: "decode" in words(app) or "prefill" in words(app))
        await stream.close()
        await wait_until(pilot, lambda: "1 open" not in words(app))

        with pytest.raises(openai.NotFoundError):
            await ask(client, model="nobody/nothing")
        await wait_until(pilot, lambda: " 404 " in words(app))
        await pilot.press("g", "enter")
        await wait_until(pilot, lambda: pane.side.tab == REQUEST and pane.side.body.has_focus)
        assert "404, not found" in words(app)
        assert "model_not_found" in words(app)
        await pilot.press("escape", "x")
        await wait_until(pilot, lambda: "Waiting for the first request" in words(app))


async def test_server_frees_its_port_and_can_be_restarted(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=WIDE) as pilot:
        pane = await pane_of(pilot)
        port = app.server.port
        assert not can_listen(port)
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.OFF)
        assert can_listen(port)
        assert "The server is off" in words(app)
        assert "▲ server" not in words(app)
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
        answer = await ask(client_of(app))
        assert answer.choices[0].message.content
        await wait_until(pilot, lambda: " 200 " in words(app))
        # With the mouse: the label of the switch.
        await pilot.click(pane.status, offset=(3, 1))
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.OFF)


async def test_used_port_is_reported_and_a_key_picks_a_free_one(open_app: OpenApp, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        app = open_app(server_port=port)
        async with app.run_test(size=NARROW) as pilot:
            await pane_of(pilot, on=False)
            await pilot.press("s")
            await wait_until(pilot, lambda: "Port already in use" in words(app))
            assert f"Port {port} of 127.0.0.1 is already in use" in words(app)
            assert "--port" not in words(app)
            assert app.server.problem is not None
            assert app.server.problem.type is ErrorType.PORT_IN_USE
            free = app.server.free_port
            assert free is not None
            await pilot.press("f")
            await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
            assert app.server.port == free
    assert load({}, tmp_path / "config.toml").settings.server_port == free


@pytest.mark.slow
async def test_api_key_is_created_required_shown_copied_and_deleted(
    open_app: OpenApp, tmp_path: Path
) -> None:
    app = open_app()
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        pane = await pane_of(pilot)
        await pilot.press("n")
        await wait_until(pilot, lambda: isinstance(app.screen, InputDialog))
        field = app.screen.query_one(Input)
        field.value = "not a name"
        await wait_until(pilot, lambda: "Use up to 64 letters" in words(app))
        await pilot.press("enter")
        assert isinstance(app.screen, InputDialog)
        field.value = "editor"
        await pilot.press("enter")
        await wait_until(pilot, lambda: pane.side.tab == KEYS and pane.side.listed.keys == ["editor"])
        file = tmp_path / "api-keys"
        key = read_keys(file)["editor"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert key not in words(app)
        await pilot.press("v")
        await wait_until(pilot, lambda: key in words(app))
        await pilot.press("v")
        await wait_until(pilot, lambda: key not in words(app))
        await pilot.press("Y")
        assert app.clipboard == key
        assert key not in words(app)

        with pytest.raises(openai.AuthenticationError):
            await ask(client_of(app))
        await ask(client_of(app, key))
        await wait_until(pilot, lambda: " 401 " in words(app) and " 200 " in words(app))
        pane.side.open("curl")
        await wait_until(pilot, lambda: "Bearer YOUR-API-KEY" in words(app))
        await pilot.press("d")  # not visible: the keys are shown first
        await wait_until(pilot, lambda: pane.side.tab == KEYS)
        await pilot.press("d")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: not app.server.options.api_keys)
        assert read_keys(file) == {}
        await ask(client_of(app))


async def test_public_address_requires_an_api_key(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app(server_host="0.0.0.0")
    async with app.run_test(size=WIDE) as pilot:
        await pane_of(pilot, on=False)
        await pilot.press("s")
        await wait_until(pilot, lambda: "API key. Press n to create one" in words(app))
        assert app.server.phase is ServerPhase.OFF
        await pilot.press("e")
        await wait_until(pilot, lambda: isinstance(app.screen, ServerForm))
        await wait_until(pilot, lambda: "✗ Listening on 0.0.0.0" in words(app))
        await pilot.press("enter")
        assert isinstance(app.screen, ServerForm)
        app.screen.query_one("#server-host", Input).value = "127.0.0.1"
        app.screen.query_one("#server-port", Input).value = "99999"
        await wait_until(pilot, lambda: "between 0 (any free one) and 65535" in words(app))
        app.screen.query_one("#server-port", Input).value = "0"
        app.screen.query_one("#server-origins", Input).value = "https://chat.example.org"
        problem = app.screen.query_one("#problem", Static)
        await wait_until(pilot, lambda: "✗" not in str(problem.render()))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.server.options.host == "127.0.0.1")
        await pilot.press("s")
        await wait_until(pilot, lambda: app.server.phase is ServerPhase.ON)
        assert "https://chat.example.org" in words(app)
    kept = load({}, tmp_path / "config.toml").settings
    assert (kept.server_host, kept.server_origins) == ("127.0.0.1", "https://chat.example.org")


async def test_keys_readable_by_others_are_rejected(open_app: OpenApp, tmp_path: Path) -> None:
    save_keys(tmp_path / "api-keys", {"editor": "secret-key"})
    os.chmod(tmp_path / "api-keys", 0o644)
    app = open_app()
    async with app.run_test(size=WIDE) as pilot:
        await pane_of(pilot, on=False)
        await pilot.press("s")
        await wait_until(pilot, lambda: "Other users can read the API keys" in words(app))
        assert app.server.phase is ServerPhase.OFF


@pytest.mark.slow
async def test_model_is_loaded_shown_in_the_snippets_and_unloaded(open_app: OpenApp, engine: Engine) -> None:
    await engine.unload()
    app = open_app()
    async with app.run_test(size=WIDE) as pilot:
        pane = await pane_of(pilot)
        await pilot.press("m")
        await wait_until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press(*"tiny", "enter")
        await wait_until(pilot, lambda: engine.status.state is EngineState.READY)
        await wait_until(pilot, lambda: "tiny-demo" in words(app))
        for _ in pane.side.tabs.tabs:
            await pilot.press("l")
            if pane.side.snippet is not None:
                await pilot.press("c")
                assert TINY in app.clipboard
                assert app.server.url in app.clipboard
        await pilot.press("u")
        await wait_until(pilot, lambda: engine.status.model is None)
        # It is also the default model for requests.
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}).encode()

        def post() -> Any:
            request = urllib.request.Request(
                f"{app.server.url}/v1/chat/completions", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return json.load(answer)

        answer = await asyncio.to_thread(post)
        assert answer["model"] == TINY


@pytest.mark.slow
async def test_request_is_a_separate_screen_on_a_narrow_terminal(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=NARROW) as pilot:
        await pane_of(pilot)
        await pilot.press("i")
        await wait_until(pilot, lambda: isinstance(app.screen, ServerScreen) and "curl http" in words(app))
        await pilot.press("c")
        assert app.clipboard.startswith(f"curl {app.server.url}/v1/chat/completions")
        await pilot.press("escape")
        with pytest.raises(openai.NotFoundError):
            await ask(client_of(app), model="[red]nobody[/]")
        await wait_until(pilot, lambda: " 404 " in words(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ServerScreen) and "404, not" in words(app))
        assert "[red]nobody[/]" in words(app)
        await pilot.resize_terminal(*WIDE)
        await wait_until(pilot, lambda: isinstance(app.screen, ServerPane))
        assert app.screen.query_one("#server-side").display


@pytest.mark.slow
async def test_quitting_asks_while_requests_run(open_app: OpenApp) -> None:
    app = open_app(own_engine=True)
    async with app.run_test(size=WIDE) as pilot:
        await pane_of(pilot)
        port = app.server.port
        client = client_of(app)
        stream = await ask(client, **BABBLE)
        await wait_until(pilot, lambda: bool(app.server.live))
        pid = app.chats.status.pid
        assert pid is not None
        await pilot.press("q")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "Quit with 1 request running?" in words(app)
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: app._exit)
    assert stream.response.status_code == 200
    assert can_listen(port)
    assert is_gone(pid)


UNUSED = """
import asyncio
from pathlib import Path
from mlxk_tui import settings
from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache

async def main():
    app = MlxkApp(settings.load({}), Cache(Path(sys.argv[1])))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("5")
        while "The server is off" not in app.export_screenshot().replace("&#160;", " "):
            await pilot.pause(0.01)

asyncio.run(main())
"""


async def test_server_uses_no_resources_while_off(models: Cache, tmp_path: Path) -> None:
    loaded = modules_of(UNUSED, tmp_path, arguments=[str(models.root)])
    assert "mlxk_tui.ui.server.pane" in loaded
    assert loaded & {"aiohttp", "mlxk_tui.server.server", "mlxk_tui.engine.client", "mlx", "mlx_lm"} == set()


@pytest.mark.slow
async def test_request_is_answered_during_a_chat(open_app: OpenApp, engine: Engine) -> None:
    app = open_app()
    async with app.run_test(size=WIDE) as pilot:
        await pane_of(pilot)
        await pilot.press("4")
        await wait_until(pilot, lambda: bool(app.screen.query("#composer")))
        await wait_until(pilot, lambda: app.screen.query_one("#composer").has_focus)
        await pilot.press(*"hello", "enter")  # the smallest model is used: the one with endless answers
        await wait_until(pilot, lambda: engine.status.streams == 1)
        answer = await asyncio.wait_for(ask(client_of(app), model=ENDLESS), PATIENCE_S)
        assert answer.usage.completion_tokens == 8
        assert app.chats.answers
        await pilot.press("escape")
        await wait_until(pilot, lambda: not app.chats.answers)


@pytest.mark.slow
async def test_keys_respond_while_32_clients_send_requests(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=WIDE) as pilot:
        pane = await pane_of(pilot)
        await ask(client_of(app))
        url = app.server.url

        async def crowd() -> list[Any]:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            return list(await asyncio.gather(*(ask(client, max_tokens=40) for _ in range(32))))

        drawn: list[float] = []
        app.server.changed.subscribe(lambda _: drawn.append(time.monotonic()))
        begun = time.monotonic()
        asking = asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(crowd())))
        await wait_until(pilot, lambda: len(app.server.live) > 8 or asking.done())
        pressed = 0
        while not asking.done() or not pressed:
            before, key = pane.listed.cursor, "g" if pressed % 2 else "G"
            app.post_message(Key(key, key))
            await until(lambda before=before: pane.listed.cursor != before)  # type: ignore[misc]  # bound early
            pressed += 1
        assert len(await asking) == 32
        assert len(drawn) <= 11 * (time.monotonic() - begun) + 3
        assert pressed > 3  # how long a key takes is measured by benchmarks/bench_chat.py
        await wait_until(pilot, lambda: "33 finished" in words(app))
