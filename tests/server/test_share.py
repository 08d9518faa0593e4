"""A share as a hub: unmodified huggingface_hub and our own pull download from it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mlxk_tui.ops.cache.access_record import RepoAccess, read_access
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.transfers import DownloadStatus
from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.hub.search import search
from mlxk_tui.ops.pull.pull import pull
from tests.support.hf_cache import HfCache, git_sha1, model_files, sha256
from tests.support.pulling import FILES, NAME, WEIGHTS, content_of
from tests.support.sharing import RunningShare, add_model, sharing
from tests.support.waiting import PATIENCE_S, wait_until

CLIENT = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
name, commit = sys.argv[1:]
folder = snapshot_download(name)
assert folder.endswith(commit)
open(hf_hub_download(name, "config.json", revision="v1.0", local_dir="single")).read()
api = HfApi()
print(json.dumps({"sha": api.model_info(name).sha, "folder": folder, "name": api.whoami()["name"]}))
"""
"""A program that only knows HF_ENDPOINT and HF_TOKEN."""


@pytest.fixture
def commit(hub: Path) -> str:
    """Add the model, at main, a tag and a branch with a slash, and return its commit."""
    return add_model(hub, NAME, FILES, refs=("main", "v1.0", "feat/x"))


@pytest.fixture
def share(hub: Path, commit: str) -> Iterator[RunningShare]:
    with sharing(hub) as share:
        yield share


@pytest.mark.parametrize("shared_store", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_unmodified_client_downloads_the_model(shared_store: bool, hub: Path, tmp_path: Path) -> None:
    commit = add_model(hub, NAME, FILES, refs=("main", "v1.0"), shared=shared_store)
    key = "mlxk-office"
    with sharing(hub, api_keys={"office": key}) as share:
        environ = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": share.url, "HF_TOKEN": key}
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, NAME, commit],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    answer = json.loads(done.stdout)
    assert (answer["sha"], answer["name"]) == (commit, "office")
    assert content_of(tmp_path / "hub") == FILES


async def test_own_pull_downloads_the_model_and_can_share_it_again(
    share: RunningShare, commit: str, tmp_path: Path
) -> None:
    second = Cache(tmp_path / "second")
    data = await pull(second, NAME, hub=Hub(share.url))
    assert (data.download_status, data.commit_hash) == (DownloadStatus.SUCCESS, commit)
    assert (data.license, data.gated, data.warnings) == ("apache-2.0", False, [])
    assert content_of(second.root) == FILES
    again = await pull(second, NAME, hub=Hub(share.url))
    assert again.download_status is DownloadStatus.ALREADY_EXISTS
    with sharing(second.root) as other:
        third = Cache(tmp_path / "third")
        assert (await pull(third, f"{NAME}@{commit}", hub=Hub(other.url))).commit_hash == commit
    # The commit was named, so the third machine has no refs/main; it serves the commit, but not as main.
    with sharing(third.root) as last:
        assert last.ask(f"/api/models/{NAME}").json["sha"] == commit
        assert last.ask(f"/api/models/{NAME}/revision/main").code == "RevisionNotFound"


async def test_unknown_access_is_not_passed_on_as_public(hub: Path, tmp_path: Path) -> None:
    add_model(hub, NAME, FILES, access=None)
    second = Cache(tmp_path)
    with sharing(hub) as share:
        with pytest.raises(OpError) as caught:
            await pull(second, NAME, hub=Hub(share.url))
        assert (caught.value.type, caught.value.reason) == (ErrorType.ACCESS_DENIED, AccessReason.NOT_FOUND)
        assert not list(second.root.iterdir())
    with sharing(hub, NAME) as share:
        await pull(second, NAME, hub=Hub(share.url))
    assert read_access(second.root / HfCache(second.root).repo(NAME).dir_name) is None


@pytest.mark.parametrize(
    "access", [RepoAccess(gated=True, private=False), RepoAccess(gated=False, private=True)]
)
async def test_restricted_model_is_shared_only_by_name_and_stays_restricted(
    access: RepoAccess, hub: Path, tmp_path: Path
) -> None:
    add_model(hub, NAME, FILES, access)
    paths = (f"/api/models/{NAME}", f"/api/models/{NAME}/tree/main", f"/{NAME}/resolve/main/config.json")
    with sharing(hub) as share:
        unknown = share.ask("/api/models/org/none")
        for path in paths:
            refused = share.ask(path)
            assert (refused.status, refused.code) == (404, "RepoNotFound")
            assert refused.body == unknown.body.replace(
                b"org/none", NAME.encode()
            )  # it is not even confirmed
        assert share.ask("/api/models").json == []
    second = Cache(tmp_path)
    with sharing(hub, NAME) as share:
        data = await pull(second, NAME, hub=Hub(share.url))
    assert data.gated is access.gated
    with sharing(second.root) as share:
        assert share.ask(paths[0]).code == "RepoNotFound"


