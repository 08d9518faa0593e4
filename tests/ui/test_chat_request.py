"""The generation request for the stored settings of a chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlxk_tui.chats.model import Session
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.services.conversation.request import draft_of, request_of, shown_settings
from mlxk_tui.ui.chat.settings_form import parsed


def session(**settings: Any) -> Session:
    """Return a chat with these settings."""
    return Session(1, "Title", "org/model", "", settings, 0.0, 0.0, None)


def test_old_chat_uses_a_full_cache_and_no_draft_model() -> None:
    before = session(temperature=0.5)
    request = request_of(before, ())
    assert (request.sampling.temperature, request.kv_bits, request.draft_model) == (0.5, None, None)
    assert draft_of(before.settings) is None


@pytest.mark.parametrize("bits", [4, 8])
def test_kv_cache_bits_and_draft_model_reach_the_engine(bits: int) -> None:
    request = request_of(session(kv_bits=bits), (), RunnableModel("org/small", Path("folder")))
    assert (request.kv_bits, request.draft_model, request.draft_name) == (bits, "folder", "org/small")


@pytest.mark.parametrize("bits", [0, 5, 16, True, "8", 4.5, [4]])
def test_other_bits_are_rejected_with_the_engines_message(bits: object) -> None:
    with pytest.raises(OpError) as refused:
        request_of(session(kv_bits=bits), ())
    assert (refused.value.type, refused.value.message) == (
        ErrorType.VALIDATION_ERROR,
        "kv_bits takes 4 or 8.",
    )


@pytest.mark.parametrize("name", [None, "", "  ", 5, ["org/model"]])
def test_invalid_name_is_not_a_draft_model(name: object) -> None:
    assert draft_of({"draft_model": name}) is None


def test_form_returns_the_name_as_text_and_bits_as_a_number() -> None:
    assert parsed({"kv_bits": " 4 ", "draft_model": " org/a,b "}) == (
        {"kv_bits": 4, "draft_model": "org/a,b"},
        "",
    )
    assert parsed({"kv_bits": "four"})[1] == "KV cache bits: 'four' is not a whole number."


def test_kv_cache_and_draft_model_count_for_memory() -> None:
    assert shown_settings({"kv_bits": 8, "draft_model": "org/a"}, "") == "2 set"
