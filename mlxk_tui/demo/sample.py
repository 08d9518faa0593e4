"""The sample cache: two dozen repos with real layouts, healthy ones and one for every kind of fault."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxk_tui.demo import decoders, models
from mlxk_tui.demo.layout import RepoLayout, commit_hash, etag, git_sha1, lfs_pointer
from mlxk_tui.demo.models import Files
from mlxk_tui.demo.weights import Payload
from mlxk_tui.ops.cache.access_record import RepoAccess, write_access
from mlxk_tui.ops.cache.deletion import SENTINEL
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

_DAY = 86400.0


@dataclass(frozen=True)
class Sample:
    """One repo of the sample."""

    name: str
    days: float
    """Days since its download."""
    build: Callable[[RepoLayout, list[Files]], None]
    about: str
    """What it demonstrates."""


def build_sample_cache(root: Path, *, now: float | None = None) -> None:
    """Write the sample into the cache folder `root`, which is created if needed.

    The same `now` gives the same bytes, names and times. This takes a fraction of a second and a few
    megabytes of disk space, because the large files are sparse.

    Args:
        root: the cache folder; existing files in it are kept.
        now: the current time in seconds since the epoch, for reproducible dates; None for the clock.

    Raises:
        OpError: `disk_full` if the file system doesn't support sparse files.
    """
    root.mkdir(parents=True, exist_ok=True)
    _check_sparse_files(root)
    (root / SENTINEL).write_text("The sample of mlxk-tui; everything here may be deleted.\n")
    moment = time.time() if now is None else now
    for sample in SAMPLES:
        repo = RepoLayout(root, sample.name)
        sample.build(repo, _revisions(sample.name))
        repo.add_locks()
        write_access(repo.path, RepoAccess(gated=False, private=False))
        repo.set_times(moment - sample.days * _DAY)
    dataset = root / "datasets--HuggingFaceH4--ultrachat_200k" / "refs"
    dataset.mkdir(parents=True)
    (dataset / "main").write_text(commit_hash("ultrachat_200k"))


def large_payloads() -> Iterator[tuple[str, Payload]]:
    """Yield all payloads with the name of their repo; their checksums must be in `CHECKSUMS`."""
    for sample in SAMPLES:
        for files in _revisions(sample.name):
            for content in files.values():
                if isinstance(content, Payload):
                    yield sample.name, content


def _check_sparse_files(root: Path) -> None:
    """Check that the file system supports sparse files: the sample has hundreds of gigabytes.

    Raises:
        OpError: `disk_full` if it doesn't.
    """
    probe = root / ".hole"
    try:
        with probe.open("wb") as file:
            file.truncate(64 << 20)
        used = probe.stat().st_blocks * 512
    finally:
        probe.unlink(missing_ok=True)
    if used > 8 << 20:
        raise OpError(
            ErrorType.DISK_FULL,
            "The file system of the temporary folder doesn't support sparse files, which the demo needs.",
            remedy=Remedy.SET_TEMPORARY_FOLDER,
        )


def _revisions(name: str) -> list[Files]:
    """Return the files of every revision of a repo, the newest (main) first."""
    short = name.rpartition("/")[2]
    if short in _SPECIAL:
        return [_SPECIAL[short](name)]
    return [decoder.files(name) for decoder in _DECODERS[short]]


_SPECIAL: dict[str, Callable[[str], Files]] = {
    "Qwen3-Embedding-0.6B-4bit-DWQ": models.qwen3_embedding,
    "Qwen2.5-VL-3B-Instruct-4bit": models.qwen25_vl,
    "whisper-large-v3-turbo": models.whisper_turbo,
    "Llama-3.2-1B-Instruct-GGUF": models.llama_gguf,
    "Qwen2.5-0.5B-Instruct": models.qwen25_05b_torch,
    "all-MiniLM-L6-v2": models.minilm,
}
_DECODERS: dict[str, tuple[decoders.DecoderConfig, ...]] = {
    "Llama-3.2-3B-Instruct-4bit": (decoders.LLAMA_3B,),
    "Meta-Llama-3.1-8B-4bit": (decoders.LLAMA_8B_BASE,),
    "Qwen3-4B-Instruct-2507-4bit": (decoders.QWEN3_4B,),
    "Qwen3-4B-Instruct-2507-MLX-4bit": (decoders.QWEN3_4B,),
    "Qwen3-235B-A22B-Instruct-2507-4bit": (decoders.QWEN3_235B,),
    "Qwen3-Coder-30B-A3B-Instruct-4bit": (decoders.QWEN3_CODER,),
    "Mixtral-8x7B-Instruct-v0.1-4bit": (decoders.MIXTRAL,),
    "Moonlight-16B-A3B-Instruct-4bit": (decoders.MOONLIGHT,),
    "LLaDA-8B-Instruct-4bit": (decoders.LLADA,),
    "Phi-3.5-mini-instruct-4bit": (decoders.PHI_35,),
    "gemma-2-9b-it-4bit": (decoders.GEMMA_2,),
    "Mistral-Nemo-Instruct-2407-4bit": (decoders.NEMO,),
    "OLMo-2-1124-7B-Instruct-4bit": (decoders.OLMO_2,),
    "SmolLM3-3B-4bit": (decoders.SMOLLM_3,),
    "SmolLM2-135M-Instruct-4bit": (decoders.SMOLLM_2,),
    "TinyLlama-1.1B-Chat-markup": (decoders.TINY_LLAMA,),
    "DeepSeek-R1-Distill-Qwen-1.5B-4bit": (decoders.R1_DISTILL,),
    "Qwen2.5-0.5B-Instruct-8bit": (
        decoders.qwen25_05b("The chat template was corrected in this revision."),
        decoders.qwen25_05b("First upload."),
    ),
    "Qwen3-1.7B-8bit": (decoders.qwen3_17b(group=64), decoders.qwen3_17b(group=32)),
}


def _main(repo: RepoLayout) -> str:
    return commit_hash(repo.name, "main")


def _healthy(repo: RepoLayout, revisions: list[Files], **options: Any) -> None:
    repo.add_snapshot(_main(repo), revisions[0], **options)
    repo.set_ref("main", _main(repo))


def _shared(repo: RepoLayout, revisions: list[Files]) -> None:
    """Weights in the cache's shared store, which other repos may use too."""
    _healthy(repo, revisions, shared=_weights(revisions[0]))


