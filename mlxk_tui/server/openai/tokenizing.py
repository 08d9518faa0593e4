"""POST /tokenize, POST /detokenize and GET /tokenizer_info, as vLLM has them; evaluation harnesses ask."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from pydantic import ConfigDict, Field, WithJsonSchema

from mlxk_tui.engine.protocol import Tokenize, Tokenized
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import invalid
from mlxk_tui.server.requests.chat_request import MAX_MESSAGES, MAX_TOOLS, ChatMessage, Tool
from mlxk_tui.server.requests.conversation import messages_of, template_kwargs_of
from mlxk_tui.server.requests.schema import ModelName, Schema
from mlxk_tui.server.requests.shapes import NULL, array, conditions, fields
from mlxk_tui.server.requests.tools import function_of
from mlxk_tui.server.work import EngineWork

_MAX_FILE_BYTES = 32 * 2**20
"""Most that is read of tokenizer_config.json; those with thousands of added tokens have one megabyte."""


class TokenizeRequest(Schema):
    """POST /tokenize: a text, or a conversation."""

    model_config = ConfigDict(
        json_schema_extra=conditions(
            (
                fields("prompt", prompt={"type": "string"}, messages=NULL),
                fields("messages", messages={"type": "array"}, prompt=NULL),
            ),
        )
    )

    model: ModelName = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    add_special_tokens: bool | None = Field(None, description="Of a text; true without it.")
    add_generation_prompt: bool | None = Field(None, description="Of a conversation; true without it.")
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Schema):
    """POST /detokenize."""

    model: ModelName = None
    tokens: Annotated[list[int], WithJsonSchema(array({"type": "integer", "minimum": 0}))]

    @property
    def longest_ids(self) -> int:
        """How many they are."""
        return len(self.tokens)


async def tokenize(call: Call) -> web.StreamResponse:
    """Turn a text or a conversation into tokens."""
    asked = await call.body(TokenizeRequest)
    if (asked.prompt is None) is (asked.messages is None):
        raise invalid("prompt: give a text as prompt, or a conversation as messages.", "prompt")
    command = Tokenize(
        0,
        text=asked.prompt,
        messages=messages_of(asked.messages or ()),
        tools=tuple(map(function_of, asked.tools or ())),
        template_kwargs=template_kwargs_of(asked.chat_template_kwargs, None, None),
        add_special=asked.add_special_tokens is not False,
        opens_answer=asked.add_generation_prompt is not False,
        names=asked.return_token_strs is True,
    )
    model = await call.service.chooser.choose(asked.model)
    engine = call.service.engine
    found = await EngineWork[Tokenized](call, model, asked.prompt or "").run(engine.tokenize(model, command))
    loaded = engine.status.model
    known = loaded.context_length if loaded is not None and loaded.folder == str(model.folder) else None
    return call.json(
        {
            "count": len(found.tokens),
            "max_model_len": known or model.context_length,
            "tokens": list(found.tokens),
            "token_strs": list(found.names) if command.names else None,
        }
    )


async def detokenize(call: Call) -> web.StreamResponse:
    """Turn tokens into text."""
    asked = await call.body(DetokenizeRequest)
    model = await call.service.chooser.choose(asked.model)
    work = call.service.engine.detokenize(model, asked.tokens)
    text = await EngineWork[str](call, model, f"{len(asked.tokens)} tokens").run(work)
    return call.json({"prompt": text})


async def info(call: Call) -> web.StreamResponse:
    """Tell what the repo says of its tokenizer: special tokens, chat template."""
    model = await call.service.chooser.choose(call.request.query.get("model"))
    return call.json(await asyncio.to_thread(read_info, Path(model.folder)))


def read_info(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json of a snapshot, its special tokens as texts, with the chat template.

    vLLM's answer is made of the loaded tokenizer, whose settings these are.
    """
    found = _read(folder / "tokenizer_config.json")
    try:
        given = json.loads(found) if found else {}
    except (ValueError, RecursionError):
        given = {}
    told: dict[str, Any] = {"tokenizer_class": None, "chat_template": None}
    told |= {name: _plain(value) for name, value in given.items()} if isinstance(given, dict) else {}
    template = _read(folder / "chat_template.jinja")
    if template:
        told["chat_template"] = template
    return told


def _plain(value: Any) -> Any:
    """Return an added token as its text."""
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
        "Turn a text or a conversation into tokens",
        schema=TokenizeRequest,
        answer=("count", "max_model_len", "tokens", "token_strs"),
    ),
    Route(
        "POST",
        "/detokenize",
        detokenize,
        "Turn tokens into text",
        schema=DetokenizeRequest,
        answer=("prompt",),
    ),
    Route(
        "GET",
        "/tokenizer_info",
        info,
        "What the repo says of its tokenizer; ?model= names it",
        answer=("tokenizer_class", "chat_template"),
    ),
)
