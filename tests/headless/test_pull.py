"""`pull` and `clone` as processes: envelopes, Ctrl-C, kills, and two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.demo.hub import Fault, Generated, LocalHub
from tests.headless.running import TIMEOUT, Result, at_terminal, call, headless, started
from tests.support.hf_cache import tree_of
from tests.support.pipes import fill_stderr_of
from tests.support.pulling import FILES, NAME, content_of, sent
from tests.support.sockets import kill_and_count_unread
from tests.support.waiting import wait_until

SIZE = 6 << 20
LARGE = "org/large"
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add_repo(NAME, FILES)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def result_of(process: subprocess.Popen[bytes]) -> Result:
    out, err = process.communicate(timeout=TIMEOUT)
    return Result(process.returncode, out.decode(), err.decode())


def wait_until_sent(server: LocalHub, count: int) -> None:
    wait_until(lambda: sent(server) >= count)


def test_pull_prints_only_the_envelope(server: LocalHub, hub: Path) -> None:
    result = headless("pull", "Tiny-4bit", "--json", hub=hub)
    assert (result.status, result.stderr) == (0, "")
    data = result.data
    assert (data["model"], data["expanded_name"], data["download_status"]) == ("Tiny-4bit", NAME, "success")
    assert (data["bytes_downloaded"], data["files_count"]) == (TOTAL, len(FILES))
    assert content_of(hub) == FILES
    assert call("pull", NAME, "--json", hub=hub).data["download_status"] == "already_exists"
    assert call("list", "--json", hub=hub).data["models"][0]["health"] == "healthy"


def test_pull_prints_a_line_of_text(server: LocalHub, hub: Path) -> None:
    planned = call("pull", NAME, "--dry-run", hub=hub)
    assert planned.status == 0
    first, second = planned.stdout.splitlines()
    assert first.startswith("pull: Would download 6 files of ")
    assert "license apache-2.0" in second
    assert not (hub / "models--mlx-community--Tiny-4bit").exists()
    assert call("pull", NAME, hub=hub).stdout.startswith(f"pull: Pulled {NAME} at ")
    assert call("pull", NAME, hub=hub).stdout.startswith(f"pull: {NAME} is already complete")
    error = call("pull", "org/nope", hub=hub)
    assert (error.status, error.stdout) == (1, "")
    assert error.stderr.startswith("Error: org/nope is not on ")


@pytest.mark.slow
def test_terminal_shows_a_progress_bar_and_then_the_result(server: LocalHub, hub: Path) -> None:
    server.add_repo(LARGE, {**FILES, "big.bin": Generated(SIZE // 3, seed=1)})
    server.rate_per_connection = 1 << 20
    with at_terminal("pull", LARGE, hub=hub) as terminal:
        terminal.wait_for("big.bin")
        status, text = terminal.finish()
    assert status == 0
    assert text.rstrip().splitlines()[-1].strip().endswith("2.10 MB.")


def test_progress_is_one_event_per_line(server: LocalHub, hub: Path) -> None:
    result = headless("pull", NAME, "--json", "--progress", "json", hub=hub)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[-1]["bytes_done"] == events[-1]["bytes_total"] == TOTAL
    assert {event["stage"] for event in events} <= {"pull", "verify", "wait"}


@pytest.mark.parametrize(
    ("name", "type_", "reason", "status"),
    [
        ("org/nope", "access_denied", "not_found", "access_denied"),
        ("org/gated", "access_denied", "gated", "access_denied"),
        (f"{NAME}@nope", "revision_not_found", None, "failed"),
    ],
)
def test_failed_pulls_have_an_error_type_and_leave_no_files(
    name: str, type_: str, reason: str | None, status: str, server: LocalHub, hub: Path
) -> None:
    server.add_repo("org/gated", FILES, gated=True)
    before = tree_of(hub)
    result = call("pull", name, "--json", hub=hub)
    assert (result.status, result.error["type"], result.error.get("reason")) == (1, type_, reason)
    assert result.envelope["data"]["download_status"] == status
    assert tree_of(hub) == before


def test_token_is_read_from_the_environment_and_never_printed(
    server: LocalHub, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_repo("org/private", FILES, private=True)
    for variable in ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, server.GOOD_TOKEN)
            result = call("pull", "org/private", "--dry-run", "--json", hub=hub)
            assert result.data["download_status"] == "planned"
            assert variable == "HF_TOKEN" or "HF_TOKEN" not in os.environ
    for token in ("no\ttoken", "hf_quite_wrong"):
        monkeypatch.setenv("HF_TOKEN", token)
        for arguments in (
            ["pull", NAME],
            ["pull", NAME, "--dry-run"],
            ["clone", NAME, str(hub.parent / "copy")],
        ):
            error = call(*arguments, "--json", hub=hub).error
            assert (error["type"], error["reason"]) == ("access_denied", "unauthorized")
    monkeypatch.setenv("MLXK_DEBUG", "1")
    for command in (["pull", "org/private", "--json"], ["pull", "org/private"]):
        wrong = call(*command, hub=hub)
        assert wrong.status == 1
        assert "hf_quite_wrong" not in wrong.stdout + wrong.stderr
        assert "hf auth login" in wrong.stdout + wrong.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signal_stops_a_pull_promptly(number: int, server: LocalHub, hub: Path) -> None:
    server.add_repo(LARGE, {**FILES, "big.bin": Generated(SIZE, seed=2)})
    server.rate_per_connection = 1 << 16
    with started("pull", LARGE, "--json", hub=hub) as process:
        wait_until_sent(server, SIZE // 20)
        server.rate_per_connection = 1000
        process.send_signal(number)
        result = result_of(process)
    assert (result.status, result.error["type"], result.stderr) == (1, "cancelled", "")
    data = result.envelope["data"]
    assert (data["download_status"], data["bytes_total"]) == ("cancelled", SIZE + TOTAL)
    assert 0 < data["bytes_downloaded"] < SIZE
    server.rate_per_connection = None
    assert call("pull", LARGE, "--json", hub=hub).data["download_status"] == "success"
    assert sent(server) <= 1.05 * (SIZE + TOTAL)
    assert content_of(hub, LARGE)["big.bin"] == server.read(LARGE, "big.bin")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can fill the pipe")
def test_unread_progress_blocks_neither_the_pull_nor_a_signal(server: LocalHub, hub: Path) -> None:
    server.add_repo(LARGE, {**FILES, "big.bin": Generated(SIZE, seed=2)})
    server.rate_per_connection = 1 << 16
    with started("pull", LARGE, "--json", "--progress", "json", hub=hub) as process:
        assert process.stdout is not None
        fill_stderr_of(process.pid)
        wait_until_sent(server, SIZE // 20)
        process.send_signal(signal.SIGTERM)
        envelope = json.loads(process.stdout.readline())
        assert process.wait(TIMEOUT) == 1
    assert envelope["error"]["type"] == "cancelled"


def test_signal_is_handled_while_the_hub_does_not_respond(server: LocalHub, hub: Path) -> None:
    server.faults.add(Fault("silent", times=None))
    with started("pull", NAME, "--json", hub=hub) as process:
        wait_until(lambda: server.requests.running > 0)
        process.send_signal(signal.SIGINT)
        result = result_of(process)
    assert result.error["type"] == "cancelled"
    assert result.envelope["data"]["download_status"] == "cancelled"


@pytest.mark.slow
def test_pull_resumes_after_a_kill(server: LocalHub, hub: Path) -> None:
    large = {"big.bin": Generated(SIZE, seed=3), "other.bin": Generated(SIZE // 4, seed=4)}
    server.add_repo(LARGE, {**FILES, **large})
    total = sum(blob.size for blob in server.files(LARGE).values())
    server.rate_per_connection = 1 << 19
    unread = 0
    for share in (0.3, 0.6):
        with started("pull", LARGE, "--json", hub=hub) as process:
            wait_until_sent(server, int(share * total))
            wait_until(lambda: any(hub.glob("models--org--large/blobs/*.mlxk.incomplete")))
            unread += kill_and_count_unread(process.pid, server)
        assert not (hub / "models--org--large" / "refs").exists()
        listed = call("list", "--json", hub=hub).data["models"]
        assert [model["health"] for model in listed] == ["unhealthy"]
    server.rate_per_connection = None
    data = call("pull", LARGE, "--json", hub=hub).data
    assert (data["download_status"], data["bytes_total"]) == ("success", total)
    assert data["bytes_downloaded"] + data["bytes_reused"] == total
    assert sent(server) - unread <= 1.05 * total
    assert content_of(hub, LARGE)["big.bin"] == server.read(LARGE, "big.bin")
    assert content_of(hub, LARGE)["other.bin"] == server.read(LARGE, "other.bin")


def test_two_processes_download_a_model_only_once(server: LocalHub, hub: Path) -> None:
    server.add_repo(LARGE, {**FILES, "big.bin": Generated(SIZE // 2, seed=5)})
    server.rate_per_connection = 1 << 20
    with (
        started("pull", LARGE, "--json", hub=hub) as one,
        started("pull", LARGE, "--json", hub=hub) as two,
    ):
        results = [result_of(one), result_of(two)]
    assert {result.data["download_status"] for result in results} <= {"success", "already_exists"}
    assert content_of(hub, LARGE)["big.bin"] == server.read(LARGE, "big.bin")
    assert sent(server) <= 1.05 * (SIZE // 2) + 3 * TOTAL


@pytest.mark.slow
def test_setting_selects_huggingface_hub_as_the_downloader(server: LocalHub, hub: Path) -> None:
    result = headless("pull", NAME, "--json", hub=hub, env={"MLXK_TRANSFER_BACKEND": "hub"})
    assert (result.data["download_status"], result.stderr) == ("success", "")
    assert content_of(hub) == FILES
    agents = {request.user_agent for request in server.requests.matching("*/resolve/*")}
    assert agents
    assert all("hf_hub/" in agent for agent in agents)


@pytest.mark.slow
def test_kill_also_stops_the_huggingface_hub_process(server: LocalHub, hub: Path) -> None:
    server.add_repo(LARGE, {**FILES, "big.bin": Generated(SIZE, seed=6)})
    server.rate_per_connection = 1 << 19
    with started("pull", LARGE, "--via-hub", "--json", hub=hub) as process:
        wait_until_sent(server, SIZE // 20)
        server.rate_per_connection = 1000
        os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not server.requests.running)


def test_clone_pulls_a_missing_model_first(server: LocalHub, hub: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    result = headless("clone", "Tiny-4bit", str(target), "--json", hub=hub)
    assert (result.status, result.stderr) == (0, "")
    assert result.data["clone_status"] == "success"
    assert {path.name for path in target.iterdir()} == {name.partition("/")[0] for name in FILES}
    error = call("clone", "org/nope", str(tmp_path / "no"), "--json", hub=hub).error
    assert (error["type"], error["reason"]) == ("access_denied", "not_found")


def test_offline_mode_is_a_warning_for_a_complete_model(server: LocalHub, hub: Path) -> None:
    call("pull", NAME, "--json", hub=hub)
    data = headless("pull", NAME, "--json", hub=hub, env={"HF_HUB_OFFLINE": "1"}).data
    assert data["download_status"] == "already_exists"
    assert "HF_HUB_OFFLINE" in data["warnings"][0]


@pytest.mark.parametrize("command", ["pull", "search", "clone"])
def test_help_lists_the_options(command: str, hub: Path) -> None:
    result = headless(command, "--help", hub=hub, env={"COLUMNS": "120"})
    assert (result.status, result.stderr) == (0, "")
    assert "--json" in result.stdout
    assert command != "pull" or all(word in result.stdout for word in ("--dry-run", "--via-hub", "--verify"))
