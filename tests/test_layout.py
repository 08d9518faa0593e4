"""The folders and layers in docs/architecture.md, and limits for modules and names."""

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
MAX_MODULES = 15
"""Maximum number of modules in a folder."""
MAX_LINES = 400
"""Maximum number of lines in a module."""


def folders() -> dict[str, list[Path]]:
    """Return the modules of each package, by path."""
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
    """Return the layers of a contract, highest first, without the name of their package."""
    (layers,) = (contract["layers"] for contract in contracts() if contract["name"] == name)
    assert isinstance(layers, list)
    return [re.sub(r"mlxk_tui\.|[()]", "", layer).replace(" | ", ", ") for layer in layers]


def test_folders_have_a_limited_number_of_modules() -> None:
    full = {folder: len(modules) for folder, modules in folders().items() if len(modules) > MAX_MODULES}
    assert full == {}


def test_modules_have_a_limited_length() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for modules in folders().values()
        for path in modules
        if (lines := len(path.read_text("utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_public_classes_have_unique_names() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for modules in folders().values():
        for path in modules:
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("folder", sorted(folders()))
def test_map_lists_every_folder(folder: str) -> None:
    lines = [line for line in MAP.splitlines() if line.startswith(f"| `{folder}`")]
    assert len(lines) == 1, f"docs/architecture.md needs one line for {folder}"
    docstring = (ROOT / folder / "__init__.py").read_text("utf-8").split('"""')[1].splitlines()[0]
    assert lines[0] == f"| `{folder}` | {docstring.rstrip('.')} |"


def test_layers_match_the_import_contracts() -> None:
    drawn = re.findall(r"^(?:app|ui|ops): `(.+)`$", MAP, re.MULTILINE)
    names = (
        "Layers of the app",
        "Layers of the UI",
        "Layers of ops",
    )
    assert drawn == [" → ".join(layers_of(name)) for name in names]
