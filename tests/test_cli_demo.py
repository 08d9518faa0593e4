"""`--demo` as a process: it does not use the user's API keys and server settings."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.demo.session import DemoSession
from mlxk_tui.server.http.keys import save_keys
from mlxk_tui.settings import for_demo, load
from tests.headless.running import PROGRAM, Terminal, checked
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Return a config folder with settings and an API key."""
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "config.toml").write_text('server_port = 0\nserver_model = "org/mine"\ntheme = "mlxk-light"\n')
    save_keys(folder / "api-keys", {"walrus": "mlxk-0000-walrus-0000"})
    return folder


def environment(user: Path) -> dict[str, str]:
    return {
        **os.environ,
        "MLXK_CONFIG": str(user / "config.toml"),
        "MLXK_API_KEY": "otter:mlxk-1111-otter-1111",
        "MLXK_SERVER_PORT": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TERM": "xterm-256color",
    }


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Check that the block does not change the folder."""

    def content() -> dict[str, tuple[bytes, float]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime) for path in folder.iterdir()}

    before = content()
    yield
    assert content() == before


@contextlib.contextmanager
def at_terminal(user: Path) -> Iterator[Terminal]:
    """Run the app with --demo in a new pseudo-terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "mlxk_tui", "--demo"],
        stdin=slave, stdout=slave, stderr=slave, env=environment(user), start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(60)
        os.close(master)


@pytest.mark.slow
def test_demo_stores_its_api_keys_separately(user: Path) -> None:
    with unchanged(user), at_terminal(user) as terminal:
        terminal.wait_for("models")
        terminal.type("5")
        terminal.wait_for("The server is off")
        terminal.wait_for("no API key required")
        terminal.type("n")
        terminal.wait_for("New API key")
        terminal.wait_for("default")
        terminal.type("\r")
        terminal.wait_for("Created API key")
        terminal.type("q")
        status, shown = terminal.finish()
    assert status == 0
    for name in ("walrus", "otter"):
        assert name not in shown


@pytest.mark.slow
def test_headless_demo_serves_without_the_users_api_keys(user: Path) -> None:
    with unchanged(user):
        child = subprocess.Popen(
            [*PROGRAM, "--demo", "serve", "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(user),
        )  # fmt: skip
        try:
            assert child.stdout is not None
            envelope = checked(child.stdout.readline().decode())
            assert envelope["status"] == "success", envelope
            # With the user's key, a request without a key would be rejected.
            with urllib.request.urlopen(f"{envelope['data']['url']}/v1/models", timeout=PATIENCE_S) as answer:
                assert answer.status == 200
            child.terminate()
            assert child.wait(60) == 0
        finally:
            if child.poll() is None:
                child.kill()
            child.communicate(timeout=60)


def test_demo_uses_the_users_settings_except_for_the_server(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLXK_SERVER_ORIGINS", "https://chat.example.org")
    loaded = load({}, user / "config.toml")
    assert loaded.settings.server_model == "org/mine"
    with DemoSession() as session:
        demo = for_demo(loaded, session.home)
        assert demo.key_folder == session.home
    assert demo.settings.theme == "mlxk-light"
    assert (demo.settings.server_model, demo.settings.server_port) == ("", 8000)
    assert demo.settings.server_origins == "https://chat.example.org"
    assert demo.path == loaded.path
