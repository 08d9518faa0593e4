"""The local hub with the unmodified huggingface_hub client: contents and access."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from mlxk_tui.demo.hub import Content, Generated, LocalHub, add_folders
from mlxk_tui.demo.hub.blobs import make_blob

CARD = b"---\nlicense: mit\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- tiny\n---\n# Tiny\n"
WEIGHTS = Generated(3_000_001, seed=7, head=b"head of the file")
CONFIG = b'{"model_type": "llama"}'
FILES: dict[str, Content] = {
    "README.md": CARD,
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "onnx/a b#c.txt": b"odd name",
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.GOOD_TOKEN)


def test_snapshot_download_is_bit_exact(hub: LocalHub, tmp_path: Path) -> None:
    commit = hub.add_repo("org/tiny", FILES)
    folder = Path(snapshot_download("org/tiny", endpoint=hub.url, token=hub.GOOD_TOKEN, cache_dir=tmp_path))
    assert folder.name == commit
    for path in FILES:
        assert (folder / path).read_bytes() == hub.read("org/tiny", path)
    blobs = {link.resolve().name for link in folder.rglob("*") if link.is_file()}
    weights = hub.files("org/tiny")["model.safetensors"]
    assert weights.sha256 in blobs
    assert hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest() in blobs
    [fetched] = hub.requests.matching("*/model.safetensors", method="GET", origin="cdn")
    assert (fetched.status, fetched.bytes_sent) == (200, weights.size)


def test_token_is_sent_only_to_the_hub_and_leaks_are_rejected(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo("org/tiny", FILES)
    snapshot_download("org/tiny", endpoint=hub.url, token=hub.GOOD_TOKEN, cache_dir=tmp_path)
    assert {request.origin for request in hub.requests if request.authorization} == {"hub"}
    [fetched] = hub.requests.matching(origin="cdn")
    assert fetched.status == 200
    link = f"{hub.cdn_url}{fetched.path}?{fetched.query}"
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(link, headers={"Authorization": "Bearer leaked"}))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{hub.cdn_url}{fetched.path}?Signature=guessed")


def test_model_info_has_sizes_checksums_and_card_data(hub: LocalHub, api: HfApi) -> None:
    hub.add_repo("org/tiny", FILES, downloads=41, likes=3)
    info = api.model_info("org/tiny", files_metadata=True)
    assert (info.downloads, info.likes, info.gated, info.library_name) == (41, 3, False, "mlx")
    assert {"mlx", "tiny", "license:mit", "text-generation"} <= set(info.tags or ())
    sizes = {item.rfilename: (item.size, item.lfs and item.lfs.sha256) for item in info.siblings or ()}
    blob = hub.files("org/tiny")["model.safetensors"]
    assert sizes["model.safetensors"] == (blob.size, blob.sha256)
    assert sizes["config.json"] == (len(CONFIG), None)
    assert (
        api.model_info("org/tiny", expand=["usedStorage"]).used_storage == hub.repos["org/tiny"].used_storage
    )


def test_file_tree_is_paged(hub: LocalHub, api: HfApi) -> None:
    hub.add_repo("org/many", {f"part/{number:03}.txt": b"%d" % number for number in range(25)})
    hub.state.page_size = 10
    found = list(api.list_repo_tree("org/many", recursive=True))
    assert [item.path for item in found if isinstance(item, RepoFile)] == sorted(hub.files("org/many"))
    assert [item.path for item in found if isinstance(item, RepoFolder)] == ["part"]
    assert len(hub.requests.matching("*/tree/*")) == 3
    assert [item.path for item in api.list_repo_tree("org/many")] == ["part"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("org/many", "nowhere"))


def test_revisions_are_found_by_branch_tag_and_hash(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    first = hub.add_repo("org/tiny", {"config.json": b"1"})
    second = hub.commit("org/tiny", {"config.json": b"2", "new.txt": b"n"}, branch="feat/x")
    hub.tag("org/tiny", "v1", first)
    refs = api.list_repo_refs("org/tiny")
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "feat/x": second}
    assert [ref.name for ref in refs.tags] == ["v1"]
    for revision, content in (("feat/x", "2"), ("v1", "1"), (second, "2"), (second[:8], "2")):
        path = hf_hub_download(
            "org/tiny", "config.json", revision=revision, endpoint=hub.url, cache_dir=tmp_path, token=False
        )
        assert Path(path).read_text() == content
    assert [commit.commit_id for commit in api.list_repo_commits("org/tiny", revision="feat/x")] == [
        second,
        first,
    ]


def test_missing_repos_revisions_and_files_have_their_errors(
    hub: LocalHub, api: HfApi, tmp_path: Path
) -> None:
    hub.add_repo("org/tiny", FILES)
    with pytest.raises(RepositoryNotFoundError) as missing:
        api.model_info("org/nothing")
    assert missing.value.response.status_code == 404
    with pytest.raises(RepositoryNotFoundError) as unknown:
        HfApi(endpoint=hub.url, token=False).model_info("org/nothing")
    assert unknown.value.response.status_code == 401
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/tiny", revision="nope")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("org/tiny", "nope.json", cache_dir=tmp_path)


def test_access_depends_on_the_token(hub: LocalHub) -> None:
    hub.add_repo("org/secret", FILES, private=True)
    assert HfApi(endpoint=hub.url, token=hub.GOOD_TOKEN).whoami()["name"] == "tester"
    for token in (hub.GOOD_TOKEN, hub.READ_TOKEN):
        assert HfApi(endpoint=hub.url, token=token).model_info("org/secret").private is True
    for hidden in (hub.OTHER_TOKEN, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.url, token=hidden).model_info("org/secret")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as refused:
        HfApi(endpoint=hub.url, token="hf_wrong").model_info("org/secret")
    assert refused.value.response.status_code == 401
    assert not isinstance(refused.value, RepositoryNotFoundError)


def test_gated_repo_hides_files_but_not_metadata(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo("org/gated", FILES, gated="manual")
    for token, status in ((hub.OTHER_TOKEN, 403), (False, 401)):
        outsider = HfApi(endpoint=hub.url, token=token)
        assert outsider.model_info("org/gated").gated == "manual"
        assert list(outsider.list_repo_tree("org/gated"))
        with pytest.raises(GatedRepoError) as refused:
            outsider.auth_check("org/gated")
        assert refused.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            outsider.hf_hub_download("org/gated", "config.json", cache_dir=tmp_path)
    HfApi(endpoint=hub.url, token=hub.GOOD_TOKEN).auth_check("org/gated")


def test_disabled_repo_is_an_error(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    hub.add_repo("org/gone", FILES, disabled=True)
    with pytest.raises(DisabledRepoError):
        api.model_info("org/gone")
    with pytest.raises(LocalEntryNotFoundError) as refused:
        api.hf_hub_download("org/gone", "config.json", cache_dir=tmp_path)
    assert isinstance(refused.value.__cause__, DisabledRepoError)
    assert list(api.list_models(search="gone")) == []


def test_renamed_repo_redirects(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    hub.add_repo("org/old", FILES)
    hub.rename("org/old", "org/new")
    path = api.hf_hub_download("org/old", "model.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == hub.read("org/new", "model.safetensors")


def test_search_filters_sorts_and_counts(hub: LocalHub, api: HfApi) -> None:
    hub.add_repo("a/Tiny-Llama", FILES, downloads=5)
    hub.add_repo("b/tiny-qwen", FILES, downloads=50)
    hub.add_repo("b/other", {"README.md": b"---\ntags: [gguf]\n---\n"}, downloads=500)
    hub.add_repo("c/hidden-tiny", FILES, private=True)
    assert [item.id for item in api.list_models(filter="mlx", sort="downloads", limit=2)] == [
        "b/tiny-qwen",
        "a/Tiny-Llama",
    ]
    assert [item.id for item in api.list_models(search="TINY llama")] == ["a/Tiny-Llama"]
    assert [item.id for item in api.list_models(author="b", sort="downloads")] == ["b/other", "b/tiny-qwen"]
    public = HfApi(endpoint=hub.url, token=False).list_models(search="hidden")
    assert list(public) == []
    [found] = api.list_models(search="qwen", expand=["usedStorage", "lastModified", "safetensors", "gated"])
    assert found.used_storage == hub.repos["b/tiny-qwen"].used_storage
    assert found.last_modified is not None
    hub.state.page_size = 1
    assert len(list(api.list_models())) == 4


def test_repos_are_served_from_a_folder(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    folder = tmp_path / "served" / "org" / "disk"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 20_000)
    (folder / "config.json").write_text("{}")
    assert add_folders(hub, tmp_path / "served") == ["org/disk"]
    path = api.hf_hub_download("org/disk", "model.safetensors", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == (folder / "model.safetensors").read_bytes()


def test_generated_files_are_identical_in_any_chunks() -> None:
    blob = make_blob(Generated(5_300_000, seed=3, head=b"x" * 100))
    whole = blob.read()
    assert len(whole) == 5_300_000
    assert hashlib.sha256(whole).hexdigest() == blob.sha256
    for start, stop in ((0, 50), (90, 110), (1048570, 1048600), (2097152, 4194305), (5_299_999, 5_300_000)):
        assert blob.read(start, stop) == whole[start:stop]
    assert whole[1 << 20 : 2 << 20] != whole[2 << 20 : 3 << 20]
    assert make_blob(Generated(5_300_000, seed=4, head=b"x" * 100)).sha256 != blob.sha256