def test_only_named_models_are_shared(share: RunningShare, hub: Path, commit: str) -> None:
    add_model(hub, "org/other", model_files(fill=b"\x09"))
    assert [model["id"] for model in share.ask("/api/models").json] == [NAME, "org/other"]
    with sharing(hub, "org/other") as named:
        assert [model["id"] for model in named.ask("/api/models").json] == ["org/other"]
        assert named.ask(f"/{NAME}/resolve/{commit}/config.json").code == "RepoNotFound"


def test_api_of_huggingface_hub(share: RunningShare, commit: str) -> None:
    api = HfApi(share.url, token=False)
    info = api.model_info(NAME, files_metadata=True)
    assert (info.sha, info.private, info.gated, info.author) == (commit, False, False, "mlx-community")
    assert info.last_modified is not None
    siblings = {file.rfilename: file for file in info.siblings or ()}
    assert siblings.keys() == FILES.keys()
    weights, config = siblings[WEIGHTS], siblings["config.json"]
    assert weights.lfs is not None
    assert (weights.size, weights.lfs.sha256) == (len(FILES[WEIGHTS]), sha256(FILES[WEIGHTS]))
    assert (config.blob_id, config.lfs) == (git_sha1(FILES["config.json"]), None)
    for revision in ("main", "v1.0", "feat/x", commit):
        assert api.model_info(NAME, revision=revision).sha == commit
        assert {item.path for item in api.list_repo_tree(NAME, revision=revision)} == {
            *(path for path in FILES if "/" not in path),
            "sub",
        }
    tree = list(api.list_repo_tree(NAME, recursive=True, expand=True))
    assert {item.path for item in tree} == {*FILES, "sub"}
    assert [item.path for item in api.list_repo_tree(NAME, "sub")] == ["sub/notes.txt"]
    assert [model.id for model in api.list_models(search="tiny", author="mlx-community")] == [NAME]
    assert not list(api.list_models(search="huge"))
    api.auth_check(NAME)
    with pytest.raises(RepositoryNotFoundError):
        api.auth_check("org/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(NAME, revision="v2")
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(NAME, "none"))
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(NAME, "none.txt")


async def test_search_of_this_program(share: RunningShare, cache: Cache) -> None:
    found = await search(Hub(share.url), "tiny", limit=5, cache=cache)
    assert [(model.name, model.mlx, model.cached) for model in found.results] == [(NAME, True, True)]


def test_lists_have_pages(share: RunningShare) -> None:
    path: str = f"/api/models/{NAME}/tree/main?recursive=true&limit=2"
    found: list[str] = []
    while path:
        page = share.ask(path)
        found += [item["path"] for item in page.json]
        link = page.headers.get("Link", "")
        assert not link or link.startswith(f"<{share.url}/api/models/")
        path = link.partition(">")[0].removeprefix(f"<{share.url}")
    assert sorted(found) == sorted([*FILES, "sub"])


@pytest.mark.slow
def test_long_lists_have_pages(hub: Path) -> None:
    files = {**FILES, **{f"extra/{number:04}.txt": b"%d" % number for number in range(1100)}}
    add_model(hub, NAME, files)
    with sharing(hub) as share:
        tree = HfApi(share.url, token=False).list_repo_tree(NAME, recursive=True)
        assert {item.path for item in tree} == {*files, "extra", "sub"}
        assert share.ask(f"/api/models/{NAME}/tree/main?cursor=x").status == 400


def test_head_and_ranges(share: RunningShare, commit: str) -> None:
    path, data = f"/{NAME}/resolve/main/{WEIGHTS}", FILES[WEIGHTS]
    size, etag = len(data), f'"{sha256(FILES[WEIGHTS])}"'
    for method in ("HEAD", "GET"):
        whole = share.ask(path, method)
        assert whole.status == 200
        assert whole.body == (data if method == "GET" else b"")
        assert whole.headers["Content-Length"] == whole.headers["X-Linked-Size"] == str(size)
        assert whole.headers["ETag"] == whole.headers["X-Linked-ETag"] == etag
        assert (whole.headers["X-Repo-Commit"], whole.headers["Accept-Ranges"]) == (commit, "bytes")
    for text, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=10-", 10, size - 1),
        ("bytes=-5", size - 5, size - 1),
        (f"bytes=0-{size + 100}", 0, size - 1),
        (f"bytes=-{size + 100}", 0, size - 1),
        (f"Bytes={size - 1}-", size - 1, size - 1),
    ):
        part = share.ask(path, Range=text)
        assert (part.status, part.body) == (206, data[first : last + 1]), text
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert share.ask(path, "HEAD", Range=text).headers["Content-Length"] == str(last + 1 - first)
    for text in (f"bytes={size}-", "bytes=-0", f"bytes={10**17}-"):
        refused = share.ask(path, Range=text)
        assert (refused.status, refused.headers["Content-Range"]) == (416, f"bytes */{size}")
    for text in ("bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=", "bytes=-", "bytes=a-b"):
        assert (share.ask(path, Range=text).status, share.ask(path, Range=text).body) == (200, data)
    assert share.ask(path, Range="bytes=0-0", If_Range=etag).status == 206
    assert share.ask(path, Range="bytes=0-0", If_Range='"other"').status == 200
    assert (
        share.ask(f"/{NAME}/resolve/main/README.md", "HEAD").headers["ETag"]
        == f'"{git_sha1(FILES["README.md"])}"'
    )


