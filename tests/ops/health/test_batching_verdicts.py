"""Stored batching verdicts: their key, concurrent processes, and damaged files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlxk_tui.ops.contract.terms import BatchingReason
from mlxk_tui.ops.health.batching_verdicts import (
    FOLDER_VARIABLE,
    Arithmetic,
    BatchingVerdict,
    BatchingVerdicts,
    batching_key,
    find_batching_verdict,
    model_key,
)
from tests.support.unprivileged import give_away, open_folder, unprivileged

CONFIG = {"model_type": "afm7", "hidden_dim": 64, "_name_or_path": "somebody/a-model"}
MODEL = model_key(CONFIG, "0.32.4", "0.32.2")
CPU = Arithmetic("cpu", "float32", "OpenBLAS 0.3.34", "linux-x86_64")
KEY = batching_key(MODEL, CPU)
IN_TURN = BatchingVerdict(False, BatchingReason.DIFFERENT, 0.25)


def verdicts(folder: Path) -> BatchingVerdicts:
    return BatchingVerdicts({FOLDER_VARIABLE: str(folder)})


def test_verdict_is_stored(tmp_path: Path) -> None:
    assert verdicts(tmp_path / "new").get(KEY) is None
    assert verdicts(tmp_path / "new").put(KEY, IN_TURN)
    assert verdicts(tmp_path / "new").get(KEY) == IN_TURN
    assert verdicts(tmp_path / "new").put(KEY, BatchingVerdict(True))
    assert verdicts(tmp_path / "new").get(KEY) == BatchingVerdict(True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{KEY}.json"]


def test_key_depends_on_shapes_versions_and_kernels_but_not_on_names() -> None:
    assert model_key({**CONFIG, "_name_or_path": "other"}, "0.32.4", "0.32.2") == MODEL
    assert model_key(dict(reversed(CONFIG.items())), "0.32.4", "0.32.2") == MODEL
    models = {
        model_key({**CONFIG, "hidden_dim": 65}, "0.32.4", "0.32.2"),
        model_key(CONFIG, "0.32.5", "0.32.2"),
        model_key(CONFIG, "0.32.4", "0.32.3"),
    }
    assert len(models | {MODEL}) == 4
    others = [
        replace(CPU, device="gpu"),
        replace(CPU, weights="stored"),
        replace(CPU, weights=""),
        replace(CPU, blas="OpenBLAS 0.3.21"),
        replace(CPU, blas=""),
        replace(CPU, system="linux-aarch64"),
    ]
    assert len({batching_key(MODEL, other) for other in others} | {KEY}) == 7


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b'{"format": 2}',
        b"[" * 9000,
        b'{"format": 0, "together": true, "reason": null, "difference": 0, "unfinished": 0}',
        b'{"format": 2, "together": "yes", "reason": null, "difference": 0, "unfinished": 0}',
        b'{"format": 2, "together": true, "reason": "failed", "difference": 0, "unfinished": 0}',
        b'{"format": 2, "together": false, "reason": "bored", "difference": 0, "unfinished": 0}',
        b'{"format": 2, "together": true, "reason": null, "difference": NaN, "unfinished": 0}',
        b" " * 1_000_000,
    ],
)
def test_damaged_verdict_is_ignored_and_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{KEY}.json").write_bytes(content)
    assert verdicts(tmp_path).get(KEY) is None
    assert verdicts(tmp_path).put(KEY, IN_TURN)
    assert verdicts(tmp_path).get(KEY) == IN_TURN


def test_finished_trial_leaves_no_files(tmp_path: Path) -> None:
    trial = verdicts(tmp_path).begin(KEY)
    assert len(list(tmp_path.iterdir())) == 1
    trial.end()
    trial.end()
    assert list(tmp_path.iterdir()) == []
    assert verdicts(tmp_path).pop_unfinished(KEY) == 0


_TRYING = """
import os, signal, sys
from mlxk_tui.ops.health.batching_verdicts import BatchingVerdicts
trial = BatchingVerdicts().begin(sys.argv[1])
print("under way", flush=True)
sys.stdin.read()
if sys.argv[2] == "die":
    os.kill(os.getpid(), signal.SIGSEGV)
