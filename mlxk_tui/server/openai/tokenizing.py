"""The routes POST /tokenize, POST /detokenize and GET /tokenizer_info.

They are compatible with vLLM's and are used by evaluation harnesses such as lm-evaluation-harness.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from pydantic import ConfigDict, Field, WithJsonSchema

from mlxk_tui.engine.protocol import Tokenize, Tokenized
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.engine_work import EngineWork
from mlxk_tui.server.errors import invalid
from mlxk_tui.server.requests.chat_request import MAX_MESSAGES, MAX_TOOLS, ChatMessage, Tool
from mlxk_tui.server.requests.conversation import to_messages, to_template_kwargs
from mlxk_tui.server.requests.json_schemas import NULL, all_of, array, condition
from mlxk_tui.server.requests.schema import ModelName, Schema
from mlxk_tui.server.requests.tools import to_function

_MAX_FILE_BYTES = 32 * 2**20
"""Maximum bytes to read of tokenizer_config.json; files with thousands of added tokens have about 1 MB."""


class TokenizeRequest(Schema):
    """POST /tokenize: a text or a conversation."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            (
                condition("prompt", prompt={"type": "string"}, messages=NULL),
                condition("messages", messages={"type": "array"}, prompt=NULL),
            ),
        )
    )

    model: ModelName = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    add_special_tokens: bool | None = Field(None, description="For a text. Default: true.")
    add_generation_prompt: bool | None = Field(None, description="For a conversation. Default: true.")
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Schema):
    """POST /detokenize."""

    model: ModelName = None
    tokens: Annotated[list[int], WithJsonSchema(array({"type": "integer", "minimum": 0}))]

    @property
    def longest_ids(self) -> int:
        """Number of token ids, all of which are one prompt."""
        return len(self.tokens)


async def tokenize(call: Call) -> web.StreamResponse:
    """Handle POST /tokenize: return the token ids of a text, or of a conversation with its template."""
    request = await call.body(TokenizeRequest)
    if (request.prompt is None) is (request.messages is None):
        raise invalid("prompt: send either prompt or messages.", "prompt")
    command = Tokenize(
        0,
        text=request.prompt,
        messages=to_messages(request.messages or ()),
        tools=tuple(map(to_function, request.tools or ())),
        template_kwargs=to_template_kwargs(request.chat_template_kwargs, None, None),
        add_special_tokens=request.add_special_tokens is not False,
        add_generation_prompt=request.add_generation_prompt is not False,
        return_token_strs=request.return_token_strs is True,
    )
    model = await call.service.resolver.resolve(request.model)
    engine = call.service.engine
    found = await EngineWork[Tokenized](call, model, request.prompt or "").run(
        engine.tokenize(model, command)
    )
    loaded = engine.status.model
    known = loaded.context_length if loaded is not None and loaded.folder == str(model.folder) else None
    return call.json(
        {
            "count": len(found.tokens),
            "max_model_len": known or model.context_length,
            "tokens": list(found.tokens),
            "token_strs": list(found.token_strs) if command.return_token_strs else None,
        }
    )


async def detokenize(call: Call) -> web.StreamResponse:
    """Handle POST /detokenize: return the text of token ids."""
    request = await call.body(DetokenizeRequest)
    model = await call.service.resolver.resolve(request.model)
    work = call.service.engine.detokenize(model, request.tokens)
    text = await EngineWork[str](call, model, f"{len(request.tokens)} tokens").run(work)
    return call.json({"prompt": text})


async def info(call: Call) -> web.StreamResponse:
    """Handle GET /tokenizer_info: return the tokenizer's configuration; the query sets the model."""
    model = await call.service.resolver.resolve(call.request.query.get("model"))
    return call.json(await asyncio.to_thread(read_tokenizer_info, Path(model.folder)))


def read_tokenizer_info(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json of a snapshot, with special tokens as strings and the chat template.

    vLLM returns the settings of the loaded tokenizer, which come from the same file.
    """
    text = _read(folder / "tokenizer_config.json")
    try:
        config = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        config = {}
    result: dict[str, Any] = {"tokenizer_class": None, "chat_template": None}
    result |= {name: _token_text(value) for name, value in config.items()} if isinstance(config, dict) else {}
    template = _read(folder / "chat_template.jinja")
    if template:
        result["chat_template"] = template
    return result


def _token_text(value: Any) -> Any:
    """Return the text of an `AddedToken`; any other value unchanged."""
    if isinstance(value, dict) and isinstance(value.get("content"), str) and "lstrip" in value:
        return value["content"]
    return value


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError:
        return ""


ROUTES = (
    Route(
        "POST",
        "/tokenize",
        tokenize,
        "Tokenize a text or a conversation",
        schema=TokenizeRequest,
        response_fields=("count", "max_model_len", "tokens", "token_strs"),
    ),
    Route(
        "POST",
        "/detokenize",
        detokenize,
        "Convert token ids to text",
        schema=DetokenizeRequest,
        response_fields=("prompt",),
    ),
    Route(
        "GET",
        "/tokenizer_info",
        info,
        "Return the tokenizer's configuration; set the model with ?model=",
        response_fields=("tokenizer_class", "chat_template"),
    ),
)
