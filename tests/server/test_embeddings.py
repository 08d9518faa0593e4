"""/v1/embeddings: OpenAI's client gets the engine's embeddings."""

from __future__ import annotations

import array
import base64
import json
import math
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.demo.layout import RepoLayout
from mlxk_tui.engine.client import Embeddings
from mlxk_tui.engine.models import find_runnable
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.server.openai.embeddings import EmbeddingsRequest, truncate
from tests.engine.conftest import needs_mlx
from tests.engine.small_models import make_model
from tests.server.fuzzing import fuzz
from tests.server.served import BABBLER, COMPLETIONS, TINY, Served, parsed
from tests.server.test_malformed import values
from tests.support.clients import openai

pytestmark = needs_mlx

PATH = "/v1/embeddings"
EMBEDDER = "mlx-community/Tiny-Embedding"
TEXTS = ["Hello", "The quick brown fox jumps over the lazy dog.", "日本語 🙂"]


@pytest.fixture(scope="module", autouse=True)
def embedder(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Add an embedding model to the cache for this module."""
    folder = make_model(tmp_path_factory.mktemp("embedder") / "m", context=512, bare=True)
    repo = RepoLayout(served.hub, EMBEDDER)
    repo.add_snapshot("e" * 40, {path.name: path.read_bytes() for path in folder.iterdir()})
    repo.set_ref("main", "e" * 40)
    yield
    shutil.rmtree(repo.path)


def own(served: Served, texts: list[str]) -> Embeddings:
    """Return the engine's own embeddings."""

    async def embed() -> Embeddings:
        return await served.engine.embed(await find_runnable(Cache(served.hub), EMBEDDER), texts)

    return served.call(embed())


def request(path: str, body: dict[str, Any]) -> bytes:
    """Return a request as raw bytes."""
    raw = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw


def length(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


def test_embeddings_and_counts_match_the_engine(served: Served, client: openai.OpenAI) -> None:
    expected = own(served, TEXTS)
    answer = client.embeddings.create(model=EMBEDDER, input=TEXTS)  # asks for base64 itself
    for item, vector in zip(answer.data, expected.vectors, strict=True):
        assert item.embedding == pytest.approx(vector, abs=1e-6)
        assert length(item.embedding) == pytest.approx(1, abs=1e-5)
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert (answer.model, answer.usage.prompt_tokens) == (EMBEDDER, expected.tokens)
    plain = client.embeddings.create(model="tiny-embedding", input=TEXTS, encoding_format="float")
    assert [item.embedding for item in plain.data] == [
        pytest.approx(item.embedding, abs=1e-6) for item in answer.data
    ]
    entry = served.server.log.finished[-1]
    assert (entry.route, entry.model, entry.prompt_tokens) == (PATH, EMBEDDER, expected.tokens)


async def test_async_client_gets_one_embedding_for_one_text(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        (item,) = (await client.embeddings.create(model=EMBEDDER, input=TEXTS[0])).data
    assert item.embedding == pytest.approx(own(served, TEXTS[:1]).vectors[0], abs=1e-6)


def test_base64_embeddings_are_little_endian_float32(served: Served) -> None:
    body = {"model": EMBEDDER, "input": TEXTS[0]}
    packed = served.post(PATH, {**body, "encoding_format": "base64"}).json["data"][0]["embedding"]
    plain = served.post(PATH, body).json["data"][0]["embedding"]
    assert array.array("f", base64.b64decode(packed)).tolist() == pytest.approx(plain, abs=1e-7)


def test_fewer_dimensions_are_truncated_and_normalized(served: Served) -> None:
    whole = served.post(PATH, {"model": EMBEDDER, "input": TEXTS[1]}).json["data"][0]["embedding"]
    short = served.post(PATH, {"model": EMBEDDER, "input": TEXTS[1], "dimensions": 8}).json["data"][0]
    assert len(short["embedding"]) == 8
    assert length(short["embedding"]) == pytest.approx(1, abs=1e-5)
    ratio = short["embedding"][0] / whole[0]
    assert short["embedding"] == pytest.approx([value * ratio for value in whole[:8]], abs=1e-6)
    refused = served.post(PATH, {"model": EMBEDDER, "input": "x", "dimensions": len(whole) + 1})
    assert (refused.status, refused.error["param"]) == (400, "dimensions")
    assert truncate([0.0, 0.0, 1.0], 2) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"input": []}, 400, "empty"),
        ({"input": ""}, 400, "empty"),
        ({"input": ["a", ""]}, 400, "empty"),
        ({"input": ["a"] * 2049}, 400, "2,048"),
        ({"input": [1, 2, 3]}, 400, "token ids"),
        ({"input": [[1, 2], [3]]}, 400, "token ids"),
        ({"input": None}, 400, "input"),
        ({"input": {"text": "x"}}, 400, "input"),
        ({"encoding_format": "int8"}, 400, "encoding_format"),
        ({"dimensions": 0}, 400, "dimensions"),
        ({"model": TINY}, 400, "not an embedding model"),
        ({"model": "no-such-model"}, 404, "no-such-model"),
        ({"input": "word " * 600}, 400, "512"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_invalid_embedding_requests_are_rejected(
    served: Served, more: dict[str, Any], status: int, words: str
) -> None:
    reply = served.post(PATH, {"model": EMBEDDER, "input": "Hello", **more})
    assert reply.status == status, reply.body
    assert words in reply.error["message"]


def test_full_queue_rejects_embeddings(served: Served) -> None:
    body = {"model": BABBLER, "prompt": "x", "max_tokens": 3000, "stream": True}
    with served.raw() as connection:
        connection.sendall(request(COMPLETIONS, body))
        served.until(lambda: any(entry.completion_tokens for entry in served.server.log.live))
        with served.options(max_queue=1):
            refused = served.post(PATH, {"model": EMBEDDER, "input": "Hello"})
    assert (refused.status, refused.error["type"]) == (429, "server_busy")
    assert int(refused.headers["Retry-After"]) >= 1
    served.until(lambda: served.server.generations == 0)


MUCH = {"model": EMBEDDER, "input": ["word " * 100 + str(number) for number in range(1000)]}


def test_stopping_the_server_cancels_embeddings_with_an_error(served: Served) -> None:
    with served.raw() as connection:
        connection.sendall(request(PATH, MUCH))
        served.until(lambda: served.server.generations > 0)
        served.loop.call_soon_threadsafe(served.server._service.generator.cancel_all)
        reply = parsed(connection.recv(65536))
    assert (reply.status, reply.error["type"]) == (503, "cancelled")
    assert served.post(PATH, {"model": EMBEDDER, "input": "Hello"}).status == 200


def test_disconnect_cancels_the_embedding(served: Served) -> None:
    with served.raw() as connection:
        connection.sendall(request(PATH, MUCH))
        served.until(lambda: served.server.generations > 0)
    served.until(lambda: not served.server.log.live)
    entry = served.server.log.finished[-1]
    assert (entry.route, entry.status) == (PATH, 499)
    assert served.server.generations == 0


@fuzz(80)
@given(more=st.dictionaries(st.sampled_from(sorted(EmbeddingsRequest.model_fields)), values, max_size=4))
def test_random_requests_are_answered_or_rejected(served: Served, more: dict[str, Any]) -> None:
    reply = served.post(PATH, {"model": EMBEDDER, "input": "Hello", **more})
    assert reply.status == 200 or 400 <= reply.status < 500, (reply.status, reply.body, more)
    if reply.status != 200:
        assert reply.error["type"] != "internal_error"


def test_server_still_works_afterwards(served: Served) -> None:
    served.still_well()
    assert served.server.generations == 0
