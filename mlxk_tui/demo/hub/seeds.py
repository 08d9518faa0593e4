"""What the demo's hub has: small models to find and pull, and the repos that the sample cache came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from mlxk_tui.demo import layout, sample, texts, tiny_model
from mlxk_tui.demo.architectures import Config, decoder_config, gguf_tensors, whisper_tensors
from mlxk_tui.demo.decoders import DecoderConfig
from mlxk_tui.demo.hub.blobs import Content, Generated
from mlxk_tui.demo.hub.server import LocalHub
from mlxk_tui.demo.models import Files
from mlxk_tui.demo.weights import Payload, gguf, safetensors

_ORG = "mlx-community"
_SKIPPED_FOLDERS = {".git", ".cache", "__pycache__"}


@dataclass(frozen=True)
class Seed:
    """One repo of the demo's hub that the sample cache has not."""

    name: str
    files: Callable[[str], Files]
    """Makes the files of a repo with this name."""
    downloads: int
    likes: int
    days: float
    """How many days ago it changed."""
    gated: str | bool = False
    private: bool = False
    disabled: bool = False
    former_name: str | None = None


def seed_demo(hub: LocalHub, *, now: datetime | None = None) -> None:
    """Fill the hub: a dozen small models, one of each kind of access, and what the sample cache holds.

    Large files are made up while they are sent, so this takes a fraction of a second and no disk. A
    model of the sample cache has the commit that the cache knows, unless the cache's copy was spoilt in
    a way that another commit explains; pulling it repairs or updates it.

    Args:
        hub: an empty hub.
        now: what ages count back from; None for the present.
    """
    moment = now or datetime.now(timezone.utc)
    for seed in SEEDS:
        files = {path: _varied(seed.name, content) for path, content in seed.files(seed.name).items()}
        hub.add_repo(
            seed.name, files, gated=seed.gated, granted=(), private=seed.private, disabled=seed.disabled,
            downloads=seed.downloads, likes=seed.likes, modified=moment - timedelta(days=seed.days),
        )  # fmt: skip
        if seed.former_name is not None:
            hub.state.renamed[seed.former_name] = seed.name
    _add_tiny_model(hub)
    _add_sample(hub, moment)


def add_folder(hub: LocalHub, name: str, folder: Path, *, downloads: int = 0, likes: int = 0) -> str:
    """Make a repo of the files in a folder, which are read as they are asked for; return its commit."""
    return hub.add_repo(name, _files_below(folder), downloads=downloads, likes=likes)


def add_folders(hub: LocalHub, root: Path) -> list[str]:
    """Make a repo of every folder `org/name` below `root` and return their names."""
    names = []
    for folder in sorted(root.glob("*/*")):
        if folder.is_dir() and not folder.parent.name.startswith("."):
            names.append(f"{folder.parent.name}/{folder.name}")
            add_folder(hub, names[-1], folder)
    return names


def _files_below(folder: Path) -> dict[str, Content]:
    files: dict[str, Content] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                files[path.relative_to(folder).as_posix()] = path
    return files


def _add_tiny_model(hub: LocalHub) -> None:
    """Add the model that comes with the app, under the commit that `tiny_model.install` gives it."""
    files = {path.name: path.read_bytes() for path in sorted(tiny_model.folder().iterdir()) if path.is_file()}
    words = [f"{name} {layout.etag(name, content)}" for name, content in files.items()]
    hub.add_repo(
        tiny_model.NAME, files, downloads=1_024, likes=16, oid=layout.commit(tiny_model.NAME, *words)
    )


def _add_sample(hub: LocalHub, moment: datetime) -> None:
    for entry in sample.SAMPLES:
        files = sample._revisions(entry.name)[0]
        popularity = int(hashlib.sha256(entry.name.encode()).hexdigest()[:8], 16)
        same = entry.about not in _OTHER_COMMIT
        hub.add_repo(
            entry.name, files, downloads=2000 + popularity % 90_000, likes=popularity % 180,
            modified=moment - timedelta(days=entry.days + 7),
            oid=layout.commit(entry.name, "main") if same else None,
        )  # fmt: skip


