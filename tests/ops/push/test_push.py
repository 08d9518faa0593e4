"""Push to the local hub: dry runs, commits and errors."""

from __future__ import annotations

import asyncio
import hashlib
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from mlxk_tui.demo.hub import LocalHub
from mlxk_tui.ops.contract.transfers import ChangeSummary, PushData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.push.push import (
    DISCLAIMER,
    PushRequest,
    check_only,
    plan_push,
    preview_push,
    push,
    push_enabled,
)
from mlxk_tui.ops.push.result import commit_difference
from tests.support.hf_cache import tree_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content:DeprecationWarning"
)  # of the client's own library

NAME = "org/model"
CARD = "---\nlicense: mit\n---\n# Model\n"


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        yield server


@pytest.fixture
def hub(server: LocalHub) -> Hub:
    return Hub(server.url, server.GOOD_TOKEN)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(os.urandom(200_000))
    (folder / "sub" / "notes.txt").write_text("notes")
    (folder / "empty.txt").write_bytes(b"")
    return folder


@pytest.fixture
def request_(folder: Path) -> PushRequest:
    return PushRequest(folder, NAME)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".hfignore"
    }


def on_hub(server: LocalHub, revision: str = "main", name: str = NAME) -> dict[str, bytes]:
    return {path: blob.read() for path, blob in server.files(name, revision).items()}


def counts(data: PushData) -> tuple[int, int, int]:
    found = data.change_summary
    return found.added, found.modified, found.deleted


async def refused(request: PushRequest, hub: Hub) -> OpError:
    with pytest.raises(OpError) as error:
        await push(request, hub=hub)
    return error.value


async def test_folder_becomes_a_private_repo_and_a_second_push_changes_nothing(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path, tmp_path: Path
) -> None:
    before = tree_of(folder)
    events: list[Progress] = []
    data = await push(replace(request_, create=True, message="First"), hub=hub, on_event=events.append)
    head = server.history(NAME)[0]
    assert (data.repo_id, data.branch, data.commit_sha) == (NAME, "main", head.oid)
    assert data.commit_url == f"{server.url}/{NAME}/commit/{head.oid}"
    assert data.repo_url == f"{server.url}/{NAME}"
    assert (data.created_repo, data.no_changes, data.experimental) == (True, False, True)
    assert counts(data) == (5, 0, 0)
    assert (data.uploaded_files_count, data.local_files_count) == (5, 5)
    assert data.message == "+5 ~0 -0 (200 KB)"
    assert data.disclaimer == DISCLAIMER
    assert (head.title, head.author) == ("First", "tester")
    assert server.repos[NAME].private
    assert on_hub(server) == files_of(folder)
    assert server.repos[NAME].head.entries["model.safetensors"].lfs
    assert {event.stage for event in events} == {"verify", "push"}
    last = events[-1]
    total = sum(map(len, files_of(folder).values()))
    assert (last.bytes_done, last.bytes_total, last.files_done, last.files_total) == (total, total, 5, 5)
    weights = [event for event in events if event.file == "model.safetensors" and event.stage == "push"]
    assert weights[-1].file_bytes_done == weights[-1].file_bytes_total == 200_000
    assert tree_of(folder) == before

    got = await asyncio.to_thread(
        HfApi(endpoint=server.url, token=server.GOOD_TOKEN).snapshot_download,
        NAME,
        cache_dir=tmp_path / "hub",
    )
    assert files_of(Path(got)) == files_of(folder)

    server.requests.clear()
    again = await push(replace(request_, message="Second"), hub=hub)
    assert (again.no_changes, again.uploaded_files_count, counts(again)) == (True, 0, (0, 0, 0))
    assert again.commit_sha is again.commit_url is None
    assert again.message == "No files have been modified since last commit. Skipping to prevent empty commit."
    assert again.message in again.hf_logs
    assert (again.created_repo, again.local_files_count) == (False, 5)
    assert server.history(NAME)[0].oid == head.oid
    assert not server.requests.matching("*/commit/*")
    assert not server.requests.matching("/upload/*")


