"""Hostile and broken caches: any contents of a repo cause at most one unhealthy row.

Every case has one bad repo between two healthy ones, and requests the list, the health of all repos and the
details of the bad one. The results for the healthy ones must not change, and nothing may hang, raise, or
return control characters.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import check_health, list_models, scan
from mlxk_tui.ops.catalog.show import read_card, read_files, show
from mlxk_tui.ops.contract.results import Contract, FindingCode, Health, HealthData, ListData, Model
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.health.report import Report
from mlxk_tui.ops.remove.prune import plan_prune
from tests.support.hf_cache import HfCache, HfRepo, git_sha1, model_files, safetensors
from tests.support.waiting import PATIENCE_S

SECONDS = PATIENCE_S
"""Longest that any question about a small cache may take; a hang is longer."""
BAD = "org/bad"
GOOD = ("org/alpha", "org/zulu")

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What must not reach a terminal: C0, C1, bidirectional overrides, lone surrogates."""

Damage = Callable[[HfRepo, Path], object]
"""Makes a repo hostile; gets the repo and its snapshot folder."""


def replace(path: Path, data: bytes) -> None:
    """Replace a link by a regular file."""
    path.unlink()
    path.write_bytes(data)


def sparse(path: Path, size: int) -> None:
    """Replace a link by a file of `size` zeros."""
    path.unlink()
    with path.open("wb") as file:
        file.truncate(size)


def config(text: bytes | str) -> Damage:
    """A config.json with this content."""
    data = text.encode() if isinstance(text, str) else text
    return lambda repo, snapshot: replace(snapshot / "config.json", data)


def card(text: bytes | str) -> Damage:
    """A README.md with this content."""
    data = text.encode() if isinstance(text, str) else text
    return lambda repo, snapshot: replace(snapshot / "README.md", data)


def link(name: str, target: str) -> Damage:
    """A snapshot entry that links to `target`."""

    def damage(repo: HfRepo, snapshot: Path) -> None:
        (snapshot / name).unlink(missing_ok=True)
        (snapshot / name).symlink_to(target)

    return damage


def pipe(name: str) -> Damage:
    """A named pipe, which blocks when opened."""

    def damage(repo: HfRepo, snapshot: Path) -> None:
        (snapshot / name).unlink(missing_ok=True)
        os.mkfifo(snapshot / name)

    return damage


def pipe_blob(repo: HfRepo, snapshot: Path) -> None:
    """A named pipe as the blob of config.json."""
    blob = (snapshot / "config.json").resolve()
    blob.unlink()
    os.mkfifo(blob)


def folder_for(name: str) -> Damage:
    """A folder instead of a file."""

    def damage(repo: HfRepo, snapshot: Path) -> None:
        (snapshot / name).unlink()
        (snapshot / name).mkdir()

    return damage


def weights(data: bytes) -> Damage:
    """A model.safetensors with this content."""
    return lambda repo, snapshot: replace(snapshot / "model.safetensors", data)


def index(text: str) -> Damage:
    """A weight index with this content."""
    return lambda repo, snapshot: (snapshot / "model.safetensors.index.json").write_text(text)


def ref(data: bytes) -> Damage:
    """A refs/main with this content."""
    return lambda repo, snapshot: (repo.path / "refs" / "main").write_bytes(data)


def tree(text: str) -> Damage:
    """A trees/<commit>.json with this content."""
    return lambda repo, snapshot: repo.tree(snapshot.name).write_text(text)


def listing(files: str) -> Damage:
    """A trees/<commit>.json of the current version with these files."""
    return tree(f'{{"format_version": 1, "files": {files}}}')


def remove(*parts: str) -> Damage:
    """Delete a folder or file of the repo."""

    def damage(repo: HfRepo, snapshot: Path) -> None:
        path = repo.path.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def loop(repo: HfRepo, snapshot: Path) -> None:
    """Two links to each other, and a folder that links to itself."""
    (snapshot / "one").symlink_to("two")
    (snapshot / "two").symlink_to("one")
    (snapshot / "again").symlink_to(".")


