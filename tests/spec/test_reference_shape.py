"""Every output for the sample cache has the format of MLX-Knife's JSON API 0.1.4.

`checked_envelope` checks the same for all outputs in the command's tests.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlxk_tui.demo.sample import build_sample_cache
from mlxk_tui.ops.contract.results import Command
from tests.headless.running import call
from tests.support.reference_shape import OWN_COMMANDS, departures

pytestmark = pytest.mark.spec

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "json-api-schema-0.1.4.json"
"""MLX-Knife's own schema, where it lies beside the checkout (in CI)."""

Envelope = dict[str, Any]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Envelope]:
    """Return the outputs of all commands that need neither hub nor engine, for all models of the sample."""
    hub = tmp_path_factory.mktemp("sample") / "hub"
    build_sample_cache(hub)
    names = [model["name"] for model in _printed("list", hub=hub)["data"]["models"]]
    assert len(names) > 20
    commands = [
        ["list"],
        ["health"],
        ["version"],
        ["show", "e"],
        ["show", f"{names[0]}@abcdef"],
        ["rm", "zz"],
    ]
    for name in names:
        commands += [["show", name, *flags] for flags in ([], ["--files"], ["--config"])]
        commands += [["show", name, "--files", "--config"], ["health", name], ["rm", name.swapcase()]]
    commands += [
        ["clone", names[0], str(hub.parent)],
        ["rm", names[0]],
        ["rm", names[1]],
        ["show"],
        ["pull", ".."],
    ]
    return [_printed(*command, hub=hub) for command in commands]


def _printed(*arguments: str, hub: Path) -> Envelope:
    printed: Envelope = json.loads(call(*arguments, "--json", hub=hub).stdout)
    return printed


def test_every_output_has_the_format_of_mlx_knife(outputs: list[Envelope]) -> None:
    assert len(outputs) > 140
    wrong = {json.dumps(output)[:200]: found for output in outputs if (found := departures(output))}
    assert not wrong


def test_only_additional_commands_are_excluded(outputs: list[Envelope]) -> None:
    for command in Command:
        odd = {"status": "odd", "command": command.value, "data": None, "error": None}
        assert bool(departures(odd)) is (command.value not in OWN_COMMANDS)
    assert not [output for output in outputs if output["command"] in OWN_COMMANDS]


def _opened(schema: Any) -> Any:
    """Return a schema that allows additional keys."""
    if isinstance(schema, dict):
        closed = schema.get("additionalProperties") is False
        return {k: _opened(v) for k, v in schema.items() if not (closed and k == "additionalProperties")}
    return [_opened(item) for item in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def reference() -> jsonschema.Draft7Validator:
    if not REFERENCE.is_file():
        pytest.skip(f"{REFERENCE.name} does not lie beside the checkout")
    return jsonschema.Draft7Validator(_opened(json.loads(REFERENCE.read_text("utf-8"))))


def test_mlx_knifes_own_schema_accepts_every_output(
    outputs: list[Envelope], reference: jsonschema.Draft7Validator
) -> None:
    for output in outputs:
        reference.validate(output)


def test_format_check_is_as_strict_as_mlx_knifes_schema(
    outputs: list[Envelope], reference: jsonschema.Draft7Validator
) -> None:
    """Change one output of each command in every place: both must accept and reject the same."""
    samples = {(output["command"], output["status"]): _short(output) for output in outputs}
    samples[("push", "success")] = _success(
        "push", repo_id="a/b", branch="main", commit_sha="x", repo_url="y", uploaded_files_count=2,
        experimental=True, disclaimer="z",
    )  # fmt: skip
    samples[("run", "success")] = _success(
        "run", model="a/b", prompt="x", response="y", tokens_generated=1, generation_time_s=0.5
    )
    samples[("pull", "success")] = _success(
        "pull", model="a/b", download_status="success", message="x", expanded_name="y"
    )
    refused = 0
    for sample in samples.values():
        for broken in (sample, *_broken(sample)):
            accepted = reference.is_valid(broken)
            assert accepted is (not departures(broken)), (broken, departures(broken))
            refused += not accepted
    assert refused > 200


def _short(value: Any) -> Any:
    """Return a value with only one item of every list."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value[:1]] if isinstance(value, list) else value


def _success(command: str, **data: object) -> Envelope:
    return {"status": "success", "command": command, "data": data, "error": None}


_DAMAGES: tuple[object, ...] = (None, 5, -1, 0.5, "odd", [], ["odd"], [5], {}, True, "gone")


def _broken(envelope: Envelope) -> Iterator[Envelope]:
    for path in _paths(envelope):
        for damage in _DAMAGES:
            broken = copy.deepcopy(envelope)
            holder: Any = broken
            for step in path[:-1]:
                holder = holder[step]
            if damage == "gone":
                del holder[path[-1]]
            else:
                holder[path[-1]] = damage
            # Both reject other commands, for different reasons.
            if str(broken.get("command")) not in OWN_COMMANDS:
                yield broken


def _paths(value: Any, depth: int = 0) -> Iterator[list[Any]]:
    """Yield the path to every key and first item, five levels deep."""
    keys: list[Any] = (
        list(value) if isinstance(value, dict) else [0] if isinstance(value, list) and value else []
    )
    for key in keys if depth < 5 else []:
        yield [key]
        for rest in _paths(value[key], depth + 1):
            yield [key, *rest]
