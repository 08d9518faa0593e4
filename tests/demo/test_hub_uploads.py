"""Uploads to the local hub with the unmodified huggingface_hub client, with LFS and Xet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from mlxk_tui.demo.hub import LocalHub

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content:DeprecationWarning"
)  # raised in huggingface_hub's HTTP client

PATHS = ("README.md", "config.json", "model.safetensors", "big.safetensors", "image.png", "empty.txt")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.state.multipart_over = 1_000_000
        hub.state.part_size = 400_000
        hub.add_repo("org/new", {"config.json": b"{}"})
        yield hub


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.GOOD_TOKEN)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# New\n")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(os.urandom(300_000))
    (tmp_path / "big.safetensors").write_bytes(os.urandom(1_500_000))
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0" + os.urandom(100))
    (tmp_path / "empty.txt").write_bytes(b"")
    return tmp_path


@pytest.fixture(params=["lfs", "xet"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The protocol for large files."""
    if request.param == "xet":
        pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


@pytest.fixture
def lfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def test_folder_is_uploaded_and_a_second_push_changes_nothing(
    hub: LocalHub, api: HfApi, folder: Path, transport: str
) -> None:
    before = hub.history("org/new")[0].oid
    commit = api.upload_folder(repo_id="org/new", folder_path=folder, commit_message="Add it").oid
    assert [item.oid for item in hub.history("org/new")] == [commit, before]
    assert hub.history("org/new")[0].title == "Add it"
    for path in PATHS:
        assert hub.read("org/new", path) == (folder / path).read_bytes()
    kept = hub.repos["org/new"].head.entries
    assert [path for path in PATHS if kept[path].lfs] == ["model.safetensors", "big.safetensors", "image.png"]
    sent = hub.requests.matching("/upload/*", method="PUT")
    assert bool(sent) == (transport == "lfs")
    assert not any(request.authorization for request in sent)
    hub.requests.clear()
    assert api.upload_folder(repo_id="org/new", folder_path=folder, commit_message="Again").oid == commit
    assert not hub.requests.matching("*/commit/*")
    assert not hub.requests.matching("/upload/*")


def test_pushed_files_can_be_pulled(
    hub: LocalHub, api: HfApi, folder: Path, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert transport
    api.upload_folder(repo_id="org/new", folder_path=folder)
    got = Path(api.snapshot_download("org/new", cache_dir=tmp_path_factory.mktemp("cache")))
    assert {path: (got / path).read_bytes() for path in PATHS} == {
        path: (folder / path).read_bytes() for path in PATHS
    }


@pytest.mark.usefixtures("lfs")
def test_large_files_are_uploaded_in_parts(hub: LocalHub, api: HfApi, folder: Path) -> None:
    api.upload_file(
        path_or_fileobj=folder / "big.safetensors", path_in_repo="b.safetensors", repo_id="org/new"
    )
    parts = hub.requests.matching("/upload/*", method="PUT")
    assert [request.bytes_received for request in parts] == [400_000, 400_000, 400_000, 300_000]
    assert len(hub.requests.matching("/complete/*")) == len(hub.requests.matching("*/lfs/verify")) == 1
    assert hub.read("org/new", "b.safetensors") == (folder / "big.safetensors").read_bytes()


def test_repo_is_created_only_once(hub: LocalHub, api: HfApi) -> None:
    assert api.create_repo("org/made", private=True) == f"{hub.url}/org/made"
    assert api.create_repo("org/made", exist_ok=True) == f"{hub.url}/org/made"
    with pytest.raises(HfHubHTTPError) as conflict:
        api.create_repo("org/made")
    assert conflict.value.response.status_code == 409
    assert api.model_info("org/made").private is True
    assert api.create_repo("mine").repo_id == "tester/mine"
    api.delete_repo("org/made")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/made")


def test_branches_and_tags_are_created(hub: LocalHub, api: HfApi) -> None:
    api.create_branch("org/new", branch="feat/x")
    api.create_branch("org/new", branch="feat/x", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch("org/new", branch="feat/x")
    api.create_tag("org/new", tag="v1")
    commit = api.upload_file(
        path_or_fileobj=b"text", path_in_repo="a/b.txt", repo_id="org/new", revision="feat/x"
    ).oid
    assert hub.repos["org/new"].branches["feat/x"].oid == commit
    assert set(hub.files("org/new")) == {"config.json"}
    with pytest.raises(HfHubHTTPError) as unknown:
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="org/new", revision="no-branch")
    assert unknown.value.response.headers["X-Error-Code"] == "RevisionNotFound"
    api.delete_branch("org/new", branch="feat/x")
    assert [ref.name for ref in api.list_repo_refs("org/new").branches] == ["main"]


def test_files_and_folders_are_deleted(hub: LocalHub, api: HfApi) -> None:
    hub.commit("org/new", {"old/a": b"a", "old/b": b"b"})
    api.delete_folder("old", repo_id="org/new")
    assert set(hub.files("org/new")) == {"config.json"}
    api.delete_file("config.json", repo_id="org/new")
    assert hub.files("org/new") == {}
    with pytest.raises(EntryNotFoundError):
        api.delete_file("config.json", repo_id="org/new")


def test_commit_on_an_outdated_parent_is_rejected(hub: LocalHub, api: HfApi) -> None:
    first = hub.history("org/new")[0].oid
    hub.commit("org/new", {"other.txt": b"in between"})
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit(
            "org/new", [CommitOperationAdd("x.txt", b"x")], commit_message="x", parent_commit=first
        )
    assert refused.value.response.status_code == 412


def test_uploads_need_write_access(hub: LocalHub) -> None:
    for token, status in ((hub.READ_TOKEN, 403), (hub.OTHER_TOKEN, 403), (False, 401)):
        with pytest.raises(HfHubHTTPError) as refused:
            HfApi(endpoint=hub.url, token=token).upload_file(
                path_or_fileobj=b"x", path_in_repo="x", repo_id="org/new"
            )
        assert refused.value.response.status_code == status
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(endpoint=hub.url, token=hub.OTHER_TOKEN).create_repo("org/theirs")
    HfApi(endpoint=hub.url, token=hub.OTHER_TOKEN).create_repo("visitor/own")
    assert set(hub.files("org/new")) == {"config.json"}


def test_invalid_model_card_is_rejected_before_the_upload(hub: LocalHub, api: HfApi, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_folder(repo_id="org/new", folder_path=folder)
    assert not hub.requests.matching("*/preupload/*")


def test_preupload_reports_existing_files(hub: LocalHub, api: HfApi) -> None:
    hub.commit("org/new", {"model.safetensors": b"weights"})
    operation = CommitOperationAdd("model.safetensors", b"weights")
    head = hub.history("org/new")[0].oid
    assert api.create_commit("org/new", [operation], commit_message="Same").oid == head
    assert len(hub.history("org/new")) == 2