def deep_folders(repo: HfRepo, snapshot: Path) -> None:
    """A thousand nested folders."""
    path = snapshot
    for _ in range(200):
        path = path / "d"
        path.mkdir()


def pipe_ref(repo: HfRepo, snapshot: Path) -> None:
    """A named pipe as refs/main."""
    (repo.path / "refs" / "main").unlink()
    os.mkfifo(repo.path / "refs" / "main")


def folder_ref(repo: HfRepo, snapshot: Path) -> None:
    """A folder as refs/main."""
    (repo.path / "refs" / "main").unlink()
    (repo.path / "refs" / "main").mkdir()


def linked_ref(repo: HfRepo, snapshot: Path) -> None:
    """A refs/main that links out of the cache."""
    (repo.path / "refs" / "main").unlink()
    (repo.path / "refs" / "main").symlink_to("/etc/passwd")


def linked_snapshot(repo: HfRepo, snapshot: Path) -> None:
    """A snapshot folder outside the cache."""
    outside = repo.cache.root.parent / "outside"
    shutil.move(snapshot, outside)
    snapshot.symlink_to(outside)


def linked_out(name: str) -> Damage:
    """A folder of the repo outside the cache."""

    def damage(repo: HfRepo, snapshot: Path) -> None:
        outside = repo.cache.root.parent / f"outside-{name}"
        shutil.move(repo.path / name, outside)
        (repo.path / name).symlink_to(outside)

    return damage


def pipe_partial(repo: HfRepo, snapshot: Path) -> None:
    """A named pipe in trees/ instead of the file list."""
    repo.tree(snapshot.name).unlink()
    os.mkfifo(repo.tree(snapshot.name))


def self_blob(repo: HfRepo, snapshot: Path) -> None:
    """A blob that is a link to itself."""
    blob = (snapshot / "model.safetensors").resolve()
    blob.unlink()
    blob.symlink_to(blob.name)


def ansi_file(repo: HfRepo, snapshot: Path) -> None:
    """File names with escape sequences, a bell and markup."""
    names = ("\x1b[31mred\x1b[0m.txt", "bell\x07", "[bold]x", "[link=file:x]", "new\nline", "\u202etxt")
    for name in names:
        (snapshot / name).write_text(name)


def broken_weight_name(repo: HfRepo, snapshot: Path) -> None:
    """Broken weights with control characters in their name, which a finding contains."""
    (snapshot / "\x1b]0;owned\x07.safetensors").write_bytes(b"\0" * 20)


DEEP = "[" * 100_000 + "]" * 100_000
HEADER = b"\xff\xff\xff\xff\xff\xff\xff\x7f"

