"""langchain-openai passes LangChain's standard tests of a chat model with both of OpenAI's APIs."""

from __future__ import annotations

import re

import pytest

from tests.clients.conftest import HERE, RunProgram
from tests.engine.conftest import needs_mlx

pytestmark = [needs_mlx, pytest.mark.clients]

NEED_SENSE = (
    "test_tool_calling",  # calls magic_function with 3
    "test_structured_output_pydantic_2_v1",  # writes a joke in JSON that nothing constrains
    "test_structured_output_optional_param",
    "test_json_mode",
    "test_agent_loop",  # has to decide to use a tool
    "test_unicode_tool_call_integration",  # has to complete a text
)
"""Those that ask whether the model is clever: the tiny one is not."""


def test_langchain_standard_tests_pass(run_program: RunProgram) -> None:
    done = run_program(
        "langchain",
        *("-m", "pytest", "-q", "-rf", "-c", "/dev/null", "-p", "no:cacheprovider", "--noconftest"),
        *(
            "--import-mode=importlib",
            "--rootdir",
            str(HERE),
            "-o",
            "asyncio_mode=auto",
            "-o",
            "asyncio_default_test_loop_scope=session",
        ),
        *("-o", "asyncio_default_fixture_loop_scope=session"),
        *("-k", " and ".join(f"not {name}" for name in NEED_SENSE)),
        str(HERE / "programs" / "langchain_suite.py"),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted is not None
    assert int(counted[1]) >= 60
