"""What a run imports: nothing heavy, nothing that it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.headless.conftest import SOUND
from tests.headless.running import TIMEOUT, environment

_TELL = """
import json, os, sys
def leave(status, real=os._exit):  # how the command ends
    print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr, flush=True)
    real(status)
os._exit = leave
from mlxk_tui_headless.__main__ import main
sys.argv[0] = "mlxk-headless"
main()
"""
HEAVY = {"textual", "mlx", "mlx_lm", "transformers", "huggingface_hub", "aiohttp", "numpy", "torch"}

TYPER_BRINGS_RICH = (
    "rich"
    in subprocess.run(
        [sys.executable, "-c", "import typer, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
)
"""True with old versions of Typer."""


def _modules(*arguments: str, hub: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _TELL, *arguments],
        capture_output=True,
        env=environment(hub),
        timeout=TIMEOUT,
        check=False,
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0, done.stdout
    return set(modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--all", "--health"],
        ["show", SOUND],
        ["health"],
        ["health", "--verify"],
        ["version"],
    ],
    ids=" ".join,
)
def test_no_command_imports_the_app_the_client_or_mlx(arguments: list[str], filled: Path) -> None:
    for flags in ([], ["--json"]):
        modules = _modules(*arguments, *flags, hub=filled)
        assert not modules & HEAVY
        assert not [name for name in modules if name.startswith(("mlxk_tui.app", "mlxk_tui.panes"))]
        if flags and not TYPER_BRINGS_RICH:
            assert "rich" not in modules


def test_the_version_flag_needs_neither_typer_nor_pydantic(hub: Path) -> None:
    modules = _modules("--version", hub=hub)
    assert not modules & (
        HEAVY | {"typer", "click", "pydantic", "pydantic_core", "rich", "asyncio", "psutil"}
    )


def test_help_needs_no_operation(hub: Path) -> None:
    assert "mlxk_tui.ops.catalog" not in _modules("--help", hub=hub)
