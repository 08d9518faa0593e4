"""`mlxk-headless lock`: what it writes, and which differences it finds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.headless.running import Result, call
from tests.support.hf_cache import HfCache, model_files, sha256, tree_of

NAME, OTHER, WEIGHTS = "org/model", "org/other", "model.safetensors"
FILES = {**model_files(), "sub/notes.txt": b"notes\n"}


@pytest.fixture
def commit(hub: Path) -> str:
    HfCache(hub).repo(OTHER).add(model_files(fill=b"\x07"), shared=True)
    return HfCache(hub).repo(NAME).add(FILES, refs=("main", "v1"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.lock"


def lock(hub: Path, file: Path, *names: str) -> Result:
    return call("lock", *names, "--output", str(file), "--json", hub=hub)


def check(hub: Path, file: Path, *options: str) -> Result:
    return call("lock", "--check", str(file), *options, "--json", hub=hub)


def differences(result: Result) -> list[tuple[str, str, str | None]]:
    assert result.status == (1 if result.data["differences"] else 0)
    return [(one["model"], one["kind"], one["path"]) for one in result.data["differences"]]


def test_lock_has_the_commits_and_checksums(hub: Path, commit: str, file: Path) -> None:
    before = tree_of(hub)
    result = lock(hub, file)
    assert (result.status, result.data["path"], result.data["checked"]) == (0, str(file), False)
    assert [model["name"] for model in result.data["models"]] == [NAME, OTHER]
    document = json.loads(file.read_text())
    assert document["format_version"] == 1
    model = document["models"][0]
    assert (model["name"], model["revision"], model["commit"]) == (NAME, None, commit)
    assert model["files"] == [
        {"path": path, "size": len(data), "sha256": sha256(data)} for path, data in sorted(FILES.items())
    ]
    first = file.read_bytes()
    assert lock(hub, file, OTHER, NAME, NAME.upper()).status == 0
    assert file.read_bytes() == first
    assert differences(check(hub, file)) == differences(check(hub, file, "--verify")) == []
    assert tree_of(hub) == before


def _damage_small(hub: Path, commit: str) -> None:
    path = (HfCache(hub).repo(NAME).snapshot(commit) / "sub" / "notes.txt").resolve()
    path.write_bytes(b"other\n")


def _truncate(hub: Path, commit: str) -> None:
    path = (HfCache(hub).repo(NAME).snapshot(commit) / "sub" / "notes.txt").resolve()
    path.write_bytes(b"")


def _rot(hub: Path, commit: str) -> None:
    path = (HfCache(hub).repo(NAME).snapshot(commit) / WEIGHTS).resolve()
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def _remove_file(hub: Path, commit: str) -> None:
    (HfCache(hub).repo(NAME).snapshot(commit) / "sub" / "notes.txt").unlink()


def _update(hub: Path, commit: str) -> None:
    del commit
    HfCache(hub).repo(NAME).add({**FILES, "new.txt": b"new"})


def _remove(hub: Path, commit: str) -> None:
    del commit
    shutil.rmtree(HfCache(hub).repo(NAME).path)


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (_damage_small, (), (NAME, "other_content", "sub/notes.txt")),
        (_truncate, (), (NAME, "other_size", "sub/notes.txt")),
        (_rot, (), None),
        (_rot, ("--verify",), (NAME, "other_content", WEIGHTS)),
        (_remove_file, (), (NAME, "missing_file", "sub/notes.txt")),
        (_update, (), (NAME, "other_commit", None)),
        (_remove, (), (NAME, "missing_model", None)),
    ],
)
def test_differences_are_found(
    change: Callable[[Path, str], None],
    options: tuple[str, ...],
    expected: tuple[str, str, str | None] | None,
    hub: Path,
    commit: str,
    file: Path,
) -> None:
    lock(hub, file)
    change(hub, commit)
    assert differences(check(hub, file, *options)) == ([] if expected is None else [expected])


def test_named_revision_is_checked_and_not_the_selected_one(hub: Path, commit: str, file: Path) -> None:
    assert lock(hub, file, f"{NAME}@v1").data["models"][0]["revision"] == "v1"
    _update(hub, commit)
    assert differences(check(hub, file)) == []


@pytest.mark.parametrize("names", [(), (NAME,)])
def test_unhealthy_model_is_refused(names: tuple[str, ...], hub: Path, commit: str, file: Path) -> None:
    (HfCache(hub).repo(NAME).snapshot(commit) / WEIGHTS).unlink()
    result = lock(hub, file, *names)
    assert result.error["type"] == "model_not_runnable"
    assert NAME in result.error["message"]
    assert not file.exists()
    assert lock(hub, file, OTHER).status == 0


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "no lock file"),
        (b"", "not a valid lock file"),
        (b"[]", "not a valid lock file"),
        (b'{"format_version": 2, "models": []}', "has format 2"),
        (b'{"format_version": 1, "models": [{"name": "a/b"}]}', "not a valid lock file"),
        (b"\xff" * 100, "not a valid lock file"),
        (b"[" * 100_000, "not a valid lock file"),
    ],
    ids=["absent", "empty", "list", "format", "model", "binary", "deep"],
)
def test_invalid_lock_files_are_errors(
    content: bytes | None, cause: str, hub: Path, commit: str, file: Path
) -> None:
    del commit
    if content is not None:
        file.write_bytes(content)
    error = check(hub, file).error
    assert error["type"] == "validation_error"
    assert cause in error["message"]


@pytest.mark.parametrize(
    ("arguments", "type_"),
    [
        (("org/none",), "model_not_found"),
        (("org",), "ambiguous_match"),
        ((f"{NAME}@v9",), "revision_not_found"),
        (("--check", "a", "b"), "command_error"),
        (("--check", "--output", "x"), "command_error"),
        (("--verify",), "command_error"),
        (("--output", "/nonexistent/models.lock", NAME), None),
    ],
)
def test_errors(
    arguments: tuple[str, ...], type_: str | None, hub: Path, commit: str, tmp_path: Path, monkeypatch: Any
) -> None:
    del commit
    monkeypatch.chdir(tmp_path)
    result = call("lock", *arguments, "--json", hub=hub)
    assert result.status == (2 if type_ == "command_error" else 1)
    assert type_ is None or result.error["type"] == type_
    assert not (tmp_path / "models.lock").exists()


def test_empty_cache_is_an_error(hub: Path, file: Path) -> None:
    assert lock(hub, file).error["type"] == "model_not_found"
    assert not file.exists()


def test_text_output(hub: Path, commit: str, file: Path) -> None:
    text = call("lock", "--output", str(file), hub=hub).stdout
    assert f"{NAME}  {commit[:12]}  {len(FILES)} files" in text
    assert "2 models locked" in text
    _damage_small(hub, commit)
    text = call("lock", "--check", str(file), hub=hub).stdout
    assert f"{NAME}: sub/notes.txt has other content." in text
