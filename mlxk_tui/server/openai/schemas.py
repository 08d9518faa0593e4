"""The requests of the chat and completions APIs: optional fields may be null, unknown ones are ignored."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.operations.shapes import (
    BIAS,
    MODEL,
    NULL,
    PROMPTS,
    STOPS,
    TEXT,
    WHOLE,
    conditions,
    either,
    fields,
    kind,
    nullable,
    ref,
    refused,
    shape,
)

MODEL_NAMES = "Full name as in GET /v1/models, its last part, NAME@REV, or an alias; null is the default."
MAX_MESSAGES, MAX_TOOLS, MAX_STOPS, MAX_CHOICES, MAX_PROMPTS = 10_000, 256, 16, 16, 64


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


def _kind_of_prompts(given: object) -> str:
    """Tell by its first item what a prompt is, so that the rest is compared with one type only."""
    if isinstance(given, str):
        return "str"
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, list):
        return "list[list[int]]"
    return "list[int]" if isinstance(first, (int, float)) else "list[str]"


_Texts = Annotated[list[str], Tag("list[str]")]
_Tokens = Annotated[list[int], Tag("list[int]")]
_TokenLists = Annotated[list[list[int]], Tag("list[list[int]]")]
Prompts = Annotated[
    Annotated[str, Tag("str")] | _Texts | _Tokens | _TokenLists,
    Discriminator(_kind_of_prompts),
    WithJsonSchema(PROMPTS),
]
"""A text, several, token ids, or several lists of them."""


def longest_ids_of(prompts: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> int:
    """Return the most token ids of a prompt; 0 where there are none."""
    if isinstance(prompts, str) or not prompts or isinstance(prompts[0], str):
        return 0
    if isinstance(prompts[0], int):
        return len(prompts)
    return max(len(prompt) for prompt in prompts if isinstance(prompt, Sequence))


class ContentPart(Schema):
    """A piece of a message; only text can be read."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape("type", "text", type=kind("text", "input_text", "output_text"), text=TEXT),
            shape("type", type=kind("refusal"), refusal=nullable(TEXT)),
        )
    )

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Schema):
    """What the model called."""

    name: str
    arguments: str | dict[str, Any] = ""


class CustomCall(Schema):
    """The custom tool that the model called, and with what text."""

    name: str
    input: str = ""


class ToolCallMessage(Schema):
    """A tool call of an earlier answer."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape("function", id=nullable(TEXT), type=nullable(TEXT), function=ref("FunctionCall")),
            shape("custom", id=nullable(TEXT), type=nullable(TEXT), custom=ref("CustomCall")),
        )
    )

    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class ChatMessage(Schema):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallMessage] | None = Field(None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None
    function_call: FunctionCall | None = Field(None, description="Old form of tool_calls.")


class Function(Schema):
    """What a tool is called and takes."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomGrammar(Schema):
    """A grammar for the input of a custom tool."""

    syntax: Literal["lark", "regex"]
    definition: str


class CustomFormat(Schema):
    """What the input of a custom tool looks like: any text, or a text of a grammar."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape("type", type=kind("text")),
            shape("type", "grammar", type=kind("grammar"), grammar=ref("CustomGrammar")),
            shape(
                *("type", "syntax", "definition"),
                type=kind("grammar"),
                syntax=kind("lark", "regex"),
                definition=TEXT,
            ),
        )
    )

    type: Literal["text", "grammar"]
    grammar: CustomGrammar | None = None
    syntax: Literal["lark", "regex"] | None = Field(None, description="As the Responses API has it.")
    definition: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "CustomFormat":
        if self.type == "grammar" and self.syntax_and_definition is None:
            raise ValueError("a grammar needs its syntax and its definition")
        return self

    @property
    def syntax_and_definition(self) -> tuple[str, str] | None:
        """The grammar, wherever it stands; None where any text will do."""
        if self.type != "grammar":
            return None
        if self.grammar is not None:
            return self.grammar.syntax, self.grammar.definition
        if self.syntax is None or self.definition is None:
            return None
        return self.syntax, self.definition


class CustomTool(Schema):
    """What a tool that takes a text is called."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    format: CustomFormat | None = None


