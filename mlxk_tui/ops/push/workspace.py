"""Checks a local folder to be pushed, with the same rules as for the cache."""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path

from mlxk_tui.ops.cache.documents import MAX_INDEX_BYTES, Documents, read_documents, read_json
from mlxk_tui.ops.cache.repo import Snapshot, SnapshotFile
from mlxk_tui.ops.cache.repo_scanner import unreadable_finding
from mlxk_tui.ops.contract.results import (
    Finding,
    FindingCode,
    Severity,
    WorkspaceAnomaly,
    WorkspaceConfig,
    WorkspaceHealth,
    WorkspaceIndex,
    WorkspaceWeights,
)
from mlxk_tui.ops.core.background import StoppedError, run_in_thread
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.health.compatibility import has_tokenizer
from mlxk_tui.ops.health.integrity import check_files
from mlxk_tui.ops.health.weights import PYTORCH_INDEX, SAFETENSORS_INDEX, check_weights, is_weights

LINK_OUTSIDE = "link_outside_workspace"
"""Code for a link to a target outside the folder; the other codes are those of `FindingCode`."""
IGNORED = frozenset({".git", ".cache/huggingface", ".DS_Store"})
"""Paths that are never pushed: version control, download metadata of huggingface_hub, Finder files."""

_MAX_FILES = 50_000
_MAX_DEPTH = 16
_SHARD = re.compile(r"(?P<stem>.+)-(?P<n>\d{5})-of-(?P<of>\d{5})(?P<ending>\.(?:safetensors|bin|gguf))")


async def check_workspace(folder: Path) -> WorkspaceHealth:
    """Check the files of a folder without network; nothing is changed.

    Links are followed only inside the folder. Only the headers of weights are read.

    Raises:
        OpError: `workspace_not_found`, or `permission_denied` if the folder cannot be read.
    """
    return await run_in_thread(lambda stop: _check(folder, stop))


def _check(folder: Path, stop: threading.Event) -> WorkspaceHealth:
    snapshot = _scan_folder(folder, stop)
    documents = read_documents(snapshot)
    findings = [*check_files(snapshot, documents), *check_weights(documents).findings]
    anomalies = [_anomaly(finding) for finding in findings]
    tokenizer = has_tokenizer(documents)
    if not tokenizer and any(name.endswith(".safetensors") for name in documents.files):
        message = "The tokenizer is missing; the model cannot run without it."
        anomalies.append(
            WorkspaceAnomaly(
                severity="warn", code=FindingCode.TOKENIZER_MISSING.value, message=message, path=None
            )
        )
    anomalies.sort(key=lambda anomaly: anomaly.severity != "error")
    return WorkspaceHealth(
        files_count=len(snapshot.files),
        total_bytes=sum(file.size or 0 for file in snapshot.files),
        config=WorkspaceConfig(
            exists=documents.config.exists,
            valid_json=documents.config.value is not None,
            path="config.json" if documents.config.exists else None,
        ),
        weights=_weights(documents),
        tokenizer=tokenizer,
        anomalies=anomalies,
        healthy=not any(anomaly.severity == "error" for anomaly in anomalies),
    )


def _weights(documents: Documents) -> WorkspaceWeights:
    names = [name for name in documents.files if is_weights(name)]
    shards: dict[tuple[str, str, str], set[int]] = {}
    for match in map(_SHARD.fullmatch, names):
        if match:
            shards.setdefault((match["stem"], match["of"], match["ending"]), set()).add(int(match["n"]))
    return WorkspaceWeights(
        count=len(names),
        formats=sorted({name.rpartition(".")[2] for name in names}),
        index=WorkspaceIndex(
            has_index=any(index in documents.files for index in (SAFETENSORS_INDEX, PYTORCH_INDEX)),
            missing=_missing(documents),
        ),
        # The numbers are distinct and in range, so this count means that all are present.
        pattern_complete=all(
            len(numbers) == int(of) and min(numbers) == 1 and max(numbers) == int(of)
            for (_, of, _), numbers in shards.items()
        ),
    )