_OTHER_COMMIT = {"needs code from its repo", "shards without an index", "config.json is a list"}
"""The samples whose copy in the cache lists other files than the hub has."""


def _varied(name: str, content: layout.Content) -> Content:
    """Fill a file of zeros with what looks like weights; text stays, but for the note about zeros."""
    if isinstance(content, Payload):
        seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        return Generated(content.size, seed, content.head)
    return content.replace(b"the weights beside it are zeros", b"the weights beside it are made up")


def _decoder(decoder: DecoderConfig, **options: int) -> Callable[[str], Files]:
    return lambda name: decoder.files(name) if not options else _sharded(decoder, name, **options)


def _sharded(decoder: DecoderConfig, name: str, shard_bytes: int) -> Files:
    return DecoderConfig(**{**vars(decoder), "card": {**decoder.card, "shard_bytes": shard_bytes}}).files(
        name
    )


def _whisper_tiny(name: str) -> Files:
    config: Config = {
        "model_type": "whisper", "n_audio_ctx": 1500, "n_audio_head": 6, "n_audio_layer": 4,
        "n_audio_state": 384, "n_mels": 80, "n_text_ctx": 448, "n_text_head": 6, "n_text_layer": 4,
        "n_text_state": 384, "n_vocab": 51865,
    }  # fmt: skip
    card = texts.card(
        name, "Writes down speech; the smallest of its family. For mlx-whisper, not for mlx-lm.",
        base="openai/whisper-tiny", license_id="mit", pipeline="automatic-speech-recognition",
        usage="mlx_whisper speech.mp3",
    )  # fmt: skip
    return {
        "README.md": card,
        "config.json": texts.to_json(config),
        "weights.safetensors": safetensors(list(whisper_tensors(config))),
    }


def _smol_gguf(name: str) -> Files:
    config: Config = {
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "head_dim": 64,
        "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
    }  # fmt: skip
    strings = {"general.architecture": "llama", "general.name": "SmolLM2 135M Instruct"}
    numbers = {"general.file_type": 7, "llama.block_count": 30, "llama.embedding_length": 576}
    card = texts.card(
        name, "Quantised for llama.cpp.", base="HuggingFaceTB/SmolLM2-135M-Instruct", library="gguf"
    )
    return {
        "README.md": card,
        "SmolLM2-135M-Instruct-Q8_0.gguf": gguf(list(gguf_tensors(config)), strings, numbers),
    }


