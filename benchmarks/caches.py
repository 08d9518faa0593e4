"""Creates synthetic caches of any number of repos: 12 files each, with a 2 MB tokenizer.json and a README."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from mlxk_tui.demo import texts
from mlxk_tui.demo.architectures import decoder_config, decoder_tensors
from mlxk_tui.demo.layout import git_sha1
from mlxk_tui.demo.weights import index, quantize, shards

TOKENIZER_BYTES = 2_000_000


def build(hub: Path, count: int) -> None:
    """Write `count` healthy MLX chat models into the hub folder `hub`.

    Every repo has its own files and links. Equal content shares one inode (hard links), so that thousands of
    tokenizers fit on the disk; this makes no difference to readers.
    """
    store = hub.parent / "content"
    store.mkdir(parents=True, exist_ok=True)
    hub.mkdir(parents=True, exist_ok=True)
    common = _common_files(store)
    for number in range(count):
        name = f"mlx-community/Bench-{number:04}-Instruct-4bit"
        revision = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        repo = hub / f"models--{name.replace('/', '--')}"
        snapshot = repo / "snapshots" / revision
        blobs = repo / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(revision)
        card = texts.card(name, f"Model number {number}.", base=f"Bench/{number}")
        (blobs / git_sha1(card)).write_bytes(card)
        os.symlink(f"../../blobs/{git_sha1(card)}", snapshot / "README.md")
        for file, (etag, content) in common.items():
            os.link(content, blobs / etag)
            os.symlink(f"../../blobs/{etag}", snapshot / file)


def _common_files(store: Path) -> Mapping[str, tuple[str, Path]]:
    """Write the files that all repos have in common; return name -> (etag, path)."""
    config = decoder_config(
        "llama", "LlamaForCausalLM", hidden=2048, layers=16, heads=32, kv_heads=8, inner=8192,
        vocab=128256, context=131072, theta=500000.0,
    )  # fmt: skip
    weights = shards(quantize(decoder_tensors(config), 4), 400_000_000)
    words = {f"token{number:06}": number for number in range(TOKENIZER_BYTES // 20)}
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": words, "merges": []}}
    small = {
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "config.json": texts.to_json(config),
        "generation_config.json": texts.generation_config(),
        "merges.txt": b"#version: 0.2\n",
        "model.safetensors.index.json": index(weights),
        "special_tokens_map.json": texts.to_json({"eos_token": "</s>"}),
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer_config.json": texts.tokenizer_config("<s>", "</s>", 131072, template=texts.CHATML),
        "vocab.json": b"{}\n",
    }
    files: dict[str, tuple[str, Path]] = {}
    for name, data in small.items():
        path = store / name
        path.write_bytes(data)
        lfs = name == "tokenizer.json"
        files[name] = (hashlib.sha256(data).hexdigest() if lfs else git_sha1(data), path)
    for name, payload in weights.items():
        path = store / name
        payload.write(path)
        # No benchmark verifies the weights; any name in the right format will do.
        files[name] = (hashlib.sha256(payload.head).hexdigest(), path)
    return files
