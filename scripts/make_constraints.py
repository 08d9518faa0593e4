"""Update constraints.txt: the newest compatible versions for every installed Python.

`python3 scripts/make_constraints.py` lets pip of each interpreter from 3.10 on (found by
scripts/test-all-pythons) resolve pyproject.toml without installing anything. A package with the same version
everywhere is one line; if versions differ, or only some Pythons need it, the lines have markers. The file
contains names and versions only, no URLs or hashes.
"""

# ruff: noqa: T201 - scripts print their results

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
HEADER = """\
# Versions that were tested together, for `pip install -c constraints.txt`.
# Written by scripts/make_constraints.py; names and versions only.
"""


def resolve(python: str, folder: Path) -> dict[str, str]:
    """Return name -> version of all packages of a development installation with `python`."""
    venv, report = folder / "venv", folder / "report.json"
    subprocess.run([python, "-m", "venv", str(venv)], check=True)  # noqa: S603 - an interpreter, no shell
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip"], check=True)  # noqa: S603 - as above
    options = ["--dry-run", "--ignore-installed", "--report", str(report)]
    subprocess.run([*pip, *options, "-e", ".[dev,web]"], cwd=ROOT, check=True)  # noqa: S603 - as above
    found = {}
    for item in json.loads(report.read_text())["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        found[name] = item["metadata"]["version"]
    found.pop("mlxk-tui")
    return found


def lines_for(name: str, versions: dict[str, str | None]) -> list[str]:
    """Return the lines of one package, given its version (or None) for each Python, oldest first."""
    runs: list[tuple[list[str], str | None]] = []
    for python, version in versions.items():
        if runs and runs[-1][1] == version:
            runs[-1][0].append(python)
        else:
            runs.append(([python], version))
    lines = []
    for number, (pythons, version) in enumerate(runs):
        if version is None:
            continue
        bounds = []
        if number > 0:
            bounds.append(f"python_version >= '{pythons[0]}'")
        if number < len(runs) - 1:
            bounds.append(f"python_version < '{runs[number + 1][0][0]}'")
        lines.append(f"{name}=={version}" + (f" ; {' and '.join(bounds)}" if bounds else ""))
    return lines


def main() -> int:
    """Resolve with every Python and write the file."""
    finder = [str(ROOT / "scripts" / "test-all-pythons"), "--list"]
    listed = subprocess.run(finder, check=True, capture_output=True, text=True)  # noqa: S603 - our own script
    resolved: dict[str, dict[str, str]] = {}
    for line in listed.stdout.splitlines():
        version, python = line.split(maxsplit=1)
        print(f"Python {version}: {python}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            resolved[version] = resolve(python, Path(folder))
    names = sorted(set().union(*resolved.values()))
    lines = [
        line
        for name in names
        for line in lines_for(name, {python: found.get(name) for python, found in resolved.items()})
    ]
    TARGET.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    print(f"{len(names)} packages, Python {', '.join(resolved)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
