"""POST /v1/embeddings: vectors of texts, by an embedding model."""

from __future__ import annotations

import array
import asyncio
import base64
import json
import math
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field, WithJsonSchema

from mlxk_tui.engine.client import Embeddings
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import invalid
from mlxk_tui.server.openai.completion_request import Prompts, longest_ids_of
from mlxk_tui.server.requests.schema import ModelName, Schema
from mlxk_tui.server.requests.shapes import TEXTS, WHOLE
from mlxk_tui.server.work import EngineWork

MAX_TEXTS = 2048
_VECTORS_AT_A_TIME = 32


class EmbeddingsRequest(Schema):
    """POST /v1/embeddings."""

    model: ModelName = None
    input: Annotated[Prompts, WithJsonSchema(TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1), WHOLE] | None = None
    user: str | None = None

    @property
    def longest_ids(self) -> int:
        """Most token ids of one of its texts; 0 where there are none."""
        return longest_ids_of(self.input)


async def create(call: Call) -> web.StreamResponse:
    """Turn texts into vectors."""
    asked = await call.body(EmbeddingsRequest)
    texts = _texts(asked.input)
    model = await call.service.chooser.choose(asked.model)
    found = await EngineWork[Embeddings](call, model, "\n".join(texts)).run(
        call.service.engine.embed(model, texts)
    )
    call.entry.prompt_tokens = found.tokens
    size = len(found.vectors[0])
    if asked.dimensions is not None and asked.dimensions > size:
        raise invalid(
            f"dimensions: the vectors of {model.name} have {size} numbers. Ask for at most as many.",
            "dimensions",
        )
    body = await _written(
        found, model.name, asked.dimensions or size, packed=asked.encoding_format == "base64"
    )
    return web.Response(body=body, content_type="application/json")


def _texts(given: str | Sequence[str | int | list[int]]) -> list[str]:
    """Return the texts.

    Raises:
        ApiError: 400: there is none, one is empty, there are too many, or they are token ids.
    """
    texts = [given] if isinstance(given, str) else [text for text in given if isinstance(text, str)]
    if len(texts) != (1 if isinstance(given, str) else len(given)):
        # Clients that send them count with a tokenizer of OpenAI's, whose ids mean nothing to other models.
        raise invalid("input: token ids of other models mean nothing to this one. Send texts.", "input")
    if not texts or not all(texts):
        raise invalid("input: it is empty. Give a text, or a list of texts without empty ones.", "input")
    if len(texts) > MAX_TEXTS:
        raise invalid(f"input: at most {MAX_TEXTS:,} texts are embedded at once.", "input")
    return texts


async def _written(found: Embeddings, model: str, size: int, *, packed: bool) -> bytes:
    """Return the answer as JSON, a few vectors at a time: many take long to write.

    Args:
        found: the vectors.
        model: its name.
        size: how many numbers of each to keep.
        packed: write them as base64 of little-endian float32.
    """
    parts: list[bytes] = []
    for index, vector in enumerate(found.vectors):
        if index % _VECTORS_AT_A_TIME == _VECTORS_AT_A_TIME - 1:
            await asyncio.sleep(0)
        values = shortened(vector, size)
        written = f'"{_packed(values)}"' if packed else json.dumps(values, separators=(",", ":"))
        parts.append(f'{{"object":"embedding","index":{index},"embedding":{written}}}'.encode("ascii"))
    tail = {"model": model, "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens}}
    ending = json.dumps(tail, separators=(",", ":")).encode("ascii")
    return b'{"object":"list","data":[' + b",".join(parts) + b"]," + ending[1:]


def shortened(vector: Sequence[float], size: int) -> list[float]:
    """Return the first `size` numbers of a vector, of length one again.

    Models that were trained for it (Matryoshka) keep most of their meaning there.
    """
    if size >= len(vector):
        return list(vector)
    kept = vector[:size]
    length = math.sqrt(sum(value * value for value in kept))
    return [value / length for value in kept] if length else list(kept)


def _packed(values: Sequence[float]) -> str:
    numbers = array.array("f", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


ROUTES = (
    Route(
        "POST",
        "/v1/embeddings",
        create,
        "Turn texts into vectors",
        schema=EmbeddingsRequest,
        answer=("object", "data", "model", "usage"),
    ),
)
