"""Names: conversion between folders and repo names, specs, and matching."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.names import dir_to_name, is_valid_repo_name, name_to_dir, parse_spec, resolve
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable

_SEGMENT = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_]|[._-](?=[A-Za-z0-9_])){0,30}", fullmatch=True)
CLEAN_NAMES = st.one_of(_SEGMENT, st.builds("{}/{}".format, _SEGMENT, _SEGMENT)).filter(is_valid_repo_name)


@given(CLEAN_NAMES)
def test_valid_names_and_folders_map_one_to_one(name: str) -> None:
    assert dir_to_name(name_to_dir(name)) == name


@given(st.binary(max_size=80))
def test_any_folder_name_has_a_printable_name(raw: bytes) -> None:
    folder = os.fsdecode(b"models--" + raw)
    name = dir_to_name(folder)
    assert (name is None) == (raw == b"")
    shown = printable(name or "")
    shown.encode("utf-8")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("models--org--model", "org/model"),
        ("models--gpt2", "gpt2"),
        ("models--a--b---c", "a/b/-c"),
        ("models--", None),
        ("datasets--org--set", None),
        ("spaces--org--app", None),
        (".locks", None),
        ("blobs", None),
    ],
)
def test_folder_names_are_converted_to_repo_names(folder: str, name: str | None) -> None:
    assert dir_to_name(folder) == name


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("org/model", True),
        ("gpt2", True),
        ("mlx-community/Qwen3-4B-Instruct-2507-4bit", True),
        ("a" * 96, True),
        ("a" * 97, False),
        ("org/mo--del", False),
        ("org/-model", False),
        ("org/model.", False),
        ("org/model.git", False),
        ("a/b/c", False),
        ("", False),
        ("org/mo del", False),
    ],
)
def test_valid_names_follow_the_rules_of_the_hub(name: str, clean: bool) -> None:
    assert is_valid_repo_name(name) is clean


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "@",
        "@main",
        "org/model@",
        "org/model@ ",
        "/etc/passwd",
        "org/model/",
        "org//model",
        "..",
        "../../etc",
        "org/..",
        "./x",
        "org/model@../../x",
        "org/model@/x",
        "org\x00model",
        "org/mod\x1bel",
        "org/mod\nel",
        "org\\model",
        "a" * 97,
        "caf\udce9",
    ],
)
def test_malformed_specs_are_rejected(text: str) -> None:
    with pytest.raises(OpError) as caught:
        parse_spec(text)
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    caught.value.message.encode("utf-8")


def test_spec_has_a_name_and_an_optional_revision() -> None:
    assert parse_spec("org/model").revision is None
    spec = parse_spec("org/model@refs/pr/1")
    assert (spec.name, spec.revision) == ("org/model", "refs/pr/1")


NAMES = [
    "mlx-community/Phi-3-mini",
    "mlx-community/Phi-3-mini-128k",
    "Phi-3-mini",
    "org/A",
    "org/A-Large",
    "Org/llama",
]


@pytest.mark.parametrize(
    ("query", "name", "exact"),
    [
        ("Phi-3-mini", "Phi-3-mini", True),
        ("Phi-3-mini-128k", "mlx-community/Phi-3-mini-128k", False),
        ("phi-3-MINI-128k", "mlx-community/Phi-3-mini-128k", False),
        ("org/a", "org/A", False),
        ("org/A", "org/A", True),
        ("128k", "mlx-community/Phi-3-mini-128k", False),
        ("ORG/LLAMA", "Org/llama", False),
    ],
)
def test_first_level_with_a_match_wins(query: str, name: str, exact: bool) -> None:
    match = resolve(NAMES, query)
    assert (match.name, match.exact) == (name, exact)


def test_several_matches_are_ambiguous_and_listed_in_order() -> None:
    with pytest.raises(OpError) as caught:
        resolve(NAMES, "phi")
    assert caught.value.type is ErrorType.AMBIGUOUS_MATCH
    assert caught.value.matches == ("Phi-3-mini", "mlx-community/Phi-3-mini", "mlx-community/Phi-3-mini-128k")


@pytest.mark.parametrize(
    ("query", "name"),
    [("phi-3-mini", "Phi-3-mini"), ("phi-3-mini-128K", "mlx-community/Phi-3-mini-128k"), ("ORG/a", "org/A")],
)
def test_without_partial_names_a_full_name_or_last_segment_matches(query: str, name: str) -> None:
    assert resolve(NAMES, query, partial=False).name == name


@pytest.mark.parametrize("query", ["128k", "rg/A", "org", "x/llama", "/llama", ""])
def test_without_partial_names_nothing_else_matches(query: str) -> None:
    with pytest.raises(OpError) as caught:
        resolve(NAMES, query, partial=False)
    assert caught.value.type is ErrorType.MODEL_NOT_FOUND


def test_without_partial_names_no_organization_is_preferred() -> None:
    with pytest.raises(OpError) as caught:
        resolve(["mlx-community/a", "other/A"], "a", partial=False)
    assert caught.value.type is ErrorType.AMBIGUOUS_MATCH
    assert caught.value.matches == ("mlx-community/a", "other/A")


def test_no_match_is_model_not_found() -> None:
    with pytest.raises(OpError) as caught:
        resolve(NAMES, "nothing-like-it")
    assert caught.value.type is ErrorType.MODEL_NOT_FOUND


@given(st.text(max_size=120))
def test_no_spec_matches_a_folder_outside_the_cache(text: str) -> None:
    cache = Cache.from_environment()
    root = cache.root
    for folder in ("models--org--a", "models--mlx-community--b", "models--x"):
        (root / folder).mkdir(exist_ok=True)
    try:
        found = cache.find(text)
    except OpError:
        return
    assert found.ref.path.parent == root
    assert found.ref.folder_name.startswith("models--")


@pytest.mark.parametrize(
    "environ",
    [
        {"HF_HUB_CACHE": "/somewhere/hub"},
        {"HF_HOME": "/home-of-hf"},
        {"HF_HUB_CACHE": "/a", "HF_HOME": "/b"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "$HOME/sub"},
        {"HF_HOME": "~/sub"},
        {},
    ],
)
def test_cache_folder_matches_huggingface_hub(environ: dict[str, str]) -> None:
    import subprocess
    import sys

    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE", "XDG_"))
    }
    code = (
        "from mlxk_tui.ops.cache.cache import Cache; from huggingface_hub import constants; "
        "import os; print(Cache.from_environment().root); print(os.path.abspath(constants.HF_HUB_CACHE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environ}, capture_output=True, text=True, check=True
    )
    ours, theirs = done.stdout.split()
    assert ours == theirs
