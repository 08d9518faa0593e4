"""The programs to compare with, each in its own environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import BUILD

KNIFE = "mlx-knife==2.0.8"
KNIFE_VARIABLE = "MLXK_BENCH_KNIFE"
"""Environment variable with the folder of a virtual environment that contains mlx-knife."""

SCANDIR_WALK = """
import os, sys
pending, seen = [sys.argv[1]], 0
while pending:
    with os.scandir(pending.pop()) as entries:
        for entry in entries:
            seen += entry.stat().st_size
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
print(seen)
"""
"""The lower bound for any program: visit and stat every entry once."""


def knife() -> tuple[str, str]:
    """Return mlx-knife's command and version; install it in build/bench if needed.

    Raises:
        SystemExit: the installation failed.
    """
    given = os.environ.get(KNIFE_VARIABLE)
    venv = Path(given) if given else BUILD / "mlx-knife"
    command = venv / "bin" / "mlxk"
    if not command.exists():
        print(f"Installing {KNIFE} into {venv} …", file=sys.stderr)
        python = str(venv / "bin" / "python")
        packages = [KNIFE, *(["mlx[cpu]"] if sys.platform == "linux" else [])]
        for argv in (
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            [python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"],
            [python, "-m", "pip", "install", "--quiet", *packages],
        ):
            if subprocess.run(argv, check=False).returncode != 0:
                raise SystemExit(f"{' '.join(argv)} failed")
    version = subprocess.run([str(command), "--version"], capture_output=True, text=True, check=True).stdout
    return str(command), version.strip().split()[-1]


def hf() -> str:
    """Return the path of huggingface_hub's command in this environment."""
    return str(Path(sys.executable).parent / "hf")
