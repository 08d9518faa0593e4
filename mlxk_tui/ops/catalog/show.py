"""Reads the details of one model: its files, its config, its model card."""

from __future__ import annotations

from typing import Any

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.documents import MAX_JSON_BYTES, read_json
from mlxk_tui.ops.cache.repo import Snapshot
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.contract.results import Batching, FileType, ModelFile, ShowData
from mlxk_tui.ops.core import text as fmt
from mlxk_tui.ops.core.blocking import run_blocking
from mlxk_tui.ops.core.files import read_bytes
from mlxk_tui.ops.health.batching_verdicts import find_batching_verdict
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.verdict import evaluate
from mlxk_tui.ops.health.weights import is_weights

MAX_CARD_BYTES = 200_000
"""Bytes of a model card that are read."""
_TOKENIZER = frozenset(
    {"merges.txt", "vocab.txt", "vocab.json", "added_tokens.json", "special_tokens_map.json"}
)
_CODE = (".py", ".sh", ".ipynb")


async def show(cache: Cache, spec: str, *, files: bool = False, config: bool = False) -> ShowData:
    """Return the details of `NAME[@REV]`, with its files, its config, or both.

    Raises:
        OpError: `validation_error`, `model_not_found`, `ambiguous_match`, `revision_not_found`,
            `cache_not_found`, `permission_denied`.
    """

    def work() -> ShowData:
        found = cache.find(spec)
        repo = read_repo(cache, found.ref)
        snapshot = repo.find_snapshot(found.spec.revision)
        report = evaluate(repo, snapshot, Runtime.detect())
        content = _config(snapshot)
        return ShowData(
            model=report.model,
            metadata=None if files or config else content,
            files=list_files(snapshot) if files else [],
            config=content if config else None,
            findings=list(report.findings),
            batching=_batching(content),
        )

    return await run_blocking(work)


async def read_batching_reason(cache: Cache, ref: RepoRef) -> str | None:
    """Return why requests to a repo's selected snapshot take turns, as a sentence; None if they do not.

    Raises:
        OpError: `model_not_found` if the repo was removed.
    """

    def work() -> str | None:
        known = find_batching_verdict(_config(read_repo(cache, ref).selected))
        return known.message if known is not None and not known.together else None

    return await run_blocking(work)


async def read_files(cache: Cache, ref: RepoRef) -> list[ModelFile]:
    """Return the files of a repo's selected snapshot, sorted by name.

    Raises:
        OpError: `model_not_found` if the repo was removed.
    """
    return await run_blocking(lambda: list_files(read_repo(cache, ref).selected))


async def read_config(cache: Cache, ref: RepoRef) -> dict[str, Any] | None:
    """Return config.json of a repo's selected snapshot, or None if it is missing or invalid.

    Raises:
        OpError: `model_not_found` if the repo was removed.
    """
    return await run_blocking(lambda: _config(read_repo(cache, ref).selected))


async def read_generation_config(cache: Cache, ref: RepoRef) -> dict[str, Any] | None:
    """Return generation_config.json of a repo's selected snapshot, or None where there is no readable one.

    Raises:
        OpError: `model_not_found` when the repo vanished.
    """
    return await run_blocking(lambda: _json(read_repo(cache, ref).selected, "generation_config.json"))


async def read_card(cache: Cache, ref: RepoRef) -> str | None:
    """Return README.md without its front matter, at most 200 kB, escaped for display; None without one.

    Raises:
        OpError: `model_not_found` if the repo was removed.
    """
    return await run_blocking(lambda: _card(read_repo(cache, ref).selected))


def list_files(snapshot: Snapshot | None) -> list[ModelFile]:
    """Return the files of a snapshot as the contract describes them, sorted by name."""
    if snapshot is None:
        return []
    return [
        ModelFile(
            name=fmt.printable(file.name),
            size=fmt.compact_size(file.size),
            type=_kind(file.name),
            size_bytes=file.size,
            etag=fmt.printable(file.etag) if file.etag else None,
        )
        for file in snapshot.files
    ]


def _kind(path: str) -> FileType:
    name = path.rpartition("/")[2].lower()
    if is_weights(path) or name.endswith((".pt", ".pth", ".onnx", ".bin")):
        return "weights"
    if name.endswith(".index.json"):
        return "index"
    if name.startswith("tokenizer") or name in _TOKENIZER or name.endswith(".tiktoken"):
        return "tokenizer"
    if name.startswith("chat_template") or name.endswith(".jinja"):
        return "template"
    if name.startswith("readme"):
        return "readme"
    if name.endswith(_CODE):
        return "code"
    return "config" if name.endswith(("config.json", ".json", ".yaml", ".yml", ".toml")) else "other"


def _batching(config: dict[str, Any] | None) -> Batching | None:
    known = find_batching_verdict(config)
    if known is None:
        return None
    return Batching(together=known.together, reason=known.reason, message=known.message)


def _config(snapshot: Snapshot | None) -> dict[str, Any] | None:
    return _json(snapshot, "config.json")


def _json(snapshot: Snapshot | None, name: str) -> dict[str, Any] | None:
    if snapshot is None:
        return None
    file = next((file for file in snapshot.files if file.name == name), None)
    return read_json(file, MAX_JSON_BYTES).value


def _card(snapshot: Snapshot | None) -> str | None:
    file = next((f for f in snapshot.files if f.name == "README.md"), None) if snapshot else None
    raw = read_bytes(file.target, MAX_CARD_BYTES) if file and file.target else None
    if not raw:
        return None
    text = raw[:MAX_CARD_BYTES].decode("utf-8-sig", "replace").replace("\r\n", "\n")
    if text.startswith("---\n"):
        end = text.find("\n---", 3)
        text = text[end + 4 :] if end >= 0 else ""
    more = "\n\n…" if len(raw) > MAX_CARD_BYTES else ""
    return (fmt.printable(text, keep_newlines=True).strip() + more) or None
