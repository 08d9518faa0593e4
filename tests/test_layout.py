"""The layout that docs/architecture.md draws: its map, its layers, and what a reader may rely on."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest
import tomlkit

ROOT = Path(__file__).parent.parent
PRODUCT = ("mlxk_tui", "mlxk_tui_headless")
MAP = (ROOT / "docs" / "architecture.md").read_text("utf-8")
MODULES = 15
"""Most modules of a folder's own: a reader takes in a list of this length at once."""
LINES = 400
"""Most lines of a module."""


def folders() -> dict[str, list[Path]]:
    """Return the modules of each package, by its path."""
    found: dict[str, list[Path]] = {}
    for package in PRODUCT:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            folder = init.parent
            found[folder.relative_to(ROOT).as_posix()] = [
                path for path in folder.glob("*.py") if path.name != "__init__.py"
            ]
    return found


def contracts() -> list[dict[str, object]]:
    """Return the import contracts."""
    settings = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()
    found: list[dict[str, object]] = settings["tool"]["importlinter"]["contracts"]
    return found


def layers_of(name: str) -> list[str]:
    """Return the layers of a contract, highest first, without the package they are in."""
    (layers,) = (contract["layers"] for contract in contracts() if contract["name"] == name)
    assert isinstance(layers, list)
    return [re.sub(r"mlxk_tui\.|[()]", "", layer).replace(" | ", ", ") for layer in layers]


def test_no_folder_is_too_full() -> None:
    full = {folder: len(modules) for folder, modules in folders().items() if len(modules) > MODULES}
    assert full == {}


def test_no_module_is_too_long() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for modules in folders().values()
        for path in modules
        if (lines := len(path.read_text("utf-8").splitlines())) > LINES
    }
    assert long == {}


def test_a_public_class_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for modules in folders().values():
        for path in modules:
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("folder", sorted(folders()))
def test_the_map_has_every_folder(folder: str) -> None:
    lines = [line for line in MAP.splitlines() if line.startswith(f"| `{folder}`")]
    assert len(lines) == 1, f"docs/architecture.md needs one line for {folder}"
    said = (ROOT / folder / "__init__.py").read_text("utf-8").split('"""')[1].splitlines()[0]
    assert lines[0] == f"| `{folder}` | {said.rstrip('.')} |"


def test_the_layers_are_those_of_the_contracts() -> None:
    drawn = re.findall(r"^(?:app|ui|ops): `(.+)`$", MAP, re.MULTILINE)
    names = (
        "Layers of the app",
        "Layers of the UI",
        "Layers of ops",
    )
    assert drawn == [" → ".join(layers_of(name)) for name in names]