trial.end()
"""


def _trying(folder: Path, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _TRYING, KEY, how],
        env={**os.environ, FOLDER_VARIABLE: str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "under way\n"
    return process


def test_dead_trial_process_is_detected_once(tmp_path: Path) -> None:
    dying, living = _trying(tmp_path, "die"), _trying(tmp_path, "live")
    assert verdicts(tmp_path).pop_unfinished(KEY) == 0
    dying.communicate()
    assert dying.returncode == -signal.SIGSEGV
    assert verdicts(tmp_path).pop_unfinished("another") == 0
    assert verdicts(tmp_path).pop_unfinished(KEY) == 1
    assert verdicts(tmp_path).pop_unfinished(KEY) == 0
    living.communicate()
    assert living.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_concurrent_writes_leave_a_complete_verdict(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom mlxk_tui.ops.health.batching_verdicts import BatchingVerdict, BatchingVerdicts\n"
        "for number in range(40): BatchingVerdicts().put(sys.argv[1], BatchingVerdict(True, None, number))"
    )
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", program, KEY], env=environment) for _ in range(2)]
    while any(process.poll() is None for process in running):
        written = (tmp_path / f"{KEY}.json").exists()
        assert verdicts(tmp_path).get(KEY) is not None or not written
    assert [process.returncode for process in running] == [0, 0]
    assert verdicts(tmp_path).get(KEY) == BatchingVerdict(True, None, 39)
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY}.json"]


def test_unusable_folder_stores_nothing_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        store = verdicts(folder)
        store.begin(KEY).end()
        assert not store.put(KEY, IN_TURN)
        assert store.get(KEY) is None
        assert store.pop_unfinished(KEY) == 0
    off = BatchingVerdicts({FOLDER_VARIABLE: "off"})
    off.begin(KEY).end()
    assert not off.put(KEY, IN_TURN)
    assert off.get(KEY) is None


def test_read_only_folder_can_be_read() -> None:
    with open_folder() as folder:
        verdicts(folder).put(KEY, IN_TURN)
        (folder / f"{KEY}.1-ab.trying").touch()
        give_away(folder)
        for path in folder.iterdir():
            path.chmod(0o644)
        folder.chmod(0o555)
        with unprivileged():
            store = verdicts(folder)
            assert store.get(KEY) == IN_TURN
            assert not store.put(KEY, BatchingVerdict(True))
            store.begin(KEY).end()
            assert store.pop_unfinished(KEY) == 0  # it could not be removed, and would count forever
            assert store.get(KEY) == IN_TURN


def test_verdict_of_a_config_is_the_last_one_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlx_lm")
    from importlib.metadata import version

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert find_batching_verdict(CONFIG) is None
    assert find_batching_verdict(None) is None
    model = model_key(CONFIG, version("mlx"), version("mlx-lm"))
    keys = [batching_key(model, arithmetic) for arithmetic in (Arithmetic("gpu"), CPU)]
    store = verdicts(tmp_path)
    for age, key, verdict in ((2, keys[0], IN_TURN), (1, keys[1], BatchingVerdict(True))):
        store.put(key, verdict)
        long_ago = (tmp_path / f"{key}.json").stat().st_mtime - 3600 * age
        os.utime(tmp_path / f"{key}.json", (long_ago, long_ago))
    store.put(batching_key(model_key({}, "1", "1"), CPU), IN_TURN)
    assert find_batching_verdict(json.loads(json.dumps(CONFIG))) == BatchingVerdict(True)
    store.touch(keys[0])
    assert find_batching_verdict(CONFIG) == IN_TURN
    (tmp_path / f"{keys[0]}.json").write_text("spoilt")
    assert find_batching_verdict(CONFIG) == BatchingVerdict(True)