UNHEALTHY: dict[str, Damage] = {
    "config is a list": config("[1, 2]"),
    "config is a string": config('"text"'),
    "config is null": config("null"),
    "config is empty": config(""),
    "config is an empty object": config("{}"),
    "config is not JSON": config("{,}"),
    "config is binary": config(b"\x00\xff\xfe" * 10),
    "config is a folder": folder_for("config.json"),
    "config is a pipe": pipe("config.json"),
    "config is a pipe behind a link": pipe_blob,
    "config is 50 MB": lambda repo, snapshot: sparse(snapshot / "config.json", 50_000_000),
    "config is 100,000 levels of lists": config(DEEP),
    "config is 100,000 levels of objects": config('{"a":' * 100_000 + "1" + "}" * 100_000),
    "config is an object 100,000 levels deep": config(f'{{"model_type": "llama", "x": {DEEP}}}'),
    "config has a number of 5,000 digits": config('{"vocab_size": ' + "9" * 5000 + "}"),
    "config leads out of the cache": link("config.json", "/etc/passwd"),
    "config leads to a device": link("config.json", "/dev/zero"),
    "config leads nowhere": link("config.json", "../../blobs/nothing"),
    "config leads to itself": link("config.json", "config.json"),
    "weights lead out of the cache": link("model.safetensors", "/etc/passwd"),
    "weights lead to an endless device": link("model.safetensors", "/dev/zero"),
    "weights are a pipe": pipe("model.safetensors"),
    "weights are a folder": folder_for("model.safetensors"),
    "weights are empty": weights(b""),
    "weights are zeros": weights(bytes(1000)),
    "weights have a header of 2^63 bytes": weights(HEADER + b"{}" * 100),
    "weights have a header that is no JSON": weights(b"\x08" + bytes(7) + b"not json" + bytes(32)),
    "weights have a header of lists": weights((200_000).to_bytes(8, "little") + DEEP.encode()),
    "weights are truncated": weights(safetensors()[:-1]),
    "weights have a byte too many": weights(safetensors() + b"\0"),
    "weights are a Git LFS pointer": weights(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    ),
    "index is a list": index("[]"),
    "index has no map": index('{"metadata": {}}'),
    "index has a map of numbers": index('{"weight_map": {"a": 1, "b": null}}'),
    "index has a list for a map": index('{"weight_map": ["model.safetensors"]}'),
    "index leads out of the snapshot": index('{"weight_map": {"a": "../../../../../etc/passwd"}}'),
    "index has an absolute path": index('{"weight_map": {"a": "/etc/passwd"}}'),
    "index has a NUL in a path": index('{"weight_map": {"a": "model\\u0000.safetensors"}}'),
    "index has a lone surrogate": index('{"weight_map": {"a": "model\\ud800.safetensors"}}'),
    "index is 100,000 levels deep": index(DEEP),
    "the blob leads to itself": self_blob,
    "no snapshots": remove("snapshots"),
    "no blobs": remove("blobs"),
    "ref is binary": ref(b"\xff\xfe\x00"),
    "ref leads upwards": ref(b"../../../../etc"),
    "ref names a commit that is not there": ref(b"0" * 40),
    "ref is a pipe": pipe_ref,
    "ref leads out of the cache": linked_ref,
    "ref is long": ref(b"a" * 1_000_000),
    "the snapshot lies outside": linked_snapshot,
    "the snapshots lie outside": linked_out("snapshots"),
    "the blobs lie outside": linked_out("blobs"),
    "folders without end": deep_folders,
    "links in a loop": loop,
    "a broken file with escape codes in its name": broken_weight_name,
}
"""Cases that must be an unhealthy row."""

