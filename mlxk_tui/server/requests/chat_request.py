"""The schema of chat completion requests; Responses and Messages requests are converted to it.

Reference: https://platform.openai.com/docs/api-reference/chat/create. Optional fields may be null; unknown
fields are ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator

from mlxk_tui.server.requests.json_schemas import (
    INTEGER,
    LOGIT_BIAS,
    NULL,
    STOP,
    STRING,
    all_of,
    any_of,
    condition,
    enum_schema,
    nullable,
    object_schema,
    ref,
)
from mlxk_tui.server.requests.schema import ModelName, Schema

MAX_MESSAGES, MAX_TOOLS, MAX_STOPS, MAX_CHOICES = 10_000, 256, 16, 16


class ContentPart(Schema):
    """A part of a message's content; only text is supported."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema("type", "text", type=enum_schema("text", "input_text", "output_text"), text=STRING),
            object_schema("type", type=enum_schema("refusal"), refusal=nullable(STRING)),
        )
    )

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Schema):
    """The function that the model called, with its arguments."""

    name: str
    arguments: str | dict[str, Any] = ""


class CustomCall(Schema):
    """The custom tool that the model called, with its input."""

    name: str
    input: str = ""


class ToolCallMessage(Schema):
    """A tool call in an earlier response."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema(
                "function", id=nullable(STRING), type=nullable(STRING), function=ref("FunctionCall")
            ),
            object_schema("custom", id=nullable(STRING), type=nullable(STRING), custom=ref("CustomCall")),
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
    function_call: FunctionCall | None = Field(None, description="Deprecated form of tool_calls.")


class Function(Schema):
    """A function that the model may call, with its JSON schema."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomGrammar(Schema):
    """The grammar of a custom tool's input."""

    syntax: Literal["lark", "regex"]
    definition: str


class CustomFormat(Schema):
    """The format of a custom tool's input: any text, or text that matches a grammar."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema("type", type=enum_schema("text")),
            object_schema("type", "grammar", type=enum_schema("grammar"), grammar=ref("CustomGrammar")),
            object_schema(
                *("type", "syntax", "definition"),
                type=enum_schema("grammar"),
                syntax=enum_schema("lark", "regex"),
                definition=STRING,
            ),
        )
    )

    type: Literal["text", "grammar"]
    grammar: CustomGrammar | None = None
    syntax: Literal["lark", "regex"] | None = Field(None, description="As the Responses API has it.")
    definition: str | None = None

    @model_validator(mode="after")
    def _check_grammar(self) -> "CustomFormat":
        if self.type == "grammar" and self.syntax_and_definition is None:
            raise ValueError("a grammar needs its syntax and its definition")
        return self

    @property
    def syntax_and_definition(self) -> tuple[str, str] | None:
        """Syntax and definition of the grammar, in either notation; None if any text is allowed."""
        if self.type != "grammar":
            return None
        if self.grammar is not None:
            return self.grammar.syntax, self.grammar.definition
        if self.syntax is None or self.definition is None:
            return None
        return self.syntax, self.definition


class CustomTool(Schema):
    """A custom tool, whose input is text."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    format: CustomFormat | None = None


class Tool(Schema):
    """A tool that the model may call."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema("type", "function", type=enum_schema("function"), function=ref("Function")),
            object_schema("type", "custom", type=enum_schema("custom"), custom=ref("CustomTool")),
        )
    )

    type: Literal["function", "custom"]
    function: Function | None = None
    custom: CustomTool | None = None

    @property
    def body(self) -> Function | CustomTool | None:
        """The field that belongs to `type`; None if it is missing."""
        return self.function if self.type == "function" else self.custom

    @property
    def name(self) -> str:
        """The tool's name; empty if the field of its type is missing."""
        return self.body.name if self.body is not None else ""


class NamedFunction(Schema):
    """The name of a tool."""

    name: str


class NamedTool(Schema):
    """A reference to one of the tools."""

    type: str
    function: NamedFunction | None = None
    custom: NamedFunction | None = None

    @property
    def named(self) -> NamedFunction | None:
        """The field that belongs to `type`; None if it is missing."""
        return {"function": self.function, "custom": self.custom}.get(self.type)


class AllowedTools(Schema):
    """The subset of the tools that the model may call."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(max_length=MAX_TOOLS)


class ToolChoice(Schema):
    """The tool that the model must call, or the tools that it may call."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema("type", "function", type=enum_schema("function"), function=ref("NamedFunction")),
            object_schema("type", "custom", type=enum_schema("custom"), custom=ref("NamedFunction")),
            object_schema(
                "type", "allowed_tools", type=enum_schema("allowed_tools"), allowed_tools=ref("AllowedTools")
            ),
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
    """The format of the response: text, JSON, or JSON with a schema."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema("type", type=enum_schema("text", "json_object")),
            object_schema(
                *("type", "json_schema"),
                type=enum_schema("json_schema"),
                json_schema=object_schema("schema", name=nullable(STRING), schema={"type": "object"}),
            ),
        )
    )

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Schema):
    """Options of a streamed response."""

    include_usage: bool | None = None


class SamplingRequest(Schema):
    """The fields that chat and text completions share."""

    model: ModelName = None
    max_tokens: Annotated[int, Field(ge=1), INTEGER] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Annotated[int, Field(ge=0), INTEGER] | None = None
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0, le=2)
    logit_bias: Annotated[dict[str, float] | None, WithJsonSchema(LOGIT_BIAS)] = Field(None, max_length=1024)
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64), INTEGER] | None = None
    stop: Annotated[str | list[str] | None, WithJsonSchema(STOP)] = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), INTEGER] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None


class ChatRequest(SamplingRequest):
    """POST /v1/chat/completions."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            (condition("logprobs", logprobs={"const": True}), condition(top_logprobs={"enum": [None, 0]})),
            (condition(tools=NULL), condition(functions=NULL)),
        )
    )

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Annotated[int, Field(ge=1), INTEGER] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), INTEGER] | None = None
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    functions: list[Function] | None = Field(
        None, max_length=MAX_TOOLS, description="Deprecated form of tools."
    )
    function_call: Literal["none", "auto"] | NamedFunction | None = Field(
        None, description="Deprecated form of tool_choice."
    )
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    reasoning_effort: str | None = None
