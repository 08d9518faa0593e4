"""stdout always contains one valid object."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from mlxk_tui.ops.contract.results import Command, ListData
from mlxk_tui.ops.core.errors import ERRORS, ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui_headless import output
from mlxk_tui_headless.options import GlobalOptions
from mlxk_tui_headless.request import CommandRequest
from mlxk_tui_headless.runner import run_request
from mlxk_tui_headless.session import CommandSession
from tests.headless.conftest import BROKEN, HEALTHY
from tests.headless.running import PROGRAM, TIMEOUT, Result, call, checked, environment, headless, started
from tests.support.hf_cache import HfCache, model_files, tree_of


@pytest.mark.parametrize(
    "arguments", [["--json", "list"], ["list", "--json"], ["--json", "list", "--json", "--all"]], ids=" ".join
)
def test_json_option_works_before_and_after_the_command(arguments: list[str], filled: Path) -> None:
    result = headless(*arguments, hub=filled)
    assert (result.status, result.stderr) == (0, "")
    assert result.envelope["command"] == "list"


def test_every_command_prints_its_envelope(filled: Path, tmp_path: Path) -> None:
    elsewhere = {"pull", "update", "push", "search", "run", "server", "share"}  # a hub, or they keep running
    runs = {
        "list": ["list"],
        "show": ["show", HEALTHY],
        "health": ["health"],
        "prune": ["prune", "--dry-run"],
        "clone": ["clone", HEALTHY, str(tmp_path / "copy")],
        "lock": ["lock", HEALTHY, "--output", str(tmp_path / "models.lock")],
        "rm": ["rm", HEALTHY],
        "version": ["version"],
    }
    assert set(runs) | elsewhere == {command.value for command in Command} - {"cli"}
    for name, arguments in runs.items():
        result = headless(*arguments, "--json", hub=filled)
        assert (result.status, result.stderr) == (0, ""), name
        assert set(result.envelope) == {"status", "command", "data", "error"}
        assert result.envelope["command"] == name
        assert result.data


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "cli"),
        (["lst"], "cli"),
        (["--no-such"], "cli"),
        (["--no-such", "list"], "cli"),
        (["--cache-dir"], "cli"),
        (["pull"], "pull"),
        (["run"], "run"),
        (["push", "folder"], "push"),
        (["server", "--port", "many"], "server"),
        (["serve", "--port", "many"], "server"),
        (["rm"], "rm"),
        (["show"], "show"),
        (["clone", "x"], "clone"),
        (["list", "--no-such"], "list"),
        (["list", "a", "b"], "list"),
        (["list", "--verbose=3"], "list"),
        (["health", "--progress", "xml"], "health"),
        (["list", "--cache-dir", "x"], "list"),
        (["--help"], "cli"),
        (["show", "--help"], "show"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else value,
)
def test_usage_error_is_one_object_with_exit_status_2(arguments: list[str], command: str, hub: Path) -> None:
    for place in (0, len(arguments)):
        # The next argument would be taken as the missing value: `--cache-dir --json`.
        if arguments == ["--cache-dir"] and place:
            continue
        result = call(*arguments[:place], "--json", *arguments[place:], hub=hub)
        assert (result.status, result.stderr) == (2, "")
        assert result.envelope["command"] == command
        assert result.error["type"] == "command_error"
        assert result.error["message"].count("\n") == 0


def test_usage_error_without_json_goes_to_stderr(hub: Path) -> None:
    result = headless("rm", hub=hub)
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: mlxk-headless rm")
    assert "Error: Missing argument" in result.stderr


@pytest.mark.slow
def test_help_goes_to_stdout(hub: Path) -> None:
    for arguments in (["--help"], ["rm", "-h"]):
        result = headless(*arguments, hub=hub)
        assert (result.status, result.stderr) == (0, "")
        assert "Usage: mlxk-headless" in result.stdout


def test_arguments_after_two_dashes_are_not_options(filled: Path) -> None:
    result = headless("list", "--", "--json", hub=filled)
    assert (result.status, result.stdout) == (0, "No cached model matches '--json'.\n")


def _request(execute: Callable[[CommandSession], ListData]) -> CommandRequest:
    return CommandRequest("list", execute)


def test_crash_is_an_internal_error_without_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(session: CommandSession) -> ListData:
        raise ZeroDivisionError("division \x1b[31m by zero")

    assert run_request(_request(crash), GlobalOptions(json=True)) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert Result(1, out, err).error["type"] == "internal_error"
    monkeypatch.setenv("MLXK_DEBUG", "1")
    run_request(_request(crash), GlobalOptions(json=True))
    out, err = capsys.readouterr()
    assert checked(out)["error"]["type"] == "internal_error"
    assert "Traceback" in err
    assert "division \\x1b[31m by zero" in err


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (PermissionError(13, "Permission denied"), "permission_denied"),
        (OSError(30, "Read-only file system"), "permission_denied"),
        (OSError(28, "No space left on device"), "disk_full"),
        (OSError(5, "Input/output error"), "internal_error"),
        (RecursionError("too deep"), "internal_error"),
        (MemoryError(), "internal_error"),
        (OpError(ErrorType.MODEL_NOT_FOUND, "Not found."), "model_not_found"),
        (KeyboardInterrupt(), "cancelled"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_exception_has_an_error_type(
    error: BaseException, type_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(session: CommandSession) -> ListData:
        raise error

    status = run_request(_request(fail), GlobalOptions(json=True))
    out, err = capsys.readouterr()
    assert checked(out)["error"]["type"] == type_
    assert err == ""
    assert status == ERRORS[ErrorType(type_)].exit_code


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_unserializable_result_is_an_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    loop: list[object] = []
    loop.append(loop)

    def circular(session: CommandSession) -> ListData:
        return ListData.model_construct(models=loop, count=0)

    assert run_request(_request(circular), GlobalOptions(json=True)) == 1
    assert checked(capsys.readouterr().out)["error"]["type"] == "internal_error"


def test_invalid_unicode_and_nan_become_valid_json() -> None:
    value = {"a\udcff": ["\ud800", "\U0001f600", float("nan"), {"x": float("-inf")}], "ü": 1.5}
    text = output.to_json(value)
    assert text.isascii()
    assert json.loads(text) == {"a\\xff": ["\\ud800", "\U0001f600", "NaN", {"x": "-Infinity"}], "ü": 1.5}
    json.loads(text)["a\\xff"][1].encode("utf-8")


def test_config_with_nan_and_lone_surrogates_can_be_shown(hub: Path) -> None:
    config = b'{"model_type": "llama", "a": NaN, "b": "\\ud800", "c": [-Infinity], "d": "\\u001b[31m"}'
    HfCache(hub).repo(HEALTHY).add({**model_files(), "config.json": config})
    result = call("show", HEALTHY, "--config", "--json", hub=hub)
    shown = result.data["config"]
    assert (shown["a"], shown["b"], shown["c"]) == ("NaN", "\\ud800", ["-Infinity"])
    assert "\x1b" not in call("show", HEALTHY, "--config", hub=hub).stdout


@pytest.mark.slow
def test_undecodable_arguments_are_reported(filled: Path) -> None:
    for arguments in (
        [b"show", b"a\xff"],
        [b"\xff"],
        [b"list", b"--\xff"],
        [b"--cache-dir", b"\xff", b"list"],
    ):
        assert headless(*arguments, "--json", hub=filled).envelope["command"] in {"show", "cli", "list"}


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16"])
def test_stdout_may_have_another_encoding(encoding: str, filled: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "health", HEALTHY],
        capture_output=True,
        env=environment(filled, PYTHONIOENCODING=encoding, PYTHONUTF8="0"),
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{HEALTHY} " in done.stdout.decode(encoding)
    done = subprocess.run(
        [*PROGRAM, "health", "--json"],
        capture_output=True,
        env=environment(filled, PYTHONIOENCODING=encoding, PYTHONUTF8="0"),
        timeout=TIMEOUT,
        check=False,
    )
    checked(done.stdout.decode(encoding))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["list", "--all"], ["list", "--json"], ["--version"], ["lst", "--json"], ["--help"], ["rm", "--help"]],
)
def test_closed_pipe_prints_no_error(arguments: list[str], filled: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            env=environment(filled),
            timeout=TIMEOUT,
            check=False,
        )
    finally:
        os.close(write)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert b"Broken pipe" not in done.stderr
    if "--all" not in arguments:
        assert done.stderr == b""


def test_closed_or_full_stdout_is_an_exit_status_without_traceback(filled: Path) -> None:
    command = ["sh", "-c", '"$@" >&-', "sh", *PROGRAM, "list", "--json"]
    done = subprocess.run(command, capture_output=True, env=environment(filled), timeout=TIMEOUT, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    if not Path("/dev/full").exists():
        return
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "list", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(filled),
            timeout=TIMEOUT,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"The result could not be written: No space left on device.\n"


def _sparse(hub: Path) -> None:
    """Create a model that takes minutes to hash but no disk space."""
    repo = HfCache(hub).repo(HEALTHY)
    repo.add(model_files())
    blob = repo.blob("model.safetensors", model_files()["model.safetensors"])
    os.truncate(blob, 200_000_000_000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_a_command_with_one_object(number: signal.Signals, hub: Path) -> None:
    _sparse(hub)
    before = os.listdir(hub)
    with started("--progress", "json", "health", HEALTHY, "--verify", "--json", hub=hub) as process:
        assert process.stderr is not None
        while json.loads(process.stderr.readline())["bytes_done"] == 0:
            pass
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert checked(out.decode())["error"]["type"] == "cancelled"
    assert checked(out.decode())["command"] == "health"
    assert b"Traceback" not in err
    assert os.listdir(hub) == before


_STUBBORN = """
import asyncio, sys, threading
from mlxk_tui_headless.options import GlobalOptions
from mlxk_tui_headless.request import CommandRequest
from mlxk_tui_headless.runner import run_request

