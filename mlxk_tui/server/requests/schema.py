"""The base class of request schemas, and validation with an error that names the field."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, WithJsonSchema
from pydantic_core import CoreSchema

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.requests.json_schemas import MODEL_NAME

MODEL_NAMES = (
    "Full name as in GET /v1/models, its last part, NON_EMPTY_STRING@REV, or an alias; null for the default."
)
ModelName = Annotated[str | None, WithJsonSchema({**MODEL_NAME, "description": MODEL_NAMES})]


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
    """Base class of all request schemas."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, protected_namespaces=())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Stop validating a list at its first error: a hostile one has millions, and each takes memory."""
        schema = handler(source)
        _fail_fast(schema)
        return schema

    @property
    def longest_ids(self) -> int:
        """Number of token ids of the longest prompt; 0 if the prompts are text."""
        return 0


S = TypeVar("S", bound=Schema)


def parse(schema: type[S], body: dict[str, Any]) -> S:
    """Validate a body against a schema.

    Raises:
        ApiError: 400, with the first invalid field.
    """
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        raise _to_api_error(error) from None
    except RecursionError:
        raise invalid("The body is nested too deeply. Reduce the nesting.") from None


_BRANCHES = {"str", "int", "float", "bool"}
"""Pydantic's error paths also contain the union member: one of these, `list[str]`, `NamedTool`."""


def _to_api_error(error: ValidationError) -> ApiError:
    """Return an error for the most specific failure, which is that of the best matching union member."""
    failures = error.errors(include_url=False, include_context=False, include_input=False)
    failure = max(failures, key=lambda item: len(item["loc"]))
    path = ""
    for step in failure["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier() and step.islower() and step not in _BRANCHES:
            path += f".{step}" if path else step
    path = path[:200]
    text = failure["msg"].replace("Input should be", "it must be")
    text = text.replace("Field required", "it is missing").removeprefix("Value error, ")
    return invalid(f"{path or 'The body'}: {text}.", path or None)
