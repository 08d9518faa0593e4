"""Detection of framework, type, capabilities and numbers from names and small files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.documents import parse_front_matter, parse_json
from mlxk_tui.ops.catalog.catalog import inspect_model
from mlxk_tui.ops.contract.results import Capability, Framework, Modality, ModelType
from mlxk_tui.ops.health.report import Report
from tests.ops.health.test_integrity import RUNTIME
from tests.support.hf_cache import HfCache, model_files, safetensors


async def _detect(
    cache: Cache, hub: Path, name: str, files: dict[str, bytes] | None = None, **config: object
) -> Report:
    content = (
        {**model_files(config=config, chat=False), "README.md": b"# a model\n"} if files is None else files
    )
    HfCache(hub).repo(name).add(content)
    return await inspect_model(cache, name, runtime=RUNTIME)


PLAIN = {"quantization": None}


async def test_organization_mlx_community_means_mlx(cache: Cache, hub: Path) -> None:
    report = await _detect(cache, hub, "mlx-community/thing", **PLAIN)
    assert report.model.framework is Framework.MLX


@pytest.mark.parametrize(
    "card",
    [
        b"---\ntags:\n- mlx\n---\n",
        b"---\ntags: MLX\n---\n",
        b"---\r\nlibrary_name: mlx\r\n---\r\n# x",
        b"\xef\xbb\xbf---\nlibrary_name: MLX\n---\n",
        b"---\nlibrary_name: mlx\n",
    ],
)
async def test_model_card_can_declare_mlx(cache: Cache, hub: Path, card: bytes) -> None:
    files = {**model_files(config=PLAIN), "README.md": card}
    assert (await _detect(cache, hub, "org/m", files)).model.framework is Framework.MLX


@pytest.mark.parametrize(
    "card",
    [
        b"# no front matter\nmlx",
        b"---\ntags: [mlx\n---\n",
        b"---\n- a list\n---\n",
        b"---\ntags: {a: &a [mlx], b: *a}\n---\n",
        b"---\ntags: " + b"[" * 60_000 + b"\n---\n",
        b"---\n" + b"- " * 30_000 + b"\n---\n",
        b"---\n\x00\x01\n---\n",
        b"\xff\xfe\x00",
        b"",
    ],
)
async def test_broken_model_card_is_ignored(cache: Cache, hub: Path, card: bytes) -> None:
    files = {**model_files(config=PLAIN), "README.md": card}
    assert (await _detect(cache, hub, "org/m", files)).model.framework is Framework.PYTORCH


async def test_quantization_config_with_safetensors_means_mlx(cache: Cache, hub: Path) -> None:
    report = await _detect(cache, hub, "org/m", quantization={"bits": 8, "group_size": 32})
    assert report.model.framework is Framework.MLX
    assert report.model.quantization is not None
    assert (report.model.quantization.bits, report.model.quantization.group_size) == (8, 32)


async def test_other_weights_are_gguf_pytorch_or_unknown(cache: Cache, hub: Path) -> None:
    gguf = await _detect(cache, hub, "org/g", {"m.gguf": b"GGUF\x03\0\0\0" + b"\0" * 64})
    torch = await _detect(cache, hub, "org/p", {"config.json": b'{"a":1}', "pytorch_model.bin": b"\x80" * 99})
    none = await _detect(cache, hub, "org/n", {"config.json": b'{"a":1}'})
    assert [r.model.framework for r in (gguf, torch, none)] == [
        Framework.GGUF,
        Framework.PYTORCH,
        Framework.UNKNOWN,
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("org/Model-Instruct", ModelType.CHAT),
        ("org/model-chat-v2", ModelType.CHAT),
        ("org/gemma-3-1b-it-4bit", ModelType.CHAT),
        ("org/gemma-3-1b-it", ModelType.CHAT),
        ("org/gemma-3-italian", ModelType.BASE),
        ("org/nomic-embed-text", ModelType.EMBEDDING),
        ("org/bge-small-en", ModelType.EMBEDDING),
        ("org/multilingual-e5-large-instruct", ModelType.EMBEDDING),
        ("org/Qwen3-Embedding-0.6B", ModelType.EMBEDDING),
        ("org/Llama-3-8B", ModelType.BASE),
    ],
)
async def test_type_is_detected_from_the_name(cache: Cache, hub: Path, name: str, kind: ModelType) -> None:
    assert (await _detect(cache, hub, name)).model.model_type is kind


@pytest.mark.parametrize("extra", ["chat_template.jinja", "chat_template.json"])
async def test_chat_template_means_chat(cache: Cache, hub: Path, extra: str) -> None:
    files = {**model_files(chat=False), extra: b"{{ messages }}"}
    assert (await _detect(cache, hub, "org/m", files)).model.model_type is ModelType.CHAT
    report = await _detect(cache, hub, "org/n", model_files(chat=True))
    assert report.model.capabilities == [Capability.TEXT_GENERATION, Capability.CHAT]


async def test_null_or_only_mentioned_chat_template_is_ignored(cache: Cache, hub: Path) -> None:
    for number, raw in enumerate((b'{"chat_template": null}', b'{"note": "\\"chat_template\\": x"}')):
        files = {**model_files(chat=False), "tokenizer_config.json": raw}
        assert (await _detect(cache, hub, f"org/m{number}", files)).model.model_type is ModelType.BASE


async def test_sentence_transformers_files_mean_embedding_even_with_a_chat_template(
    cache: Cache, hub: Path
) -> None:
    report = await _detect(cache, hub, "org/m", {**model_files(), "modules.json": b"[1]"})
    assert report.model.model_type is ModelType.EMBEDDING
    assert report.model.capabilities == [Capability.EMBEDDINGS]


async def test_vision_and_audio_come_from_the_config(cache: Cache, hub: Path) -> None:
    vision = await _detect(cache, hub, "org/v-instruct", vision_config={"depth": 1})
    audio = await _detect(cache, hub, "mlx-community/whisper-tiny", model_type="whisper")
    assert vision.model.modalities == [Modality.VISION]
    assert vision.model.capabilities == [Capability.TEXT_GENERATION, Capability.CHAT]
    assert (audio.model.model_type, audio.model.capabilities) == (ModelType.UNKNOWN, [])
    assert audio.model.modalities == [Modality.AUDIO]


async def test_numbers_are_read_from_a_nested_text_config(cache: Cache, hub: Path) -> None:
    config: dict[str, object] = dict.fromkeys(
        ("max_position_embeddings", "num_hidden_layers", "hidden_size", "num_attention_heads", "head_dim")
    )
    text = {"max_position_embeddings": 131072, "num_hidden_layers": 36, "hidden_size": 2560}
    report = await _detect(cache, hub, "org/m", None, **config, text_config=text)
    assert report.model.context_length == 131072
    assert (report.facts.layers, report.facts.hidden_size) == (36, 2560)


@pytest.mark.parametrize("value", ["4096", -1, 0, 2.5, True, [1], None, 10**40])
async def test_invalid_numbers_are_ignored(cache: Cache, hub: Path, value: object) -> None:
    assert (await _detect(cache, hub, "org/m", max_position_embeddings=value)).model.context_length is None


async def test_packed_weights_are_counted_as_parameters(cache: Cache, hub: Path) -> None:
    weights = safetensors({"w": ("U32", (64, 8)), "s": ("F16", (64, 1)), "b": ("F16", (64, 1))})
    files = {**model_files(), "model.safetensors": weights}
    assert (await _detect(cache, hub, "org/m", files)).facts.parameters == 64 * 64


def test_numbers_that_json_cannot_print_become_text() -> None:
    parsed = parse_json(b'{"a": Infinity, "b": [NaN], "c": 1e999, "d": "\\ud800"}')
    assert parsed.value == {"a": "Infinity", "b": ["NaN"], "c": "1e999", "d": "\\ud800"}


def test_front_matter_is_between_the_first_two_rules() -> None:
    assert parse_front_matter(b"---\na: 1\n---\nb: 2\n---\n") == {"a": "1"}
