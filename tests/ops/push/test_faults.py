"""Push with network faults, a busy hub, changing files and cancellation: never a partial commit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mlxk_tui.demo.hub import Fault, LocalHub
from mlxk_tui.ops.contract.transfers import PushData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.push.push import PushLimits, PushRequest, push
from tests.support.waiting import PATIENCE_S, cancel

NAME = "org/model"
SIZE = 3 << 20
LARGE = 24 << 20
IMPATIENT = PushLimits(connect_s=5, read_s=2.0, stall_s=20.0)


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add_repo(NAME, {"old.txt": b"old"}, private=True)
        yield server


@pytest.fixture
def hub(server: LocalHub) -> Hub:
    return Hub(server.url, server.GOOD_TOKEN)


@pytest.fixture
def request_(tmp_path: Path) -> PushRequest:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Model\n")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(os.urandom(SIZE))
    return PushRequest(folder, NAME)


def arrived(server: LocalHub, request: PushRequest, branch: str = "main") -> bool:
    """Return whether a branch contains the folder's files exactly."""
    there = {path: blob.read() for path, blob in server.files(NAME, branch).items()}
    here = {path.name: path.read_bytes() for path in request.folder.iterdir()}
    return here.items() <= there.items()


async def failed(request: PushRequest, hub: Hub, limits: PushLimits = IMPATIENT) -> OpError:
    with pytest.raises(OpError) as error:
        await push(request, hub=hub, limits=limits)
    assert hub._token is None or hub._token not in error.value.message
    return error.value


