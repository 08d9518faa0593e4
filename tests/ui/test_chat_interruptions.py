"""Chats that end early: the program is killed, or a model does not fit."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from mlxk_tui.app import MlxkApp
from mlxk_tui.chats.model import MessageState
from mlxk_tui.demo import tiny_model
from mlxk_tui.demo.layout import RepoLayout
from mlxk_tui.engine.client import Engine
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.conversation.request import ChatSettings
from mlxk_tui.settings import load
from mlxk_tui.ui.chat.pane import ChatPane
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog
from tests.engine.conftest import is_gone, needs_mlx, new_engine
from tests.engine.small_models import make_model
from tests.support.waiting import PATIENCE_S
from tests.ui.conftest import NOWHERE, wait_until
from tests.ui.gallery import words
from tests.ui.test_chat import answered

pytestmark = needs_mlx
_STYLE = re.compile(rb"\x1b\[[0-9;:?<>=]*[A-Za-z]")
F4 = b"\x1bOS"


class Terminal:
    """The program in a pseudo-terminal of 120 columns and 40 lines.

    Args:
        hub: the cache.
        home: the folder of its settings and state.
    """

    def __init__(self, hub: Path, home: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        folders = dict.fromkeys(
            ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"), str(home)
        )
        terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "MLX_DISABLE_COMPILE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlxk_tui", "--cache-dir", str(hub)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, **folders, **terminal},
            start_new_session=True,
        )
        os.close(slave)
        self._written = b""

    def look(self) -> None:
        """Read the output, so that the program does not block."""
        while select.select([self._master], [], [], 0.02)[0]:
            try:
                read = os.read(self._master, 1 << 16)
            except OSError:  # Linux: the other side is closed
                return
            if not read:
                return
            self._written += read

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Read until `condition` holds; fail after the timeout."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"it never came to that: {self.words[-2000:]!r}"
            self.look()

    @property
    def words(self) -> str:
        """The whole output, without styles and cursor movements."""
        return _STYLE.sub(b"", self._written).decode(errors="replace")

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def worker(self) -> int | None:
        """Wait for the engine's worker and return its process id."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "mlxk_tui.engine.worker" in child.cmdline():
                        return child.pid
        return None

    def end(self) -> None:
        """Stop all processes."""
        worker = self.worker()
        self.process.kill()
        self.process.wait()
        if worker is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(worker).kill()
        os.close(self._master)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache with a model with endless answers."""
    folder = tmp_path_factory.mktemp("endless")
    made = make_model(folder / "made", context=65_536, endless=True)
    repo = RepoLayout(folder / "hub", "mlx-community/endless-chat")
    repo.add_snapshot("e" * 40, {path.name: path.read_bytes() for path in made.iterdir()})
    repo.set_ref("main", "e" * 40)
    return folder / "hub"


@pytest.fixture
def terminal(endless: Path, tmp_path: Path) -> Iterator[Terminal]:
    """Start the program with that model, and stop it afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    terminal = Terminal(endless, home)
    yield terminal
    terminal.end()


@pytest.mark.parametrize(
    ("number", "answering", "statuses"),
    [
        (signal.SIGKILL, True, {-signal.SIGKILL}),
        pytest.param(signal.SIGKILL, False, {-signal.SIGKILL}, marks=pytest.mark.slow),
        (signal.SIGTERM, True, {128 + signal.SIGTERM}),
        pytest.param(
            *(signal.SIGHUP, True, {-signal.SIGHUP, 128 + signal.SIGHUP}),
            marks=pytest.mark.slow,  # it is handled like SIGTERM
        ),
    ],
    ids=["kill", "kill-while-loading", "term", "hangup"],
)
def test_killed_program_leaves_no_worker(
    terminal: Terminal, number: signal.Signals, answering: bool, statuses: set[int]
) -> None:
    terminal.wait_until(lambda: "endless-chat" in terminal.words)
    terminal.press(F4)
    terminal.wait_until(lambda: "Ask anything" in terminal.words)
    terminal.press(b"hello")

    def asked() -> bool:
        terminal.press(
            b"\r"
        )  # repeatedly: the chats may not be open yet, and sending an empty prompt does nothing
        terminal.look()
        return terminal.worker() is not None

    terminal.wait_until(asked)
    worker = terminal.worker()
    assert worker is not None
    if answering:
        terminal.wait_until(lambda: "tok/s" in terminal.words)
    terminal.process.send_signal(number)
    terminal.wait_until(lambda: terminal.process.poll() is not None)
    terminal.wait_until(lambda: is_gone(worker))
    assert terminal.process.returncode in statuses
    assert "Traceback" not in terminal.words


# -- memory ----------------------------------------------------------------------------------------

HUGE = "mlx-community/huge-chat"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    """Return an engine that outlives the app."""
    engine = new_engine()
    yield engine
    await engine.stop()


def add_huge(hub: Path, made: Path, size: int = 10**12) -> None:
    """Add a model of a terabyte to a cache: the tiny one, with an output layer that its class ignores.

    The file is sparse, and mlx reads tensors only when they are used, so the model runs nevertheless.
    """
    snapshot = hub / ("models--" + HUGE.replace("/", "--")) / "snapshots" / ("a" * 40)
    shutil.copytree(made, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    path = snapshot / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    rows, columns = 1000, size // 2000
    end = len(tensors) + 2 * rows * columns
    header["lm_head.weight"] = {
        "dtype": "F16",
        "shape": [rows, columns],
        "data_offsets": [len(tensors), end],
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text + tensors)
        stream.truncate(8 + len(text) + end)


@pytest.fixture
def huge(hub: Path) -> Cache:
    """Return a cache with only that model."""
    add_huge(hub, tiny_model.folder())
    return Cache(hub)


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_model_that_does_not_fit_asks_with_its_sizes(
    huge: Cache, engine: Engine, tmp_path: Path
) -> None:
    app = MlxkApp(
        load({"refresh_seconds": 0}), huge, hub=Hub(NOWHERE), state=tmp_path / "state", engine=engine
    )
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await wait_until(pilot, lambda: bool(app.library.entries) and app.focused is not None)
        await pilot.press("c")
        await wait_until(pilot, lambda: isinstance(app.screen, ChatPane))
        pane = app.screen
        assert isinstance(pane, ChatPane)
        await wait_until(pilot, lambda: pane.store_state.done and pane.controller.session.model == HUGE)
        await wait_until(pilot, lambda: pane.composer.has_focus)
        await pane.controller.use_settings(ChatSettings("", {"temperature": 0}))
        pane.composer.set_text("Tell me a tip")
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await wait_until(pilot, lambda: "Not enough memory" in words(app))
        assert "needs about 1.00 TB of memory; models can" in words(app)
        assert engine.status.pid is None
        # Declined: the prompt is unchanged, and nothing is stored.
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is pane)
        assert pane.composer.text == "Tell me a tip"
        assert pane.composer.has_focus
        assert not pane.conversation.blocks
        assert not pane.controller.saved
        # Confirmed: the model is loaded and answers, without another question.
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        await answered(pilot, pane, 2)
        assert engine.status.model is not None
        assert engine.status.model.name == HUGE
        assert pane.conversation.blocks[-1].message.state is MessageState.DONE
        assert pane.conversation.blocks[-1].message.content
        assert pane.composer.text == ""
        pane.composer.set_text("What does verify do?")
        await pilot.press("enter")
        await answered(pilot, pane, 4)
        assert pane.conversation.blocks[-1].message.state is MessageState.DONE
