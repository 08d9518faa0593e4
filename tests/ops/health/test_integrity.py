"""Integrity: every kind of damage is found and named, and intact models have no findings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import check_health, inspect_model
from mlxk_tui.ops.contract.results import FindingCode, Health, Severity
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import Report
from tests.support.hf_cache import HfCache, HfRepo, model_files, safetensors, sha256

NAME = "mlx-community/Model-Instruct"
RUNTIME = Runtime("0.32.2", frozenset({"llama"}), {"mistral": "llama"}, memory_bytes=16_000_000_000)
"""A machine with 16 GB for models, and an mlx-lm that knows one architecture under two names."""
LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.fixture
def repo(hub: Path) -> HfRepo:
    return HfCache(hub).repo(NAME)


async def _judge(cache: Cache, spec: str = NAME) -> Report:
    return await inspect_model(cache, spec, runtime=RUNTIME)


def _codes(report: Report, severity: Severity = Severity.ERROR) -> list[FindingCode]:
    return [finding.code for finding in report.findings if finding.severity is severity]


async def test_a_complete_model_is_healthy_and_has_no_findings(cache: Cache, repo: HfRepo) -> None:
    repo.add(model_files(shards=3))
    report = await _judge(cache)
    assert report.model.health is Health.HEALTHY
    assert report.findings == ()


def _without(*names: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        for name in names:
            del files[name]

    return change


SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"


def _cut(files: dict[str, bytes]) -> None:
    files[SHARD] = files[SHARD][:-1]


def _zero(files: dict[str, bytes]) -> None:
    files[SHARD] = b"\0" * len(files[SHARD])


def _garbage(files: dict[str, bytes]) -> None:
    files[SHARD] = b"<html>502 Bad Gateway</html>" * 100


def _set(name: str, data: bytes | object) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[name] = data if isinstance(data, bytes) else json.dumps(data).encode()

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_without("config.json"), FindingCode.CONFIG_MISSING),
        (_set("config.json", b""), FindingCode.CONFIG_INVALID),
        (_set("config.json", b"{"), FindingCode.CONFIG_INVALID),
        (_set("config.json", b"{}"), FindingCode.CONFIG_INVALID),
        (_set("config.json", b"[1, 2]"), FindingCode.CONFIG_INVALID),
        (_set("config.json", b"\xff\xfe{"), FindingCode.CONFIG_INVALID),
        (_set("config.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000), FindingCode.CONFIG_INVALID),
        (_set("config.json", b'{"a":' * 150 + b"1" + b"}" * 150), FindingCode.CONFIG_INVALID),
        (_set("config.json", b'{"a": "' + b"x" * 9_000_000 + b'"}'), FindingCode.CONFIG_INVALID),
        (_without(SHARD), FindingCode.SHARD_MISSING),
        (_set(SHARD, b""), FindingCode.WEIGHTS_EMPTY),
        (_cut, FindingCode.WEIGHTS_TRUNCATED),
        (_zero, FindingCode.WEIGHTS_CORRUPT),
        (_garbage, FindingCode.WEIGHTS_CORRUPT),
        (_set(SHARD, LFS_POINTER), FindingCode.LFS_POINTER),
        (_set("tokenizer.json", LFS_POINTER), FindingCode.LFS_POINTER),
        (_without(INDEX), FindingCode.SHARD_WITHOUT_INDEX),
        (_set(INDEX, {"weight_map": {}}), FindingCode.INDEX_INVALID),
        (_set(INDEX, {"weight_map": {"a": 3}}), FindingCode.INDEX_INVALID),
        (_set(INDEX, b"[]"), FindingCode.INDEX_INVALID),
        (_set(INDEX, b"{"), FindingCode.INDEX_INVALID),
        (_set(INDEX, {"weight_map": {"a": "../../../../etc/passwd"}}), FindingCode.INDEX_UNSAFE_PATH),
        (_set(INDEX, {"weight_map": {"a": "/etc/passwd"}}), FindingCode.INDEX_UNSAFE_PATH),
        (_set("model.safetensors.incomplete", b"half"), FindingCode.PARTIAL_FILE),
        (_set("weights.partial", b"half"), FindingCode.PARTIAL_FILE),
        (_set("x.tmp", b"half"), FindingCode.PARTIAL_FILE),
        (_set("extra.gguf", b"\0" * 64), FindingCode.WEIGHTS_CORRUPT),
        (_set("pytorch_model.bin", b"\0" * 64), FindingCode.WEIGHTS_CORRUPT),
        (_set("pytorch_model.bin", b"PK\x03\x04" + b"x" * 500), FindingCode.WEIGHTS_CORRUPT),
    ],
)
@pytest.mark.parametrize("tree", [False, True])
async def test_every_broken_model_has_its_finding(
    cache: Cache, repo: HfRepo, change: Callable[[dict[str, bytes]], None], code: FindingCode, tree: bool
) -> None:
    files = model_files(shards=3)
    change(files)
    repo.add(files, tree=tree)
    report = await _judge(cache)
    assert code in _codes(report)
    assert report.model.health is Health.UNHEALTHY
    assert report.model.runtime_compatible is False
    assert report.model.reason == report.findings[0].message


async def test_words_in_file_names_do_not_matter(cache: Cache, repo: HfRepo) -> None:
    repo.add({**model_files(), "partial_rotary.md": b"# incomplete tmp", "notes.tmp.md": b"x"})
    assert (await _judge(cache)).findings == ()


async def test_model_without_weights_is_unhealthy(cache: Cache, repo: HfRepo) -> None:
    files = model_files()
    del files["model.safetensors"]
    repo.add(files, tree=False)
    assert FindingCode.WEIGHTS_MISSING in _codes(await _judge(cache))


async def test_complete_shards_without_an_index_are_unhealthy(cache: Cache, repo: HfRepo) -> None:
    files = model_files(shards=2)
    del files[INDEX]
    repo.add(files, tree=False)
    report = await _judge(cache)
    assert _codes(report) == [FindingCode.SHARD_WITHOUT_INDEX]
    assert "missing." in report.findings[0].message
    assert "shards are missing" not in report.findings[0].message


async def test_broken_link_of_any_file_is_unhealthy(cache: Cache, repo: HfRepo) -> None:
    files = {**model_files(), "README.md": b"# hello"}
    repo.add(files, tree=False)
    repo.blob("README.md", b"# hello").unlink()
    report = await _judge(cache)
    assert _codes(report) == [FindingCode.BROKEN_LINK]
    assert report.findings[0].path == "README.md"


async def test_link_out_of_the_cache_is_unhealthy_and_never_opened(
    cache: Cache, repo: HfRepo, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"model_type": "stolen"}')
    commit = repo.add(model_files(), tree=False)
    config = repo.snapshot(commit) / "config.json"
    config.unlink()
    config.symlink_to(secret)
    report = await _judge(cache)
    assert FindingCode.LINK_OUTSIDE_CACHE in _codes(report)
    assert report.facts.architecture is None


async def test_link_loop_is_a_broken_link(cache: Cache, repo: HfRepo) -> None:
    commit = repo.add(model_files(), tree=False)
    loop = repo.snapshot(commit) / "loop.json"
    loop.symlink_to("loop.json")
    assert _codes(await _judge(cache)) == [FindingCode.BROKEN_LINK]


async def test_snapshot_of_main_is_checked_and_not_the_newest(cache: Cache, repo: HfRepo) -> None:
    good = repo.add(model_files(), modified=1_000_000_000)
    bad = repo.add({"config.json": b"{}"}, refs=(), modified=2_000_000_000)
    report = await _judge(cache)
    assert (report.model.hash, report.model.health) == (good, Health.HEALTHY)
    assert (await _judge(cache, f"{NAME}@{bad[:7]}")).model.health is Health.UNHEALTHY
    repo.ref("main", bad)
    assert (await _judge(cache)).model.hash == bad


async def test_without_main_the_newest_snapshot_is_checked(cache: Cache, repo: HfRepo) -> None:
    repo.add(model_files(), refs=(), modified=1_000_000_000)
    newer = repo.add(model_files(fill=b"\x02"), refs=(), modified=2_000_000_000)
    assert (await _judge(cache)).model.hash == newer


async def test_main_without_its_snapshot_is_a_finding(cache: Cache, repo: HfRepo) -> None:
    repo.add(model_files())
    repo.ref("main", "f" * 40)
    report = await _judge(cache)
    assert _codes(report) == [FindingCode.MAIN_SNAPSHOT_MISSING]
    assert report.model.hash == "f" * 40


async def test_binary_main_ref_is_only_a_finding(cache: Cache, repo: HfRepo) -> None:
    repo.add(model_files())
    (repo.path / "refs" / "main").write_bytes(b"\xff\xfe\x00" * 50)
    assert _codes(await _judge(cache)) == [FindingCode.REF_INVALID]


async def test_empty_repo_has_no_snapshot(cache: Cache, repo: HfRepo) -> None:
    repo.cache.create()
    repo.path.mkdir()
    assert _codes(await _judge(cache)) == [FindingCode.NO_SNAPSHOT]


async def test_listed_files_must_exist_with_their_size(cache: Cache, repo: HfRepo) -> None:
    files = model_files()
    commit = repo.add(files)
    (repo.snapshot(commit) / "tokenizer.json").unlink()
    blob = repo.blob("tokenizer_config.json", files["tokenizer_config.json"])
    blob.write_bytes(files["tokenizer_config.json"] + b" ")
    codes = _codes(await _judge(cache))
    assert set(codes) == {FindingCode.FILE_MISSING, FindingCode.SIZE_MISMATCH}


async def test_files_excluded_from_the_download_are_a_warning(cache: Cache, repo: HfRepo) -> None:
    """mlx-lm downloads by pattern: no README or PyTorch weights, but every JSON file."""
    index = json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}).encode()
    files = {**model_files(), "pytorch_model.bin.index.json": index}
    commit = repo.add(
        {**files, "pytorch_model-00001-of-00001.bin": b"\x80\x02" + b"x" * 99, "logo.png": b"x"}
    )
    for name in ("pytorch_model-00001-of-00001.bin", "logo.png", "README.md"):
        (repo.snapshot(commit) / name).unlink()
    report = await _judge(cache)
    assert report.model.health is Health.HEALTHY
    assert report.model.reason is None
    assert _codes(report, Severity.WARNING) == [FindingCode.FILE_MISSING]


async def test_partial_blob_is_unhealthy_unless_the_snapshot_is_complete(cache: Cache, repo: HfRepo) -> None:
    commit = repo.add(model_files())
    repo.partial("a" * 64)
    report = await _judge(cache)
    assert report.model.health is Health.HEALTHY
    assert _codes(report, Severity.WARNING) == [FindingCode.DOWNLOAD_UNFINISHED]
    repo.tree(commit).unlink()
    report = await _judge(cache)
    assert report.model.health is Health.UNHEALTHY
    assert _codes(report) == [FindingCode.DOWNLOAD_UNFINISHED]


@pytest.mark.parametrize("ending", ["0123abcd.incomplete", "mlxk.incomplete"])
async def test_file_with_a_started_download_is_missing(cache: Cache, repo: HfRepo, ending: str) -> None:
    commit = repo.add({**model_files(), "extra.bin": b"x" * 99, "logo.png": b"y"})
    for name in ("extra.bin", "logo.png"):
        (repo.snapshot(commit) / name).unlink()
    assert (await _judge(cache)).model.health is Health.HEALTHY
    (repo.blobs / f"{sha256(b'x' * 99)}.{ending}").write_bytes(b"xx")
    report = await _judge(cache)
    assert report.model.health is Health.UNHEALTHY
    assert _codes(report) == [FindingCode.FILE_MISSING, FindingCode.DOWNLOAD_UNFINISHED]
    assert report.findings[0].path == "extra.bin"


async def test_gguf_repo_needs_no_config(cache: Cache, hub: Path) -> None:
    repo = HfCache(hub).repo("org/Model-GGUF")
    repo.add({"model-Q4_K_M.gguf": b"GGUF\x03\0\0\0" + b"\0" * 100, "README.md": b"# hi"})
    report = await _judge(cache, "org/Model-GGUF")
    assert report.model.health is Health.HEALTHY
    assert report.model.framework.value == "GGUF"


async def test_blobs_in_the_shared_store_are_read(cache: Cache, repo: HfRepo) -> None:
    files = model_files(shards=2)
    repo.add(files, shared=True)
    report = await _judge(cache)
    assert report.findings == ()
    assert report.model.size_bytes == sum(len(data) for data in files.values())
    repo.cache.payload(files["model-00001-of-00002.safetensors"]).unlink()
    assert FindingCode.BROKEN_LINK in _codes(await _judge(cache))


async def test_health_counts_and_sorts_every_model(cache: Cache, hub: Path) -> None:
    HfCache(hub).repo("mlx-community/B-good").add(model_files())
    HfCache(hub).repo("org/A-bad").add({"config.json": b"{}"})
    HfCache(hub).repo("org/C-foreign").add({**model_files(config={"quantization": None}), "README.md": b"x"})
    data = await check_health(cache, runtime=RUNTIME)
    assert data.summary.model_dump() == {"total": 3, "healthy_count": 2, "unhealthy_count": 1}
    assert [entry.name for entry in data.healthy] == ["mlx-community/B-good", "org/C-foreign"]
    assert data.healthy[0].reason == "Model is healthy"
    assert "cannot run here" in data.healthy[1].reason
    assert data.unhealthy[0].name == "org/A-bad"


async def test_health_of_an_unknown_name_is_an_error(cache: Cache, repo: HfRepo) -> None:
    repo.add(model_files())
    with pytest.raises(OpError) as caught:
        await check_health(cache, "no-such-model")
    assert caught.value.type is ErrorType.MODEL_NOT_FOUND


async def test_payload_with_two_names_is_counted_once(cache: Cache, repo: HfRepo) -> None:
    weights = safetensors({"a": ("F16", (100, 100))})
    files = {**model_files(), "model.safetensors": weights, "copy.safetensors": weights}
    repo.add(files)
    total = sum(len(data) for name, data in files.items() if name != "copy.safetensors")
    assert (await _judge(cache)).model.size_bytes == total


async def test_pipe_in_a_snapshot_is_a_finding_and_never_opened(cache: Cache, repo: HfRepo) -> None:
    commit = repo.add(model_files(), tree=False)
    (repo.snapshot(commit) / "config.json").unlink()
    os.mkfifo(repo.snapshot(commit) / "config.json")
    assert FindingCode.UNREADABLE in _codes(await _judge(cache))


async def test_missing_shards_in_two_lists_are_reported_once(cache: Cache, repo: HfRepo) -> None:
    files = model_files(shards=4)
    commit = repo.add(files)
    for number in (2, 3):
        (repo.snapshot(commit) / f"model-{number:05d}-of-00004.safetensors").unlink()
    report = await _judge(cache)
    assert _codes(report) == [FindingCode.SHARD_MISSING]
    assert "2 shards of 4" in report.findings[0].message


async def test_several_missing_files_are_one_finding(cache: Cache, repo: HfRepo) -> None:
    commit = repo.add(model_files())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (repo.snapshot(commit) / name).unlink()
    report = await _judge(cache)
    assert _codes(report) == [FindingCode.FILE_MISSING]
    assert "tokenizer.json, tokenizer_config.json" in report.findings[0].message


GGUF = b"GGUF\x03\0\0\0" + b"\0" * 100


async def test_one_of_several_gguf_files_is_a_complete_model(cache: Cache, hub: Path) -> None:
    repo = HfCache(hub).repo("org/M-GGUF")
    commit = repo.add(
        {"M-Q4.gguf": GGUF, "M-Q8.gguf": GGUF + b"8", "config.json": b'{"a": 1}', "tokenizer.json": b"{}"}
    )
    for name in ("M-Q8.gguf", "config.json", "tokenizer.json"):
        (repo.snapshot(commit) / name).unlink()
    report = await _judge(cache, "org/M-GGUF")
    assert _codes(report) == [FindingCode.FRAMEWORK_UNSUPPORTED]
    assert report.model.health is Health.HEALTHY


@pytest.mark.parametrize("tree", [False, True])
async def test_missing_part_of_a_split_gguf_is_found(cache: Cache, hub: Path, tree: bool) -> None:
    repo = HfCache(hub).repo("org/M-GGUF")
    commit = repo.add({f"M-Q8-{n:05d}-of-00003.gguf": GGUF + bytes([n]) for n in (1, 2, 3)}, tree=tree)
    assert (await _judge(cache, "org/M-GGUF")).model.health is Health.HEALTHY
    (repo.snapshot(commit) / "M-Q8-00002-of-00003.gguf").unlink()
    report = await _judge(cache, "org/M-GGUF")
    assert (report.findings[0].code, report.findings[0].path) == (
        FindingCode.SHARD_MISSING,
        "M-Q8-00002-of-00003.gguf",
    )


async def test_index_in_a_subfolder_refers_to_that_folder(cache: Cache, hub: Path) -> None:
    repo = HfCache(hub).repo("org/pipeline")
    shards = [f"diffusion_pytorch_model-{n:05d}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": {str(n): shard for n, shard in enumerate(shards)}}
    files = {f"transformer/{shard}": safetensors(fill=bytes([n])) for n, shard in enumerate(shards)}
    files |= {"transformer/diffusion_pytorch_model.safetensors.index.json": json.dumps(index).encode()}
    commit = repo.add({**files, "model_index.json": b'{"_class_name": "P"}'}, tree=False)
    assert (await _judge(cache, "org/pipeline")).model.health is Health.HEALTHY
    (repo.snapshot(commit) / "transformer" / shards[1]).unlink()
    assert _codes(await _judge(cache, "org/pipeline")) == [FindingCode.SHARD_MISSING]


async def test_macos_metadata_files_are_ignored(cache: Cache, repo: HfRepo) -> None:
    commit = repo.add(model_files(), tree=False)
    for path in (repo.snapshot(commit) / "._model.safetensors", repo.path / "refs" / "._main"):
        path.write_bytes(b"\0\x05\x16\x07" * 20)
    (repo.path / "refs" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    report = await _judge(cache)
    assert report.findings == ()


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "unet/diffusion_pytorch_model.bin", "m.onnx", "model.pt"]
)
async def test_weights_of_any_format_are_recognized(cache: Cache, hub: Path, name: str) -> None:
    HfCache(hub).repo("org/other").add(
        {"config.json": b'{"a": 1}', name: b"\x80\x02" + b"x" * 99}, tree=False
    )
    assert (await _judge(cache, "org/other")).model.health is Health.HEALTHY


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
async def test_empty_required_file_is_unhealthy(cache: Cache, repo: HfRepo, name: str) -> None:
    repo.add({**model_files(), name: b""})
    assert _codes(await _judge(cache)) == [FindingCode.FILE_EMPTY]


async def test_linked_snapshot_is_a_finding(cache: Cache, repo: HfRepo) -> None:
    commit = repo.add(model_files())
    aside = repo.path / "elsewhere"
    repo.snapshot(commit).rename(aside)
    repo.snapshot(commit).symlink_to(aside)
    report = await _judge(cache)
    assert report.findings[0].code is FindingCode.UNREADABLE
    assert "is a link" in (report.model.reason or "")