async def test_dry_run_is_exact_and_changes_nothing(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path
) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    other = bytes([weights[0] ^ 1]) + weights[1:]  # of the same size
    there = {
        **files_of(folder), "model.safetensors": other, "config.json": b'{"model_type": "LLAMA"}',
        "old.txt": b"old", ".gitattributes": b"* x\n", "sub/.DS_Store": b"",
    }  # fmt: skip
    del there["sub/notes.txt"]
    head = server.add_repo(NAME, there, private=True)
    data = await preview_push(request_, hub=hub)
    assert data.dry_run is True
    assert data.dry_run_summary == ChangeSummary(added=1, modified=2, deleted=1)
    assert (data.added_files, data.modified_files, data.deleted_files) == (
        ["sub/notes.txt"],
        ["config.json", "model.safetensors"],
        ["old.txt"],
    )
    assert counts(data) == (1, 2, 0)
    assert data.bytes_total == 200_000 + len('{"model_type": "llama"}') + len("notes")
    assert (data.no_changes, data.would_create_repo, data.would_create_branch) == (False, False, False)
    assert (data.message, data.uploaded_files_count, data.commit_sha) == ("Dry-run: +1 ~2 -1", 0, None)
    assert data.model_dump()["modified_files"]
    plan = await plan_push(request_, hub=hub)
    assert (plan.kept_remote_count, plan.commit, plan.repo_url) == (2, head, f"{server.url}/{NAME}")
    with_delete = await preview_push(replace(request_, delete=True), hub=hub)
    # Files created by the hub, and files that the folder ignores, are not deleted.
    assert (with_delete.deleted_files, with_delete.message) == (["old.txt"], "Dry-run: +1 ~2 -1")
    assert server.history(NAME)[0].oid == head
    assert not [request for request in server.requests if request.method != "GET"]

    done = await push(request_, hub=hub)
    assert (counts(done), done.uploaded_files_count) == ((1, 2, 0), 3)
    assert on_hub(server) == {**there, **files_of(folder)}
    cleared = await push(replace(request_, delete=True), hub=hub)
    assert (counts(cleared), cleared.message) == ((0, 0, 1), "+0 ~0 -1 (0 B)")
    assert set(on_hub(server)) == {*files_of(folder), ".gitattributes", "sub/.DS_Store"}
    nothing = await preview_push(replace(request_, delete=True), hub=hub)
    assert (nothing.no_changes, nothing.message, nothing.bytes_total) == (True, "Dry-run: no changes", 0)


async def test_missing_repo_needs_create(server: LocalHub, hub: Hub, request_: PushRequest) -> None:
    for answer in (push, preview_push):
        with pytest.raises(OpError) as error:
            await answer(request_, hub=hub)
        assert (error.value.type, error.value.remedy) == (ErrorType.REPO_NOT_FOUND, Remedy.CREATE_REPO)
    plan = await plan_push(request_, hub=hub)
    assert (plan.would_create_repo, plan.would_create_branch, plan.commit) == (True, False, None)
    data = await preview_push(replace(request_, create=True, branch="dev"), hub=hub)
    assert (data.would_create_repo, data.would_create_branch) == (True, True)
    assert len(data.added_files or ()) == data.local_files_count == 5
    assert NAME not in server.repos


async def test_branch_is_created_even_without_changes(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path
) -> None:
    server.add_repo(NAME, files_of(folder), private=True)
    on_branch = replace(request_, branch="feat/x")
    error = await refused(on_branch, hub)
    assert (error.type, error.remedy) == (ErrorType.UPLOAD_FAILED, Remedy.CREATE_BRANCH)
    plan = await preview_push(on_branch, hub=hub)
    assert (plan.would_create_branch, plan.no_changes) == (True, True)
    assert set(server.repos[NAME].branches) == {"main"}
    data = await push(replace(on_branch, create=True), hub=hub)
    assert (data.no_changes, data.branch, data.created_repo) == (True, "feat/x", False)
    assert set(server.repos[NAME].branches) == {"main", "feat/x"}
    (folder / "config.json").write_text("{}")
    data = await push(on_branch, hub=hub)
    assert counts(data) == (0, 1, 0)
    assert on_hub(server, "feat/x")["config.json"] == b"{}"
    assert on_hub(server)["config.json"] != b"{}"


