"""The route POST /v1/embeddings.

Reference: https://platform.openai.com/docs/api-reference/embeddings.
"""

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
from mlxk_tui.server.engine_work import EngineWork
from mlxk_tui.server.errors import invalid
from mlxk_tui.server.openai.completion_request import Prompts, longest_ids
from mlxk_tui.server.requests.json_schemas import EMBEDDING_INPUT, INTEGER
from mlxk_tui.server.requests.schema import ModelName, Schema

MAX_TEXTS = 2048
_BATCH_SIZE = 32


class EmbeddingsRequest(Schema):
    """POST /v1/embeddings."""

    model: ModelName = None
    input: Annotated[Prompts, WithJsonSchema(EMBEDDING_INPUT)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1), INTEGER] | None = None
    user: str | None = None

    @property
    def longest_ids(self) -> int:
        """Number of token ids of the longest input; 0 if the inputs are text."""
        return longest_ids(self.input)


async def create(call: Call) -> web.StreamResponse:
    """Handle POST /v1/embeddings: compute an embedding for each text of the input."""
    request = await call.body(EmbeddingsRequest)
    texts = _texts(request.input)
    model = await call.service.resolver.resolve(request.model)
    found = await EngineWork[Embeddings](call, model, "\n".join(texts)).run(
        call.service.engine.embed(model, texts)
    )
    call.entry.prompt_tokens = found.tokens
    size = len(found.vectors[0])
    if request.dimensions is not None and request.dimensions > size:
        raise invalid(
            f"dimensions: the embeddings of {model.name} have {size} dimensions. Use at most {size}.",
            "dimensions",
        )
    body = await _encode(
        found, model.name, request.dimensions or size, use_base64=request.encoding_format == "base64"
    )
    return web.Response(body=body, content_type="application/json")


def _texts(value: str | Sequence[str | int | list[int]]) -> list[str]:
    """Return the input as a list of texts.

    Raises:
        ApiError: 400 if there is no text, one is empty, there are too many, or they are token ids.
    """
    texts = [value] if isinstance(value, str) else [text for text in value if isinstance(text, str)]
    if len(texts) != (1 if isinstance(value, str) else len(value)):
        # Clients that send token ids use OpenAI's tokenizer, whose ids don't match those of other models.
        raise invalid("input: token ids are not supported. Send texts.", "input")
    if not texts or not all(texts):
        raise invalid("input: a text is missing or empty. Send one or more non-empty texts.", "input")
    if len(texts) > MAX_TEXTS:
        raise invalid(f"input: at most {MAX_TEXTS:,} texts are allowed. Send fewer.", "input")
    return texts


async def _encode(found: Embeddings, model: str, size: int, *, use_base64: bool) -> bytes:
    """Return the JSON of the response, encoded in batches so that other requests aren't blocked.

    Args:
        found: the embeddings.
        model: the name of the model.
        size: the number of dimensions to keep.
        use_base64: whether to encode each embedding as base64 of little-endian float32.
    """
    parts: list[bytes] = []
    for index, vector in enumerate(found.vectors):
        if index % _BATCH_SIZE == _BATCH_SIZE - 1:
            await asyncio.sleep(0)
        values = truncate(vector, size)
        encoded = f'"{_to_base64(values)}"' if use_base64 else json.dumps(values, separators=(",", ":"))
        parts.append(f'{{"object":"embedding","index":{index},"embedding":{encoded}}}'.encode("ascii"))
    tail = {"model": model, "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens}}
    ending = json.dumps(tail, separators=(",", ":")).encode("ascii")
    return b'{"object":"list","data":[' + b",".join(parts) + b"]," + ending[1:]


def truncate(vector: Sequence[float], size: int) -> list[float]:
    """Return the first `size` dimensions of an embedding, normalized to length 1.

    Models with Matryoshka training lose little quality (https://arxiv.org/abs/2205.13147).
    """
    if size >= len(vector):
        return list(vector)
    kept = vector[:size]
    length = math.sqrt(sum(value * value for value in kept))
    return [value / length for value in kept] if length else list(kept)


def _to_base64(values: Sequence[float]) -> str:
    numbers = array.array("f", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


ROUTES = (
    Route(
        "POST",
        "/v1/embeddings",
        create,
        "Create embeddings",
        schema=EmbeddingsRequest,
        response_fields=("object", "data", "model", "usage"),
    ),
)
