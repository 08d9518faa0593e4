"""`mlxk-headless share` as a process: start, keys, signals, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlxk_tui.ops.cache.access_record import RepoAccess
from tests.headless.running import PROGRAM, call, checked, environment
from tests.support.hf_cache import HfCache, model_files
from tests.support.sharing import add_model
from tests.support.waiting import PATIENCE_S

PUBLIC, UNKNOWN, GATED, BROKEN = "org/public", "org/unknown", "org/gated", "org/broken"
KEY = "mlxk-secret-of-the-office"


@pytest.fixture
def office(hub: Path) -> Path:
    """Return a cache with a model of each kind."""
    files = model_files()
    add_model(hub, PUBLIC, files)
    add_model(hub, UNKNOWN, files, access=None)
    add_model(hub, GATED, files, RepoAccess(gated=True, private=False))
    commit = add_model(hub, BROKEN, files)
    (HfCache(hub).repo(BROKEN).snapshot(commit) / "config.json").unlink()
    return hub


@contextmanager
def shared(hub: Path, *arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], bytes]]:
    """Run `share`; yield the process and its first line of output."""
    process = subprocess.Popen(
        [*PROGRAM, "share", "--port", "0", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(hub, **env),
        bufsize=0,  # `communicate` would lose what is in the buffer
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE_S)


def status_of(url: str, key: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def stopped(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[bytes, bytes]:
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return out, err


def test_object_is_printed_once_it_listens_and_sigterm_ends_it(office: Path) -> None:
    with shared(office, "--json") as (process, line):
        data = checked(line.decode())["data"]
        assert (data["pid"], data["host"], data["needs_key"]) == (process.pid, "127.0.0.1", False)
        assert data["url"] == data["endpoint"] == f"http://127.0.0.1:{data['port']}"
        assert data["models"] == [PUBLIC]
        assert {model["name"]: model["reason"] for model in data["not_shared"]} == {
            BROKEN: "unhealthy",
            GATED: "restricted",
            UNKNOWN: "unknown_access",
        }
        assert status_of(f"{data['url']}/{PUBLIC}/resolve/main/config.json") == 200
        out, err = stopped(process, signal.SIGTERM)
    assert out == b""  # the one object was printed when it listened
    assert f"GET /{PUBLIC}/resolve/main/config.json ".encode() in err
    assert b"Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_it_too_during_a_transfer(number: signal.Signals, office: Path) -> None:
    add_model(office, "org/big", {**model_files(), "big.bin": bytes(32 << 20)})
    with shared(office, "--json") as (process, line):
        url = checked(line.decode())["data"]["url"]
        with urllib.request.urlopen(f"{url}/org/big/resolve/main/big.bin", timeout=PATIENCE_S) as response:
            assert response.read(1000) == bytes(1000)
            _, err = stopped(process, number)
    assert b"Traceback" not in err


@pytest.mark.slow
def test_text_names_the_endpoint_and_what_is_not_shared(office: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"office:{KEY}\n")
    keys.chmod(0o600)
    options = ("--host", "0.0.0.0", "--api-key-file", str(keys), "--model", GATED, "--model", "broken")
    with shared(office, *options) as (process, line):
        assert line.startswith(b"Sharing 1 model on http://127.0.0.1:")
        url = line.split()[4].decode()
        assert status_of(f"{url}/api/models/{GATED}") == 401
        assert status_of(f"{url}/api/models/{GATED}", KEY) == 200
        assert status_of(f"{url}/api/models/{PUBLIC}", KEY) == 404
        out, err = stopped(process, signal.SIGTERM)
    text = out.decode()
    assert "HF_ENDPOINT=http://" in text
    assert "HF_TOKEN=KEY" in text
    assert f"not shared (incomplete or broken): {BROKEN}" in text
    assert UNKNOWN not in text
    assert KEY.encode() not in out + err


@pytest.mark.parametrize(
    ("arguments", "type_"),
    [
        (("--host", "0.0.0.0"), "validation_error"),
        (("--port", "70000"), "validation_error"),
        (("--host", "http://x/"), "validation_error"),
        (("--model", "org/none"), "model_not_found"),
        (("--model", "org/gat"), "model_not_found"),
        (("--model", f"{GATED}@main"), "validation_error"),
        (("--api-key", "a b"), "validation_error"),
        (("--api-key-file", "/nonexistent"), "validation_error"),
        (("--unknown",), "command_error"),
    ],
)
def test_errors_before_it_listens(arguments: Sequence[str], type_: str, office: Path) -> None:
    result = call("share", "--port", "0", *arguments, "--json", hub=office)
    assert result.error["type"] == type_
    assert result.envelope["command"] == "share"


def test_file_of_keys_must_be_private(office: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    os.chmod(keys, 0o644)
    result = call("share", "--port", "0", "--api-key-file", str(keys), "--json", hub=office)
    assert result.error["type"] == "permission_denied"


@pytest.mark.slow
def test_port_in_use_is_reported(office: Path) -> None:
    with shared(office, "--json") as (process, line):
        data: dict[str, Any] = json.loads(line)["data"]
        result = call("share", "--port", str(data["port"]), "--json", hub=office)
        assert result.error["type"] == "port_in_use"
        stopped(process, signal.SIGTERM)