SUSPICIOUS: dict[str, Damage] = {
    "card with 60,000 open brackets": card("---\ntags: " + "[" * 60_000 + "\n---\n"),
    "card with 60,000 nested brackets": card("---\ntags: " + "[" * 30_000 + "]" * 30_000 + "\n---\n"),
    "card with 60,000 nested maps": card("---\n" + "{a: " * 15_000 + "\n---\n"),
    "card with 30,000 levels of dashes": card("---\n" + "- " * 30_000 + "\n---\n"),
    "card with an expansion bomb": card(
        "---\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)) + "---\n"
    ),
    "card with a Python object": card("---\nx: !!python/object/apply:os.system ['true']\n---\n"),
    "card with an empty number": card('---\nx: !!int ""\n---\n'),
    "card with an empty float": card('---\nx: !!float ""\n---\n'),
    "card with a wrong boolean": card("---\nx: !!bool maybe\n---\n"),
    "card with a wrong time": card("---\nx: !!timestamp never\n---\n"),
    "card with a wrong date": card("---\nx: 2023-99-99\n---\n"),
    "card with a number of 6,000 digits": card(f"---\nx: {'9' * 6000}\n---\n"),
    "card with lists for words": card("---\ntags: {a: [1]}\nlibrary_name: [mlx]\nlicense: 7\n---\n"),
    "card with control characters": card(
        '---\nlicense: "a\\e[31mb"\ntags: ["\\a"]\n---\n\x1b]0;owned\x07[bold]'
    ),
    "card that is binary": card(bytes(range(256)) * 40),
    "card without an end": card("---\ntags: [mlx]\n"),
    "card of 50 MB": lambda repo, snapshot: sparse(snapshot / "README.md", 50_000_000),
    "card is a pipe": pipe("README.md"),
    "card is a folder": folder_for("README.md"),
    "card leads out of the cache": link("README.md", "/etc/passwd"),
    "tokenizer settings are a list": lambda repo, snapshot: replace(
        snapshot / "tokenizer_config.json", b"[]"
    ),
    "tokenizer settings are a pipe": pipe("tokenizer_config.json"),
    "tokenizer of 50 MB": lambda repo, snapshot: sparse(snapshot / "tokenizer.json", 50_000_000),
    "config with values of other types": config(
        json.dumps(
            {
                "model_type": ["llama"],
                "architectures": "x",
                "quantization": {"bits": "four", "group_size": []},
                "max_position_embeddings": -1,
                "num_hidden_layers": 1e300,
                "hidden_size": True,
                "vocab_size": {"a": 1},
                "auto_map": "x",
                "text_config": [],
                "vision_config": 3,
            }
        )
    ),
    "config with a path for a type": config('{"model_type": "../../../etc/passwd"}'),
    "config with an escape code for a type": config(
        '{"model_type": "\\u001b[31mx", "architectures": ["\\u0007"]}'
    ),
    "config with infinity": config('{"model_type": "llama", "hidden_size": 1e999, "vocab_size": Infinity}'),
    "config with a lone surrogate": config('{"model_type": "\\ud800", "x": "\\udfff"}'),
    "config with huge numbers": config(
        '{"model_type": "llama", "num_hidden_layers": 999999999999, "hidden_size": 999999999999,'
        ' "vocab_size": 99999999999999999999999999}'
    ),
    "listing is a list": tree("[]"),
    "listing is not JSON": tree("{"),
    "listing is 100,000 levels deep": tree(DEEP),
    "listing leads upwards": tree(
        '{"format_version": 1, "files": {"../../../x": {"size": 1, "blob_id": "a"}}}'
    ),
    "listing with a size of -1": listing('{"config.json": {"size": -1}}'),
    "listing with values of other types": tree(
        '{"format_version": 1, "files": {"config.json": [1], "x": null}}'
    ),
    "listing with a NUL": listing('{"a\\u0000b": {"size": 1, "blob_id": "x"}}'),
    "listing of another version": tree('{"format_version": 99, "files": 7}'),
    "listing is a pipe": pipe_partial,
    "escape codes and markup in file names": ansi_file,
    "the refs lie outside": linked_out("refs"),
    "the listings lie outside": linked_out("trees"),
    "ref is a folder": folder_ref,
}
"""What may be sound or not, but must spoil nothing."""


def build(hub: Path, damage: Damage) -> HfCache:
    """A cache with a bad repo between two healthy ones."""
    cache = HfCache(hub)
    for name in GOOD:
        cache.repo(name).add(model_files())
    repo = cache.repo(BAD)
    commit = repo.add(model_files(fill=b"\x02"))
    damage(repo, repo.snapshot(commit))
    return cache


async def ask(hub: Path) -> tuple[ListData, HealthData]:
    """Run all read operations with a timeout, and check that the results have no control characters."""

    async def everything() -> tuple[ListData, HealthData]:
        cache = Cache(hub)
        listed, judged = await list_models(cache), await check_health(cache, verify=True)
        details: list[Contract] = [await show(cache, BAD), await show(cache, BAD, files=True, config=True)]
        name = next(found for found in cache.repos() if found.name == BAD)
        text = await read_card(cache, name)
        await read_files(cache, name)
        details.append(await plan_prune(cache))
        for data in (listed, judged, *details):
            check_safe(data)
        if text is not None:
            assert not UNSAFE.search(text.replace("\n", ""))
        return listed, judged

    return await asyncio.wait_for(everything(), SECONDS)


def check_safe(data: Contract) -> None:
    """Check that a result is valid JSON, and that all texts except config values are printable."""
    plain = json.loads(data.model_dump_json())
    for key in ("metadata", "config"):
        plain.pop(key, None)
    assert not UNSAFE.search(json.dumps(plain, ensure_ascii=False))


def healthy_rows(data: ListData) -> list[Model]:
    """Return the rows of the healthy repos."""
    return [model for model in data.models if model.name in GOOD]


