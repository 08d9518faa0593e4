"""A real server with a real engine in a separate thread, and helpers to send requests."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mlxk_tui.demo import tiny_model
from mlxk_tui.demo.layout import RepoLayout
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Finished, GenerationRequest, SamplingParams
from mlxk_tui.engine.models import find_runnable
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.server.generation import Choice
from mlxk_tui.server.options import Address, ServerOptions
from mlxk_tui.server.server import Server
from tests.engine.conftest import worker_environment
from tests.engine.small_models import make_model
from tests.support.waiting import PATIENCE_S

T = TypeVar("T")

TINY = tiny_model.NAME
"""Trained: its greedy answers are known."""
BABBLER = "mlx-community/Babbler"
"""Random weights, goes on for long; context of 4096 tokens."""
OTHER = "mlx-community/Other"
"""Random weights, context of 256 tokens."""
TIMEOUT_S = PATIENCE_S
GREEDY = SamplingParams(temperature=0)
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def fill(hub: Path, scratch: Path) -> None:
    """Write the three models to a hub folder."""
    tiny_model.install(hub)
    for number, (name, context) in enumerate(((BABBLER, 4096), (OTHER, 256))):
        folder = make_model(scratch / str(number), context=context, seed=number)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        repo = RepoLayout(hub, name)
        repo.add_snapshot(f"{number}" * 40, files)
        repo.set_ref("main", f"{number}" * 40)


@dataclass
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> dict[str, Any]:
        """`error` of an error response in OpenAI's format."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return dict(error)

    @property
    def text(self) -> str:
        """The text of the first choice."""
        choice = self.json["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a stream without comments; it must be complete or end with an error."""
        blocks = [block for block in self.body.decode().split("\n\n") if block and not block.startswith(":")]
        assert all(block.startswith("data: ") for block in blocks)
        assert blocks[-1] == "data: [DONE]"
        return [json.loads(block[len("data: ") :]) for block in blocks[:-1]]


class Served:
    """The server, its engine, and their thread."""

    def __init__(self, hub: Path, **options: Any) -> None:
        self.hub = hub
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.engine = self.call(self._make_engine())
        self.server = self.call(self._make_server(ServerOptions(**{"port": 0, **options})))
        self.address: Address = self.call(self.server.start())

    async def _make_engine(self) -> Engine:
        return Engine(environ=worker_environment())

    async def _make_server(self, options: ServerOptions) -> Server:
        return Server(self.engine, Cache(self.hub), options)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(TIMEOUT_S)

    def close(self) -> None:
        """Stop everything."""
        self.call(self.server.stop())
        self.call(self.engine.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT_S)
        self.loop.close()

    @contextmanager
    def options(self, **changes: Any) -> Iterator[None]:
        """Change options during the block."""

        async def reload(options: ServerOptions) -> None:
            self.server.reload(options)

        before = self.server.options
        self.call(reload(replace(before, **changes)))
        try:
            yield
        finally:
            self.call(reload(before))

    @property
    def url(self) -> str:
        """Base URL for OpenAI's client."""
        return f"{self.address.url}/v1"

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait in the server's event loop until a condition on the engine or the log holds."""

        async def wait() -> None:
            changed = asyncio.Event()
            ends = [
                self.engine.subscribe(lambda status: changed.set()),
                self.server.log.changed.subscribe(lambda entry: changed.set()),
            ]
            try:
                while not condition():
                    changed.clear()
                    await changed.wait()
            finally:
                for end in ends:
                    end()

        self.call(asyncio.wait_for(wait(), PATIENCE_S))

    def own(self, generation: GenerationRequest, model: str = TINY) -> tuple[str, Finished]:
        """Return the engine's own answer."""
        choice = self.own_choice(generation, model)
        assert choice.finished is not None
        return "".join(choice.output), choice.finished

    def own_choice(self, generation: GenerationRequest, model: str = TINY) -> Choice:
        """Return the engine's own answer, split into parts."""

        async def ask() -> Choice:
            choice = Choice()
            async for event in self.engine.generate(await find_runnable(Cache(self.hub), model), generation):
                choice.add(event)
            return choice

        return self.call(ask())

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request and return the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=TIMEOUT_S)
        try:
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            assert raw is None or isinstance(raw, bytes)
            connection.request(method, path, raw, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """Send a GET request."""
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: object, **headers: str) -> Reply:
        """Send a POST request."""
        return self.ask("POST", path, body, headers)

    def chat(self, question: str, **more: Any) -> Reply:
        """Send a chat request to the tiny model; greedy and without thinking by default."""
        body = {
            "model": TINY,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "enable_thinking": False,
            **more,
        }
        return self.post(CHAT, {name: value for name, value in body.items() if value is not ...})

    def still_well(self) -> None:
        """Check that the server is ready and answers exactly."""
        health = self.get("/health")
        assert (health.status, health.json["status"]) == (200, "ready")
        assert self.chat(QUESTION).text == ANSWER

    @contextmanager
    def raw(self) -> Iterator[socket.socket]:
        """Open a raw connection, without an HTTP library."""
        with socket.create_connection(("127.0.0.1", self.address.port), timeout=TIMEOUT_S) as connection:
            yield connection


QUESTION = "What does verify do?"
ANSWER = (
    "`v` reads every byte of a model and compares it with its checksum, offline and in parallel. It finds "
    "bit rot that sizes and headers cannot show. `V` in the Health pane verifies all models. You can cancel "
    "it at any time."
)


def read_all(connection: socket.socket) -> bytes:
    """Read a connection to its end."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def parsed(raw: bytes) -> Reply:
    """Parse one HTTP response with a Content-Length."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return Reply(int(first.split()[1]), headers, body)
