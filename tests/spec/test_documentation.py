"""docs/json-api.md: valid examples, complete tables, current versions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main

from mlxk_tui import __version__
from mlxk_tui.ops.contract.results import (
    SPEC_VERSION,
    Capability,
    Command,
    Contract,
    ErrorInfo,
    Fix,
    MemoryFit,
    Modality,
    Model,
)
from mlxk_tui.ops.contract.schema import BATCH_DATA, COMMAND_DATA, build_schema
from mlxk_tui.ops.core.errors import ERRORS, ErrorType
from mlxk_tui_headless.cli import app
from tests.headless.running import checked_envelope

pytestmark = pytest.mark.spec

TEXT = (Path(__file__).parents[2] / "docs" / "json-api.md").read_text("utf-8")
EXAMPLES: list[dict[str, Any]] = [
    json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
]
ENVELOPES = [example for example in EXAMPLES if "status" in example]


def _name(example: dict[str, Any]) -> str:
    error = example.get("error")
    return f"{example['command']}-{error['type'] if error else 'success'}"


@pytest.mark.parametrize("example", ENVELOPES, ids=_name)
def test_examples_are_valid_envelopes(example: dict[str, Any]) -> None:
    checked_envelope(example)


def test_other_examples_are_progress_events() -> None:
    events = [example for example in EXAMPLES if "status" not in example]
    schema = {**build_schema()["$defs"]["Progress"], "additionalProperties": False}
    assert events
    for event in events:
        jsonschema.validate(event, schema)


def test_every_command_has_a_success_example() -> None:
    shown = {example["command"] for example in ENVELOPES if example["status"] == "success"}
    assert shown == {command.value for command in COMMAND_DATA}


def test_removal_examples_match_the_text() -> None:
    refused = next(example for example in ENVELOPES if _name(example) == "rm-confirmation_required")
    assert refused["data"]["action"] == "requires_confirmation"
    assert refused["error"]["matches"] == refused["data"]["matches"]


def test_table_of_errors_is_complete_and_correct() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d) \| (\d{3}) \| (.+) \|$", TEXT, re.MULTILINE)
    documented = {ErrorType(name): (int(status), int(http), meaning) for name, status, http, meaning in rows}
    assert documented == {type_: tuple(facts) for type_, facts in ERRORS.items()}
    assert set(ERRORS) == set(ErrorType)


def test_every_option_and_argument_is_documented() -> None:
    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009 - Click's Group, untyped here
    assert set(commands) == {command.value for command in Command} - {"cli"}
    for name, command in commands.items():
        heading = next(line for line in TEXT.splitlines() if line.startswith(f"### `{name}"))
        for parameter in command.params:
            if parameter.name in {"as_json", "progress", "help"}:  # documented once for all commands
                continue
            words = [parameter.metavar] if parameter.param_type_name == "argument" else parameter.opts
            assert any(word in heading for word in [*words, *parameter.secondary_opts]), (name, words)


def test_every_key_of_a_model_is_documented() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \| ", TEXT, re.MULTILINE))
    assert set(Model.model_fields) <= rows
    for enum in (Capability, Modality, Fix, MemoryFit):
        assert all(f"`{member.value}`" in TEXT for member in enum), enum


def test_every_key_of_every_result_is_documented() -> None:
    models: list[type[Contract]] = [*COMMAND_DATA.values(), *BATCH_DATA.values(), ErrorInfo]
    for model in models:
        missing = [name for name in model.model_fields if f"`{name}`" not in TEXT]
        assert not missing, (model.__name__, missing)


def test_documented_versions_match_the_program() -> None:
    assert f"**Version of this API: {SPEC_VERSION}**" in TEXT
    example = next(example for example in ENVELOPES if _name(example) == "version-success")
    assert example["data"]["json_api_spec_version"] == SPEC_VERSION
    assert example["data"]["cli_version"] == __version__