async def stubborn():
    while True:
        print("working", file=sys.stderr, flush=True)
        try:
            await asyncio.to_thread(threading.Event().wait)
        except asyncio.CancelledError:
            pass

run_request(CommandRequest("list", lambda session: session.wait(stubborn())), GlobalOptions(json=True))
"""


def test_second_interrupt_exits_at_once(hub: Path) -> None:
    with started(program=(sys.executable, "-c", _STUBBORN), hub=hub) as process:
        assert process.stderr is not None
        for _ in range(2):
            assert process.stderr.readline() == b"working\n"
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (1, b"")
    assert checked(out.decode())["error"]["type"] == "cancelled"


def test_progress_is_one_event_per_line_on_stderr(filled: Path) -> None:
    for arguments in (
        ["--progress", "json", "health", "--verify", "--json"],
        ["health", "--verify", "--json", "--progress", "json"],
    ):
        result = headless(*arguments, hub=filled)
        assert result.data["summary"]["total"] > 3
        events = [json.loads(line) for line in result.stderr.splitlines()]
        assert any(event["stage"] == "verify" and event["file"] for event in events)
        keys = {field.name for field in fields(Progress)}
        assert all(set(event) == keys for event in events)


def test_no_progress_without_a_terminal(filled: Path) -> None:
    assert call("health", HEALTHY, "--verify", hub=filled).stderr == ""


def test_cache_dir_overrides_the_environment(filled: Path, tmp_path: Path) -> None:
    result = call("--cache-dir", str(filled), "list", "--json", hub=tmp_path / "elsewhere")
    assert result.data["count"] >= 6
    assert call("--cache-dir", str(tmp_path), "list", "--json", hub=filled).data["count"] == 0


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_invalid_cache_dir_is_rejected(path: str, hub: Path) -> None:
    assert call("--json", "--cache-dir", path, "list", hub=hub).error["type"] == "validation_error"


def test_demo_uses_a_sample_and_not_the_cache(filled: Path) -> None:
    before = tree_of(filled)
    result = headless("--demo", "list", "--json", hub=filled)
    names = {model["name"] for model in result.data["models"]}
    assert len(names) >= 12
    assert BROKEN not in names
    assert headless("--demo", "prune", "-f", "--json", hub=filled).status == 0
    assert tree_of(filled) == before


def test_run_request_works_in_another_thread(filled: Path) -> None:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(_quiet_list(filled)))
    thread.start()
    thread.join(TIMEOUT)
    assert results[0].status == 0


def _quiet_list(hub: Path) -> Result:
    return Result(
        run_request(_request(lambda session: session.wait(_empty())), GlobalOptions(json=True)), "", ""
    )


async def _empty() -> ListData:
    return ListData(models=[], count=0)