class Tool(Schema):
    """A tool that the model may call."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape("type", "function", type=kind("function"), function=ref("Function")),
            shape("type", "custom", type=kind("custom"), custom=ref("CustomTool")),
        )
    )

    type: Literal["function", "custom"]
    function: Function | None = None
    custom: CustomTool | None = None

    @property
    def body(self) -> Function | CustomTool | None:
        """What belongs to its type."""
        return self.function if self.type == "function" else self.custom

    @property
    def name(self) -> str:
        """Its name; empty where it is not whole."""
        return self.body.name if self.body is not None else ""


class NamedFunction(Schema):
    """The name of a tool."""

    name: str


class NamedTool(Schema):
    """One of the tools."""

    type: str
    function: NamedFunction | None = None
    custom: NamedFunction | None = None

    @property
    def named(self) -> NamedFunction | None:
        """What belongs to its type."""
        return {"function": self.function, "custom": self.custom}.get(self.type)


class AllowedTools(Schema):
    """Those of the tools that may be called this time."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(max_length=MAX_TOOLS)


class ToolChoice(Schema):
    """The one tool that has to be called, or those that may be."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape("type", "function", type=kind("function"), function=ref("NamedFunction")),
            shape("type", "custom", type=kind("custom"), custom=ref("NamedFunction")),
            shape("type", "allowed_tools", type=kind("allowed_tools"), allowed_tools=ref("AllowedTools")),
        )
    )

    type: Literal["function", "custom", "allowed_tools"]
    function: NamedFunction | None = None
    custom: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(Schema):
    """A JSON schema with its name."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, populate_by_name=True)

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Schema):
    """What the answer must look like."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape("type", type=kind("text", "json_object")),
            shape(
                *("type", "json_schema"),
                type=kind("json_schema"),
                json_schema=shape("schema", name=nullable(TEXT), schema={"type": "object"}),
            ),
        )
    )

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Schema):
    """What a stream tells."""

    include_usage: bool | None = None


class Sampled(Schema):
    """Fields that both APIs have."""

    model: ModelName = None
    max_tokens: Annotated[int, Field(ge=1), WHOLE] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Annotated[int, Field(ge=0), WHOLE] | None = None
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0, le=2)
    logit_bias: Annotated[dict[str, float] | None, WithJsonSchema(BIAS)] = Field(None, max_length=1024)
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64), WHOLE] | None = None
    stop: Annotated[str | list[str] | None, WithJsonSchema(STOPS)] = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None


class ChatRequest(Sampled):
    """POST /v1/chat/completions."""

    model_config = ConfigDict(
        json_schema_extra=conditions(
            (fields("logprobs", logprobs={"const": True}), fields(top_logprobs={"enum": [None, 0]})),
            (fields(tools=NULL), fields(functions=NULL)),
        )
    )

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Annotated[int, Field(ge=1), WHOLE] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    functions: list[Function] | None = Field(None, max_length=MAX_TOOLS, description="Old form of tools.")
    function_call: Literal["none", "auto"] | NamedFunction | None = Field(
        None, description="Old form of tool_choice."
    )
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    reasoning_effort: str | None = None


class CompletionRequest(Sampled):
    """POST /v1/completions."""

    model_config = ConfigDict(
        json_schema_extra=conditions(
            (
                fields("echo", echo={"const": True}),
                fields(max_tokens={"anyOf": [NULL, {"type": "integer", "minimum": 1}]}),
            ),
        )
    )

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0), WHOLE] | None = Field(
        None, description="0 with echo: nothing but the prompt."
    )
    suffix: Annotated[str | None, refused("")] = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None

    @property
    def longest_ids(self) -> int:
        """Most token ids of one of its prompts; 0 where there are none."""
        return longest_ids_of(self.prompt)


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