async def test_public_repo_is_rejected(server: LocalHub, hub: Hub, request_: PushRequest) -> None:
    head = server.add_repo(NAME, {"config.json": b"{}"})
    for create in (False, True):
        error = await refused(replace(request_, create=create), hub)
        assert error.type is ErrorType.VALIDATION_ERROR
        assert f"{NAME} is public" in error.message
    with pytest.raises(OpError, match="is public"):
        await preview_push(request_, hub=hub)
    assert (await plan_push(request_, hub=hub)).repo_is_public
    assert server.history(NAME)[0].oid == head
    assert not [request for request in server.requests if request.method != "GET"]


async def test_missing_write_access_is_reported_before_the_upload(
    server: LocalHub, request_: PushRequest
) -> None:
    server.add_repo(NAME, private=True)
    cases = (
        (NAME, server.READ_TOKEN, False, ErrorType.UPLOAD_FAILED),
        ("org/new", server.READ_TOKEN, True, ErrorType.UPLOAD_FAILED),
        ("org/new", server.OTHER_TOKEN, True, ErrorType.UPLOAD_FAILED),
        (NAME, server.OTHER_TOKEN, False, ErrorType.REPO_NOT_FOUND),
        (NAME, "hf_quite_wrong", True, ErrorType.AUTH_ERROR),
        (NAME, None, True, ErrorType.AUTH_ERROR),
    )
    for name, token, create, type_ in cases:
        error = await refused(replace(request_, repo_id=name, create=create), Hub(server.url, token))
        assert error.type is type_, (token, error.message)
        assert not token or token not in error.message
    assert set(server.repos) == {NAME}
    assert on_hub(server) == {}
    assert not server.requests.matching("*/preupload/*")


@pytest.mark.parametrize(
    "change",
    [
        {"repo_id": "model"},
        {"repo_id": "org/../x"},
        {"repo_id": ""},
        {"branch": ""},
        {"branch": "a b"},
        {"branch": "../x"},
        {"branch": "x.lock"},
        {"branch": "a\x1b[2J"},
        {"message": "  "},
        {"private": False},
    ],
)
async def test_invalid_requests_are_rejected(hub: Hub, request_: PushRequest, change: dict[str, str]) -> None:
    error = await refused(replace(request_, **change), hub)  # type: ignore[arg-type]  # as a caller might
    assert error.type is ErrorType.VALIDATION_ERROR
    assert error.message.isprintable()


async def test_missing_folder_is_workspace_not_found(hub: Hub, request_: PushRequest, folder: Path) -> None:
    for bad in (folder / "nope", folder / "config.json"):
        error = await refused(replace(request_, folder=bad), hub)
        assert error.type is ErrorType.WORKSPACE_NOT_FOUND
        with pytest.raises(OpError):
            await check_only(replace(request_, folder=bad), hub=hub)


@pytest.mark.parametrize("kind", ["outside", "dangling", "folder", "pipe", "ignored"])
async def test_files_outside_the_folder_are_never_uploaded(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path, tmp_path: Path, kind: str
) -> None:
    server.add_repo(NAME, private=True)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    odd = folder / "odd"
    if kind == "outside":
        odd.symlink_to(secret)
    elif kind == "dangling":
        odd.symlink_to("nowhere")
    elif kind == "folder":
        odd.symlink_to(folder / "sub")
    elif kind == "pipe":
        os.mkfifo(odd)
    else:
        (folder / ".git").mkdir()
        (folder / ".git" / "config").write_text("token")
        odd.symlink_to(folder / ".git" / "config")
    error = await refused(request_, hub)
    assert error.type is ErrorType.VALIDATION_ERROR
    assert "odd" in error.message
    assert on_hub(server) == {}
    (folder / ".hfignore").write_text("odd\n")
    assert (await preview_push(request_, hub=hub)).local_files_count == 5


async def test_link_inside_the_folder_is_uploaded_as_its_target(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path
) -> None:
    server.add_repo(NAME, private=True)
    (folder / "link.txt").symlink_to("sub/notes.txt")
    await push(request_, hub=hub)
    assert on_hub(server)["link.txt"] == b"notes"


async def test_ignored_files_are_not_uploaded(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path
) -> None:
    server.add_repo(NAME, private=True)
    (folder / ".hfignore").write_text("*.txt\n!sub/notes.txt\n")
    (folder / ".DS_Store").write_bytes(b"x")
    data = await push(request_, hub=hub)
    assert data.local_files_count == 4
    assert set(on_hub(server)) == {"README.md", "config.json", "model.safetensors", "sub/notes.txt"}