def children() -> list[psutil.Process]:
    """Return the running upload processes; child processes of earlier tests may be ending meanwhile."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("upload_worker" in word for word in child.cmdline()):
                found.append(child)
    return found


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", "/upload/*", method="PUT", after_bytes=SIZE // 2),
        Fault("status", "*/preupload/*", status=429, retry_after=0),
        # The local hub commits before it answers, so only the answers are lost.
        Fault("status", "*/commit/*", status=500),
        pytest.param(Fault("status", "*/commit/*", status=503, retry_after=600), marks=pytest.mark.slow),
        pytest.param(Fault("cut", "*/commit/*", method="POST", after_bytes=10), marks=pytest.mark.slow),
        pytest.param(Fault("status", "*/auth-check/write", status=404), marks=pytest.mark.slow),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.path}",
)
async def test_transient_faults_are_retried(
    server: LocalHub, hub: Hub, request_: PushRequest, fault: Fault
) -> None:
    server.faults.add(fault)
    data = await push(request_, hub=hub, limits=IMPATIENT)
    assert server.faults.hits(fault) == 1
    assert data.change_summary.added == 3
    assert arrived(server, request_)
    assert len(server.history(NAME)) == 2
    assert not any("Signature" in line or server.GOOD_TOKEN in line for line in data.hf_logs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "type_"),
    [
        (Fault("status", "*/preupload/*", status=403, times=None), ErrorType.UPLOAD_FAILED),
        (Fault("cut", "*/commit/*", method="POST", after_bytes=10, times=None), ErrorType.NETWORK_ERROR),
        (Fault("status", "*/lfs/objects/batch", status=404, times=None), ErrorType.UPLOAD_FAILED),
        (Fault("silent", "/upload/*", method="PUT", times=None), ErrorType.NETWORK_ERROR),
        (Fault("status", "/api/models/org/model", status=404, times=None), ErrorType.NETWORK_ERROR),
    ],
    ids=lambda value: (
        f"{value.kind}-{value.status}-{value.path}" if isinstance(value, Fault) else value.value
    ),
)
async def test_persistent_faults_are_errors_without_a_commit(
    server: LocalHub, hub: Hub, request_: PushRequest, fault: Fault, type_: ErrorType
) -> None:
    server.faults.add(fault)
    limits = replace(IMPATIENT, read_s=5, stall_s=3) if fault.kind == "silent" else IMPATIENT
    error = await failed(request_, hub, limits)
    assert error.type is type_, error.message
    assert set(server.files(NAME)) == {"old.txt"}
    assert not children()


async def test_invalid_model_card_is_reported_before_the_upload(
    server: LocalHub, hub: Hub, request_: PushRequest
) -> None:
    (request_.folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    error = await failed(request_, hub)
    assert error.type is ErrorType.UPLOAD_FAILED
    assert "README.md" in error.message
    (request_.folder / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    error = await failed(request_, hub)
    assert (error.type, "not UTF-8" in error.message) == (ErrorType.UPLOAD_FAILED, True)
    assert not server.requests.matching("/upload/*")


async def test_commit_with_a_lost_answer_is_recognized(
    server: LocalHub, hub: Hub, request_: PushRequest
) -> None:
    fault = server.faults.add(Fault("slow", "*/commit/*", method="POST", delay_s=30))
    data = await push(request_, hub=hub, limits=replace(IMPATIENT, read_s=1))
    assert server.faults.hits(fault) == 1
    assert data.commit_sha == server.history(NAME)[0].oid
    assert (data.no_changes, data.change_summary.added) == (False, 3)
    assert len(server.history(NAME)) == 2
    assert arrived(server, request_)


async def test_branch_that_moves_during_the_push_is_unchanged(
    server: LocalHub, hub: Hub, request_: PushRequest
) -> None:
    moved = threading.Event()

    def on_event(event: Progress) -> None:
        if event.stage == "push" and not moved.is_set():
            moved.set()
            server.commit(NAME, {"theirs.txt": b"theirs"})

    server.rate_per_connection = SIZE / 0.5
    with pytest.raises(OpError, match="Another commit was made") as error:
        await push(request_, hub=hub, on_event=on_event)
    assert error.value.type is ErrorType.UPLOAD_FAILED
    assert set(server.files(NAME)) == {"old.txt", "theirs.txt"}
    server.requests.clear()
    server.rate_per_connection = None
    assert (await push(request_, hub=hub)).change_summary.added == 3
    assert not server.requests.matching("/upload/*")
    assert set(server.files(NAME)) == {"old.txt", "theirs.txt", *os.listdir(request_.folder)}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
async def test_file_that_changes_during_the_push_is_detected(
    server: LocalHub, hub: Hub, request_: PushRequest, name: str
) -> None:
    changed = threading.Event()

    def on_event(event: Progress) -> None:
        if event.stage == "push" and not changed.is_set():
            changed.set()
            with (request_.folder / name).open("r+b") as file:
                file.write(b"[")

    server.rate_per_connection = SIZE / 0.5
    with pytest.raises(OpError, match=rf"{name} changed during the push") as error:
        await push(request_, hub=hub, on_event=on_event)
    assert error.value.type is ErrorType.UPLOAD_FAILED
    assert set(server.files(NAME)) == {"old.txt"}


@pytest.mark.slow
async def test_unknown_revision_is_created_and_retried_once(
    server: LocalHub, hub: Hub, request_: PushRequest
) -> None:
    rejects = Fault("status", "*/preupload/*", status=404, error_code="RevisionNotFound")
    server.faults.add(rejects)
    data = await push(replace(request_, branch="dev", create=True), hub=hub)
    assert (data.branch, data.change_summary.added) == ("dev", 3)
    assert arrived(server, request_, "dev")
    assert len(server.requests.matching("*/branch/dev", method="POST")) == 2
    server.faults.clear()
    server.faults.add(replace(rejects, times=None))
    (request_.folder / "config.json").write_text("{}")
    error = await failed(replace(request_, branch="dev", create=True), hub)
    assert error.type is ErrorType.UPLOAD_FAILED
    assert server.faults.hits() == 2


async def test_failed_branch_creation_is_an_error(server: LocalHub, hub: Hub, request_: PushRequest) -> None:
    server.faults.add(Fault("status", "*/branch/*", status=400, times=None))
    error = await failed(replace(request_, branch="dev", create=True), hub)
    assert error.type is ErrorType.BRANCH_CREATE_FAILED
    assert "dev" in error.message


async def test_error_contains_the_created_repo(server: LocalHub, hub: Hub, request_: PushRequest) -> None:
    server.faults.add(Fault("status", "*/preupload/*", status=403, times=None))
    error = await failed(replace(request_, repo_id="org/new", create=True), hub)
    assert isinstance(error.data, PushData)
    assert (error.data.created_repo, error.data.commit_sha, error.data.repo_id) == (True, None, "org/new")
    assert server.repos["org/new"].private


async def test_cancelled_push_stops_at_once_and_can_be_resumed(
    server: LocalHub, hub: Hub, request_: PushRequest
) -> None:
    (request_.folder / "small.safetensors").write_bytes(os.urandom(20_000))
    with (request_.folder / "model.safetensors").open("wb") as file:
        file.truncate(LARGE)  # more than the system holds for a connection
    server.rate_per_connection = LARGE / 100
    loop = asyncio.get_running_loop()
    half_way = asyncio.Event()

    def on_event(event: Progress) -> None:
        puts = server.requests.matching("/upload/*", method="PUT")
        if event.file == "model.safetensors" and any(put.finished and put.status == 200 for put in puts):
            loop.call_soon_threadsafe(half_way.set)

    task = asyncio.create_task(push(request_, hub=hub, on_event=on_event))
    await asyncio.wait_for(half_way.wait(), PATIENCE_S)
    assert len(children()) == 1
    await cancel(task)
    assert not children()
    assert set(server.files(NAME)) == {"old.txt"}

    server.rate_per_connection = None
    server.requests.clear()
    assert (await push(request_, hub=hub)).change_summary.added == 4
    assert arrived(server, request_)
    assert [put.bytes_received for put in server.requests.matching("/upload/*", method="PUT")] == [LARGE]


async def test_push_can_be_cancelled_while_hashing(server: LocalHub, hub: Hub, request_: PushRequest) -> None:
    with (request_.folder / "sparse.bin").open("wb") as file:
        file.truncate(300 << 30)  # minutes of hashing
    hashing = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_event(event: Progress) -> None:
        loop.call_soon_threadsafe(hashing.set)

    task = asyncio.create_task(push(request_, hub=hub, on_event=on_event))
    await asyncio.wait_for(hashing.wait(), PATIENCE_S)
    await cancel(task)
    assert not server.requests.matching("*/preupload/*")


async def test_token_is_passed_only_through_stdin(
    server: LocalHub, request_: PushRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.GOOD_TOKEN)
    seen: list[str] = []

    def on_event(event: Progress) -> None:
        if event.stage == "push" and not seen:
            for child in children():
                seen.extend([*child.cmdline(), *child.environ().values()])

    server.rate_per_connection = SIZE / 0.5
    await push(request_, hub=Hub.from_environment({"HF_ENDPOINT": server.url, "HF_TOKEN": server.GOOD_TOKEN}),
               on_event=on_event)  # fmt: skip
    assert any("upload_worker" in word for word in seen)
    assert not any(server.GOOD_TOKEN in word for word in seen)
