"""Checks the integrity of a snapshot's files without the network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mlxk_tui.ops.cache.documents import CANNOT_BE_READ, Documents, parse_json
from mlxk_tui.ops.cache.repo import PARTIAL_ENDINGS, Repo, Snapshot
from mlxk_tui.ops.cache.selection import read_selection
from mlxk_tui.ops.contract.results import Finding, FindingCode, Fix, Severity
from mlxk_tui.ops.core.files import read_bytes
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.health.weights import (
    SAFETENSORS_INDEX,
    Weights,
    check_weights,
    is_lfs_pointer,
    is_weights,
    loads_in_mlx,
)

_MAX_TREE_BYTES = 32_000_000
_CONFIGS = ("config.json", "model_index.json", "adapter_config.json")
"""Files that describe a model; diffusers pipelines and adapters have their own instead of config.json."""
_NEEDED_NAMES = frozenset(
    {
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
        "merges.txt",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
        SAFETENSORS_INDEX,
        *_CONFIGS,
    }
)
"""Files without which a model is incomplete, if its repo has them."""
_WEIGHTS_ABSENT = {
    FindingCode.WEIGHTS_MISSING,
    FindingCode.SHARD_MISSING,
    FindingCode.SHARD_WITHOUT_INDEX,
}
_LINK_MESSAGES = {
    FindingCode.BROKEN_LINK: ("is a link to a missing file", Fix.PULL),
    FindingCode.LINK_OUTSIDE_CACHE: ("is a link to a target outside the cache", Fix.REMOVE),
    FindingCode.UNREADABLE: ("is not a readable file", Fix.PULL),
}


@dataclass(frozen=True)
class Integrity:
    """Result of checking a snapshot's files."""

    findings: tuple[Finding, ...]
    """Errors first; empty if all files are intact."""
    weights: Weights
    partial: Finding | None = None
    """That files were left out on purpose; an error if the model cannot run without them."""

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """The findings, and at the end that about files that were left out."""
        return self.findings if self.partial is None else (*self.findings, self.partial)

    @property
    def first_error(self) -> Finding | None:
        """Why the model cannot run as it is; None if all files that it needs are intact."""
        errors = (finding for finding in self.all_findings if finding.severity is Severity.ERROR)
        return next(errors, None)


def check_integrity(repo: Repo, snapshot: Snapshot | None, documents: Documents) -> Integrity:
    """Check a snapshot of a repo.

    Order of the findings: missing snapshot; links and unreadable files; config.json; LFS pointers and partial
    files; weights; completeness by huggingface_hub's file list; unfinished downloads. Errors come first.
    Files that a partial pull left out are not missing.
    """
    if snapshot is None:
        return Integrity(_ordered([*repo.problems, _no_snapshot(repo)]), Weights())
    findings = [*repo.problems, *check_files(snapshot, documents)]
    weights = check_weights(documents)
    findings += weights.findings
    tree = read_tree(repo, snapshot)
    selected = read_selection(repo, snapshot.name) if tree is not None else None
    partial = None
    if tree is not None and selected is not None:
        partial = _partial(tree, selected, documents)
        findings = [finding for finding in findings if not _is_left_out(finding, tree, selected)]
        tree = {name: file for name, file in tree.items() if name in selected}
    shards_reported = any(finding.code is FindingCode.SHARD_MISSING for finding in findings)
    requested = set(tree or ()) if selected is not None else _started_downloads(tree, repo)
    findings += _check_tree(tree, documents, requested, shards_reported=shards_reported)
    complete = tree is not None and not any(f.severity is Severity.ERROR for f in findings)
    findings += _check_downloads(repo, complete=complete)
    return Integrity(_ordered(findings), weights, partial)


def _partial(tree: dict[str, TreeFile], selected: frozenset[str], documents: Documents) -> Finding | None:
    """Return the finding about files of a commit that were not selected."""
    left_out = [name for name in tree if name not in selected and name not in documents.files]
    if not left_out:
        return None
    present = [name for name in documents.files if is_weights(name)]
    needed = [name for name in left_out if _is_required(name, present)]
    return Finding(
        code=FindingCode.PARTIAL_SNAPSHOT,
        severity=Severity.ERROR if needed else Severity.WARNING,
        path=None,
        message=f"Partial: {len(tree) - len(left_out)} of {plural(len(tree), 'file')} pulled, without "
        f"{_first_names(needed or left_out)}.",
        fix=Fix.PULL if needed else Fix.NONE,
    )


