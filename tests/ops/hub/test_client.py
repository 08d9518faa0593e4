"""The hub client: tokens, error types and timeouts."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from mlxk_tui.demo.hub import Fault, LocalHub
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.hub.client import Timeouts
from mlxk_tui.ops.hub.errors import RequestContext, map_error
from mlxk_tui.ops.hub.hub import DEFAULT_ENDPOINT, Hub
from mlxk_tui_headless.error_text import error_text
from tests.support.pulling import FILES
from tests.support.waiting import PATIENCE_S, cancel, until

SECRET = "hf_secret_of_mine"
QUICK = Timeouts(connect_s=0.5, read_s=0.3, total_s=1.5)


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add_repo("org/tiny", FILES)
        yield server


@pytest.mark.parametrize(
    ("environ", "token"),
    [
        ({"HF_TOKEN": "hf_a", "HUGGINGFACE_HUB_TOKEN": "hf_b"}, "hf_a"),
        ({"HUGGINGFACE_HUB_TOKEN": " hf_b\n"}, "hf_b"),
        ({"HF_TOKEN": " ", "HUGGING_FACE_HUB_TOKEN": "hf_c"}, "hf_c"),
        ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None),
    ],
)
async def test_token_is_read_from_the_environment(environ: dict[str, str], token: str | None) -> None:
    hub = Hub.from_environment(environ)
    assert await hub.token() == token
    assert hub.endpoint == DEFAULT_ENDPOINT


@pytest.mark.parametrize("place", ["HF_HOME", "HF_TOKEN_PATH"])
def test_token_is_read_from_the_login_file(place: str, server: LocalHub, tmp_path: Path) -> None:
    value = tmp_path if place == "HF_HOME" else tmp_path / "token"
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom mlxk_tui.ops.hub.hub import Hub\n"
        "hub = Hub.from_environment()\nassert asyncio.run(hub.token()) is None\n"
        f"Path({str(tmp_path / 'token')!r}).write_text('{server.GOOD_TOKEN}\\n')\n"
        "print(asyncio.run(hub.token()))\n"
        "assert 'HF_TOKEN' not in __import__('os').environ"
    )
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
        "HF_ENDPOINT": server.url,
        place: str(value),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (server.GOOD_TOKEN, "")


@pytest.mark.parametrize("token", ["hf_x a", "hf_x\x1b[31m", "hf_xä", "hf_x\r\nHost: evil"])
def test_invalid_token_is_rejected_without_showing_it(token: str) -> None:
    with pytest.raises(OpError) as caught:
        Hub(token=token)
    assert caught.value.type is ErrorType.AUTH_ERROR
    assert "hf_x" not in caught.value.message


@pytest.mark.parametrize(
    "endpoint",
    ["huggingface.co", "ftp://x", "http://", "http://a b", "http://x:port", "https://[", "file:///etc"],
)
def test_invalid_endpoint_is_rejected(endpoint: str) -> None:
    with pytest.raises(OpError) as caught:
        Hub.from_environment({"HF_ENDPOINT": endpoint})
    assert caught.value.type is ErrorType.VALIDATION_ERROR


async def test_credentials_in_a_url_are_never_shown() -> None:
    with pytest.raises(OpError) as caught:
        await Hub("http://me:swordfish@127.0.0.1:9", SECRET).info("org/tiny")
    assert caught.value.type is ErrorType.NETWORK_ERROR
    assert "127.0.0.1:9" in caught.value.message
    assert "swordfish" not in caught.value.message
    assert SECRET not in caught.value.message


async def test_api_calls_have_timeouts(server: LocalHub) -> None:
    hub = Hub(server.url, server.GOOD_TOKEN, timeouts=QUICK)
    user = await hub.call(lambda api, stop: api.whoami())
    assert user["name"] == "tester"
    assert not server.requests.matching("*/agent-harnesses")
    server.faults.add(Fault("silent", times=None))
    answer = hub.call(lambda api, stop: api.model_info("org/tiny"), repo="org/tiny")
    with pytest.raises(OpError) as caught:
        await asyncio.wait_for(answer, PATIENCE_S)
    assert caught.value.type is ErrorType.NETWORK_ERROR


async def test_cancellation_does_not_wait_for_the_hub(server: LocalHub) -> None:
    server.faults.add(Fault("silent", times=None))
    patient = Timeouts(connect_s=2, read_s=2 * PATIENCE_S, total_s=2 * PATIENCE_S)
    task = asyncio.create_task(Hub(server.url, timeouts=patient).info("org/tiny"))
    await until(lambda: server.requests.running > 0)
    await cancel(task)


async def test_cancelled_work_is_notified() -> None:
    told = threading.Event()

    def work(api: HfApi, stop: threading.Event) -> None:
        if stop.wait(PATIENCE_S):
            told.set()

    with pytest.raises(OpError) as caught:
        await Hub("http://127.0.0.1:9").call(work, total_s=0.1)
    assert caught.value.type is ErrorType.NETWORK_ERROR
    assert told.wait(PATIENCE_S)


@pytest.mark.parametrize(
    ("fault", "again"),
    [
        (Fault("status", status=503), True),
        (Fault("status", status=429, retry_after=0), True),
        (Fault("cut"), True),
        (Fault("status", status=429, retry_after=4000), False),
        (Fault("status", status=404), False),
    ],
)
async def test_transient_errors_are_retried(fault: Fault, again: bool, server: LocalHub) -> None:
    server.faults.add(fault)
    hub = Hub(server.url)
    if again:
        assert (await hub.info("org/tiny")).repo == "org/tiny"
    else:
        with pytest.raises(OpError):
            await hub.info("org/tiny")
    assert len(server.requests.matching("/api/*")) == (2 if again else 1)


@pytest.mark.parametrize(
    ("status", "headers", "type_", "word"),
    [
        (403, {"X-Error-Message": f"no {SECRET} \x1b[31m"}, ErrorType.ACCESS_DENIED, "no …"),
        (451, {}, ErrorType.ACCESS_DENIED, "denies"),
        (401, {}, ErrorType.AUTH_ERROR, "hf auth login"),
        (401, {"X-Error-Code": "RepoNotFound"}, ErrorType.AUTH_ERROR, "rejected the token"),
        (418, {}, ErrorType.NETWORK_ERROR, "418"),
        (500, {}, ErrorType.NETWORK_ERROR, "500"),
        (429, {"Retry-After": "4000"}, ErrorType.NETWORK_ERROR, "4000 seconds"),
        (404, {"X-Error-Code": "EntryNotFound"}, ErrorType.DOWNLOAD_FAILED, "no longer"),
    ],
)
async def test_every_status_has_an_error_type(
    status: int, headers: dict[str, str], type_: ErrorType, word: str, server: LocalHub
) -> None:
    kept = {name: value.replace("\x1b", "\\x1b") for name, value in headers.items()}
    server.tokens[SECRET] = server.tokens[server.GOOD_TOKEN]
    server.faults.add(Fault("status", status=status, headers=kept, times=None))
    with pytest.raises(OpError) as caught:
        await Hub(server.url, SECRET).info("org/tiny")
    assert caught.value.type is type_
    assert word in error_text(caught.value)
    assert SECRET not in error_text(caught.value)
    assert caught.value.__cause__ is None


def test_local_and_unexpected_errors_are_typed() -> None:
    asked = RequestContext("https://hub.example", "org/tiny", None, True, SECRET)
    assert map_error(OSError(errno.ENOSPC, "full"), asked).type is ErrorType.DISK_FULL
    assert map_error(PermissionError(errno.EACCES, "no"), asked).type is ErrorType.PERMISSION_DENIED
    odd = map_error(RuntimeError(f"Bearer {SECRET}"), asked)
    assert odd.type is ErrorType.NETWORK_ERROR
    assert SECRET not in odd.message
    known = OpError(ErrorType.CANCELLED, "x")
    wrapped = RuntimeError("y")
    wrapped.__cause__ = known
    assert map_error(wrapped, asked) is known


async def test_next_page_must_be_on_the_same_hub(server: LocalHub) -> None:
    elsewhere = {"Link": '<http://evil.example/api/models/org/tiny/tree/x>; rel="next"'}
    item = '[{"type": "file", "path": "a", "size": 1, "oid": "' + "a" * 40 + '"}]'
    server.faults.add(Fault("status", path="*/tree/*", status=200, headers=elsewhere, body=item))
    with pytest.raises(OpError) as caught:
        await Hub(server.url, server.GOOD_TOKEN).files("org/tiny", "main")
    assert "invalid response" in caught.value.message


async def test_endless_answer_is_cut_off(server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlxk_tui.ops.hub.hub._MAX_ANSWER", 1000)
    server.faults.add(Fault("status", path="/api/*", status=200, body="[" + "1," * 1000 + "1]", times=None))
    with pytest.raises(OpError) as caught:
        await Hub(server.url).files("org/tiny", "main")
    assert "invalid response" in caught.value.message


async def test_renamed_repo_keeps_the_requested_name(server: LocalHub) -> None:
    server.rename("org/tiny", "org/small")
    assert (await Hub(server.url).info("org/tiny")).repo == "org/tiny"
