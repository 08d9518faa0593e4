"""The filter grammar: matches of each term, and errors."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.ops.catalog.filters import FIELDS, parse
from mlxk_tui.ops.contract.results import Framework, Health, MemoryFit, Model, ModelType, Quantization
from mlxk_tui.ops.core.errors import ErrorType, OpError

MODEL = Model(
    name="mlx-community/Qwen3-4B-Instruct-4bit",
    hash="a" * 40,
    size_bytes=2_260_000_000,
    last_modified="2026-01-01T00:00:00Z",
    framework=Framework.MLX,
    model_type=ModelType.CHAT,
    capabilities=[],
    modalities=[],
    health=Health.HEALTHY,
    runtime_compatible=True,
    reason=None,
    cached=True,
    quantization=Quantization(bits=4, group_size=64),
    context_length=40_960,
    revisions=1,
    disk_bytes=2_260_000_000,
    memory_bytes=3_000_000_000,
    memory_fit=MemoryFit.TIGHT,
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "qwen3",
        "QWEN instruct",
        "type:chat",
        "health:good",
        "runs:yes",
        "fit:tight",
        "org:mlx-community",
        "org:MLX",
        "framework:mlx",
        "quant:4bit",
        "quant:4",
        "size>2GB",
        "size<=2.26GB",
        "size>2gib",
        "context>=40k",
        "-type:base",
        "-llama",
        "type:chat size>1GB -health:bad",
    ],
)
def test_matching_terms_match(text: str) -> None:
    assert parse(text).matches(MODEL)


def test_update_term_matches_models_with_an_update() -> None:
    assert parse("update:available qwen3").matches(MODEL, has_update=True)
    assert not parse("update:available").matches(MODEL)
    assert parse("-update:available").matches(MODEL)
    assert not parse("update:available -update:available").matches(MODEL, has_update=True)
    with pytest.raises(OpError) as caught:
        parse("update:soon")
    assert caught.value.message == "'update:' takes available, not 'soon'."


@pytest.mark.parametrize(
    "text",
    [
        "llama",
        "type:base",
        "type:embed",
        "health:bad",
        "runs:no",
        "fit:large",
        "org:qwen",
        "framework:gguf",
        "quant:8bit",
        "quant:none",
        "size>3GB",
        "size<2GB",
        "context<32k",
        "-type:chat",
        "qwen size>10GB",
    ],
)
def test_other_terms_do_not_match(text: str) -> None:
    assert not parse(text).matches(MODEL)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("health:ugly", "good or bad"),
        ("colour:red", "fields are type, health"),
        ("size>big", "such as size>10GB"),
        ("size:10GB", "size>10GB or size<10GB"),
        ("type>3", "type:…"),
        ("type:", "needs a value"),
        ("quant:four", "bits, such as 4bit"),
        ("size>10XB", "such as size>10GB"),
    ],
)
def test_invalid_term_lists_the_allowed_values(text: str, hint: str) -> None:
    with pytest.raises(OpError) as caught:
        parse(text)
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert hint in caught.value.message


@given(
    st.text(max_size=60)
    | st.sampled_from(list(FIELDS)).flatmap(lambda f: st.text(max_size=20).map(f"{f}:".__add__))
)
def test_any_text_is_a_filter_or_an_error(text: str) -> None:
    message = ""
    try:
        parse(text).matches(MODEL)
    except OpError as error:
        message = error.message
    assert not message or message.endswith(".")
