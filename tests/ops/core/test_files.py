"""Atomic writes with the requested permissions, and free space."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.ops.core.files import free_bytes, remove_unfinished, replace_file, sync, sync_folder


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_write_replaces_the_file_and_leaves_no_temporary_files(tmp_path: Path) -> None:
    path = tmp_path / "ü" / ("long" * 60 + ".json")
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o644)
    replace_file(path, "new ✓")
    assert path.read_bytes() == "new ✓".encode()
    assert _mode(path) == 0o600
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("exact", "mode"), [(False, 0o640), (True, 0o666)])
def test_umask_applies_unless_the_mode_is_exact(tmp_path: Path, exact: bool, mode: int) -> None:
    path = tmp_path / "shared.refs"
    replace_file(path, b"\x00", mode=0o666, exact_mode=exact)
    assert _mode(path) == mode
    assert path.read_bytes() == b"\x00"


@pytest.mark.parametrize("durable", [True, False])
def test_failed_write_keeps_the_old_content(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    (path / "kept").write_text("x")
    with pytest.raises(OSError, match="taken"):
        replace_file(path, "y", durable=durable)
    with pytest.raises(UnicodeEncodeError):
        replace_file(tmp_path / "other", "\ud800", durable=durable)
    assert os.listdir(tmp_path) == ["taken"]


def test_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("target")
    link = tmp_path / "link"
    link.symlink_to("target")
    replace_file(link, "own")
    assert not link.is_symlink()
    assert (tmp_path / "target").read_text() == "target"


def test_temporary_file_is_in_the_scratch_folder(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "ref", "x", scratch=scratch)
    scratch.mkdir()
    replace_file(tmp_path / "ref", "x", scratch=scratch)
    assert os.listdir(scratch) == []
    assert (tmp_path / "ref").read_text() == "x"


def test_only_temporary_files_of_that_file_are_removed(tmp_path: Path) -> None:
    kept = ["transfers.json", ".transfers-2-0a.tmp", ".transfers.tmp", ".other-0a.tmp", ".transfers-0a.json"]
    for name in [*kept, ".transfers-0a.tmp", ".transfers-abc_1.tmp"]:
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path / "transfers.json")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    remove_unfinished(tmp_path / "nowhere" / "x.json")


def test_free_space_of_a_missing_folder_is_that_of_its_parent(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    free = free_bytes(tmp_path / "not" / "yet")
    assert free is not None
    assert 0 < free <= found.f_blocks * found.f_frsize


def test_failed_sync_is_an_error_only_for_files(tmp_path: Path) -> None:
    sync_folder(tmp_path / "nowhere")
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    sync(fd, full=True)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync(fd)