async def test_unusual_file_names_are_uploaded(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path
) -> None:
    names = ("ü ß/模型.txt", "a#b?c%20d.txt", "q'\"uote.txt", "sub/-dash", "😀.safetensors", "[x]*.txt")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
    server.add_repo(NAME, private=True)
    await push(request_, hub=hub)
    found = {unicodedata.normalize("NFC", path): data for path, data in on_hub(server).items()}
    assert found == files_of(folder)
    assert (await preview_push(request_, hub=hub)).no_changes


@pytest.mark.slow
async def test_many_files_and_a_multipart_file_are_uploaded(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path
) -> None:
    server.state.multipart_over = 32 << 20
    size = 60_000_000
    with (folder / "big.safetensors").open("wb") as file:
        block = os.urandom(1_000_000)
        for number in range(60):
            file.write(number.to_bytes(8, "big") + block[8:])
    (folder / "many").mkdir()
    for number in range(300):
        (folder / "many" / f"{number}.json").write_text(f'{{"n": {number}}}')
    server.add_repo(NAME, private=True)
    events: list[Progress] = []
    data = await push(request_, hub=hub, on_event=events.append)
    assert counts(data) == (306, 0, 0)
    big = [event for event in events if event.file == "big.safetensors" and event.stage == "push"]
    steps = [event.file_bytes_done for event in big]
    assert steps == sorted(steps)
    assert steps[-1] == size
    parts = server.requests.matching("/upload/*", method="PUT")
    assert sum(part.bytes_received for part in parts) == size + 200_000
    assert len(parts) == 5
    digest = hashlib.sha256((folder / "big.safetensors").read_bytes()).hexdigest()
    assert server.files(NAME)["big.safetensors"].sha256 == digest
    assert len(server.files(NAME)) == 306
    assert (await preview_push(request_, hub=hub)).no_changes


async def test_xet_is_used_on_request(
    server: LocalHub, hub: Hub, request_: PushRequest, folder: Path
) -> None:
    pytest.importorskip("hf_xet")
    server.add_repo(NAME, private=True)
    events: list[Progress] = []
    data = await push(replace(request_, xet=True), hub=hub, on_event=events.append)
    assert counts(data) == (5, 0, 0)
    assert on_hub(server) == files_of(folder)
    assert not server.requests.matching("/upload/*")
    assert events[-1].bytes_done == events[-1].bytes_total > 0


async def test_check_needs_neither_network_nor_token(request_: PushRequest, folder: Path) -> None:
    nowhere = Hub("http://127.0.0.1:1", None, offline=True)
    (folder / "odd").symlink_to("/etc/passwd")
    data = await check_only(request_, hub=nowhere)
    assert data.workspace_health is not None
    assert not data.workspace_health.healthy
    assert "link_outside_workspace" in {anomaly.code for anomaly in data.workspace_health.anomalies}
    assert (data.message or "").startswith("Check-only: unhealthy, ")
    assert (data.local_files_count, data.uploaded_files_count, data.no_changes) == (5, 0, False)
    assert data.dry_run is None


def test_files_added_by_the_hub_are_not_counted() -> None:
    before = [
        TreeEntry("a", 1, "1" * 40),
        TreeEntry("b", 1, "2" * 40),
        TreeEntry(".gitattributes", 1, "3" * 40),
    ]
    after = [
        TreeEntry("a", 1, "4" * 40),
        TreeEntry("c", 1, "5" * 40),
        TreeEntry(".gitattributes", 2, "6" * 40),
    ]
    assert tuple(commit_difference(before, after, {"a"}).model_dump().values()) == (1, 1, 1)
    assert tuple(commit_difference(before, after, {"a", ".gitattributes"}).model_dump().values()) == (1, 2, 1)


def test_push_needs_the_feature_flag() -> None:
    variable = "MLXK2_ENABLE_EXPERIMENTAL_PUSH"
    assert push_enabled(True, {})
    assert push_enabled(False, {variable: "1"})
    assert not push_enabled(False, {})
    assert not push_enabled(False, {variable: "0"})