def left_out_files(repo: Repo, snapshot: Snapshot) -> frozenset[str]:
    """Return the files of a commit that partial pulls left out; none if it was pulled as a whole."""
    selected = read_selection(repo, snapshot.name)
    tree = read_tree(repo, snapshot) if selected is not None else None
    return frozenset(tree or ()) - (selected or frozenset())


def _is_left_out(finding: Finding, tree: dict[str, TreeFile], selected: frozenset[str]) -> bool:
    """Return whether a finding only says that a file was not selected."""
    if finding.code is FindingCode.CONFIG_MISSING:
        return any(name in tree and name not in selected for name in _CONFIGS)
    if finding.code in _WEIGHTS_ABSENT:
        weights = [name for name in tree if is_weights(name) or name == SAFETENSORS_INDEX]
        return any(name not in selected for name in weights)
    return False


def check_files(snapshot: Snapshot, documents: Documents) -> Iterable[Finding]:
    """Check any folder of model files: links, config.json, LFS pointers, partial files."""
    yield from snapshot.problems
    for file in snapshot.files:
        if file.problem is not None:
            message, fix = _LINK_MESSAGES.get(file.problem, _LINK_MESSAGES[FindingCode.UNREADABLE])
            yield _error(file.problem, file.name, message, fix)
    yield from _check_config(documents)
    for file in snapshot.files:
        if is_lfs_pointer(file):
            yield _error(FindingCode.LFS_POINTER, file.name, "is a Git LFS pointer, not the file itself")
        if file.size == 0 and file.name in _NEEDED_NAMES and file.name != "config.json":
            yield _error(FindingCode.FILE_EMPTY, file.name, "is empty")
        if file.name.endswith(PARTIAL_ENDINGS):
            yield _error(FindingCode.PARTIAL_FILE, file.name, "is an unfinished download")


def _ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR))


def _error(code: FindingCode, name: str, message: str, fix: Fix = Fix.PULL) -> Finding:
    shown = printable(name)
    return Finding(code=code, severity=Severity.ERROR, path=shown, message=f"{shown} {message}.", fix=fix)


def _no_snapshot(repo: Repo) -> Finding:
    main = repo.refs.get("main")
    if main is not None and repo.snapshots:
        return Finding(
            code=FindingCode.MAIN_SNAPSHOT_MISSING,
            severity=Severity.ERROR,
            path="refs/main",
            message=f"refs/main names {main[:12]}, which is not downloaded; "
            f"{plural(len(repo.snapshots), 'other revision')} cached.",
            fix=Fix.PULL,
        )
    started = any(blob.is_partial for blob in repo.blobs.values())
    return Finding(
        code=FindingCode.NO_SNAPSHOT,
        severity=Severity.ERROR,
        path=None,
        message="The download has not completed any file yet." if started else "Nothing downloaded yet.",
        fix=Fix.PULL,
    )


def _check_config(documents: Documents) -> Iterable[Finding]:
    config = documents.config
    if config.exists:
        if config.value is None and documents.files["config.json"].problem is None:
            unreadable = config.problem == CANNOT_BE_READ
            code = FindingCode.UNREADABLE if unreadable else FindingCode.CONFIG_INVALID
            yield _error(code, "config.json", config.problem or "is not valid JSON")
        return
    if any(name in documents.files for name in _CONFIGS):
        return
    if any(name.startswith("config.json/") for name in documents.files):
        yield _error(FindingCode.CONFIG_INVALID, "config.json", "is a folder")
        return
    weights = [name for name in documents.files if is_weights(name)]
    if weights and all(name.endswith(".gguf") for name in weights):
        return  # a GGUF file contains its configuration
    yield _error(FindingCode.CONFIG_MISSING, "config.json", "is missing")


@dataclass(frozen=True)
class TreeFile:
    """A file in huggingface_hub's file list."""

    size: int
    etag: str
    """Name of its blob; empty if the list does not state it."""