def _two_revisions(repo: RepoLayout, revisions: list[Files]) -> None:
    _healthy(repo, revisions)
    first = commit_hash(repo.name, "first")
    repo.add_snapshot(first, revisions[1])
    repo.set_ref("v1", first)


def _leftovers(repo: RepoLayout, revisions: list[Files]) -> None:
    """An unreferenced revision, an unreferenced blob, and a partial file of an interrupted download."""
    _healthy(repo, revisions)
    repo.add_snapshot(commit_hash(repo.name, "old"), revisions[1])
    orphan = b"Removed from the model card in March.\n" * 4000
    repo.add_blob(git_sha1(orphan), orphan)
    (repo.blobs / f"{'d4' * 32}.5f0c1a2b.incomplete").write_bytes(bytes(4 << 20))


def _custom_code(repo: RepoLayout, revisions: list[Files]) -> None:
    code = b'"""A placeholder for the modeling code of the original; it is never executed."""\n'
    _healthy(repo, [{**revisions[0], "modeling_deepseek.py": code}])


def _missing_shard(repo: RepoLayout, revisions: list[Files]) -> None:
    _healthy(repo, revisions, absent=_weights(revisions[0])[3:4])


def _truncated(repo: RepoLayout, revisions: list[Files]) -> None:
    _healthy(repo, revisions, tree=False)
    os.truncate(_weight_blob(repo, revisions), 1_310_720_000)


def _no_index(repo: RepoLayout, revisions: list[Files]) -> None:
    files = dict(revisions[0])
    del files["model.safetensors.index.json"]
    _healthy(repo, [files])


def _pointer(repo: RepoLayout, revisions: list[Files]) -> None:
    """A copy of a git clone without its LFS files."""
    _healthy(repo, revisions, tree=False)
    blob = _weight_blob(repo, revisions)
    pointer = lfs_pointer(blob.name, blob.stat().st_size)
    blob.write_bytes(pointer)


def _dangling(repo: RepoLayout, revisions: list[Files]) -> None:
    """A blob that another program deleted."""
    _healthy(repo, revisions)
    (repo.blobs / etag("tokenizer.json", revisions[0]["tokenizer.json"])).unlink()


def _bad_config(repo: RepoLayout, revisions: list[Files]) -> None:
    """A list instead of an object in config.json."""
    _healthy(repo, [{**revisions[0], "config.json": b'["model_type", "smollm3"]\n'}])