@pytest.fixture
async def untouched(tmp_path: Path) -> list[Model]:
    """Return the rows of the two healthy repos in a cache without a bad one."""
    cache = HfCache(tmp_path / "plain" / "hub")
    for name in GOOD:
        cache.repo(name).add(model_files())
    return healthy_rows(await list_models(Cache(cache.root)))


def without_times(models: list[Model]) -> list[Model]:
    """Return the rows without times."""
    return [model.model_copy(update={"last_modified": ""}) for model in models]


@pytest.mark.parametrize("damage", UNHEALTHY.values(), ids=UNHEALTHY.keys())
async def test_bad_repo_is_a_single_unhealthy_row(hub: Path, damage: Damage, untouched: list[Model]) -> None:
    build(hub, damage)
    listed, judged = await ask(hub)
    assert without_times(healthy_rows(listed)) == without_times(untouched)
    bad = next(model for model in listed.models if model.name == BAD)
    assert bad.health is Health.UNHEALTHY
    assert bad.reason
    assert [entry.name for entry in judged.unhealthy] == [BAD]
    assert len(listed.models) == listed.count == judged.summary.total == 3


@pytest.mark.slow
@pytest.mark.parametrize("damage", SUSPICIOUS.values(), ids=SUSPICIOUS.keys())
async def test_suspicious_repo_does_not_affect_others(
    hub: Path, damage: Damage, untouched: list[Model]
) -> None:
    build(hub, damage)
    listed, judged = await ask(hub)
    assert without_times(healthy_rows(listed)) == without_times(untouched)
    assert {model.name for model in listed.models} == {BAD, *GOOD}
    assert {entry.name for entry in judged.healthy} >= set(GOOD)


@pytest.mark.parametrize(
    "name",
    [
        b"models--org--\xff\xfe",
        b"models--org--\x1b[31mred",
        b"models--org--[bold]x",
        b"models--org--a\nb",
        b"models--org--\xe2\x80\xaegnp",
        b"models--..--..",
        b"models--a--b---c",
        b"models--" + b"x" * 200,
    ],
)
async def test_strange_folder_name_is_a_printable_row(hub: Path, name: bytes) -> None:
    build(hub, lambda repo, snapshot: None)
    path = os.path.join(os.fsencode(hub), name)
    try:
        os.mkdir(path)
    except OSError as error:
        pytest.skip(f"this file system refuses the name: {error}")
    listed, _ = await ask(hub)
    strange = [model for model in listed.models if model.name not in {*GOOD, BAD}]
    assert [model.health for model in strange] == [Health.UNHEALTHY]
    assert {model.health for model in listed.models if model.name in GOOD} == {Health.HEALTHY}


async def test_other_entries_are_not_listed(hub: Path) -> None:
    build(hub, lambda repo, snapshot: None)
    (hub / "models--").mkdir()
    (hub / "datasets--org--data").mkdir()
    (hub / "spaces--org--space").mkdir()
    (hub / ".locks").mkdir(exist_ok=True)
    (hub / "models--org--file").write_text("a file")
    os.mkfifo(hub / "models--org--pipe")
    listed, _ = await ask(hub)
    assert listed.count == 3


async def test_repo_linked_out_of_the_cache_is_unhealthy_and_not_read(hub: Path, tmp_path: Path) -> None:
    build(hub, lambda repo, snapshot: None)
    elsewhere = HfCache(tmp_path / "elsewhere").repo("org/secret")
    elsewhere.add(model_files())
    (hub / "models--org--linked").symlink_to(elsewhere.path)
    (hub / "models--org--etc").symlink_to("/etc")
    (hub / "models--org--self").symlink_to("models--org--self")
    (hub / "models--org--nowhere").symlink_to(tmp_path / "nothing")
    listed, judged = await ask(hub)
    rows = {model.name: model for model in listed.models}
    assert [rows[name].health for name in GOOD] == [Health.HEALTHY] * 2
    for name in ("org/etc", "org/self", "org/nowhere"):
        assert rows[name].health is Health.UNHEALTHY
        assert rows[name].size_bytes == 0
    assert judged.summary.total == len(rows)


