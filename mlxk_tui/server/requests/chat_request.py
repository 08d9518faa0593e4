"""The request of the chat API, which those of the Responses and Messages APIs become as well.

Optional fields may be null, unknown ones are ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator

from mlxk_tui.server.requests.schema import ModelName, Schema
from mlxk_tui.server.requests.shapes import (
    BIAS,
    NULL,
    STOPS,
    TEXT,
    WHOLE,
    conditions,
    either,
    fields,
    kind,
    nullable,
    ref,
    shape,
)

MAX_MESSAGES, MAX_TOOLS, MAX_STOPS, MAX_CHOICES = 10_000, 256, 16, 16


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