def read_tree(repo: Repo, snapshot: Snapshot) -> dict[str, TreeFile] | None:
    """Return the files in `trees/<commit>.json` by name, or None if there is no usable list.

    Format 1 (huggingface_hub 2.4): `{"format_version": 1, "files": {name: {"size", "blob_id", …}}}`, with
    `lfs_sha256` for LFS objects.
    """
    if snapshot.name not in repo.trees:
        return None
    raw = read_bytes(os.path.join(repo.ref.path, "trees", f"{snapshot.name}.json"), _MAX_TREE_BYTES)
    value = parse_json(raw).value if raw and len(raw) <= _MAX_TREE_BYTES else None
    if value is None or value.get("format_version") != 1:
        return None
    files = value.get("files")
    if not isinstance(files, dict):
        return None
    return {
        name: TreeFile(entry["size"], str(entry.get("lfs_sha256") or entry.get("blob_id") or ""))
        for name, entry in files.items()
        if _has_size(entry)
    }


def _has_size(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("size")) is int


def _started_downloads(tree: dict[str, TreeFile] | None, repo: Repo) -> set[str]:
    """Return the listed files with an unfinished download, which cannot have been left out on purpose."""
    partial = {blob.name.partition(".")[0] for blob in repo.blobs.values() if blob.is_partial}
    return {name for name, tree_file in (tree or {}).items() if tree_file.etag in partial}


def _check_tree(
    tree: dict[str, TreeFile] | None, documents: Documents, started: set[str], *, shards_reported: bool
) -> Iterable[Finding]:
    if tree is None:
        return
    present = [name for name in documents.files if is_weights(name)]
    absent = [name for name in tree if name not in documents.files]
    required = [name for name in absent if name in started or _is_required(name, present)]
    optional = [name for name in absent if name not in required]
    if shards_reported:  # missing shards are reported only once
        required = [name for name in required if not loads_in_mlx(name)]
    if required:
        yield _missing(required)
    for name, tree_file in tree.items():
        file = documents.files.get(name)
        if file is not None and file.size is not None and file.size != tree_file.size:
            yield _error(
                FindingCode.SIZE_MISMATCH,
                name,
                f"has {format_size(file.size)} instead of {format_size(tree_file.size)}",
            )
    if optional:
        yield Finding(
            code=FindingCode.FILE_MISSING,
            severity=Severity.WARNING,
            path=None,
            message=f"{plural(len(optional), 'optional file')} not downloaded: {_first_names(optional)}.",
            fix=Fix.NONE,
        )


def _missing(names: list[str]) -> Finding:
    if len(names) == 1:
        return _error(FindingCode.FILE_MISSING, names[0], "is part of the repo but not downloaded")
    return Finding(
        code=FindingCode.FILE_MISSING,
        severity=Severity.ERROR,
        path=printable(names[0]),
        message=f"{plural(len(names), 'file')} of the repo not downloaded: {_first_names(names)}.",
        fix=Fix.PULL,
    )


def _first_names(names: list[str]) -> str:
    return ", ".join(printable(name) for name in names[:3]) + (", …" if len(names) > 3 else "")


def _is_required(name: str, present: list[str]) -> bool:
    """Return whether a model is broken without this file of its repo.

    mlx-lm and other tools download by pattern (no README, no weights of another format). So a missing file
    counts only if the model needs it: its settings, its tokenizer, the weights that mlx-lm loads, or any
    weights if there are none.
    """
    if is_weights(name):
        # Weights of another format, or one of several GGUF files, are left out on purpose.
        return not present or (loads_in_mlx(name) and any(map(loads_in_mlx, present)))
    if present and all(other.endswith(".gguf") for other in present):
        return False  # a GGUF file contains configuration and tokenizer
    return name in _NEEDED_NAMES


def _check_downloads(repo: Repo, *, complete: bool) -> Iterable[Finding]:
    """Check partial blobs; next to a complete snapshot they are only leftovers."""
    partial = [blob for blob in repo.blobs.values() if blob.is_partial]
    if not partial:
        return
    total = format_size(sum(blob.size or 0 for blob in partial))
    if complete:
        yield Finding(
            code=FindingCode.DOWNLOAD_UNFINISHED,
            severity=Severity.WARNING,
            path=None,
            message=f"{plural(len(partial), 'unfinished download')} ({total}) next to a complete model.",
            fix=Fix.PRUNE,
        )
    else:
        yield Finding(
            code=FindingCode.DOWNLOAD_UNFINISHED,
            severity=Severity.ERROR,
            path=f"blobs/{printable(partial[0].name)}",
            message=f"{plural(len(partial), 'unfinished download')} ({total} so far).",
            fix=Fix.PULL,
        )
