"""Stored verdicts are discarded if the rules change."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
from pathlib import Path

import mlxk_tui
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.health.verdict import evaluate
from mlxk_tui.ops.health.verdict_cache import RULES, VerdictCache
from tests.ops.health.test_integrity import RUNTIME
from tests.support.hf_cache import HfCache, model_files

ENTRY_POINTS = (evaluate.__module__, read_repo.__module__, VerdictCache.__module__)
"""Whose code decides a verdict; the rest follows from what they import."""


def _imported(module: str) -> set[str]:
    """Return the product's modules that a module imports, also inside functions."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("mlxk_tui.") and _is_module(name)}


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a name inside a module
        return False


def test_rules_list_all_modules_that_affect_a_verdict() -> None:
    waiting, found = set(ENTRY_POINTS), set[str]()
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= _imported(module) - found
    assert set(RULES) == found


def test_change_of_any_rule_discards_the_verdicts(cache: Cache, hub: Path, tmp_path: Path) -> None:
    HfCache(hub).repo("org/a").add(model_files())
    (ref,) = cache.repos()
    repo = read_repo(cache, ref)
    report = evaluate(repo, repo.selected, RUNTIME)
    package = tmp_path / "mlxk_tui"
    sources = [package.joinpath(*module.split(".")[1:]).with_suffix(".py") for module in RULES]
    for source in sources:
        source.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(mlxk_tui.__file__).parent / source.relative_to(package), source)
    path = str(tmp_path / "verdicts.json")

    def opened() -> VerdictCache:
        return VerdictCache(path, cache, RUNTIME, package=str(package))

    for source in sources:
        verdicts = opened()
        assert verdicts.get(ref) is None, source
        verdicts.put(report, repo.fingerprint_paths, began_ns=2**62)
        verdicts.save()
        assert opened().get(ref) == report
        changed = source.read_bytes() + b"\n"
        stat = source.stat()
        source.write_bytes(changed)
        os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
