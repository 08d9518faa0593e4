"""The demo's folder is removed when its process ends in any way; other folders are kept."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlxk_tui.demo.scratch import PREFIX, ScratchFolder, remove_abandoned
from mlxk_tui.demo.session import DemoSession
from tests.support.waiting import PATIENCE_S, wait_until

_DAY_S = 86400.0
_OWNER = """
import sys, urllib.request, os
from mlxk_tui.demo.session import DemoSession

with DemoSession() as session:
    urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/api/models").read()
    print(session.home, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder for this test and its child processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    monkeypatch.setattr(tempfile, "tempdir", None)


def age(path: Path) -> None:
    """Make a folder a day old."""
    then = path.stat().st_mtime - _DAY_S
    os.utime(path, (then, then))


@pytest.mark.slow
def test_next_session_removes_the_files_of_a_killed_one(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        home = Path(owner.stdout.readline().strip())
        children = psutil.Process(owner.pid).children(recursive=True)
        remove_abandoned()
        assert (home / "hub").is_dir(), "its owner lives"
        owner.kill()
        owner.wait(PATIENCE_S)
    wait_until(lambda: not any(child.is_running() for child in children))
    assert home.is_dir()
    with DemoSession() as session:
        assert list(temporary.iterdir()) == [session.home]
    assert list(temporary.iterdir()) == []


def test_only_own_abandoned_folders_are_removed(temporary: Path, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / ".owner").touch()
    (temporary / f"{PREFIX}link").symlink_to(treasure)
    (temporary / f"{PREFIX}file").touch()
    for name in (f"{PREFIX}new", f"{PREFIX}linked", f"{PREFIX}old", "another"):
        (temporary / name).mkdir()
    (temporary / f"{PREFIX}linked" / ".owner").symlink_to(treasure / ".owner")
    for name in (f"{PREFIX}old", "another"):
        age(temporary / name)
    remove_abandoned()
    assert {path.name for path in temporary.iterdir()} == {
        *(f"{PREFIX}link", f"{PREFIX}file", f"{PREFIX}new", f"{PREFIX}linked", "another")
    }
    assert (treasure / ".owner").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to somebody else")
def test_folder_of_another_user_is_kept(temporary: Path) -> None:
    foreign = temporary / f"{PREFIX}foreign"
    foreign.mkdir()
    (foreign / ".owner").touch()
    os.chown(foreign, 65534, 65534)
    remove_abandoned()
    assert foreign.is_dir()


def test_folder_is_private_and_removed_at_once(temporary: Path) -> None:
    folder = ScratchFolder()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "deep" / "deeper").mkdir(parents=True)
    folder.remove()
    folder.remove()
    assert list(temporary.iterdir()) == []