# fmt: off - one model in a few rows is read more easily than in fifteen
_QWEN3_06B = DecoderConfig(
    "Qwen/Qwen3-0.6B",
    "qwen",
    "The smallest Qwen3: thinks aloud before it answers, and is quick at both.",
    decoder_config(
        "qwen3",
        "Qwen3ForCausalLM",
        hidden=1024,
        layers=28,
        heads=16,
        kv_heads=8,
        inner=3072,
        vocab=151936,
        context=40960,
        head_dim=128,
        theta=1000000.0,
    ),
    notes=("Context of 40,960 tokens.", "4 bits in groups of 64."),
)
_QWEN25_05B = DecoderConfig(
    "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen",
    "A very small assistant for quick tests.",
    decoder_config(
        "qwen2",
        "Qwen2ForCausalLM",
        hidden=896,
        layers=24,
        heads=14,
        kv_heads=2,
        inner=4864,
        vocab=151936,
        context=32768,
        theta=1000000.0,
    ),
)
_LLAMA_1B = DecoderConfig(
    "meta-llama/Llama-3.2-1B-Instruct",
    "llama3",
    "The smallest Llama 3.2, made for phones.",
    decoder_config(
        "llama",
        "LlamaForCausalLM",
        hidden=2048,
        layers=16,
        heads=32,
        kv_heads=8,
        inner=8192,
        vocab=128256,
        context=131072,
        head_dim=64,
        theta=500000.0,
        eps=1e-05,
    ),
    license_id="llama3.2",
    card={"tags": ("facebook", "meta", "llama-3")},
)
_GEMMA_GATED = DecoderConfig(
    "google/gemma-2-2b",
    "qwen",
    "Small and capable; its license must be accepted before the first pull.",
    decoder_config(
        "gemma2",
        "Gemma2ForCausalLM",
        hidden=2304,
        layers=26,
        heads=8,
        kv_heads=4,
        inner=9216,
        vocab=256000,
        context=8192,
        head_dim=256,
        bits=None,
    ),
    license_id="gemma",
    card={"library": "transformers"},
)
_STORIES_260K = DecoderConfig(
    "karpathy/tinyllamas",
    "qwen",
    "Tells stories in the words of a small child. Half a megabyte.",
    decoder_config(
        "llama",
        "LlamaForCausalLM",
        hidden=64,
        layers=5,
        heads=8,
        kv_heads=4,
        inner=172,
        vocab=512,
        context=512,
        bits=None,
    ),
    license_id="mit",
    chat=False,
)
_STORIES_15M = DecoderConfig(
    "karpathy/tinyllamas",
    "qwen",
    "Tells short stories, with a beginning and an end.",
    decoder_config(
        "llama",
        "LlamaForCausalLM",
        hidden=288,
        layers=6,
        heads=6,
        kv_heads=6,
        inner=768,
        vocab=32000,
        context=256,
        bits=None,
    ),
    license_id="mit",
    chat=False,
)
_STORIES_42M = DecoderConfig(
    "karpathy/tinyllamas",
    "qwen",
    "Tells longer stories; its weights are in three files.",
    decoder_config(
        "llama",
        "LlamaForCausalLM",
        hidden=512,
        layers=8,
        heads=8,
        kv_heads=8,
        inner=1376,
        vocab=32000,
        context=1024,
        bits=4,
    ),
    license_id="mit",
    chat=False,
)
_PYTHIA_LIKE = DecoderConfig(
    "JackFram/llama-68m",
    "llama3",
    "A draft model: it guesses ahead, and a larger model checks the guesses.",
    decoder_config(
        "llama",
        "LlamaForCausalLM",
        hidden=768,
        layers=2,
        heads=12,
        kv_heads=12,
        inner=3072,
        vocab=32000,
        context=2048,
        tied=False,
    ),
    chat=False,
    card={"tags": ("speculative-decoding",)},
)
_FINETUNE = DecoderConfig(
    "mlx-community/stories15M-MLX",
    "qwen",
    "Private: an experiment that only its owner sees.",
    _STORIES_15M.config,
    license_id="mit",
    chat=False,
)

SEEDS: tuple[Seed, ...] = (
    Seed(
        f"{_ORG}/Qwen3-0.6B-4bit",
        _decoder(_QWEN3_06B),
        41_782,
        21,
        12,
        former_name=f"{_ORG}/Qwen3-0.6B-MLX-4bit",
    ),
    Seed(f"{_ORG}/Llama-3.2-1B-Instruct-4bit", _decoder(_LLAMA_1B), 96_310, 34, 160),
    Seed(f"{_ORG}/Qwen2.5-0.5B-Instruct-4bit", _decoder(_QWEN25_05B), 28_064, 9, 240),
    Seed(f"{_ORG}/stories260K-MLX", _decoder(_STORIES_260K), 412, 2, 31),
    Seed(f"{_ORG}/stories15M-MLX", _decoder(_STORIES_15M), 1_833, 7, 44),
    Seed(f"{_ORG}/stories42M-4bit-sharded", _decoder(_STORIES_42M, shard_bytes=10 << 20), 655, 3, 44),
    Seed(f"{_ORG}/llama-68m-4bit", _decoder(_PYTHIA_LIKE), 2_209, 5, 71),
    Seed(f"{_ORG}/whisper-tiny-mlx", _whisper_tiny, 12_540, 8, 300),
    Seed("bartowski/SmolLM2-135M-Instruct-GGUF", _smol_gguf, 7_411, 12, 330),
    Seed("prompt-lab/gemma-2-2b-it-4bit", _decoder(_GEMMA_GATED), 31_020, 204, 210, gated="manual"),
    Seed("tester/stories-finetune", _decoder(_FINETUNE), 3, 0, 0.2, private=True),
    Seed("prompt-lab/withdrawn-4bit", _decoder(_STORIES_260K), 0, 0, 90, disabled=True),
)
# fmt: on
"""The repos that a visitor of the demo can find and pull."""
