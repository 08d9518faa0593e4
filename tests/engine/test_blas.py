"""A fast BLAS library for MLX on Linux: trial, binding, and unsuitable libraries."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlxk_tui.engine.models import RunnableModel
from tests.engine.conftest import chat, new_engine, run, worker_environment
from tests.support.broken_blas import Fault, broken_copy
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux")
    or importlib.util.find_spec("scipy_openblas32") is None
    or platform.machine() not in ("x86_64", "aarch64"),
    reason="it is for Linux without a GPU",
)

_PROGRAM = """
import dataclasses, json, math, os, sys
import mlx.core as mx
from mlxk_tui.engine.inference.blas.installation import install_blas
blas = install_blas(*map(float, sys.argv[1:])).blas
product = mx.ones((3, 4)) @ mx.ones((4, 5))
# MLX's LAPACK stays its own, and works beside it.
values, _ = mx.linalg.eigh(mx.array([[2.0, 0.0], [0.0, 5.0]]), stream=mx.cpu)
print(json.dumps([dataclasses.asdict(blas), product.sum().item(), values.tolist()]))
"""


@pytest.fixture(scope="module")
def package() -> Path:
    spec = importlib.util.find_spec("scipy_openblas32")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "lib/libscipy_openblas.so"


def borrow(*arguments: str, **environ: str) -> dict[str, Any]:
    """Let a separate process use a library, check its products, and return its status."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    blas, product, values = json.loads(done.stdout)
    assert product == 60
    assert values == pytest.approx([2.0, 5.0])
    return dict(blas)


def test_package_is_tried_once_and_then_used_directly(tmp_path: Path) -> None:
    trials = {"MLXK_BLAS_TRIALS": str(tmp_path)}
    first = borrow(**trials)
    assert first["state"] == "fast"
    assert first["gain"] > 1.5
    remembered = (tmp_path / "blas.json").read_bytes()
    assert borrow(**trials) == first
    assert (tmp_path / "blas.json").read_bytes() == remembered


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.DIES, "crashes on this processor (SIGILL)"),
        (Fault.DOES_NOTHING, "gives wrong numbers (single precision"),
        (Fault.HANGS, "does not finish (not after 4 s)"),
    ],
)
def test_broken_library_is_skipped(package: Path, tmp_path: Path, fault: Fault, words: str) -> None:
    library = broken_copy(package, tmp_path / "libbroken.so", fault)
    blas = borrow("4" if fault is Fault.HANGS else "60", MLXK_BLAS=str(library))
    assert words in blas["message"]
    assert blas["path"] == str(package)  # the next suitable library


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_truncated_library_is_skipped(package: Path, tmp_path: Path, share: float) -> None:
    """A download or a disk that ended early: loading it may fail, or crash the process that tries it."""
    content = package.read_bytes()
    library = tmp_path / "libtruncated.so"
    library.write_bytes(content[: int(share * len(content))])
    blas = borrow(MLXK_BLAS=str(library))
    assert blas["path"] == str(package)  # the next good one
    assert str(library) in blas["message"]


@pytest.mark.slow
def test_wrong_results_only_in_double_precision_are_detected(package: Path, tmp_path: Path) -> None:
    for function in ("scipy_cblas_dgemm", "scipy_cblas_cgemm"):
        library = broken_copy(package, tmp_path / f"{function}.so", Fault.DOES_NOTHING, function)
        assert "gives wrong numbers" in borrow(MLXK_BLAS=str(library))["message"]


@pytest.mark.slow
def test_other_files_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library")
    assert "cannot be loaded" in borrow(MLXK_BLAS=str(tmp_path / "text.so"))["message"]
    assert "which does not exist" in borrow(MLXK_BLAS=str(tmp_path / "missing.so"))["message"]
    numpy_own = [*Path(importlib.util.find_spec("numpy").origin).parents[1].glob("numpy.libs/*openblas64*")]  # type: ignore[union-attr, arg-type]  # numpy is there
    for library in numpy_own:  # 64-bit integers
        assert "cannot be loaded (it has no cblas_sgemm" in borrow(MLXK_BLAS=str(library))["message"]


def test_library_without_speedup_is_not_used() -> None:
    libraries = [*Path(importlib.util.find_spec("mlx.core").origin).parents[1].glob("mlx_cpu.libs/libblas*")]  # type: ignore[union-attr, arg-type]  # as above
    if not libraries:
        pytest.skip("this MLX contains no reference BLAS")
    assert "is not faster than MLX's own" in borrow(MLXK_BLAS=str(libraries[0]))["message"]


@pytest.mark.slow
def test_library_that_breaks_after_its_trial_does_not_stop_the_worker(package: Path, tmp_path: Path) -> None:
    library = tmp_path / "libmine.so"
    library.write_bytes(package.read_bytes())
    environ = {"MLXK_BLAS": str(library), "MLXK_BLAS_TRIALS": str(tmp_path / "trials")}
    assert borrow(**environ)["path"] == str(library)
    library.write_bytes(b"broken by an upgrade")
    assert borrow(**environ)["path"] == str(package)
    library.unlink()
    assert borrow(**environ)["path"] == str(package)


@pytest.mark.slow
def test_read_only_cache_folder_only_prevents_storing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert borrow(MLXK_BLAS_TRIALS=str(tmp_path / "file"))["state"] == "fast"


@pytest.mark.slow
def test_two_processes_at_once_both_use_the_library(tmp_path: Path) -> None:
    environ = {**os.environ, "MLXK_BLAS_TRIALS": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", _PROGRAM], env=environ, stdout=subprocess.PIPE) for _ in "12"
    ]
    said = [json.loads(process.communicate()[0])[0] for process in processes]
    assert [blas["state"] for blas in said] == ["fast", "fast"]
    assert len(json.loads((tmp_path / "blas.json").read_text())["trials"]) == 1


def test_off_does_not_change_mlx() -> None:
    assert borrow(MLXK_BLAS="off")["message"] == "MLX's own matrix product is used: MLXK_BLAS is off."


@pytest.mark.slow
async def test_worker_reports_its_library_and_is_idle_without_requests(tiny: RunnableModel) -> None:
    engine = new_engine()
    try:
        with_it = await run(engine, tiny, chat("Hello!", max_tokens=12))
        blas, pid = engine.status.blas, engine.status.pid
        assert blas is not None
        assert blas.state.value == "fast"
        assert pid is not None
        process = psutil.Process(pid)

        def rests() -> bool:
            before = process.cpu_times()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0.5)
            after = process.cpu_times()
            return after.user + after.system - before.user - before.system <= 0.02

        await until(rests)
    finally:
        await engine.stop()
    engine = new_engine(environ=worker_environment(MLXK_BLAS="off"))
    try:
        without = await run(engine, tiny, chat("Hello!", max_tokens=12))
        assert engine.status.blas is not None
        assert engine.status.blas.state.value == "built-in"
    finally:
        await engine.stop()
    assert with_it.text == without.text
