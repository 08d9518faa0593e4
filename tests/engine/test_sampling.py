"""Validation of sampling parameters, and defaults of the model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.engine.generation import SamplingParams
from mlxk_tui.engine.sampling import default_sampling, eos_token_ids, merge_sampling, validate_sampling
from mlxk_tui.ops.core.errors import ErrorType, OpError

VOCAB = 1000


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"temperature": 0},
        {"temperature": 2, "top_p": 1.0, "min_p": 0, "top_k": 999, "seed": 2**64 - 1},
        {"seed": -(2**63), "top_k": 0, "repetition_penalty": 1.1},
        {"presence_penalty": -2, "frequency_penalty": 2, "logit_bias": {0: -100, 999: 100.0}},
    ],
)
def test_valid_values_are_accepted(good: dict[str, Any]) -> None:
    validate_sampling(SamplingParams(**good), VOCAB)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("temperature", -0.1, "0 to 2"),
        ("temperature", 2.1, "0 to 2"),
        ("temperature", float("nan"), "0 to 2"),
        ("temperature", "1", "0 to 2"),
        ("temperature", True, "0 to 2"),
        ("temperature", 10**400, "0 to 2"),
        ("top_p", 1.01, "0 to 1"),
        ("min_p", -1, "0 to 1"),
        ("repetition_penalty", float("inf"), "0 to 2"),
        ("presence_penalty", 3, "-2 to 2"),
        ("frequency_penalty", -2.5, "-2 to 2"),
        ("top_k", -1, "0 (all tokens) to 999"),
        ("top_k", 1000, "0 (all tokens) to 999"),
        ("top_k", 1.0, "0 (all tokens) to 999"),
        ("seed", 2**64, str(2**64 - 1)),
        pytest.param("seed", 10**5000, str(2**64 - 1), id="seed-of-5000-digits"),
        ("seed", 1.5, str(2**64 - 1)),
        ("logit_bias", {1000: 1}, "0 to 999"),
        ("logit_bias", {-1: 1}, "0 to 999"),
        ("logit_bias", {"5": 1}, "0 to 999"),
        ("logit_bias", {5: 101}, "-100 to 100"),
        ("logit_bias", {5: None}, "-100 to 100"),
    ],
)
def test_invalid_values_are_rejected_with_name_and_range(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(OpError) as refused:
        validate_sampling(SamplingParams(**{name: value}), VOCAB)
    assert refused.value.type is ErrorType.VALIDATION_ERROR
    assert refused.value.message.startswith(f"{name} cannot be ")
    assert allowed in refused.value.message
    assert "\x1b" not in refused.value.message


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0},
            SamplingParams(temperature=0.6, top_p=0.95, top_k=20, min_p=0.0),
        ),
        ({"do_sample": False, "temperature": 0.6}, SamplingParams(temperature=0.0)),
        ({"do_sample": True}, SamplingParams(temperature=1.0)),
        ({"repetition_penalty": 1.05}, SamplingParams(repetition_penalty=1.05)),
        ({"temperature": 50, "top_p": -1, "top_k": 1000, "min_p": None}, SamplingParams()),
        ({"temperature": "hot", "top_p": [], "top_k": 2.5, "do_sample": "no"}, SamplingParams()),
        ({"temperature": True, "top_k": True}, SamplingParams()),
        ({}, SamplingParams()),
        ([], SamplingParams()),
        (None, SamplingParams()),
        ("text", SamplingParams()),
    ],
)
def test_valid_values_of_the_model_are_used(config: object, expected: SamplingParams) -> None:
    assert default_sampling(config, VOCAB) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
keys = st.sampled_from(
    ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample", "eos_token_id"]
)


@given(st.dictionaries(keys, json_values) | json_values)
def test_any_generation_config_gives_valid_values(config: object) -> None:
    validate_sampling(merge_sampling(SamplingParams(), default_sampling(config, VOCAB)), VOCAB)
    assert all(0 <= token < VOCAB for token in eos_token_ids(config, VOCAB))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, (2,)),
        ([3, 2, 3], (3, 2)),
        ([1, "2", -1, True, 1000, None, 5], (1, 5)),
        (None, ()),
        ({"a": 1}, ()),
    ],
)
def test_model_may_have_several_end_of_turn_tokens(value: object, expected: tuple[int, ...]) -> None:
    assert eos_token_ids({"eos_token_id": value}, VOCAB) == expected


def test_request_overrides_the_model() -> None:
    model = SamplingParams(temperature=0.6, top_p=0.9, top_k=20)
    request = SamplingParams(temperature=0.0, top_k=0, seed=-1, logit_bias={5: 1.0})
    assert merge_sampling(request, model) == SamplingParams(
        temperature=0.0, top_p=0.9, top_k=0, seed=2**64 - 1, logit_bias={5: 1.0}
    )
    assert merge_sampling(SamplingParams(), model) == model


def test_top_p_of_zero_keeps_only_the_most_likely_token() -> None:
    assert merge_sampling(SamplingParams(top_p=0), SamplingParams()).top_p == pytest.approx(1e-9)
