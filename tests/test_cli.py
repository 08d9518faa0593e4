"""The `mlxk-tui` command before the app opens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mlxk_tui import __version__, cli
from mlxk_tui.settings import Settings


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlxk_tui", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
        timeout=60,
    )


def test_version_is_printed() -> None:
    assert run("--version").stdout == f"mlxk-tui {__version__}\n"


def test_without_a_terminal_it_suggests_mlxk_headless() -> None:
    done = run()
    assert done.returncode == cli.EXIT_USAGE
    assert done.stdout == ""
    assert "needs a terminal" in done.stderr
    assert "mlxk-headless" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_option_is_a_usage_error() -> None:
    assert run("--nonsense").returncode == cli.EXIT_USAGE


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_neither_textual_nor_pydantic(option: str) -> None:
    code = (
        "import sys\nfrom mlxk_tui import cli\n"
        f"try:\n cli.main([{option!r}])\nexcept SystemExit:\n pass\n"
        "print(sorted({'textual', 'pydantic', 'rich', 'huggingface_hub', 'mlx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("[]\n")


def test_web_and_the_api_server_have_different_default_ports() -> None:
    port = cli.parser().parse_args([]).web_port
    assert port != Settings().server_port
    assert f"default {port})" in run("--help").stdout


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_invalid_port_is_a_usage_error(port: str) -> None:
    done = run("--web", f"--web-port={port}")
    assert done.returncode == cli.EXIT_USAGE
    assert "is not a port from 1 to 65535" in done.stderr


def test_web_on_a_used_port_suggests_the_port_option() -> None:
    pytest.importorskip("textual_serve")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--web", "--web-port", str(port))
    assert (done.returncode, done.stdout) == (cli.EXIT_USAGE, "")
    assert done.stderr.startswith(f"mlxk-tui: port {port} cannot be used: ")
    assert "--web-port PORT" in done.stderr
    assert done.stderr.count("\n") == 1


def test_web_without_textual_serve_suggests_the_install_command(tmp_path: Path) -> None:
    # A package that cannot be imported simulates one that is not installed.
    (tmp_path / "textual_serve").mkdir()
    (tmp_path / "textual_serve" / "__init__.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])
    done = run("--web", PYTHONPATH=path)
    assert done.returncode == cli.EXIT_USAGE
    assert "pip install 'mlxk-tui[web]'" in done.stderr
