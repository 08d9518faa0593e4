"""litellm recognizes errors and tool calls over OpenAI's and Anthropic's API."""

from __future__ import annotations

import pytest

from tests.clients.conftest import HERE, RunProgram, last_json
from tests.engine.conftest import needs_mlx
from tests.server.served import ANSWER

pytestmark = [needs_mlx, pytest.mark.clients]


def test_litellm_recognizes_answers_calls_and_errors(run_program: RunProgram) -> None:
    told = last_json(
        run_program(
            "litellm", str(HERE / "programs" / "litellm_program.py"), LITELLM_LOCAL_MODEL_COST_MAP="True"
        )
    )
    assert set(told) == {"openai", "anthropic"}
    for outcome in told.values():
        assert outcome["long"] == outcome["long streamed"] == {"raised": "ContextWindowExceededError"}
        assert outcome["unknown"] == {"raised": "NotFoundError"}
        assert ANSWER.startswith(outcome["short"]["text"])
        assert outcome["streamed"]["text"] == outcome["short"]["text"] != ""
        assert outcome["short"]["reason"] == "length"
        # It is truncated, but still a call.
        assert (outcome["forced"]["calls"], outcome["forced"]["reason"]) == (["get_weather"], "length")
        assert not outcome["forced"]["text"]
