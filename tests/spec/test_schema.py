"""The schema file: generated, up to date, with one definition per command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlxk_tui.ops.contract.results import SPEC_VERSION, Command
from mlxk_tui.ops.contract.schema import COMMAND_DATA, build_schema, schema_text

pytestmark = pytest.mark.spec

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "json-api-schema.json"
HOW = "stale: python -m mlxk_tui.ops.contract.schema docs/json-api-schema.json"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text("utf-8")))


def test_schema_file_is_up_to_date() -> None:
    assert SCHEMA_FILE.read_text("utf-8") == schema_text(), HOW


def test_the_schema_is_valid_and_names_the_version() -> None:
    schema = build_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert f"JSON API {SPEC_VERSION}." in schema["description"]


def test_module_writes_the_schema_file(tmp_path: Path) -> None:
    target = tmp_path / "schema.json"
    subprocess.run(
        [sys.executable, "-m", "mlxk_tui.ops.contract.schema", str(target)], check=True, timeout=60
    )
    assert target.read_text("utf-8") == schema_text()


def test_every_command_except_cli_has_data() -> None:
    assert set(COMMAND_DATA) == set(Command) - {Command.CLI}


def _envelope(**changes: Any) -> dict[str, Any]:
    return {
        "status": "success",
        "command": "list",
        "data": {"models": [], "count": 0},
        "error": None,
        **changes,
    }


_ERROR = {"type": "model_not_found", "message": "There is none."}


@pytest.mark.parametrize(
    "envelope",
    [
        _envelope(),
        _envelope(status="error", data=None, error=_ERROR),
        _envelope(status="error", command="cli", data=None, error=_ERROR),
        _envelope(status="error", data=None, error={**_ERROR, "matches": ["a/b"]}),
    ],
)
def test_valid_envelopes_are_accepted(
    envelope: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    assert validator.is_valid(envelope)


@pytest.mark.parametrize(
    "envelope",
    [
        pytest.param(_envelope(command="show"), id="data of another command"),
        pytest.param(_envelope(command="pick"), id="a command that there is not"),
        pytest.param(_envelope(command="cli"), id="a success of no command"),
        pytest.param(_envelope(data=None), id="a success without data"),
        pytest.param(_envelope(error=_ERROR), id="a success with an error"),
        pytest.param(_envelope(status="error", error=_ERROR), id="an error of list with data"),
        pytest.param(_envelope(status="error", data=None), id="an error without an error"),
        pytest.param(_envelope(status="ok"), id="a status that there is not"),
        pytest.param(_envelope(status="error", data=None, error={"type": "odd", "message": ""}), id="a type"),
        pytest.param(_envelope(extra=1), id="a fifth key"),
        pytest.param({"status": "success", "command": "list", "data": None}, id="three keys"),
        pytest.param(_envelope(data={"models": [], "count": 0, "more": 1}), id="a key too many in data"),
        pytest.param(_envelope(data={"models": []}), id="a key too few in data"),
    ],
)
def test_invalid_envelopes_are_rejected(
    envelope: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    assert not validator.is_valid(envelope)
