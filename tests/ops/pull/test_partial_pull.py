"""Partial pulls: known as partial, not as broken, and completed by a pull without patterns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import given, strategies as st

from mlxk_tui.demo.hub import LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import inspect_model
from mlxk_tui.ops.clone.clone import clone
from mlxk_tui.ops.contract.results import FindingCode, Fix, Health, Severity
from mlxk_tui.ops.contract.transfers import DownloadStatus, PullData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import Report
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.pull.patterns import FilePatterns
from mlxk_tui.ops.pull.pull import pull
from mlxk_tui.ops.remove.remove import plan_remove, remove
from tests.support.pulling import FILES, NAME, WEIGHTS, content_of, sent

RUNTIME = Runtime("0.32.2", frozenset({"llama"}), memory_bytes=16_000_000_000)
SMALL = FilePatterns(include=("*.json",))
HERE = {name for name in FILES if name.endswith(".json")}


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add_repo(NAME, FILES)
        yield server


@pytest.fixture
def remote(server: LocalHub) -> Hub:
    return Hub(server.url)


async def report_of(cache: Cache) -> Report:
    return await inspect_model(cache, NAME, runtime=RUNTIME)


def names(cache: Cache) -> set[str]:
    """Return the paths of the files in the only snapshot."""
    (snapshot,) = cache.root.glob("models--*/snapshots/*")
    return {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}


def partial(report: Report) -> list[tuple[Severity, Fix]]:
    found = [finding for finding in report.findings if finding.code is FindingCode.PARTIAL_SNAPSHOT]
    return [(finding.severity, finding.fix) for finding in found]


async def test_model_without_weights_is_partial_and_not_broken(
    server: LocalHub, remote: Hub, cache: Cache
) -> None:
    data = await pull(cache, NAME, hub=remote, patterns=SMALL)
    assert (data.download_status, data.partial, data.files_count) == (DownloadStatus.SUCCESS, True, len(HERE))
    assert data.bytes_downloaded == data.bytes_total == sent(server) == sum(len(FILES[n]) for n in HERE)
    assert data.message.startswith(f"Pulled {len(HERE)} of {len(FILES)} files of ")
    assert names(cache) == HERE

    report = await report_of(cache)
    assert (report.model.health, report.model.runtime_compatible) == (Health.HEALTHY, False)
    assert partial(report) == [(Severity.ERROR, Fix.PULL)]
    assert report.model.reason is not None
    assert report.model.reason.startswith(f"Partial: {len(HERE)} of {len(FILES)} files pulled, without ")
    assert WEIGHTS in report.model.reason


async def test_model_without_extra_files_runs(remote: Hub, cache: Cache) -> None:
    data = await pull(cache, NAME, hub=remote, patterns=FilePatterns(exclude=("sub/", "README*")))
    assert data.partial
    report = await report_of(cache)
    assert (report.model.health, report.model.runtime_compatible) == (Health.HEALTHY, True)
    assert partial(report) == [(Severity.WARNING, Fix.NONE)]


async def test_selected_file_that_is_missing_is_an_error(remote: Hub, cache: Cache) -> None:
    await pull(cache, NAME, hub=remote, patterns=SMALL)
    snapshot = next(cache.root.glob("models--*/snapshots/*"))
    (snapshot / "tokenizer_config.json").unlink()
    report = await report_of(cache)
    assert report.model.health is Health.UNHEALTHY
    assert FindingCode.FILE_MISSING in [finding.code for finding in report.findings]


async def test_full_pull_completes_a_partial_one(server: LocalHub, remote: Hub, cache: Cache) -> None:
    await pull(cache, NAME, hub=remote, patterns=SMALL)
    before = sent(server)
    data = await pull(cache, NAME, hub=remote)
    assert (data.download_status, data.partial) == (DownloadStatus.SUCCESS, False)
    assert sent(server) - before == sum(len(FILES[name]) for name in FILES.keys() - HERE)
    assert content_of(cache.root) == FILES
    report = await report_of(cache)
    assert (report.model.runtime_compatible, partial(report)) == (True, [])
    assert not list(cache.root.rglob("*.selection"))


async def test_partial_pulls_add_up(remote: Hub, cache: Cache) -> None:
    await pull(cache, NAME, hub=remote, patterns=SMALL)
    await pull(cache, NAME, hub=remote, patterns=FilePatterns(include=("*.safetensors",)))
    assert names(cache) == HERE | {WEIGHTS}
    report = await report_of(cache)
    assert (report.model.health, report.model.runtime_compatible) == (Health.HEALTHY, True)
    rest = FilePatterns(exclude=("*.json", "*.safetensors"))
    assert (await pull(cache, NAME, hub=remote, patterns=rest)).download_status is DownloadStatus.SUCCESS
    assert partial(await report_of(cache)) == []


async def test_complete_model_stays_complete(server: LocalHub, remote: Hub, cache: Cache) -> None:
    await pull(cache, NAME, hub=remote)
    before = sent(server)
    data = await pull(cache, NAME, hub=remote, patterns=SMALL)
    assert (data.download_status, sent(server)) == (DownloadStatus.ALREADY_EXISTS, before)
    next(cache.root.glob(f"models--*/snapshots/*/{WEIGHTS}")).unlink()
    await pull(cache, NAME, hub=remote, patterns=FilePatterns(include=("config.json",)))
    assert (await report_of(cache)).model.health is Health.UNHEALTHY


async def test_patterns_that_match_nothing_are_rejected(remote: Hub, cache: Cache) -> None:
    with pytest.raises(OpError) as caught:
        await pull(cache, NAME, hub=remote, patterns=FilePatterns(include=("*.gguf", "nothing/")))
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert "'*.gguf'" in caught.value.message
    assert isinstance(caught.value.data, PullData)
    assert not list(cache.root.glob("models--*"))


async def test_clone_completes_a_model_without_weights(remote: Hub, cache: Cache, tmp_path: Path) -> None:
    await pull(cache, NAME, hub=remote, patterns=SMALL)
    with pytest.raises(OpError, match="Partial"):
        await clone(cache, NAME, tmp_path / "without-hub")
    await clone(cache, NAME, tmp_path / "clone", hub=remote)
    assert (tmp_path / "clone" / WEIGHTS).read_bytes() == FILES[WEIGHTS]


async def test_unreachable_hub_does_not_make_it_complete(server: LocalHub, remote: Hub, cache: Cache) -> None:
    await pull(cache, NAME, hub=remote, patterns=SMALL)
    with pytest.raises(OpError) as caught:
        await pull(cache, NAME, hub=Hub("http://127.0.0.1:1"))
    assert caught.value.type is ErrorType.NETWORK_ERROR


async def test_huggingface_hub_completes_it_too(server: LocalHub, remote: Hub, cache: Cache) -> None:
    await pull(cache, NAME, hub=remote, patterns=SMALL)
    snapshot_download(NAME, cache_dir=cache.root, endpoint=server.url, token=False)
    assert content_of(cache.root) == FILES
    report = await report_of(cache)
    assert (report.model.runtime_compatible, partial(report)) == (True, [])


async def test_removal_deletes_the_selection(remote: Hub, cache: Cache) -> None:
    data = await pull(cache, NAME, hub=remote, patterns=SMALL)
    assert list(cache.root.rglob("*.selection"))
    await remove(cache, await plan_remove(cache, f"{NAME}@{data.commit_hash}"))
    assert not list(cache.root.rglob("*.selection"))


@pytest.mark.parametrize("content", ["", "[]", '{"format_version": 9, "files": []}', '{"format_version": 1}'])
async def test_damaged_selection_counts_as_none(remote: Hub, cache: Cache, content: str) -> None:
    await pull(cache, NAME, hub=remote, patterns=SMALL)
    (path,) = cache.root.rglob("*.selection")
    path.write_text(content)
    assert (await report_of(cache)).model.health is Health.UNHEALTHY
    os.unlink(path)
    path.mkdir()
    assert (await report_of(cache)).model.health is Health.UNHEALTHY


PATHS = ["a.json", "A.json", "sub/a.json", "sub/deep/b.bin", "model-1.safetensors", "[x].txt", "sub.txt"]
PATTERN = st.sampled_from(["*", "*.json", "sub/", "sub/*", "a.*", "[[]x].txt", "?.json", "su", "", "*/"])


@given(st.lists(PATTERN, max_size=3), st.lists(PATTERN, max_size=2))
def test_patterns_mean_the_same_as_in_huggingface_hub(include: list[str], exclude: list[str]) -> None:
    entries = [TreeEntry(path, 1, "0" * 40) for path in PATHS]
    expected = list(filter_repo_objects(PATHS, allow_patterns=include or None, ignore_patterns=exclude))
    patterns = FilePatterns(tuple(include), tuple(exclude))
    try:
        assert [entry.path for entry in patterns.select("org/model", entries)] == expected
    except OpError:
        assert expected == []