@pytest.mark.parametrize("fault", ["truncated", "missing", "unfinished"])
def test_incomplete_model_is_not_shared(fault: str, share: RunningShare, hub: Path, commit: str) -> None:
    path = f"/{NAME}/resolve/main/config.json"
    assert share.ask(path).status == 200
    repo = HfCache(hub).repo(NAME)
    weights = repo.snapshot(commit) / WEIGHTS
    if fault == "truncated":
        weights.resolve().write_bytes(FILES[WEIGHTS][:-1])
    elif fault == "missing":
        weights.unlink()
    else:
        repo.tree(commit).unlink()
        repo.partial("0" * 64)
    refused = share.ask(path)
    assert (refused.status, refused.code) == (404, "RepoNotFound")
    assert refused.json["error"].startswith(f"{NAME} is not shared: ")
    assert share.ask("/api/models").json == []


def test_file_that_was_not_downloaded_is_not_said_to_be_absent_from_the_repo(
    share: RunningShare, hub: Path, commit: str, tmp_path: Path
) -> None:
    (HfCache(hub).repo(NAME).snapshot(commit) / "README.md").unlink()
    api = HfApi(share.url, token=False)
    assert "README.md" not in api.list_repo_files(NAME)
    refused = share.ask(f"/{NAME}/resolve/main/README.md")
    assert (refused.status, refused.code) == (404, None)
    with pytest.raises(LocalEntryNotFoundError):
        api.hf_hub_download(NAME, "README.md", cache_dir=tmp_path)
    assert not list(tmp_path.rglob(".no_exist"))
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(NAME, "none.txt", cache_dir=tmp_path)
    assert list(tmp_path.rglob(".no_exist"))
    folder = api.snapshot_download(NAME, cache_dir=tmp_path)
    assert {path.name for path in Path(folder).iterdir()} == {
        path.partition("/")[0] for path in FILES if path != "README.md"
    }


def test_new_and_deleted_models_are_noticed(share: RunningShare, hub: Path) -> None:
    assert share.ask("/api/models/org/new").code == "RepoNotFound"
    add_model(hub, "org/new", model_files(fill=b"\x05"))
    assert share.ask("/api/models/org/new").status == 200
    (hub / "models--org--new").rename(hub / ".removing")
    assert share.ask("/org/new/resolve/main/config.json").code == "RepoNotFound"


def test_file_that_is_truncated_during_a_transfer_ends_that_connection(
    share: RunningShare, hub: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    big = b"\x01" * (16 << 20)
    commit = add_model(hub, "org/big", {**model_files(fill=b"\x08"), "big.bin": big})
    blob = (HfCache(hub).repo("org/big").snapshot(commit) / "big.bin").resolve()
    with share.raw() as wire:
        wire.sendall(b"GET /org/big/resolve/main/big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        os.truncate(blob, 1000)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := wire.recv(1 << 20):
                received += len(part)
    assert received < len(big)
    wait_until(lambda: "GET /org/big/resolve/main/big.bin 499" in caplog.text)
    assert share.ask(f"/{NAME}/resolve/main/config.json").body == FILES["config.json"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_deleted_model_is_sent_to_the_end(share: RunningShare, hub: Path) -> None:
    big = os.urandom(1 << 20) * 16
    add_model(hub, "org/big", {**model_files(fill=b"\x08"), "big.bin": big})
    with share.raw() as wire:
        wire.sendall(b"GET /org/big/resolve/main/big.bin HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += wire.recv(1)
        for path in sorted((hub / "models--org--big" / "blobs").iterdir()):
            path.unlink()
        body = bytearray()
        while part := wire.recv(1 << 20):
            body += part
    assert body == big


def test_client_that_does_not_read_is_disconnected(hub: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_model(hub, "org/big", {**model_files(), "big.bin": b"\x01" * (16 << 20)})
    with sharing(hub, write_timeout_s=0.1) as share, share.raw() as wire:
        wire.sendall(b"GET /org/big/resolve/main/big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        wait_until(lambda: not share.server.connections)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
