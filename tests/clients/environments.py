"""Creates an environment with pinned versions for each program in `.clients`.

`python -m tests.clients.environments [NAME ...]` creates them by hand; existing ones are kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 900
ROOT = Path(__file__).resolve().parents[2]


class UnavailableError(Exception):
    """A program cannot be installed; the message has the reason."""


@dataclass(frozen=True)
class Program:
    """A program and its requirements."""

    requirements: tuple[str, ...]
    small: bool
    """Less than 200 MB with everything that it needs: quickly installed."""


PROGRAMS = {
    "langchain": Program(
        ("langchain-openai==1.7.4", "langchain-tests==1.1.9", "pytest==9.2.0", "hypothesis==6.170.17"),
        small=True,
    ),
    "litellm": Program(("litellm==1.108.0", "mcp==2.3.0"), small=False),
    "lm-eval": Program(("lm-eval[api]==0.4.13", "transformers==5.23.0"), small=False),
    "schemathesis": Program(("schemathesis==4.30.0",), small=True),
}


def environments() -> Path:
    """Return their folder: $MLXK2_CLIENTS, or `.clients` in the checkout."""
    given = os.environ.get("MLXK2_CLIENTS")
    return Path(given).expanduser() if given else ROOT / ".clients"


def python_of(name: str) -> Path:
    """Return the interpreter of a program's environment; create or update it if needed.

    Raises:
        UnavailableError: the program cannot be installed.
    """
    wanted = "\n".join(PROGRAMS[name].requirements) + "\n"
    folder = environments() / name
    stamp, python = folder / "requirements.txt", folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted and python.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv")
    if uv is not None:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        _run([uv, "pip", "install", "--quiet", "--python", str(python), *PROGRAMS[name].requirements])
    else:
        venv.create(folder, with_pip=True)
        _run([str(python), "-m", "pip", "install", "--quiet", *PROGRAMS[name].requirements])
    stamp.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(str(error)) from None
    if done.returncode:
        raise UnavailableError(done.stderr.strip()[-500:])


if __name__ == "__main__":
    for program in sys.argv[1:] or PROGRAMS:
        print(f"{program}: {python_of(program)}")  # noqa: T201 - a command
