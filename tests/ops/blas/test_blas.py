"""Selection of the BLAS library, stored trials, and number of threads; loads no library."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from mlxk_tui.ops.blas.choice import choose, describe, recorded_choice
from mlxk_tui.ops.blas.cores import ThreadLimiter, allowed_cores, thread_variables
from mlxk_tui.ops.blas.libraries import BlasLibrary, LibrarySource, find_libraries
from mlxk_tui.ops.blas.trials import Trial, TrialStore, TrialVerdict
from mlxk_tui.ops.contract.matrices import BlasState

GOOD = Trial(TrialVerdict.GOOD, "OpenBLAS 0.3.34", gain=20.0, speed=50.0, at=time.time())


def _group(root: Path, line: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "100000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n"}, 1),
        ("0::/not/visible\n", {"cpu.max": "100000 100000\n"}, 1),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "100000", "cpu/x/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ("0::/../../etc\n", {"cpu.max": "nonsense"}, None),
        ("", {}, None),
    ],
)
def test_number_of_threads_respects_the_control_group(
    tmp_path: Path, line: str, files: dict[str, str], cores: int | None
) -> None:
    everything = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert allowed_cores(_group(tmp_path, line, files)) == (cores or everything)


def test_number_of_threads_set_by_the_user_is_kept() -> None:
    assert thread_variables({"OMP_NUM_THREADS": "3"}) == {}
    assert thread_variables({})["OPENBLAS_NUM_THREADS"] == str(allowed_cores())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone tells what each core does")
def test_threads_are_reduced_while_another_process_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        pytest.skip("there is nothing to give up")
    busy = dict.fromkeys(cores, 0.0)

    def pass_by(seconds: float, others: float) -> None:
        """Simulate time in which other processes keep some cores busy."""
        clock[0] += seconds
        for core in cores[: int(others)]:
            busy[core] += seconds
        lines = [f"cpu{core} {int(busy[core] * ticks)} 0 0 99 0 0 0 0 0 0" for core in cores]
        (tmp_path / "proc/stat").write_text("\n".join(["cpu 1 2 3", *lines, "intr 1 2 3"]))

    clock, ticks = [1000.0], os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: 0.0)
    (tmp_path / "proc").mkdir()
    pass_by(0, 0)
    told: list[int] = []
    free = ThreadLimiter(told.append, tmp_path)
    pass_by(0.1, 1)
    free.update()  # too soon
    assert told == []
    pass_by(1, 1)
    free.update()
    assert told == [len(cores) - 1]
    for _ in range(3):
        pass_by(1, 0)
        free.update()
    assert told == [len(cores) - 1, len(cores)]
    (tmp_path / "proc/stat").unlink()
    pass_by_nothing = free.threads
    clock[0] += 1
    free.update()
    assert free.threads == pass_by_nothing


def test_named_library_comes_first_and_off_disables_all(tmp_path: Path) -> None:
    (tmp_path / "libmine.so").write_bytes(b"")
    (tmp_path / "libopenblas.so.0").write_bytes(b"")
    folder = {"LD_LIBRARY_PATH": f":{tmp_path}:/nowhere"}
    assert find_libraries({"MLXK_BLAS": " OFF "} | folder) == ()
    named = find_libraries({"MLXK_BLAS": str(tmp_path / "libmine.so")} | folder)
    assert [library.source for library in named][:2] == [LibrarySource.NAMED, LibrarySource.SYSTEM]
    assert find_libraries({"MLXK_BLAS": "libmine.so"} | folder)[0] == named[0]
    assert BlasLibrary(LibrarySource.SYSTEM, str(tmp_path / "libopenblas.so.0")) in find_libraries(folder)


def test_file_with_two_names_is_one_library(tmp_path: Path) -> None:
    (tmp_path / "libopenblas.so.0").write_bytes(b"")
    (tmp_path / "link.so").symlink_to("libopenblas.so.0")
    found = find_libraries({"MLXK_BLAS": str(tmp_path / "link.so"), "LD_LIBRARY_PATH": str(tmp_path)})
    assert [library.source for library in found if str(tmp_path) in library.path] == [LibrarySource.NAMED]


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing", "nul"])
def test_only_files_are_libraries(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "libopenblas.so.0"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    named = f"{path}\0" if kind == "nul" else str(path)
    libraries = find_libraries({"MLXK_BLAS": named, "LD_LIBRARY_PATH": str(tmp_path)})
    assert not any(str(tmp_path) in library.path for library in libraries)
    assert "which does not exist" in describe({"MLXK_BLAS": named}, []).message


def test_first_good_library_is_used_unless_a_later_one_is_much_faster() -> None:
    system, package = BlasLibrary(LibrarySource.SYSTEM, "/a"), BlasLibrary(LibrarySource.PACKAGE, "/b")
    slower = Trial(TrialVerdict.GOOD, "", gain=18, speed=45.0)
    assert choose([(system, slower), (package, GOOD)]) == (system, slower)
    assert choose([(system, Trial(TrialVerdict.GOOD, "", gain=9, speed=20.0)), (package, GOOD)]) == (
        package,
        GOOD,
    )
    assert choose([(system, Trial(TrialVerdict.WRONG, speed=90.0)), (package, GOOD)]) == (package, GOOD)
    named = BlasLibrary(LibrarySource.NAMED, "/c")
    assert choose([(named, Trial(TrialVerdict.GOOD, "", speed=1.0)), (package, GOOD)]) is not None
    assert choose([(system, Trial(TrialVerdict.DIED))]) is None


def test_missing_library_is_reported_with_cause_and_fix() -> None:
    blas = describe({}, [])
    assert blas.state is BlasState.BUILT_IN
    assert "pip install scipy-openblas32" in blas.message
    died = (BlasLibrary(LibrarySource.PACKAGE, "/b"), Trial(TrialVerdict.DIED, "SIGILL"))
    assert "scipy-openblas32 crashes on this processor (SIGILL)" in describe({}, [died]).message
    assert "MLXK_BLAS is off" in describe({"MLXK_BLAS": "off"}, []).message
    named = [
        (BlasLibrary(LibrarySource.NAMED, "/x.so"), Trial(TrialVerdict.WRONG)),
        (BlasLibrary(LibrarySource.PACKAGE, "/b"), GOOD),
    ]
    blas = describe({"MLXK_BLAS": "/x.so"}, named)
    assert blas.state is BlasState.FAST
    assert blas.message.startswith("/x.so (MLXK_BLAS) gives wrong numbers.")


def _remembering(
    tmp_path: Path, mlx: str = "1", cpuinfo: str = "/proc/cpuinfo", **environ: str
) -> TrialStore:
    return TrialStore(mlx, {"MLXK_BLAS_TRIALS": str(tmp_path / "blas"), **environ}, cpuinfo)


@pytest.fixture
def library(tmp_path: Path) -> BlasLibrary:
    path = tmp_path / "libopenblas.so.0"
    path.write_bytes(b"some code")
    return BlasLibrary(LibrarySource.SYSTEM, str(path))


def test_trial_is_stored_per_file_processor_and_mlx(tmp_path: Path, library: BlasLibrary) -> None:
    _remembering(tmp_path).put(library, GOOD)
    assert _remembering(tmp_path).get(library) == GOOD
    assert (tmp_path / "blas/blas.json").stat().st_mode & 0o777 == 0o600
    assert _remembering(tmp_path, mlx="2").get(library) is None
    assert _remembering(tmp_path, OPENBLAS_CORETYPE="Haswell").get(library) is None
    other = tmp_path / "cpuinfo"
    other.write_text("processor\t: 0\nmodel name\t: Another\nflags\t\t: fpu sse\n\nprocessor\t: 1\n")
    assert _remembering(tmp_path, cpuinfo=str(other)).get(library) is None
    os.utime(library.path, (1, 1))  # reinstalled with the same content
    assert _remembering(tmp_path).get(library) == GOOD
    Path(library.path).write_bytes(b"other code")
    assert _remembering(tmp_path).get(library) is None


def test_trial_on_a_busy_machine_is_repeated_later(tmp_path: Path, library: BlasLibrary) -> None:
    for verdict in (TrialVerdict.SLOW, TrialVerdict.HUNG):
        _remembering(tmp_path).put(library, Trial(verdict, at=time.time()))
        assert _remembering(tmp_path).get(library) is not None
        _remembering(tmp_path).put(library, Trial(verdict, at=time.time() - 7200))
        assert _remembering(tmp_path).get(library) is None
    _remembering(tmp_path).put(library, Trial(TrialVerdict.DIED, at=1.0))
    assert _remembering(tmp_path).get(library) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"format": 2}',
        b'{"format": 1, "trials": {}, "files": {}}',
        b'{"format": 2, "trials": {"a": 5}, "files": {}}',
        b'{"format": 2, "trials": {"a": {"verdict": "x"}}, "files": {}}',
        b'{"format": 2, "trials": {}, "files": {"a": 7}}',
        b"[" * 100_000,
    ],
)
def test_invalid_result_file_is_replaced(tmp_path: Path, library: BlasLibrary, content: bytes) -> None:
    (tmp_path / "blas").mkdir()
    (tmp_path / "blas/blas.json").write_bytes(content)
    assert _remembering(tmp_path).get(library) is None
    _remembering(tmp_path).put(library, GOOD)
    assert _remembering(tmp_path).get(library) == GOOD


def test_results_of_two_processes_are_both_stored(tmp_path: Path, library: BlasLibrary) -> None:
    second = BlasLibrary(LibrarySource.NAMED, str(tmp_path / "second.so"))
    Path(second.path).write_bytes(b"second")
    one, other = _remembering(tmp_path), _remembering(tmp_path)
    one.put(library, GOOD)
    other.put(second, GOOD)
    assert len(json.loads((tmp_path / "blas/blas.json").read_text())["trials"]) == 2
    assert _remembering(tmp_path).get(library) == _remembering(tmp_path).get(second) == GOOD


def test_trials_work_without_a_writable_folder(tmp_path: Path, library: BlasLibrary) -> None:
    (tmp_path / "blas").write_text("a file where the folder would be")
    trials = _remembering(tmp_path)
    with trials.locked(1):
        trials.put(library, GOOD)
    assert trials.get(library) == GOOD
    with TrialStore("1", {"MLXK_BLAS_TRIALS": "off"}).locked(1):
        TrialStore("1", {"MLXK_BLAS_TRIALS": "off"}).put(library, GOOD)


def test_untried_library_is_reported_as_untried(tmp_path: Path, library: BlasLibrary) -> None:
    environ = {"MLXK_BLAS_TRIALS": str(tmp_path / "blas"), "MLXK_BLAS": library.path}
    known = recorded_choice("1", environ)
    assert known.state is BlasState.UNTRIED
    assert "tried when the first model is loaded" in known.message
    assert recorded_choice("1", {**environ, "MLXK_BLAS": "off"}).state is BlasState.BUILT_IN
