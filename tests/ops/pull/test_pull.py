"""pull: preflight, resuming, repair, and a cache layout shared with huggingface_hub."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from mlxk_tui.demo.hub import Fault, Generated, LocalHub
from mlxk_tui.ops.cache.access_record import ACCESS_FILE, RepoAccess, read_access
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import inspect_model
from mlxk_tui.ops.clone.clone import clone
from mlxk_tui.ops.contract.results import Health, MemoryFit
from mlxk_tui.ops.contract.transfers import DownloadStatus, PullData
from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.download.options import DownloadOptions
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.hub.client import Timeouts
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.plan import PullPlan, plan_pull
from mlxk_tui.ops.pull.pull import pull
from mlxk_tui_headless.error_text import error_text
from tests.support.hf_cache import HfCache, model_files, tree_of
from tests.support.pulling import FILES, NAME, WEIGHTS, blob_of, content_of, sent
from tests.support.waiting import PATIENCE_S, cancel, until

QUICK = Timeouts(connect_s=0.5, read_s=0.3, total_s=2)
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        yield server


@pytest.fixture
def commit(server: LocalHub) -> str:
    return server.add_repo(NAME, FILES)


def client(server: LocalHub, token: str | None = None) -> Hub:
    return Hub(server.url, token)


async def refused(cache: Cache, spec: str, hub: Hub, **options: Any) -> OpError:
    with pytest.raises(OpError) as caught:
        await pull(cache, spec, hub=hub, **options)
    return caught.value


async def test_pull_creates_the_cache_layout_of_huggingface_hub(
    server: LocalHub, commit: str, cache: Cache, tmp_path: Path
) -> None:
    plans: list[PullPlan] = []
    events: list[Progress] = []
    data = await pull(cache, NAME, hub=client(server), on_plan=plans.append, on_event=events.append)

    assert (data.download_status, data.commit_hash) == (DownloadStatus.SUCCESS, commit)
    assert (data.files_count, data.bytes_total, data.bytes_downloaded) == (len(FILES), TOTAL, TOTAL)
    assert (data.bytes_reused, data.expanded_name, data.revision) == (0, None, None)
    assert data.license == "apache-2.0"
    assert plans[0].bytes_to_fetch == TOTAL
    assert events[-1].bytes_done == events[-1].bytes_total == TOTAL
    assert content_of(cache.root) == FILES

    snapshot_download(NAME, cache_dir=tmp_path, endpoint=server.url, token=False)
    theirs, ours = tree_of(tmp_path), tree_of(cache.root)
    ours = {path: entry for path, entry in ours.items() if ".mlxk" not in path}
    names = {path.partition(".tmp")[0] for path in theirs}
    assert set(ours) == names
    for path in ("refs/main", f"trees/{commit}.json", f"snapshots/{commit}/sub/notes.txt"):
        full = f"models--{NAME.replace('/', '--')}/{path}"
        assert ours[full][2] == theirs[full][2]
    assert (await inspect_model(cache, NAME)).model.health is Health.HEALTHY


async def test_second_pull_downloads_nothing(server: LocalHub, commit: str, cache: Cache) -> None:
    snapshot_download(NAME, cache_dir=cache.root, endpoint=server.url, token=False)
    before = tree_of(cache.root)
    server.requests.clear()
    data = await pull(cache, NAME, hub=client(server))
    assert (data.download_status, data.bytes_reused) == (DownloadStatus.ALREADY_EXISTS, TOTAL)
    assert sent(server) == 0
    after = tree_of(cache.root)
    assert after.pop(f"models--{NAME.replace('/', '--')}/{ACCESS_FILE}")[0] == "file"  # the only addition
    assert after == before


async def test_a_dry_run_writes_nothing(server: LocalHub, commit: str, cache: Cache) -> None:
    before = tree_of(cache.root)
    runtime = Runtime(None, frozenset(), memory_bytes=200_000_000)
    data = await pull(cache, NAME, hub=client(server), dry_run=True, runtime=runtime)
    assert (data.download_status, data.bytes_downloaded) == (DownloadStatus.PLANNED, TOTAL)
    assert data.memory_fit is MemoryFit.TOO_LARGE
    assert data.disk_free_bytes
    assert tree_of(cache.root) == before
    assert sent(server) == 0


@pytest.mark.parametrize(
    ("token", "kind", "reason", "remedy"),
    [
        (None, "missing", AccessReason.NOT_FOUND, Remedy.CHECK_NAME_OR_LOG_IN),
        (None, "gated", AccessReason.GATED, Remedy.ACCEPT_TERMS_AND_LOG_IN),
        (LocalHub.OTHER_TOKEN, "gated", AccessReason.GATED, Remedy.ACCEPT_TERMS),
        (None, "private", AccessReason.NOT_FOUND, Remedy.CHECK_NAME_OR_LOG_IN),
        (LocalHub.OTHER_TOKEN, "private", AccessReason.NOT_FOUND, Remedy.CHECK_NAME_OR_MEMBERSHIP),
        (LocalHub.GOOD_TOKEN, "disabled", AccessReason.DISABLED, None),
        ("hf_unknown_token", "open", AccessReason.UNAUTHORIZED, Remedy.REPLACE_TOKEN),
        (None, "open@nope", None, Remedy.LOOK_ON_HUB),
    ],
)
async def test_inaccessible_repo_leaves_the_cache_unchanged(
    token: str | None,
    kind: str,
    reason: AccessReason | None,
    remedy: Remedy | None,
    server: LocalHub,
    cache: Cache,
) -> None:
    server.add_repo("org/gated", FILES, gated="manual")
    server.add_repo("org/private", FILES, private=True)
    server.add_repo("org/disabled", FILES, disabled=True)
    server.add_repo("org/open", FILES)
    before = tree_of(cache.root)
    error = await refused(cache, f"org/{kind}", client(server, token))
    denied = reason is not None
    assert error.type is (ErrorType.ACCESS_DENIED if denied else ErrorType.REVISION_NOT_FOUND)
    assert error.reason is reason
    assert error.remedy is remedy
    assert (error.facts.url or "").endswith("/org/gated") is (kind == "gated")
    assert token is None or token not in error_text(error)
    assert isinstance(error.data, PullData)
    assert error.data.download_status is (DownloadStatus.ACCESS_DENIED if denied else DownloadStatus.FAILED)
    assert tree_of(cache.root) == before
    assert sent(server) == 0


async def test_gated_and_private_repos_can_be_pulled_with_access(server: LocalHub, cache: Cache) -> None:
    server.add_repo("org/gated", FILES, gated=True)
    server.add_repo("org/private", FILES, private=True)
    hub = client(server, server.GOOD_TOKEN)
    assert (await pull(cache, "org/gated", hub=hub)).gated
    await pull(cache, "org/private", hub=hub)
    assert content_of(cache.root, "org/gated") == content_of(cache.root, "org/private") == FILES
    recorded = [read_access(cache.root / f"models--org--{name}") for name in ("gated", "private")]
    assert recorded == [RepoAccess(gated=True, private=False), RepoAccess(gated=False, private=True)]
    assert not any(request.authorization for request in server.requests.matching(origin="cdn"))


async def test_name_without_organization_is_in_mlx_community(
    server: LocalHub, commit: str, cache: Cache
) -> None:
    data = await pull(cache, "Tiny-4bit", hub=client(server))
    assert (data.model, data.expanded_name) == ("Tiny-4bit", NAME)
    assert content_of(cache.root) == FILES
    again = await pull(cache, "tiny-4BIT", hub=client(server))
    assert (again.download_status, again.expanded_name) == (DownloadStatus.ALREADY_EXISTS, NAME)


async def test_part_of_a_cached_name_is_not_matched(server: LocalHub, cache: Cache) -> None:
    HfCache(cache.root).repo("acme/Tiny-Large").add(FILES)
    server.add_repo("acme/Tiny-Large", FILES)
    server.add_repo("acme/Tiny", FILES)
    before = tree_of(cache.root)
    error = await refused(cache, "Tiny", client(server))
    assert (error.type, error.reason) == (ErrorType.ACCESS_DENIED, AccessReason.NOT_FOUND)
    assert "mlx-community/Tiny nor Tiny" in error.message
    assert tree_of(cache.root) == before
    assert (await pull(cache, "acme/Tiny", hub=client(server))).expanded_name is None
    assert content_of(cache.root, "acme/Tiny") == FILES


@pytest.mark.parametrize(
    "spec",
    ["", "a@", "../x", "a/b/c", "a--b/c", "x" * 97, "a b/c", "a/b@x..y", "a/b@-/../y", "a/b@/x", "a/b@x:y",
     "a/b@.hidden", "a/b@x.lock", "a/\x1b[31m", "a/b@" + "r" * 300],
)  # fmt: skip
async def test_hostile_names_are_rejected_before_any_request(
    spec: str, server: LocalHub, cache: Cache
) -> None:
    error = await refused(cache, spec, client(server))
    assert error.type is ErrorType.VALIDATION_ERROR
    assert "\x1b" not in error.message
    assert len(server.requests) == 0


@pytest.mark.parametrize("path", ["../out", "/abs", "a/../../b", "a//b", "a\x00b", "a\\b"])
async def test_hostile_file_names_reject_the_whole_repo(path: str, server: LocalHub, cache: Cache) -> None:
    oid = server.add_repo("org/evil", FILES)
    item = {"type": "file", "path": path, "size": 1, "oid": "a" * 40}
    tree = json.dumps([item])
    server.faults.add(Fault("status", path=f"*/tree/{oid}", status=200, body=tree, times=None))
    before = tree_of(cache.root)
    error = await refused(cache, "org/evil", client(server))
    assert error.type is ErrorType.VALIDATION_ERROR
    assert tree_of(cache.root) == before


@pytest.mark.parametrize(
    "answer",
    ["", "[5]", "nonsense", '{"sha": "../../etc"}', '{"sha": 5}', "[" * 100_000, "\ud800"],
    ids=["nothing", "list", "text", "path", "number", "deep", "surrogate"],
)
async def test_invalid_answers_of_the_hub_are_errors(answer: str, server: LocalHub, cache: Cache) -> None:
    body = answer.encode("utf-8", "replace").decode()
    server.add_repo("org/odd", FILES)
    server.faults.add(Fault("status", path="/api/*", status=200, body=body, times=None))
    error = await refused(cache, "org/odd", client(server))
    assert error.type is ErrorType.NETWORK_ERROR
    assert "invalid response" in error.message
    assert not (cache.root / "models--org--odd").exists()


async def test_moved_branch_downloads_only_changed_files(server: LocalHub, commit: str, cache: Cache) -> None:
    await pull(cache, NAME, hub=client(server))
    newer = server.commit(NAME, {"config.json": FILES["config.json"] + b" "})
    server.requests.clear()
    data = await pull(cache, NAME, hub=client(server))
    assert (data.download_status, data.commit_hash) == (DownloadStatus.SUCCESS, newer)
    assert data.bytes_downloaded == len(FILES["config.json"]) + 1
    assert content_of(cache.root)["config.json"].endswith(b" ")
    assert content_of(cache.root, revision=commit) == FILES


@pytest.mark.parametrize("kind", ["branch", "tag", "commit", "short"])
async def test_pull_downloads_the_given_revision(
    kind: str, server: LocalHub, commit: str, cache: Cache
) -> None:
    server.tag(NAME, "v1/first")
    server.commit(NAME, {"config.json": b"{}"})
    server.commit(NAME, {"extra.txt": b"x"}, branch="dev")
    revision = {"branch": "dev", "tag": "v1/first", "commit": commit, "short": commit[:9]}[kind]
    data = await pull(cache, f"{NAME}@{revision}", hub=client(server))
    assert data.revision == revision
    assert (data.commit_hash == commit) is (kind != "branch")
    assert ("extra.txt" in content_of(cache.root, revision=revision)) is (kind == "branch")
    folder = cache.root / f"models--{NAME.replace('/', '--')}"
    assert (folder / "refs").exists() is (kind != "commit")
    assert not (folder / "refs" / "main").exists()


@pytest.mark.parametrize("fault", ["truncated", "zeroed", "pointer", "gone", "unlinked", "rotten"])
async def test_only_broken_files_are_downloaded_again(
    fault: str, server: LocalHub, commit: str, cache: Cache
) -> None:
    await pull(cache, NAME, hub=client(server))
    data = FILES[WEIGHTS]
    blob = blob_of(cache.root, commit)
    inode = blob.stat().st_ino
    if fault == "truncated":
        blob.write_bytes(data[:-3])
    elif fault == "zeroed":
        blob.write_bytes(bytes(len(data)))
    elif fault == "pointer":
        blob.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 5\n" % 0)
    elif fault == "rotten":
        blob.write_bytes(data[:-1] + b"\x7f")
    elif fault == "gone":
        blob.unlink()
    else:
        os.unlink(cache.root / f"models--{NAME.replace('/', '--')}/snapshots/{commit}/{WEIGHTS}")
    server.requests.clear()
    if fault == "rotten":  # its header is intact, so only hashing finds it
        plain = await pull(cache, NAME, hub=client(server))
        assert plain.download_status is DownloadStatus.ALREADY_EXISTS
    done = await pull(cache, NAME, hub=client(server), verify=fault == "rotten")
    assert done.download_status is DownloadStatus.SUCCESS
    assert content_of(cache.root) == FILES
    assert sent(server) == (0 if fault == "unlinked" else len(data))
    assert done.bytes_downloaded + done.bytes_reused == TOTAL
    assert fault != "unlinked" or blob.stat().st_ino == inode


async def test_suspect_file_is_hashed(server: LocalHub, commit: str, cache: Cache) -> None:
    await pull(cache, NAME, hub=client(server))
    blob = blob_of(cache.root, commit)
    blob.write_bytes(FILES[WEIGHTS][:-1] + b"\x7f")
    done = await pull(cache, NAME, hub=client(server), suspect=[WEIGHTS])
    assert done.download_status is DownloadStatus.SUCCESS
    assert content_of(cache.root) == FILES


async def test_model_broken_on_the_hub_is_not_downloaded_repeatedly(server: LocalHub, cache: Cache) -> None:
    server.add_repo("org/broken", {**FILES, WEIGHTS: bytes(500)})
    await pull(cache, "org/broken", hub=client(server))
    data = await pull(cache, "org/broken", hub=client(server))
    assert data.download_status is DownloadStatus.ALREADY_EXISTS
    assert WEIGHTS in data.message


async def test_offline_mode_adds_a_warning(server: LocalHub, commit: str, cache: Cache) -> None:
    await pull(cache, NAME, hub=client(server))
    before = tree_of(cache.root)
    for hub in (Hub("http://127.0.0.1:9"), Hub(server.url, offline=True)):
        for spec in (NAME, "Tiny-4bit", f"{NAME}@{commit}", f"{NAME}@main"):
            data = await pull(cache, spec, hub=hub)
            assert (data.download_status, data.commit_hash) == (DownloadStatus.ALREADY_EXISTS, commit)
            assert data.warnings
            assert "could not be checked" in data.warnings[0]
        for spec in ("org/other", f"{NAME}@dev"):
            assert (await refused(cache, spec, hub)).type is ErrorType.NETWORK_ERROR
    assert tree_of(cache.root) == before
    blob_of(cache.root, commit).write_bytes(b"")
    assert (await refused(cache, NAME, Hub(server.url, offline=True))).type is ErrorType.NETWORK_ERROR


async def test_silent_hub_times_out(server: LocalHub, commit: str, cache: Cache) -> None:
    server.faults.add(Fault("silent", times=None))
    before = tree_of(cache.root)
    error = await asyncio.wait_for(refused(cache, NAME, Hub(server.url, timeouts=QUICK)), PATIENCE_S)
    assert error.type is ErrorType.NETWORK_ERROR
    assert tree_of(cache.root) == before
    usual = Timeouts()
    assert 2 * usual.read_s < 30
    assert usual.total_s < 30


async def test_hub_that_stops_responding_is_an_error(server: LocalHub, commit: str, cache: Cache) -> None:
    server.faults.add(Fault("silent", path=f"*/{WEIGHTS}", after_bytes=20, times=None))
    options = DownloadOptions(read_s=0.1, silence_s=0.3, backoff_s=0.01)
    error = await refused(cache, NAME, client(server), options=options)
    assert error.type in {ErrorType.NETWORK_ERROR, ErrorType.DOWNLOAD_FAILED}
    assert isinstance(error.data, PullData)
    assert error.data.download_status is DownloadStatus.FAILED
    assert not (cache.root / f"models--{NAME.replace('/', '--')}/refs").exists()
    server.faults.clear()
    assert (await pull(cache, NAME, hub=client(server))).download_status is DownloadStatus.SUCCESS
    assert content_of(cache.root) == FILES


@pytest.mark.parametrize("fault", [Fault("status", status=418), Fault("silent")])
@pytest.mark.parametrize("path", ["/api/models/*/Tiny-4bit", "*/auth-check"])
async def test_failed_preflight_check_is_a_warning(
    fault: Fault, path: str, server: LocalHub, commit: str, cache: Cache
) -> None:
    server.faults.add(Fault(fault.kind, path=path, status=fault.status, times=None))
    data = await pull(cache, NAME, hub=Hub(server.url, timeouts=QUICK))
    assert data.download_status is DownloadStatus.SUCCESS
    assert data.commit_hash == commit
    assert len(data.warnings) == 1
    assert content_of(cache.root) == FILES


async def test_access_is_denied_even_without_a_preflight_answer(server: LocalHub, cache: Cache) -> None:
    server.add_repo("org/gated", FILES, gated=True)
    server.faults.add(Fault("status", path="*/org/gated", status=418, times=None))
    before = tree_of(cache.root)
    assert (await refused(cache, "org/gated", client(server))).type is ErrorType.ACCESS_DENIED
    assert tree_of(cache.root) == before


async def test_file_tree_is_paged(server: LocalHub, cache: Cache) -> None:
    server.state.page_size = 7
    files = {**model_files(), **{f"extra/{number:02}.txt": b"%d" % number for number in range(40)}}
    server.add_repo("org/many", files)
    await pull(cache, "org/many", hub=client(server))
    assert content_of(cache.root, "org/many") == files
    assert len(server.requests.matching("*/tree/*")) == 7


async def test_lack_of_disk_space_is_detected_before_writing(server: LocalHub, cache: Cache) -> None:
    server.add_repo("org/huge", FILES)
    item = {"type": "file", "path": "a.bin", "size": 1 << 49, "oid": "a" * 40}
    tree = json.dumps([item])
    server.faults.add(Fault("status", path="*/tree/*", status=200, body=tree, times=None))
    before = tree_of(cache.root)
    planned = await pull(cache, "org/huge", hub=client(server), dry_run=True)
    assert "org/huge needs" in planned.message
    error = await refused(cache, "org/huge", client(server))
    assert (error.type, error.remedy) == (ErrorType.DISK_FULL, Remedy.FREE_SPACE_OR_MOVE_CACHE)
    assert (error.facts.needed_bytes or 0) > (error.facts.available_bytes or 0) > 0
    assert tree_of(cache.root) == before


async def test_cancelled_pull_keeps_all_bytes(server: LocalHub, cache: Cache) -> None:
    size = 4 << 20
    server.add_repo("org/large", {**FILES, "big.bin": Generated(size, seed=3)})
    server.rate_per_connection = 2 << 20
    halfway = asyncio.Event()
    received = 0

    def on_event(event: Progress) -> None:
        nonlocal received
        received = max(received, event.bytes_done)
        if event.stage == "pull" and event.bytes_done > size / 2:
            halfway.set()

    task = asyncio.create_task(pull(cache, "org/large", hub=client(server), on_event=on_event))
    await asyncio.wait_for(halfway.wait(), PATIENCE_S)
    server.rate_per_connection = 1000  # the rest would take longer than the timeout
    await cancel(task)
    folder = cache.root / "models--org--large"
    assert not (folder / "refs").exists()
    report = await inspect_model(cache, "org/large")
    assert report.model.health is Health.UNHEALTHY
    server.rate_per_connection = None
    plan = await plan_pull(cache, "org/large", hub=client(server))
    assert plan.bytes_to_fetch < 0.6 * size
    data = await pull(cache, "org/large", hub=client(server))
    assert data.bytes_downloaded < 0.6 * size
    assert data.bytes_downloaded + data.bytes_reused == data.bytes_total
    assert content_of(cache.root, "org/large")["big.bin"] == server.read("org/large", "big.bin")
    assert data.bytes_reused >= 0.95 * received  # what was still in the sockets does not count


async def test_huggingface_hub_can_download(server: LocalHub, commit: str, cache: Cache) -> None:
    events: list[Progress] = []
    data = await pull(cache, NAME, hub=client(server), via_hub=True, on_event=events.append)
    assert (data.download_status, data.bytes_downloaded) == (DownloadStatus.SUCCESS, TOTAL)
    assert content_of(cache.root) == FILES
    assert {event.stage for event in events} == {"pull"}
    assert any("hf_hub/" in request.user_agent for request in server.requests.matching("*/resolve/*"))
    blob_of(cache.root, commit).write_bytes(bytes(len(FILES[WEIGHTS])))
    server.requests.clear()
    repaired = await pull(cache, NAME, hub=client(server), via_hub=True)
    assert (repaired.download_status, sent(server)) == (DownloadStatus.SUCCESS, len(FILES[WEIGHTS]))
    assert content_of(cache.root) == FILES


async def test_huggingface_hub_is_cancelled_by_stopping_its_process(server: LocalHub, cache: Cache) -> None:
    server.add_repo("org/large", {**FILES, "big.bin": Generated(8 << 20, seed=4)})
    server.rate_per_connection = 1 << 20
    task = asyncio.create_task(pull(cache, "org/large", hub=client(server), via_hub=True))
    await until(lambda: sent(server) > 1 << 20)
    server.rate_per_connection = 1000
    await cancel(task)
    await until(lambda: not server.requests.running)
    assert sent(server) < 7 << 20
    assert not (cache.root / "models--org--large" / "refs").exists()


async def test_errors_of_huggingface_hub_are_typed(server: LocalHub, commit: str, cache: Cache) -> None:
    server.faults.add(Fault("status", path="*/resolve/*", status=403, times=None))
    error = await refused(cache, NAME, client(server), via_hub=True)
    assert error.type is ErrorType.ACCESS_DENIED
    assert not (cache.root / f"models--{NAME.replace('/', '--')}/refs").exists()


async def test_pull_does_not_write_through_links_out_of_the_cache(
    server: LocalHub, commit: str, cache: Cache, tmp_path: Path
) -> None:
    folder = cache.root / f"models--{NAME.replace('/', '--')}"
    folder.mkdir(parents=True)
    (folder / "blobs").symlink_to(tmp_path)
    error = await refused(cache, NAME, client(server))
    assert error.type is ErrorType.DOWNLOAD_FAILED
    assert not os.listdir(tmp_path)


async def test_file_instead_of_the_cache_is_an_error(server: LocalHub, commit: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    error = await refused(Cache(tmp_path / "file"), NAME, client(server))
    assert error.type is ErrorType.CACHE_NOT_FOUND


async def test_two_pulls_download_a_repo_once(server: LocalHub, cache: Cache) -> None:
    server.add_repo("org/large", {**FILES, "big.bin": Generated(3 << 20, seed=5)})
    server.rate_per_connection = 4 << 20
    one, two, _ = await asyncio.gather(
        pull(cache, "org/large", hub=client(server)),
        pull(cache, "org/large", hub=client(server)),
        asyncio.to_thread(
            snapshot_download, "org/large", cache_dir=cache.root, endpoint=server.url, token=False
        ),
    )
    assert {one.download_status, two.download_status} <= {
        DownloadStatus.SUCCESS,
        DownloadStatus.ALREADY_EXISTS,
    }
    assert content_of(cache.root, "org/large")["big.bin"] == server.read("org/large", "big.bin")
    assert sent(server) <= 1.05 * (TOTAL + (3 << 20)) + 3 * TOTAL


async def test_clone_pulls_missing_or_broken_models(
    server: LocalHub, commit: str, cache: Cache, tmp_path: Path
) -> None:
    hub = client(server)
    first = await clone(cache, "Tiny-4bit", tmp_path / "one", hub=hub)
    assert (first.clone_status, first.commit_hash) == ("success", commit)
    assert (tmp_path / "one" / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    server.requests.clear()
    await clone(cache, "tiny", tmp_path / "two", hub=hub)  # a part of a cached name
    assert len(server.requests) == 0
    blob_of(cache.root, commit).write_bytes(b"short")
    await clone(cache, "tiny", tmp_path / "three", hub=hub)
    assert (tmp_path / "three" / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    newer = server.commit(NAME, {"extra.txt": b"x"}, branch="dev")
    assert (await clone(cache, NAME, tmp_path / "four", revision="dev", hub=hub)).commit_hash == newer


async def test_clone_of_a_full_name_uses_only_that_repo(
    server: LocalHub, cache: Cache, tmp_path: Path
) -> None:
    HfCache(cache.root).repo("acme/Widget-Large").add(FILES)
    server.add_repo("acme/Widget", {**FILES, "small.txt": b"x"})
    hub = client(server)
    assert (await clone(cache, "acme/Widget", tmp_path / "one", hub=hub)).expanded_name is None
    assert (tmp_path / "one" / "small.txt").exists()
    data = await clone(cache, "acme/Widget-L", tmp_path / "two", hub=hub)  # the repo does not exist
    assert data.expanded_name == "acme/Widget-Large"


async def test_failed_pull_of_a_clone_reports_both_causes(
    server: LocalHub, cache: Cache, tmp_path: Path
) -> None:
    HfCache(cache.root).repo("acme/Widget").add({**FILES, WEIGHTS: b""})
    nowhere = Hub("http://127.0.0.1:9")
    for spec, hub, type_ in (
        ("nope", nowhere, ErrorType.MODEL_NOT_FOUND),
        ("acme/Widget", nowhere, ErrorType.CLONE_FAILED),
        ("org/nope", client(server), ErrorType.ACCESS_DENIED),
    ):
        with pytest.raises(OpError) as caught:
            await clone(cache, spec, tmp_path / "copy", hub=hub)
        assert caught.value.type is type_
        assert hub is not nowhere or "could not be pulled" in caught.value.message
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    server.add_repo("org/there", FILES)
    with pytest.raises(OpError) as caught:
        await clone(cache, "org/there", tmp_path / "full", hub=client(server))
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert not (cache.root / "models--org--there").exists()