def _missing(documents: Documents) -> list[str]:
    """Return the shards that are in an index but not in the folder, sorted and escaped for display."""
    missing: set[str] = set()
    for index in (SAFETENSORS_INDEX, PYTORCH_INDEX):
        value = read_json(documents.files.get(index), MAX_INDEX_BYTES).value or {}
        weight_map = value.get("weight_map")
        if isinstance(weight_map, dict):
            missing |= {shard for shard in weight_map.values() if isinstance(shard, str)}
    return sorted(printable(shard) for shard in missing if shard not in documents.files)


def _anomaly(finding: Finding) -> WorkspaceAnomaly:
    is_outside_link = finding.code is FindingCode.LINK_OUTSIDE_CACHE
    message = finding.message
    if is_outside_link:
        message = f"{finding.path} is a link to a target outside the folder; replace it by the file itself."
    elif finding.code is FindingCode.WEIGHTS_MISSING:
        message = "The folder contains no weights (safetensors, GGUF or PyTorch)."
    return WorkspaceAnomaly(
        severity="error" if finding.severity is Severity.ERROR else "warn",
        code=LINK_OUTSIDE if is_outside_link else finding.code.value,
        message=message,
        path=finding.path,
    )


def _scan_folder(folder: Path, stop: threading.Event) -> Snapshot:
    """Return the content of a folder as a Snapshot."""
    shown = printable(str(folder))
    try:
        root = os.path.realpath(os.path.expanduser(folder))
        modified = os.stat(root).st_mtime
        os.scandir(root).close()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise OpError(
            ErrorType.WORKSPACE_NOT_FOUND,
            f"The folder {shown} does not exist.",
            remedy=Remedy.GIVE_MODEL_FOLDER,
        ) from None
    except PermissionError:
        raise OpError(ErrorType.PERMISSION_DENIED, f"{shown} cannot be read: permission denied.") from None
    except OSError as error:
        raise OpError(
            ErrorType.WORKSPACE_NOT_FOUND, f"{shown[:300]} cannot be read: {error.strerror or error}."
        ) from None
    files: list[SnapshotFile] = []
    problems: list[Finding] = []
    pending = [("", 0)]
    while pending:
        prefix, depth = pending.pop()
        if stop.is_set():
            raise StoppedError
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                found = list(entries)
        except OSError as error:
            problems.append(unreadable_finding(prefix, error))
            continue
        for entry in found:
            name = prefix + entry.name
            if name in IGNORED or entry.name == ".DS_Store":
                continue
            if depth > _MAX_DEPTH or len(files) >= _MAX_FILES:
                problems.append(_too_many(prefix))
                return _snapshot(root, modified, files, problems)
            if entry.is_dir(follow_symlinks=False):
                pending.append((f"{name}/", depth + 1))
            else:
                files.append(_read_file(root, name, entry))
    return _snapshot(root, modified, files, problems)


def _snapshot(root: str, modified: float, files: list[SnapshotFile], problems: list[Finding]) -> Snapshot:
    files.sort(key=lambda file: file.name)
    return Snapshot(os.path.basename(root), root, modified, tuple(files), tuple(problems))


def _read_file(root: str, name: str, entry: os.DirEntry[str]) -> SnapshotFile:
    try:
        target = os.path.realpath(entry.path, strict=True) if entry.is_symlink() else entry.path
        info = os.lstat(target)
    except PermissionError:
        return SnapshotFile(name, entry.path, None, None, None, FindingCode.UNREADABLE)
    except OSError:  # a dangling link, or a loop
        return SnapshotFile(name, entry.path, None, None, None, FindingCode.BROKEN_LINK)
    if not target.startswith(os.path.join(root, "")):
        return SnapshotFile(name, entry.path, None, None, None, FindingCode.LINK_OUTSIDE_CACHE)
    if not stat.S_ISREG(info.st_mode):
        return SnapshotFile(name, entry.path, None, None, None, FindingCode.UNREADABLE)
    return SnapshotFile(name, entry.path, target, info.st_size, None)


def _too_many(prefix: str) -> Finding:
    limit = OSError(0, f"over {_MAX_FILES:,} files or {_MAX_DEPTH} levels of folders")
    return unreadable_finding(prefix, limit)