async def test_payloads_in_the_shared_store_are_healthy(hub: Path) -> None:
    cache = HfCache(hub)
    files = model_files()
    plain, shared = cache.repo("org/plain"), cache.repo("org/shared")
    plain.add(files)
    shared.add(files, shared=True)
    listed, judged = await ask_list(hub)
    rows = {model.name: model for model in listed.models}
    assert rows["org/shared"].health is Health.HEALTHY
    assert rows["org/shared"].size_bytes == rows["org/plain"].size_bytes
    assert rows["org/shared"].disk_bytes == rows["org/plain"].disk_bytes
    entry = next(entry for entry in judged.healthy if entry.name == "org/shared")
    assert entry.checksums is not None
    assert (entry.checksums.mismatched, entry.checksums.unverifiable) == (0, 0)


async def test_missing_shared_payload_is_a_broken_link(hub: Path) -> None:
    cache = HfCache(hub)
    files = model_files()
    cache.repo("org/shared").add(files, shared=True)
    cache.payload(files["model.safetensors"]).unlink()
    _, judged = await ask_list(hub)
    codes = [finding.code for finding in judged.unhealthy[0].findings]
    assert FindingCode.BROKEN_LINK in codes


async def test_shared_payload_linked_out_of_the_cache_is_not_read(hub: Path) -> None:
    cache = HfCache(hub)
    files = model_files()
    cache.repo("org/shared").add(files, shared=True)
    payload = cache.payload(files["model.safetensors"])
    payload.unlink()
    payload.symlink_to("/etc/passwd")
    listed, judged = await ask_list(hub)
    assert listed.models[0].health is Health.UNHEALTHY
    codes = {finding.code for finding in judged.unhealthy[0].findings}
    assert codes & {FindingCode.LINK_OUTSIDE_CACHE, FindingCode.BROKEN_LINK}


async def ask_list(hub: Path) -> tuple[ListData, HealthData]:
    """List and verify all models with a timeout."""
    cache = Cache(hub)
    listed = await asyncio.wait_for(list_models(cache), SECONDS)
    judged = await asyncio.wait_for(check_health(cache, verify=True), SECONDS)
    check_safe(listed)
    check_safe(judged)
    return listed, judged


async def test_missing_cache_is_empty_for_a_list_and_an_error_for_a_name(
    tmp_path: Path,
) -> None:
    cache = Cache(tmp_path / "none" / "hub")
    assert (await list_models(cache)).count == 0
    assert (await check_health(cache)).summary.total == 0
    assert [report async for report in scan(cache)] == []
    with pytest.raises(OpError) as caught:
        await show(cache, BAD)
    assert caught.value.type in {ErrorType.CACHE_NOT_FOUND, ErrorType.MODEL_NOT_FOUND}
    assert not (tmp_path / "none").exists()


async def test_file_instead_of_the_cache_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "hub"
    path.write_text("not a folder")
    for question in (list_models(Cache(path)), check_health(Cache(path)), show(Cache(path), BAD)):
        with pytest.raises(OpError) as caught:
            await question
        assert caught.value.type is ErrorType.CACHE_NOT_FOUND
        assert "file" in caught.value.message


DELETER = """
import pathlib, shutil, sys
hub = pathlib.Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for path in sorted(hub.glob("models--org--gone-*"), reverse=True):
    shutil.rmtree(path)
"""


