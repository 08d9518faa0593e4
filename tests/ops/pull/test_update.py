"""check_updates and UpdateBatch: comparing cached models with the local hub, and pulling new commits."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.demo.hub import Fault, LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import inspect_model
from mlxk_tui.ops.contract.terms import Health, UpdateReason, UpdateStatus
from mlxk_tui.ops.contract.updates import UpdateData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.hub.client import Timeouts
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.patterns import FilePatterns
from mlxk_tui.ops.pull.pull import pull
from mlxk_tui.ops.pull.update import UpdateBatch
from mlxk_tui.ops.pull.update_check import MAX_REQUESTS, UpdateChecks, check_updates
from mlxk_tui.ops.remove.prune import plan_prune
from tests.support.hf_cache import HfCache, model_files, tree_of
from tests.support.waiting import PATIENCE_S, cancel, until

ALPHA, BETA, GAMMA = "org/Alpha", "org/Beta", "org/Gamma"
FILES = model_files()
NEW_README = {"README.md": b"# A newer card\n"}


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        yield server


def publish(server: LocalHub, hub: Path, *names: str, **options: object) -> None:
    """Add repos to the hub, and their first commits to the cache."""
    for name in names:
        commit = server.add_repo(name, FILES, **options)  # type: ignore[arg-type]  # of different types
        HfCache(hub).repo(name).add(FILES, commit=commit, modified=1_756_555_200.0)


def client(server: LocalHub, token: str | None = None) -> Hub:
    return Hub(server.url, token)


def statuses(checks: UpdateChecks) -> dict[str, UpdateStatus]:
    return {check.ref.name: check.status for check in checks.checks}


def outcomes(data: UpdateData) -> dict[str, str]:
    return {model.name: model.status.value for model in data.models}


def data_of(error: OpError) -> UpdateData:
    assert isinstance(error.data, UpdateData)
    return error.data


async def failure(cache: Cache, hub: Hub, *specs: str) -> OpError:
    with pytest.raises(OpError) as caught:
        await UpdateBatch(cache, specs or None, hub=hub).run()
    return caught.value


async def test_check_takes_one_request_a_model_and_writes_nothing(
    server: LocalHub, cache: Cache, hub: Path
) -> None:
    publish(server, hub, ALPHA, BETA)
    old, new = server.repos[BETA].head.oid, server.commit(BETA, NEW_README)
    before = tree_of(hub)
    events: list[Progress] = []
    checks = await check_updates(cache, hub=client(server), on_event=events.append)
    assert statuses(checks) == {ALPHA: UpdateStatus.CURRENT, BETA: UpdateStatus.AVAILABLE}
    beta = checks.checks[1]
    assert (beta.commit, beta.latest, beta.revision) == (old, new, "main")
    assert beta.last_modified == server.repos[BETA].last_modified.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert sorted(request.path for request in server.requests) == [
        f"/api/models/{name}/revision/main" for name in (ALPHA, BETA)
    ]
    assert max(request.bytes_sent for request in server.requests) < 250
    assert (events[-1].stage, events[-1].files_done, events[-1].files_total) == ("check", 2, 2)
    assert tree_of(hub) == before


async def test_models_that_cannot_be_compared_are_unknown_with_a_reason(
    server: LocalHub, cache: Cache, hub: Path
) -> None:
    publish(server, hub, ALPHA, "org/Private", "org/Gated", "org/Branch", "org/Pinned", "org/Failing")
    server.repos["org/Private"].private = True
    server.repos["org/Gated"].gated = "manual"
    server.repos["org/Gated"].granted = frozenset()
    publish(server, hub, "org/Disabled", disabled=True)
    HfCache(hub).repo("org/Local").add(FILES)
    HfCache(hub).repo("local-clone--x").add(FILES)
    (hub / "models--org--Branch" / "refs" / "main").rename(hub / "models--org--Branch" / "refs" / "gone")
    (hub / "models--org--Pinned" / "refs" / "main").unlink()
    server.faults.add(Fault("status", path="*/org/Failing/*", status=200, body="[]"))
    checks = await check_updates(cache, hub=client(server))
    reasons = {check.ref.name: check.reason for check in checks.checks}
    assert reasons == {
        ALPHA: None,
        "org/Gated": None,  # its metadata is public
        "org/Private": UpdateReason.NOT_FOUND,
        "org/Local": UpdateReason.NOT_FOUND,
        "local-clone/x": UpdateReason.NOT_FOUND,
        "org/Disabled": UpdateReason.ACCESS_DENIED,
        "org/Branch": UpdateReason.REVISION_NOT_FOUND,
        "org/Pinned": UpdateReason.NO_REF,
        "org/Failing": UpdateReason.NETWORK_ERROR,
    }
    assert all((check.reason is None) is (check.message is None) for check in checks.checks)
    assert checks.hub_error is None
    assert not server.requests.matching("*/Pinned/*")
    member = await check_updates(cache, ["org/Private"], hub=client(server, server.GOOD_TOKEN))
    assert statuses(member) == {"org/Private": UpdateStatus.CURRENT}


async def test_other_refs_are_compared_with_their_own_branch(
    server: LocalHub, cache: Cache, hub: Path
) -> None:
    first = server.add_repo(ALPHA, FILES)
    server.commit(ALPHA, NEW_README, branch="feature/x")
    HfCache(hub).repo(ALPHA).add(FILES, commit=first, refs=("feature/x",))
    (found,) = (await check_updates(cache, hub=client(server))).checks
    assert (found.revision, found.status, found.spec) == (
        "feature/x",
        UpdateStatus.AVAILABLE,
        f"{ALPHA}@feature/x",
    )
    (pinned,) = (await check_updates(cache, [f"alpha@{first[:8]}"], hub=client(server))).checks
    assert (pinned.reason, pinned.commit) == (UpdateReason.NO_REF, first)
    with pytest.raises(OpError) as caught:
        await check_updates(cache, [f"{ALPHA}@v9"], hub=client(server))
    assert caught.value.type is ErrorType.REVISION_NOT_FOUND


async def test_hub_that_cannot_be_asked_is_reported_once(server: LocalHub, cache: Cache, hub: Path) -> None:
    names = [f"org/Model-{number:02}" for number in range(MAX_REQUESTS + 4)]
    publish(server, hub, *names)
    rejected = await check_updates(cache, hub=client(server, "hf_wrong"))
    assert rejected.hub_error is not None
    assert rejected.hub_error.remedy is Remedy.REPLACE_TOKEN
    assert len(server.requests) <= MAX_REQUESTS
    assert {check.reason for check in rejected.checks} == {UpdateReason.ACCESS_DENIED}
    server.requests.clear()
    offline = await check_updates(cache, hub=Hub(server.url, offline=True))
    assert {check.reason for check in offline.checks} == {UpdateReason.OFFLINE}
    assert offline.hub_error is not None
    unreachable = await check_updates(cache, hub=Hub("http://127.0.0.1:9"))
    assert {check.reason for check in unreachable.checks} == {UpdateReason.NETWORK_ERROR}
    assert len(server.requests) == 0
    error = await failure(cache, Hub("http://127.0.0.1:9"))
    assert error.type is ErrorType.NETWORK_ERROR
    assert data_of(error).summary.unknown == len(names)


@pytest.mark.slow
async def test_silent_hub_ends_the_check_in_time(server: LocalHub, cache: Cache, hub: Path) -> None:
    publish(server, hub, ALPHA, BETA)
    server.faults.add(Fault("silent", path="*/Alpha/*", times=None))
    patient = Hub(server.url, timeouts=Timeouts(read_s=2 * PATIENCE_S, total_s=2 * PATIENCE_S))
    checks = await check_updates(cache, hub=patient, total_s=0.5)
    assert statuses(checks) == {ALPHA: UpdateStatus.UNKNOWN, BETA: UpdateStatus.CURRENT}
    assert checks.hub_error is not None
    running = asyncio.create_task(check_updates(cache, hub=patient))
    await until(lambda: server.faults.hits() == 2)
    await cancel(running)


async def test_update_pulls_what_is_new_and_keeps_the_old_revision(
    server: LocalHub, cache: Cache, hub: Path
) -> None:
    publish(server, hub, ALPHA, BETA, GAMMA)
    HfCache(hub).repo("org/Local").add(FILES)
    new = {name: server.commit(name, NEW_README) for name in (ALPHA, GAMMA)}
    before = tree_of(hub)
    planned = await UpdateBatch(cache, hub=client(server), dry_run=True).run()
    assert tree_of(hub) == before
    assert planned.bytes_to_download == 2 * len(NEW_README["README.md"])
    assert planned.message == "2 updates available (30 B to download), 1 up to date, 1 unknown."
    events: list[Progress] = []
    data = await UpdateBatch(cache, ["alpha"], hub=client(server), on_event=events.append).run()
    assert outcomes(data) == {ALPHA: "updated"}
    assert {"check", "pull"} <= {event.stage for event in events}
    assert (data.bytes_downloaded, data.disk_free_bytes is None) == (len(NEW_README["README.md"]), False)
    everything = await UpdateBatch(cache, hub=client(server)).run()
    assert outcomes(everything) == {
        ALPHA: "current",
        BETA: "current",
        GAMMA: "updated",
        "org/Local": "unknown",
    }
    for name, commit in new.items():
        folder = hub / f"models--{name.replace('/', '--')}"
        assert (folder / "refs" / "main").read_text() == commit
        assert (folder / "snapshots" / commit / "README.md").read_bytes() == NEW_README["README.md"]
        assert len(list((folder / "snapshots").iterdir())) == 2
    assert len((await plan_prune(cache)).revisions) == 2


async def test_failed_update_does_not_stop_the_others(server: LocalHub, cache: Cache, hub: Path) -> None:
    publish(server, hub, ALPHA, BETA, GAMMA)
    for name in (ALPHA, BETA, GAMMA):
        server.commit(name, NEW_README)
    server.repos[ALPHA].gated, server.repos[ALPHA].granted = "manual", frozenset()
    server.faults.add(Fault("corrupt", path="*Beta/*README.md", times=None))
    error = await failure(cache, client(server))
    assert (error.type, error.remedy) == (ErrorType.ACCESS_DENIED, Remedy.ACCEPT_TERMS_AND_LOG_IN)
    assert error.message.startswith("2 updates failed. ")
    data = data_of(error)
    assert outcomes(data) == {ALPHA: "failed", BETA: "failed", GAMMA: "updated"}
    assert [model.error_type for model in data.models] == [
        ErrorType.ACCESS_DENIED,
        ErrorType.CHECKSUM_MISMATCH,
        None,
    ]
    server.faults.clear()
    granted = await UpdateBatch(cache, [BETA], hub=client(server)).run()
    assert outcomes(granted) == {BETA: "updated"}
    gated = await UpdateBatch(cache, [ALPHA], hub=client(server), dry_run=True).run()
    assert (outcomes(gated), gated.models[0].error_type) == (
        {ALPHA: "available"},
        ErrorType.ACCESS_DENIED,
    )


async def test_updates_that_do_not_fit_together_are_refused_before_the_first_byte(
    server: LocalHub, cache: Cache, hub: Path
) -> None:
    publish(server, hub, ALPHA, BETA)
    for name in (ALPHA, BETA):
        server.commit(name, NEW_README)
    item: dict[str, object] = {"type": "file", "path": "model.safetensors", "oid": "0" * 40}
    size = int(shutil.disk_usage(hub).free * 0.7)  # each alone would fit
    item |= {"size": size, "lfs": {"oid": "1" * 64, "size": size, "pointerSize": 130}}
    server.faults.add(Fault("status", path="*/tree/*", status=200, body=json.dumps([item]), times=None))
    before = tree_of(hub)
    planned = await UpdateBatch(cache, hub=client(server), dry_run=True).run()
    assert "2 models need" in planned.message
    error = await failure(cache, client(server))
    assert (error.type, error.remedy) == (ErrorType.DISK_FULL, Remedy.FREE_SPACE_OR_MOVE_CACHE)
    assert data_of(error).bytes_to_download == 2 * size
    assert tree_of(hub) == before


async def test_empty_cache_has_nothing_to_update(server: LocalHub, cache: Cache) -> None:
    data = await UpdateBatch(cache, hub=client(server)).run()
    assert (data.summary.total, data.message) == (0, "No models to update.")
    assert len(server.requests) == 0


async def test_partial_model_is_updated_without_the_files_that_were_left_out(
    server: LocalHub, cache: Cache
) -> None:
    server.add_repo(ALPHA, {**FILES, "extra [1].bin": b"not wanted"})
    await pull(cache, ALPHA, hub=client(server), patterns=FilePatterns(exclude=("extra*",)))
    server.commit(ALPHA, {**NEW_README, "extra [1].bin": b"changed", "new.txt": b"new\n"})
    data = await UpdateBatch(cache, hub=client(server)).run()
    assert outcomes(data) == {ALPHA: "updated"}
    folder = cache.root / "models--org--Alpha" / "snapshots" / server.repos[ALPHA].head.oid
    assert {path.name for path in folder.iterdir()} == {*FILES, "new.txt"}
    assert (await inspect_model(cache, ALPHA)).model.health is Health.HEALTHY
