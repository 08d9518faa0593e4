"""`rm`, `prune` and `clone`: confirmation, what is removed, what is kept."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.headless.conftest import HEALTHY, OTHER
from tests.headless.running import Terminal, at_terminal, call, headless
from tests.support.hf_cache import HfCache, HfRepo, model_files, tree_of
from tests.support.unprivileged import read_only_disk

HOURS_AGO = 1_700_000_000.0


@pytest.fixture
def repo(hub: Path) -> HfRepo:
    """A model beside another with a longer name, which must not match by mistake."""
    cache = HfCache(hub)
    cache.repo(f"{HEALTHY}-Large").add(model_files(fill=b"\x07"))
    repo = cache.repo(HEALTHY)
    repo.add(model_files())
    return repo


def test_rm_with_the_exact_name_deletes(repo: HfRepo, hub: Path) -> None:
    data = call("rm", HEALTHY, "--json", hub=hub).data
    assert (data["model"], data["action"], data["revision"]) == (HEALTHY, "deleted", None)
    assert data["freed_bytes"] >= sum(map(len, model_files().values()))
    assert not repo.path.exists()
    assert (hub / f"{repo.dir_name}-Large").exists()


def test_rm_without_a_terminal_prints_the_result(repo: HfRepo, hub: Path) -> None:
    result = headless("rm", HEALTHY, hub=hub)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith(f"rm: {HEALTHY} — deleted: ")
    assert not repo.path.exists()


def test_read_only_disk_is_reported_and_nothing_changes(repo: HfRepo, hub: Path) -> None:
    old = repo.add(model_files(fill=b"\x08"), refs=["v1"], modified=HOURS_AGO)
    repo.add(model_files(fill=b"\x09"), refs=[], modified=HOURS_AGO)
    for blob in (repo.path / "blobs").iterdir():
        with repo.lock(blob.name):  # the lock file stays, as after every download
            pass
    before = tree_of(hub)
    with read_only_disk(hub):
        for command in (
            ["prune", "-f"],
            ["rm", f"{HEALTHY}@v1"],
            ["rm", f"{HEALTHY}@{old}", "-f"],
            ["rm", HEALTHY],
        ):
            error = call(*command, "--json", hub=hub).error
            assert error["type"] == "permission_denied", command
            assert "Nothing was deleted" in error["message"]
    assert tree_of(hub) == before


@pytest.mark.parametrize("name", ["Tiny-Instruct-4bit-L", "4BIT-large", f"{HEALTHY.upper()}-LARGE", "-Large"])
def test_rm_with_a_partial_name_needs_confirmation_without_a_terminal(
    name: str, repo: HfRepo, hub: Path
) -> None:
    before = tree_of(hub)
    for flags in (["--json"], []):
        result = call("rm", *flags, "--", name, hub=hub)
        assert result.status == 1
        assert tree_of(hub) == before
    result = call("rm", "--json", "--", name, hub=hub)
    assert result.error["type"] == "confirmation_required"
    assert result.error["matches"] == [f"{HEALTHY}-Large"]
    data = result.envelope["data"]
    assert (data["action"], data["model"]) == ("requires_confirmation", f"{HEALTHY}-Large")
    assert data["freed_bytes"] > 0
    assert call("rm", "-f", "--json", "--", name, hub=hub).data["action"] == "deleted"
    assert not (hub / f"{repo.dir_name}-Large").exists()
    assert repo.path.exists()


def test_rm_with_the_default_organization_added_needs_confirmation(repo: HfRepo, hub: Path) -> None:
    assert call("rm", HEALTHY.partition("/")[2], "--json", hub=hub).error["type"] == "confirmation_required"
    assert repo.path.exists()


def test_ambiguous_rm_deletes_nothing_even_with_force(repo: HfRepo, hub: Path) -> None:
    before = tree_of(hub)
    for flags in ([], ["-f"]):
        result = call("rm", "tiny", *flags, "--json", hub=hub)
        assert result.error["type"] == "ambiguous_match"
        assert result.error["matches"] == [HEALTHY, f"{HEALTHY}-Large"]
        assert result.envelope["data"]["action"] == "ambiguous"
        assert result.envelope["data"]["matches"] == result.error["matches"]
    assert tree_of(hub) == before


def test_rm_of_a_revision_keeps_the_others(repo: HfRepo, hub: Path) -> None:
    old = repo.add(model_files(fill=b"\x08"), refs=["v1"])
    data = call("rm", f"{HEALTHY}@v1", "--json", hub=hub).data
    assert (data["action"], data["revision"]) == ("deleted", old)
    assert not repo.snapshot(old).exists()
    assert call("health", HEALTHY, "--json", hub=hub).data["summary"]["healthy_count"] == 1


def test_rm_respects_locks_unless_forced(repo: HfRepo, hub: Path) -> None:
    lock = repo.lock("abc")
    with lock:
        result = call("rm", HEALTHY, "--json", hub=hub)
        assert (result.status, result.error["type"]) == (1, "locks_present")
        assert result.envelope["data"]["lock_files"]
        assert repo.path.exists()
        with at_terminal("rm", HEALTHY, hub=hub) as terminal:
            status, text = terminal.finish()
        assert (status, repo.path.exists()) == (1, True)
        assert "[y/N]" not in text
        assert call("rm", HEALTHY, "-f", "--json", hub=hub).data["action"] == "deleted"
    assert not repo.path.exists()


@pytest.fixture
def asked(repo: HfRepo, hub: Path) -> Iterator[Terminal]:
    """`rm` at a terminal, waiting for confirmation."""
    with at_terminal("rm", "instruct-4bit-large", hub=hub, env={"NO_COLOR": "1"}) as terminal:
        text = terminal.wait_for("[y/N] ")
        assert re.match(rf"{HEALTHY}-Large: 5 files; frees \S+ [KM]?B\. Remove it\? \[y/N\] $", text)
        assert (hub / f"{repo.dir_name}-Large").exists()
        yield terminal


def test_answering_yes_deletes(asked: Terminal, repo: HfRepo, hub: Path) -> None:
    asked.type("y\n")
    status, text = asked.finish()
    assert status == 0
    assert f"rm: {HEALTHY}-Large — deleted: " in text
    assert not (hub / f"{repo.dir_name}-Large").exists()
    assert repo.path.exists()


@pytest.mark.parametrize("answer", ["\n", "n\n", "yeah\n", "\x04", "\x03"], ids=repr)
def test_any_answer_but_yes_deletes_nothing(answer: str, asked: Terminal, hub: Path) -> None:
    before = tree_of(hub)
    asked.type(answer)
    status, text = asked.finish()
    assert status == 1
    assert "Traceback" not in text
    assert ("Stopped by the user" if answer == "\x03" else "Nothing was removed.") in text
    assert tree_of(hub) == before


def test_force_does_not_ask_at_a_terminal(repo: HfRepo, hub: Path) -> None:
    with at_terminal("rm", "4bit-large", "-f", hub=hub) as terminal:
        status, text = terminal.finish()
    assert (status, "[y/N]" in text) == (0, False)


def test_json_does_not_ask_at_a_terminal(repo: HfRepo, hub: Path) -> None:
    with at_terminal("rm", "4bit-large", "--json", hub=hub) as terminal:
        status, text = terminal.finish()
    assert (status, "[y/N]" in text) == (1, False)
    assert "confirmation_required" in text


def test_hostile_names_are_escaped_in_the_confirmation(hub: Path) -> None:
    (hub / "models--evil--\x1b[31mred" / "blobs").mkdir(parents=True)
    with at_terminal("rm", "red", hub=hub, env={"NO_COLOR": "1"}) as terminal:
        text = terminal.wait_for("[y/N] ")
        assert "\x1b" not in text
        terminal.type("n\n")
        assert terminal.finish()[0] == 1


@pytest.fixture
def littered(hub: Path) -> Path:
    """A hub folder with an old unreferenced revision, orphaned blob and partial download."""
    cache = HfCache(hub)
    repo = cache.repo(HEALTHY)
    repo.add(model_files(fill=b"\x08"), refs=[], modified=HOURS_AGO)
    repo.add(model_files(), modified=HOURS_AGO)
    orphan = repo.blobs / ("0" * 40)
    orphan.write_bytes(b"orphan")
    os.utime(orphan, (HOURS_AGO, HOURS_AGO))
    repo.partial("1" * 64, modified=HOURS_AGO)
    return hub


def test_prune_without_a_terminal_needs_force_or_dry_run(littered: Path) -> None:
    before = tree_of(littered)
    result = call("prune", "--json", hub=littered)
    assert (result.status, result.error["type"]) == (1, "confirmation_required")
    plan = result.envelope["data"]
    assert [len(plan[key]) for key in ("revisions", "blobs", "incomplete")] == [1, 1, 1]
    assert call("prune", hub=littered).status == 1
    assert call("prune", "--dry-run", "--json", hub=littered).data == plan
    assert tree_of(littered) == before
    done = call("prune", "-f", "--json", hub=littered).data
    assert done["dry_run"] is False
    assert done["freed_bytes"] == plan["freed_bytes"] > 0
    assert call("prune", "--dry-run", "--json", hub=littered).data["freed_bytes"] == 0


def test_prune_dry_run_lists_the_plan(littered: Path) -> None:
    lines = call("prune", "--dry-run", hub=littered).stdout.splitlines()
    assert re.match(rf"revision +{HEALTHY}@[0-9a-f]{{40}} +\d+ B$", lines[0])
    assert [line.split()[0] for line in lines[:-1]] == ["revision", "blob", "partial"]
    assert lines[-1].startswith("prune: ")


@pytest.mark.slow
def test_prune_asks_at_a_terminal(littered: Path) -> None:
    before = tree_of(littered)
    for answer, status in (("n\n", 1), ("\x03", 1), ("y\n", 0)):
        with at_terminal("prune", hub=littered) as terminal:
            text = terminal.wait_for("[y/N] ")
            assert "1 unreferenced revision" in text
            terminal.type(answer)
            assert terminal.finish()[0] == status
        assert (tree_of(littered) == before) is (status == 1)
    with at_terminal("prune", hub=littered) as terminal:
        status, text = terminal.finish()
    assert (status, "[y/N]" in text) == (0, False)
    assert "Nothing to prune." in text


def test_clone_copies_into_a_folder(filled: Path, tmp_path: Path) -> None:
    before = tree_of(filled)
    target = tmp_path / "copy"
    result = headless("clone", "widget", str(target), hub=filled)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == f"clone: {OTHER} → {target}\n"
    assert {path.name for path in target.iterdir() if not path.name.startswith(".")} == set(model_files())
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert tree_of(filled) == before
    again = call("clone", "widget", str(target), "--json", hub=filled)
    assert again.status == 1


def test_quiet_clone_prints_only_errors(filled: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "copy")
    assert call("clone", OTHER, target, "--quiet", hub=filled)[:] == (0, "", "")
    result = call("clone", "nope", target, "--quiet", hub=filled)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")


def test_clone_refuses_an_unhealthy_model_unless_the_check_is_off(filled: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert call("clone", "truncated", str(target), "--json", hub=filled).status == 1
    assert not target.exists() or not any(target.iterdir())
    data = call("clone", "truncated", str(target), "--no-health-check", "--json", hub=filled).data
    assert data["clone_status"] == "success"


@pytest.mark.parametrize("target", ["", "  ", "a\0b"])
def test_clone_rejects_an_invalid_target_path(target: str, filled: Path) -> None:
    assert call("clone", HEALTHY, target, "--json", hub=filled).error["type"] == "validation_error"
