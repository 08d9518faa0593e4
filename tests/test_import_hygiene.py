"""Imports of each entry point: no MLX in a front end, no Textual in the headless command.

Each test starts a new process, because imports stay loaded.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from mlxk_tui.demo.sample import build_sample_cache
from tests.support.hf_cache import HfCache, model_files

MLX = ("mlx", "mlx_lm", "transformers", "torch")
"""Inference libraries, which take seconds and memory; only the worker may import them."""
HUB = ("huggingface_hub",)
"""The hub's client."""
TEXTUAL = ("textual",)

AT_EXIT = """
import atexit, json, os, sys
def write():
    with open({target!r}, "w") as stream:
        json.dump(sorted(sys.modules), stream)
def leave(status, real=os._exit):  # how the headless command ends
    write()
    real(status)
atexit.register(write)
os._exit = leave
"""


def modules_of(code: str, tmp_path: Path, *, arguments: Iterable[str] = ()) -> set[str]:
    """Run code in a new process and return the modules that were loaded at its end."""
    target = tmp_path / "modules.json"
    result = subprocess.run(
        [sys.executable, "-c", AT_EXIT.format(target=str(target)) + code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert target.exists(), result.stderr
    return set(json.loads(target.read_text()))


def headless(*arguments: str) -> str:
    """Return code that runs the headless command."""
    return (
        f"sys.argv = ['mlxk-headless', *{arguments!r}]\n"
        "from mlxk_tui_headless.__main__ import main\nraise SystemExit(main())\n"
    )


@pytest.fixture
def filled(hub: Path) -> Path:
    """A cache with one model."""
    HfCache(hub).repo("mlx-community/tiny-4bit").add(model_files())
    return hub


COMMANDS = [
    ("--version",),
    ("--help",),
    ("list", "--json"),
    pytest.param(("list", "--all", "--health"), marks=pytest.mark.slow),
    ("health", "--verify", "--json"),
    ("show", "mlx-community/tiny-4bit", "--files"),
    pytest.param(("prune", "--dry-run", "--json"), marks=pytest.mark.slow),
    pytest.param(("rm", "mlx-community/tiny-4bit", "--json"), marks=pytest.mark.slow),
    pytest.param(("version", "--json"), marks=pytest.mark.slow),
    pytest.param(("nonsense", "--json"), marks=pytest.mark.slow),
    pytest.param(("server", "--help"), marks=pytest.mark.slow),
    ("serve", "no-such-model", "--port", "0", "--json"),  # ends before it listens
    ("run", "no-such-model", "Hello", "--json"),  # ends before the engine starts
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_headless_commands_import_neither_textual_nor_mlx(
    arguments: tuple[str, ...], filled: Path, tmp_path: Path
) -> None:
    loaded = modules_of(headless(*arguments), tmp_path)
    assert loaded & {*MLX, *HUB, *TEXTUAL} == set()
    assert "mlxk_tui_headless.runner" in loaded or {"--version", "--help"} & {*arguments}


def test_server_imports_neither_textual_nor_mlx(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        loaded = modules_of(headless("serve", "--port", str(port), "--json"), tmp_path)
    assert {"mlxk_tui.server.server", "mlxk_tui.engine.client", "aiohttp"} <= loaded
    assert loaded & {*MLX, *HUB, *TEXTUAL} == set()


def test_clone_imports_neither_textual_nor_mlx(filled: Path, tmp_path: Path) -> None:
    arguments = ("clone", "mlx-community/tiny-4bit", str(tmp_path / "clone"), "--json")
    loaded = modules_of(headless(*arguments), tmp_path)
    assert loaded & {*MLX, *HUB, *TEXTUAL} == set()
    assert (tmp_path / "clone" / "config.json").exists()


def test_services_import_neither_textual_nor_mlx(tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil\n"
        "import mlxk_tui.services as services\n"
        "for found in pkgutil.walk_packages(services.__path__, 'mlxk_tui.services.'):\n"
        "    importlib.import_module(found.name)\n"
    )
    loaded = modules_of(code, tmp_path)
    assert {"mlxk_tui.services.library", "mlxk_tui.services.server.control"} <= loaded
    assert loaded & {*MLX, *HUB, *TEXTUAL, "aiohttp", "typer"} == set()


@pytest.mark.parametrize("command", ["list", "health", "version"])
def test_json_commands_import_neither_rich_tables_nor_asyncio(
    command: str, filled: Path, tmp_path: Path
) -> None:
    assert modules_of(headless(command, "--json"), tmp_path) & {"rich.table", "asyncio"} == set()


def test_version_imports_neither_pydantic_nor_typer(tmp_path: Path) -> None:
    assert modules_of(headless("--version"), tmp_path) & {"pydantic", "typer", "rich", "asyncio"} == set()


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_app_version_and_help_do_not_import_textual(flag: str, tmp_path: Path) -> None:
    code = f"sys.argv = ['mlxk-tui', {flag!r}]\nfrom mlxk_tui.cli import main\nraise SystemExit(main())\n"
    loaded = modules_of(code, tmp_path)
    assert "mlxk_tui.cli" in loaded
    assert loaded & {*MLX, *HUB, *TEXTUAL, "pydantic"} == set()


APP = """
import asyncio, os
from pathlib import Path
from mlxk_tui import settings
from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache

async def main():
    app = MlxkApp(settings.load({}), Cache(Path(sys.argv[1])))
    async with app.run_test(size=(120, 40)) as pilot:
        while app.screen_stack is None or "Llama-3.2-3B" not in app.export_screenshot():
            await pilot.pause(0.01)
        for key in ("2", "1", "down", "down"):
            await pilot.press(key)

asyncio.run(main())
"""


def test_app_imports_neither_mlx_nor_the_headless_command(tmp_path: Path) -> None:
    build_sample_cache(tmp_path / "hub")
    loaded = modules_of(APP, tmp_path, arguments=[str(tmp_path / "hub")])
    assert "textual.app" in loaded
    assert loaded & {*MLX, *HUB, "mlxk_tui_headless", "typer", "aiohttp"} == set()


def test_importing_the_packages_imports_nothing_else(tmp_path: Path) -> None:
    before = modules_of("", tmp_path)
    loaded = modules_of("import mlxk_tui, mlxk_tui_headless\n", tmp_path) - before
    assert {name for name in loaded if not name.startswith("mlxk_tui")} == set()
