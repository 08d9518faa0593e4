"""Checks the weight files of a snapshot: each file, and the completeness of the set."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mlxk_tui.ops.cache.documents import CANNOT_BE_READ, MAX_INDEX_BYTES, Documents, read_json
from mlxk_tui.ops.cache.repo import SnapshotFile
from mlxk_tui.ops.contract.results import Finding, FindingCode, Fix, Severity
from mlxk_tui.ops.core.files import read_bytes
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.ops.health.safetensors import HeaderError, HeaderFault, read_header

SAFETENSORS_INDEX = "model.safetensors.index.json"
PYTORCH_INDEX = "pytorch_model.bin.index.json"
LFS_MAGIC = b"version https://git-lfs.github.com/spec/"
"""First bytes of a Git LFS pointer file (git-lfs specification v1)."""
LFS_POINTER_BYTES = range(100, 1024)
"""Possible sizes of a pointer file: three short lines (the specification limits it to 1,024 bytes)."""

_PYTORCH = re.compile(r"(?:.*/)?[^/]*model[^/]*\.bin")
_OTHER_WEIGHTS = (".bin", ".ckpt", ".h5", ".mlmodel", ".msgpack", ".onnx", ".pt", ".pth", ".tflite")
_GGUF_SHARD = re.compile(r"(?P<stem>.+)-(?P<n>\d{5})-of-(?P<of>\d{5})\.gguf")
_SHARD = re.compile(r"(?P<stem>.*?(?:pytorch_)?model)-(?P<n>\d{5})-of-(?P<of>\d{5})\.(?:safetensors|bin)")
_FAULT_CODES = {
    HeaderFault.EMPTY: FindingCode.WEIGHTS_EMPTY,
    HeaderFault.TRUNCATED: FindingCode.WEIGHTS_TRUNCATED,
    HeaderFault.CORRUPT: FindingCode.WEIGHTS_CORRUPT,
    HeaderFault.UNREADABLE: FindingCode.UNREADABLE,
}


def is_weights(name: str) -> bool:
    """Return whether a file with this name contains weights."""
    return name.endswith((".safetensors", ".gguf", ".npz")) or _PYTORCH.fullmatch(name) is not None


@dataclass(frozen=True)
class Weights:
    """The weight files of a snapshot."""

    bytes: int = 0
    """Bytes of the files to load: `model*.safetensors` at the top level, else all weights."""
    elements: dict[str, int] = field(default_factory=dict)
    """Number of elements by dtype in all safetensors files."""
    findings: tuple[Finding, ...] = ()


def check_weights(documents: Documents) -> Weights:
    """Check all weight files and the completeness of the set; reads headers, never weights."""
    files = [file for name, file in documents.files.items() if is_weights(name)]
    findings: list[Finding] = []
    elements: dict[str, int] = {}
    for file in files:
        if file.target is None or file.problem is not None:
            continue  # reported by the check of all files
        findings += _check_file(file, elements)
    findings += _check_sets(documents)
    if not files and not any(name.endswith(_OTHER_WEIGHTS) for name in documents.files):
        findings.append(
            _error(
                FindingCode.WEIGHTS_MISSING,
                None,
                "The snapshot contains no weights (safetensors, GGUF or PyTorch).",
            )
        )
    return Weights(_loaded_bytes(files), elements, tuple(findings))


def _loaded_bytes(files: list[SnapshotFile]) -> int:
    loaded = [f for f in files if loads_in_mlx(f.name)] or files
    return sum({f.target: f.size or 0 for f in loaded if f.target}.values())


def loads_in_mlx(name: str) -> bool:
    """Return whether mlx-lm loads a file with this name: `model*.safetensors` at the top level (0.32)."""
    return "/" not in name and name.startswith("model") and name.endswith(".safetensors")


def _check_file(file: SnapshotFile, elements: dict[str, int]) -> Iterable[Finding]:
    path = file.target or ""
    if file.size == 0:
        yield _file_error(FindingCode.WEIGHTS_EMPTY, file, "is empty")
    elif is_lfs_pointer(file):
        return  # reported by the check of all files
    elif file.name.endswith(".safetensors"):
        try:
            header = read_header(path)
        except HeaderError as error:
            yield _file_error(_FAULT_CODES[error.fault], file, error.message)
            return
        for dtype, count in header.elements.items():
            elements[dtype] = elements.get(dtype, 0) + count
    elif (head := read_bytes(path, 8)) is None:
        yield _file_error(FindingCode.UNREADABLE, file, CANNOT_BE_READ)
    elif file.name.endswith(".gguf"):
        if not _has_gguf_header(head):
            yield _file_error(FindingCode.WEIGHTS_CORRUPT, file, "does not begin with a GGUF header")
    elif not _is_complete_archive(path, file.size or 0, npz=file.name.endswith(".npz")):
        yield _file_error(
            FindingCode.WEIGHTS_CORRUPT, file, "is neither a complete archive nor a PyTorch pickle"
        )


def _has_gguf_header(head: bytes) -> bool:
    """Return whether eight bytes are a GGUF header: magic, then the version in either byte order."""
    version = min(int.from_bytes(head[4:8], "little"), int.from_bytes(head[4:8], "big"))
    return head[:4] == b"GGUF" and 1 <= version <= 16


def _is_complete_archive(path: str, size: int, *, npz: bool) -> bool:
    """Return whether a zip file has its end record, or another file starts like an old pickle.

    Pickles are never loaded, because they can execute code.
    """
    head = read_bytes(path, 3) or b""
    if head.startswith(b"PK\x03\x04"):
        return _has_zip_end_record(path, size)
    return not npz and head.startswith(b"\x80") and size > 16


def _has_zip_end_record(path: str, size: int) -> bool:
    tail = min(size, 65_557)  # the end record and the longest comment
    try:
        with open(path, "rb") as stream:
            stream.seek(size - tail)
            return b"PK\x05\x06" in stream.read(tail)
    except OSError:
        return False


def is_lfs_pointer(file: SnapshotFile) -> bool:
    """Return whether the file is a Git LFS pointer instead of the actual file."""
    if file.target is None or file.size not in LFS_POINTER_BYTES:
        return False
    return (read_bytes(file.target, len(LFS_MAGIC)) or b"").startswith(LFS_MAGIC)


def _check_sets(documents: Documents) -> Iterable[Finding]:
    """Check that indexes, numbered shards and split GGUF files are complete."""
    files = documents.files
    for index in files:
        if index.endswith(".safetensors.index.json") and index != SAFETENSORS_INDEX:
            yield from _check_index(documents, index)
    yield from _gguf_sets(documents)
    shards = [match for match in map(_SHARD.fullmatch, files) if match and "/" not in match.string]
    has_safetensors = any(loads_in_mlx(name) and file.size for name, file in files.items())
    for index in (SAFETENSORS_INDEX, PYTORCH_INDEX):
        ending = ".safetensors" if index == SAFETENSORS_INDEX else ".bin"
        numbered = [match for match in shards if match.string.endswith(ending)]
        if index in files:
            # Downloads without PyTorch weights still include all JSON files, and so this index.
            if index == SAFETENSORS_INDEX or numbered or not has_safetensors:
                yield from _check_index(documents, index)
        elif numbered:
            yield _numbered_without_index(numbered, index)


def _check_index(documents: Documents, index: str) -> Iterable[Finding]:
    parsed = read_json(documents.files[index], MAX_INDEX_BYTES)
    if parsed.value is None:
        if documents.files[index].problem is None:
            unreadable = parsed.problem == CANNOT_BE_READ
            code = FindingCode.UNREADABLE if unreadable else FindingCode.INDEX_INVALID
            yield _error(code, index, f"{index} {parsed.problem}.")
        return
    weight_map = parsed.value.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        yield _error(FindingCode.INDEX_INVALID, index, f"{index} maps no weights to files.")
        return
    shards = {shard for shard in weight_map.values() if isinstance(shard, str)}
    if len(shards) == 0 or not all(isinstance(shard, str) for shard in weight_map.values()):
        yield _error(
            FindingCode.INDEX_INVALID, index, f"{index} maps weights to values that are not file names."
        )
    folder = index[: index.rfind("/") + 1]
    missing = sorted(shard for shard in shards if folder + shard not in documents.files)
    unsafe = [shard for shard in missing if _is_unsafe(shard)]
    if unsafe:
        yield _error(
            FindingCode.INDEX_UNSAFE_PATH,
            index,
            f"{index} names a file outside the model: {printable(unsafe[0][:120])}.",
            Fix.REMOVE,
        )
    absent = [shard for shard in missing if not _is_unsafe(shard)]
    if absent:
        some = ", ".join(printable(name) for name in absent[:3]) + (", …" if len(absent) > 3 else "")
        yield _error(
            FindingCode.SHARD_MISSING,
            printable(absent[0]),
            f"{plural(len(absent), 'shard')} of {len(shards)} missing: {some}.",
        )


def _gguf_sets(documents: Documents) -> Iterable[Finding]:
    """Check that split GGUF models are complete (file names of llama.cpp's gguf-split)."""
    sets: dict[tuple[str, int], set[int]] = {}
    for match in map(_GGUF_SHARD.fullmatch, documents.files):
        if match:
            sets.setdefault((match["stem"], int(match["of"])), set()).add(int(match["n"]))
    for (stem, of), present in sets.items():
        first = next((n for n in range(1, min(of, len(present) + 1) + 1) if n not in present), None)
        if first is not None:
            name = f"{printable(stem)}-{first:05d}-of-{of:05d}.gguf"
            missing_count = plural(of - len(present), "part")
            yield _error(FindingCode.SHARD_MISSING, name, f"{missing_count} of {of} missing, such as {name}.")


def _is_unsafe(name: str) -> bool:
    return name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/")


def _numbered_without_index(numbered: list[re.Match[str]], index: str) -> Finding:
    of = max(int(match["of"]) for match in numbered)
    present = {int(match["n"]) for match in numbered}
    missing_count = of - len(present & set(range(1, of + 1))) if of <= 10_000 else 0
    also = f", and {missing_count} of {of} shards are missing" if missing_count > 0 else ""
    return _error(
        FindingCode.SHARD_WITHOUT_INDEX,
        index,
        f"The weights are in {plural(len(numbered), 'shard')} but {index} is missing{also}.",
    )


def _file_error(code: FindingCode, file: SnapshotFile, message: str) -> Finding:
    shown = printable(file.name)
    return _error(code, shown, f"{shown} {message}.")


def _error(code: FindingCode, path: str | None, message: str, fix: Fix = Fix.PULL) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, path=path, message=message, fix=fix)
