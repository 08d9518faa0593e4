"""The JSON schema of everything that `--json` prints, generated from the contract's models.

python -m mlxk_tui.ops.contract.schema docs/json-api-schema.json
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from mlxk_tui.ops.contract.inference import RunData, ServerData
from mlxk_tui.ops.contract.results import (
    SPEC_VERSION,
    CloneData,
    Command,
    Contract,
    ErrorInfo,
    HealthData,
    ListData,
    PruneData,
    RmData,
    ShowData,
    VersionData,
)
from mlxk_tui.ops.contract.sharing import LockData, ShareData
from mlxk_tui.ops.contract.transfers import PullBatchData, PullData, PushData, SearchData
from mlxk_tui.ops.contract.updates import UpdateData
from mlxk_tui.ops.core.events import Progress

DIALECT = "https://json-schema.org/draft/2020-12/schema"

COMMAND_DATA: dict[Command, type[Contract]] = {
    Command.LIST: ListData,
    Command.SHOW: ShowData,
    Command.HEALTH: HealthData,
    Command.RM: RmData,
    Command.CLONE: CloneData,
    Command.PRUNE: PruneData,
    Command.PULL: PullData,
    Command.UPDATE: UpdateData,
    Command.PUSH: PushData,
    Command.SEARCH: SearchData,
    Command.RUN: RunData,
    Command.SERVER: ServerData,
    Command.SHARE: ShareData,
    Command.LOCK: LockData,
    Command.VERSION: VersionData,
}
"""Model of `data` for each command."""

BATCH_DATA: dict[Command, type[Contract]] = {Command.PULL: PullBatchData}
"""Model of `data` for commands that also take several models."""

PARTIAL_DATA = frozenset(
    {
        Command.RM,
        Command.PRUNE,
        Command.CLONE,
        Command.PULL,
        Command.UPDATE,
        Command.PUSH,
        Command.RUN,
    }
)
"""Commands whose error may include data: what would be deleted, or how far the command got."""


def build_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the envelope; `command` and `status` select `data`."""
    models: list[type[Contract]] = [*COMMAND_DATA.values(), *BATCH_DATA.values(), ErrorInfo]
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/$defs/{model}"
    )
    return {
        "$schema": DIALECT,
        "title": "Envelope",
        "description": f"What `mlxk-headless … --json` prints: one object. JSON API {SPEC_VERSION}.",
        "type": "object",
        "additionalProperties": False,
        "required": ["status", "command", "data", "error"],
        "properties": {
            "status": {"enum": ["success", "error"]},
            "command": {"enum": [command.value for command in Command]},
            "data": {"type": ["object", "null"]},
            "error": {"anyOf": [_reference(ErrorInfo), {"type": "null"}]},
        },
        "oneOf": [_success(command) for command in COMMAND_DATA] + [_failure(command) for command in Command],
        "$defs": _plain({**definitions["$defs"], "Progress": _progress()}),
    }


def _progress() -> dict[str, Any]:
    return {"description": inspect.getdoc(Progress), **TypeAdapter(Progress).json_schema()}


def _plain(definitions: dict[str, Any]) -> dict[str, Any]:
    """Remove keywords without effect that only some versions of pydantic emit (2.9 and 2.14 compared)."""
    for key, value in list(definitions.items()):
        if key == "additionalProperties" and value is True:
            del definitions[key]
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                _plain(part)
    return definitions


def _success(command: Command) -> dict[str, Any]:
    return {
        "title": f"{command.value} succeeded",
        "properties": {
            "status": {"const": "success"},
            "command": {"const": command.value},
            "data": _data(command),
            "error": {"type": "null"},
        },
    }


def _failure(command: Command) -> dict[str, Any]:
    data: dict[str, Any] = {"type": "null"}
    if command in PARTIAL_DATA:
        data = {"anyOf": [*_data(command).get("anyOf", [_data(command)]), data]}
    return {
        "title": f"{command.value} failed",
        "properties": {
            "status": {"const": "error"},
            "command": {"const": command.value},
            "data": data,
            "error": _reference(ErrorInfo),
        },
    }


def _data(command: Command) -> dict[str, Any]:
    one = _reference(COMMAND_DATA[command])
    return {"anyOf": [one, _reference(BATCH_DATA[command])]} if command in BATCH_DATA else one


def _reference(model: type[Contract]) -> dict[str, str]:
    return {"$ref": f"#/$defs/{model.__name__}"}


def schema_text() -> str:
    """Return the content of `docs/json-api-schema.json`."""
    return json.dumps(build_schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    """Write the schema to the file named on the command line."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m mlxk_tui.ops.contract.schema FILE")
    Path(arguments[0]).write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