def _unfinished(repo: RepoLayout, revisions: list[Files]) -> None:
    """An interrupted pull: one shard is complete, one partial, and the others are missing."""
    names = _weights(revisions[0])
    _healthy(repo, revisions, absent=names[1:])
    shard = revisions[0][names[1]]
    assert isinstance(shard, Payload)  # noqa: S101 - shards are payloads; for the type checker
    partial = Payload(shard.head, shard.size * 2 // 5)
    partial.write(repo.blobs / f"{shard.sha256}.9c41d07e.incomplete")


def _bit_rot(repo: RepoLayout, revisions: list[Files]) -> None:
    """One wrong byte in the weights: size and header are correct, so only the checksum shows it."""
    _healthy(repo, revisions)
    with _weight_blob(repo, revisions).open("r+b") as file:
        file.seek(31_415_926)
        file.write(b"\x01")


def _no_snapshot(repo: RepoLayout, revisions: list[Files]) -> None:
    """A pull that was interrupted before the first file was complete."""
    repo.set_ref("main", _main(repo))


def _weight_blob(repo: RepoLayout, revisions: list[Files]) -> Path:
    name = _weights(revisions[0])[0]
    return repo.blobs / etag(name, revisions[0][name])


def _weights(files: Files) -> list[str]:
    return sorted(name for name, content in files.items() if isinstance(content, Payload))


_ORG = "mlx-community"
SAMPLES: tuple[Sample, ...] = (
    Sample(f"{_ORG}/Llama-3.2-3B-Instruct-4bit", 2.2, _healthy, "a healthy chat model"),
    Sample(f"{_ORG}/Qwen3-4B-Instruct-2507-4bit", 0.4, _shared, "weights in the shared store"),
    Sample("lmstudio-community/Qwen3-4B-Instruct-2507-MLX-4bit", 5, _shared, "the same bytes, stored once"),
    Sample(f"{_ORG}/Qwen2.5-0.5B-Instruct-8bit", 12, _two_revisions, "two revisions"),
    Sample(f"{_ORG}/Meta-Llama-3.1-8B-4bit", 41, _healthy, "a base model"),
    Sample(f"{_ORG}/Qwen3-Embedding-0.6B-4bit-DWQ", 9, _healthy, "an embedding model"),
    Sample(f"{_ORG}/Qwen2.5-VL-3B-Instruct-4bit", 17, _healthy, "a vision model"),
    Sample(f"{_ORG}/whisper-large-v3-turbo", 63, _healthy, "a speech model; mlx-lm cannot run it"),
    Sample("bartowski/Llama-3.2-1B-Instruct-GGUF", 88, _healthy, "a GGUF repo"),
    Sample("Qwen/Qwen2.5-0.5B-Instruct", 120, _healthy, "a PyTorch repo"),
    Sample("sentence-transformers/all-MiniLM-L6-v2", 203, _healthy, "a PyTorch embedding model"),
    Sample(f"{_ORG}/Moonlight-16B-A3B-Instruct-4bit", 30, _custom_code, "needs code from its repo"),
    Sample(f"{_ORG}/LLaDA-8B-Instruct-4bit", 25, _healthy, "an architecture that mlx-lm does not know"),
    Sample(f"{_ORG}/Qwen3-235B-A22B-Instruct-2507-4bit", 6, _healthy, "too large for most machines"),
    Sample(f"{_ORG}/Mixtral-8x7B-Instruct-v0.1-4bit", 150, _missing_shard, "a shard is missing"),
    Sample(f"{_ORG}/Phi-3.5-mini-instruct-4bit", 75, _truncated, "truncated weights"),
    Sample(f"{_ORG}/gemma-2-9b-it-4bit", 97, _no_index, "shards without an index"),
    Sample(f"{_ORG}/Mistral-Nemo-Instruct-2407-4bit", 110, _pointer, "a Git LFS pointer for weights"),
    Sample(f"{_ORG}/OLMo-2-1124-7B-Instruct-4bit", 52, _dangling, "a dangling link"),
    Sample(f"{_ORG}/SmolLM3-3B-4bit", 20, _bad_config, "config.json is a list"),
    Sample(f"{_ORG}/Qwen3-Coder-30B-A3B-Instruct-4bit", 0.02, _unfinished, "an unfinished download"),
    Sample(f"{_ORG}/SmolLM2-135M-Instruct-4bit", 33, _bit_rot, "one wrong byte; only --verify finds it"),
    Sample(f"{_ORG}/Qwen3-1.7B-8bit", 14, _leftovers, "leftovers for prune"),
    Sample(f"{_ORG}/DeepSeek-R1-Distill-Qwen-1.5B-4bit", 1, _no_snapshot, "no snapshot"),
    Sample("prompt-lab/TinyLlama-1.1B-Chat-markup", 3.5, _healthy, "markup and escape codes in its card"),
)
"""All repos of the sample."""
