"""The base of every request's schema, and a body read as one: the first fault is named by its field."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, WithJsonSchema
from pydantic_core import CoreSchema

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.requests.shapes import MODEL

MODEL_NAMES = "Full name as in GET /v1/models, its last part, NAME@REV, or an alias; null is the default."
ModelName = Annotated[str | None, WithJsonSchema({**MODEL, "description": MODEL_NAMES})]


def _fail_fast(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for inner in schema.values():
            _fail_fast(inner)
    elif isinstance(schema, (list, tuple)):
        for inner in schema:
            _fail_fast(inner)


class Schema(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let every list stop at its first fault: a hostile one has millions, and each takes memory."""
        schema = handler(source)
        _fail_fast(schema)
        return schema

    @property
    def longest_ids(self) -> int:
        """Most token ids of one of its prompts; 0 where there are none."""
        return 0


S = TypeVar("S", bound=Schema)


def parse(schema: type[S], body: dict[str, Any]) -> S:
    """Return the request that a body is.

    Raises:
        ApiError: 400, naming the first field that is wrong.
    """
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        raise _explain(error) from None
    except RecursionError:
        raise invalid("The body is nested too deep.") from None


_BRANCHES = {"str", "int", "float", "bool"}
"""Pydantic names the branch of a union in a path too: these, `list[str]`, `NamedTool`."""


def _explain(error: ValidationError) -> ApiError:
    """Tell of the first fault; of a value that may be of several types, the one that came nearest."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    fault = max(faults, key=lambda one: len(one["loc"]))
    path = ""
    for step in fault["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier() and step.islower() and step not in _BRANCHES:
            path += f".{step}" if path else step
    path = path[:200]
    said = fault["msg"].replace("Input should be", "it must be").replace("Field required", "it is missing")
    said = said.removeprefix("Value error, ")
    return invalid(f"{path or 'The body'}: {said}.", path or None)