def test_repos_removed_during_the_scan_do_not_affect_others(hub: Path) -> None:
    cache = HfCache(hub)
    for number in range(150):
        cache.repo(f"org/gone-{number:03}").add(model_files())
    for name in GOOD:
        cache.repo(name).add(model_files())
    with subprocess.Popen(
        [sys.executable, "-c", DELETER, str(hub)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        rounds = 0
        while other.poll() is None or rounds == 0:
            rounds += 1
            names = [report.model.name for report in asyncio.run(reports(hub))]
            assert {name for name in names if name in GOOD} == set(GOOD)
            assert len(names) == len(set(names))
    assert len(asyncio.run(reports(hub))) == len(GOOD)


async def reports(hub: Path) -> list[Report]:
    """Scan a cache with a timeout."""

    async def collect() -> list[Report]:
        return [report async for report in scan(Cache(hub))]

    return await asyncio.wait_for(collect(), SECONDS)


@pytest.fixture
def open_hub() -> Iterator[Path]:
    """A hub folder that every user can access; pytest's folders are private to root."""
    with tempfile.TemporaryDirectory(prefix="mlxk-open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "hub"


def as_nobody(hub: Path, code: str) -> str:
    """Run code on `hub` as an unprivileged user, also if root runs the tests; return its output.

    Under root the code runs twice: the first run, before dropping privileges, imports everything, because the
    unprivileged user may not be able to read Python's folder.
    """
    program = f"""
import asyncio, contextlib, io, os, sys
from pathlib import Path
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import check_health, list_models
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.catalog.show import show
hub = Path(sys.argv[1])
code = {code!r}
if os.geteuid() == 0:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
exec(code)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(hub)],
        env={**os.environ, "MLXK_VERDICTS": "off"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    return result.stdout


LIST = """
data = asyncio.run(list_models(Cache(hub)))
judged = asyncio.run(check_health(Cache(hub), verify=True))
print([(m.name, m.health.value) for m in data.models])
print([f.code.value for e in judged.unhealthy for f in e.findings])
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", [".", "snapshots", "blobs", "refs", "snapshots/*", "blobs/*", "trees/*"])
def test_unreadable_repo_is_a_single_unhealthy_row(open_hub: Path, part: str) -> None:
    cache = build(open_hub, lambda repo, snapshot: None)
    root = cache.repo(BAD).path
    closed = [root] if part == "." else sorted(root.glob(part))
    assert closed
    for path in closed:
        path.chmod(0)
    try:
        rows, codes = as_nobody(open_hub, LIST).splitlines()
    finally:
        for path in closed:
            path.chmod(0o755)
    assert f"('{GOOD[0]}', 'healthy')" in rows
    assert f"('{GOOD[1]}', 'healthy')" in rows
    if part != "trees/*":  # the file list is only additional information
        assert f"('{BAD}', 'unhealthy')" in rows
        assert "unreadable" in codes


def test_unreadable_cache_is_permission_denied(open_hub: Path) -> None:
    build(open_hub, lambda repo, snapshot: None)
    code = """
for question in (list_models(Cache(hub)), check_health(Cache(hub)), show(Cache(hub), "org/bad")):
    try:
        asyncio.run(question)
    except OpError as error:
        print(error.type.value)
"""
    open_hub.chmod(0)
    try:
        assert as_nobody(open_hub, code).split() == ["permission_denied"] * 3
    finally:
        open_hub.chmod(0o755)


def test_read_only_cache_is_read_normally(open_hub: Path) -> None:
    build(open_hub, config("[]"))
    everything = [open_hub, *(path for path in open_hub.rglob("*") if not path.is_symlink())]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.lstat().st_mtime_ns for path in everything}
    try:
        rows = as_nobody(open_hub, LIST).splitlines()[0]
        assert {path: path.lstat().st_mtime_ns for path in everything} == before
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert rows == str([(GOOD[0], "healthy"), (BAD, "unhealthy"), (GOOD[1], "healthy")])


def times(hub: Path) -> dict[Path, int]:
    """Return the change time of each entry below a folder."""
    return {path: path.lstat().st_mtime_ns for path in (hub, *hub.rglob("*"))}


async def test_reading_never_writes_to_the_cache(hub: Path) -> None:
    build(hub, lambda repo, snapshot: None)
    before = times(hub)
    await ask(hub)
    assert times(hub) == before


async def test_small_file_without_a_checksum_name_is_unverifiable(hub: Path) -> None:
    def damage(repo: HfRepo, snapshot: Path) -> None:
        replace(snapshot / "tokenizer_config.json", b"{}")

    cache = build(hub, damage)
    judged = await check_health(Cache(hub), BAD, verify=True)
    checksums = (judged.healthy + judged.unhealthy)[0].checksums
    assert checksums is not None
    assert checksums.unverifiable == 1
    assert checksums.mismatched == 0
    assert git_sha1(b"{}") not in {path.name for path in cache.repo(BAD).blobs.iterdir()}
