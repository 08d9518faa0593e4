"""`push` as a process: the feature flag, the envelope, the text output, Ctrl-C and kills."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlxk_tui.demo.hub import Fault, LocalHub
from tests.headless.running import TIMEOUT, Result, call, headless, started
from tests.support.waiting import wait_until

GATE = "MLXK2_ENABLE_EXPERIMENTAL_PUSH"
NAME = "org/model"
LARGE = 24 << 20
"""Bytes; more than the buffers of a connection."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", server.GOOD_TOKEN)
        monkeypatch.setenv(GATE, "1")
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Model\n")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(os.urandom(50_000))
    return str(folder)


def uploading(server: LocalHub, process: subprocess.Popen[bytes]) -> psutil.Process:
    """Wait until the upload has started, and return its process."""
    wait_until(
        lambda: bool(server.requests.matching("/upload/*", method="PUT")) or process.poll() is not None
    )
    assert process.poll() is None, process.communicate()
    (child,) = psutil.Process(process.pid).children(recursive=True)
    return child


def test_push_is_hidden_and_refused_until_enabled(
    server: LocalHub, hub: Path, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert _listed_by_help(hub)
    monkeypatch.delenv(GATE)
    assert not _listed_by_help(hub)
    assert "--check-only" in call("push", "--help", hub=hub).stdout
    for more in ([], ["--private"], ["--check-only"], ["--private", "--dry-run"]):
        result = call("push", folder, NAME, "--json", *more, hub=hub)
        assert (result.status, result.error["type"]) == (1, "feature_disabled")
        assert GATE in result.error["message"]
    assert len(server.requests) == 0
    config = tmp_path / "config.toml"
    config.write_text("push = true\n")
    monkeypatch.setenv("MLXK_CONFIG", str(config))
    assert call("push", folder, NAME, "--check-only", "--json", hub=hub).status == 0
    assert _listed_by_help(hub)


def _listed_by_help(hub: Path) -> bool:
    return re.search(r"^\W*push ", call("--help", hub=hub).stdout, re.MULTILINE) is not None


def test_push_requires_the_private_option(server: LocalHub, hub: Path, folder: str) -> None:
    for more in ([], ["--dry-run"], ["--create"]):
        result = call("push", folder, NAME, "--json", *more, hub=hub)
        assert (result.status, result.error["type"]) == (2, "command_error")
        assert "--private" in result.error["message"]
    assert len(server.requests) == 0


@pytest.mark.parametrize(
    ("arguments", "missing"), [(["push"], "DIR"), (["push", "x"], "ORG/NAME"), (["push", "--private"], "DIR")]
)
def test_missing_argument_is_an_envelope(
    server: LocalHub, hub: Path, arguments: list[str], missing: str
) -> None:
    result = call(*arguments, "--json", hub=hub)
    assert (result.status, result.error["type"], result.envelope["command"]) == (2, "command_error", "push")
    assert missing in result.error["message"]


def test_push_errors_are_typed(
    server: LocalHub, hub: Path, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_repo("org/public")
    server.add_repo(NAME, private=True)
    cases = [
        ([str(tmp_path / "nope"), NAME], "workspace_not_found"),
        ([folder + "/config.json", NAME], "workspace_not_found"),
        (["", NAME], "workspace_not_found"),
        ([folder, "org/new"], "repo_not_found"),
        ([folder, "model"], "validation_error"),
        ([folder, "org/public"], "validation_error"),
        ([folder, NAME, "--branch", "dev"], "upload_failed"),
    ]
    for arguments, type_ in cases:
        for more in ([], ["--dry-run"]):
            if type_ == "upload_failed" and more:
                continue  # a plan lists what is missing
            result = call("push", *arguments, "--private", "--json", *more, hub=hub)
            assert (result.status, result.error["type"]) == (1, type_), arguments
    monkeypatch.setenv("HF_TOKEN", server.READ_TOKEN)
    refused = call("push", folder, NAME, "--private", "--json", hub=hub)
    assert (refused.status, refused.error["type"]) == (1, "upload_failed")
    monkeypatch.delenv("HF_TOKEN")
    for more in ([], ["--dry-run"]):
        result = call("push", folder, NAME, "--private", "--json", *more, hub=hub)
        assert (result.status, result.error["type"]) == (1, "auth_error")
    for token in ("", "no\ttoken"):
        monkeypatch.setenv("HF_TOKEN", token)
        assert call("push", folder, NAME, "--check-only", "--json", hub=hub).status == 0


def test_push_prints_only_the_envelope(server: LocalHub, hub: Path, folder: str) -> None:
    dry = headless("push", folder, NAME, "--private", "--create", "--dry-run", "--json", hub=hub)
    assert (dry.status, dry.stderr) == (0, "")
    assert dry.data["dry_run"] is True
    assert dry.data["dry_run_summary"] == {"added": 3, "modified": 0, "deleted": 0}
    assert (dry.data["would_create_repo"], dry.data["would_create_branch"]) == (True, False)
    assert (dry.data["added_files"], dry.data["modified_files"]) == (
        ["README.md", "config.json", "model.safetensors"],
        [],
    )
    result = headless(
        "push",
        folder,
        NAME,
        "--private",
        "--create",
        "--branch",
        "feat/x",
        "--commit",
        "Mine",
        "--json",
        hub=hub,
    )
    assert (result.status, result.stderr) == (0, "")
    data = result.data
    head = server.history(NAME, "feat/x")[0]
    assert (head.title, data["commit_sha"], data["branch"]) == ("Mine", head.oid, "feat/x")
    assert data["uploaded_files_count"] == sum(data["change_summary"].values()) == 3
    assert (data["created_repo"], data["experimental"]) == (True, True)
    assert not {"dry_run", "dry_run_summary", "workspace_health", "would_create_repo"} & set(data)
    assert server.repos[NAME].private
    # The branch is created although there is nothing to commit.
    server.commit(NAME, {path: blob.read() for path, blob in server.files(NAME, "feat/x").items()})
    again = headless(
        "push", folder, NAME, "--private", "--create", "--branch", "b", "--json", "--verbose", hub=hub
    )
    assert (again.data["no_changes"], again.data["uploaded_files_count"]) == (True, 0)
    assert (again.data["commit_sha"], again.data["commit_url"]) == (None, None)
    assert again.data["message"].startswith("No files have been modified since last commit.")
    assert again.data["message"] in again.data["hf_logs"]
    assert again.data["message"] in again.stderr
    assert set(server.repos[NAME].branches) == {"main", "feat/x", "b"}


@pytest.mark.slow
def test_push_prints_a_line_of_text(server: LocalHub, hub: Path, folder: str) -> None:
    start = f"push (experimental): {NAME}@main — "
    checked = call("push", folder, NAME, "--check-only", hub=hub)
    assert (checked.status, checked.stderr) == (0, "")
    assert checked.stdout.splitlines()[0] == f"{start}check-only: unhealthy (3 files, 50.1 KB)"
    assert "  error " in checked.stdout
    planned = call("push", folder, NAME, "--private", "--create", "--dry-run", hub=hub)
    assert planned.stdout == f"{start}dry-run: +3 ~0 -0\n"
    assert planned.stderr == "The private repo would be created.\n50.1 KB would be uploaded.\n"
    done = call("push", folder, NAME, "--private", "--create", hub=hub)
    short = server.history(NAME)[0].oid[:7]
    assert done.stdout == f"{start}commit {short} (+3 ~0 -0), repo created\n"
    same = call("push", folder, NAME, "--private", "--dry-run", hub=hub)
    assert same.stdout == f"{start}dry-run: no changes\n"
    nothing = call("push", folder, NAME, "--private", "--verbose", hub=hub)
    assert (nothing.stdout, nothing.stderr) == (f"{start}no changes\n", "")
    Path(folder, "config.json").write_text("{}")
    Path(folder, "a\x1b[2J.txt").write_text("x")
    planned = call("push", folder, NAME, "--private", "--dry-run", "--verbose", hub=hub)
    assert planned.stdout == f"{start}dry-run: +1 ~1 -0\n  + a\\x1b[2J.txt\n  ~ config.json\n"
    done = call("push", folder, NAME, "--private", "--verbose", hub=hub)
    head = server.history(NAME)[0].oid
    assert done.stdout == f"{start}commit {head[:7]} (+1 ~1 -0) {server.url}/{NAME}/commit/{head}\n"
    error = call("push", folder, "org/nope", "--private", hub=hub)
    assert (error.status, error.stdout) == (1, "")
    assert error.stderr.startswith("Error: org/nope is not on the hub")


@pytest.mark.slow
def test_progress_is_one_event_per_line(server: LocalHub, hub: Path, folder: str) -> None:
    server.add_repo(NAME, private=True)
    result = headless("push", folder, NAME, "--private", "--json", "--progress", "json", hub=hub)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert result.data["no_changes"] is False
    assert {event["stage"] for event in events} == {"verify", "push"}
    assert events[-1]["bytes_done"] == events[-1]["bytes_total"] > 50_000


@pytest.mark.slow
def test_ctrl_c_stops_the_upload_at_once(server: LocalHub, hub: Path, folder: str) -> None:
    server.add_repo(NAME, private=True)
    with open(Path(folder, "large.safetensors"), "wb") as file:
        file.truncate(LARGE)
    server.rate_per_connection = LARGE / 200
    with started("push", folder, NAME, "--private", "--json", hub=hub) as process:
        child = uploading(server, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
        assert not child.is_running()
    result = Result(process.returncode, out.decode(), err.decode())
    assert (result.status, result.error["type"], result.stderr) == (1, "cancelled", "")
    assert dict(server.files(NAME)) == {}
    server.rate_per_connection = None
    assert call("push", folder, NAME, "--private", "--json", hub=hub).data["uploaded_files_count"] == 4


@pytest.mark.slow
def test_kill_also_stops_the_upload(server: LocalHub, hub: Path, folder: str) -> None:
    server.add_repo(NAME, private=True)
    # The child has nothing to report, so it cannot notice the kill by writing.
    server.faults.add(Fault("silent", "/upload/*", times=None))
    with started("push", folder, NAME, "--private", "--json", hub=hub) as process:
        child = uploading(server, process)
        os.kill(process.pid, signal.SIGKILL)
        child.wait(timeout=TIMEOUT)
    assert dict(server.files(NAME)) == {}


def test_signal_is_handled_while_the_hub_does_not_respond(server: LocalHub, hub: Path, folder: str) -> None:
    server.add_repo(NAME, private=True)
    server.faults.add(Fault("silent", "*/preupload/*", times=None))
    with started("push", folder, NAME, "--private", hub=hub) as process:
        wait_until(lambda: bool(server.requests.matching("*/preupload/*")))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (1, b"")
    assert err.decode().startswith("Error: Stopped by the user.")
