"""A share in a thread of this process, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlxk_tui.ops.cache.access_record import RepoAccess, write_access
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.share.shared_models import SharedModels
from mlxk_tui.server.options import Address, ServerOptions
from mlxk_tui.server.share.share_server import ShareServer
from tests.support.hf_cache import HfCache
from tests.support.waiting import PATIENCE_S

T = TypeVar("T")
PUBLIC = RepoAccess(gated=False, private=False)


def add_model(
    hub: Path, name: str, files: Mapping[str, bytes], access: RepoAccess | None = PUBLIC, **options: Any
) -> str:
    """Add a model to a cache as a pull does, and return its commit."""
    repo = HfCache(hub).repo(name)
    commit = repo.add(files, **options)
    if access is not None:
        write_access(repo.path, access)
    return commit


@dataclass
class ShareReply:
    """A response of a share."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The hub's error code; every error has a message in header and body."""
        assert self.status >= 400
        assert self.json["error"]
        assert self.headers["X-Error-Message"]
        return self.headers.get("X-Error-Code")


class RunningShare:
    """A share with an event loop of its own."""

    def __init__(self, hub: Path, *names: str, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.models = SharedModels(Cache(hub), names)
        self.server = self.call(self._make(ServerOptions(**{"port": 0, **options})))
        self.address: Address = self.call(self.server.start())

    async def _make(self, options: ServerOptions) -> ShareServer:
        return ShareServer(self.models, options)

    @property
    def url(self) -> str:
        """HF_ENDPOINT of its clients."""
        return self.address.url

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the share's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def close(self) -> None:
        """Stop it."""
        self.call(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()

    def ask(self, path: str, method: str = "GET", **headers: str) -> ShareReply:
        """Send a request; underscores in the names of headers stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=fields)
            response = connection.getresponse()
            return ShareReply(response.status, dict(response.headers), response.read())

    def raw(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.address.port), PATIENCE_S)


@contextlib.contextmanager
def sharing(hub: Path, *names: str, **options: Any) -> Iterator[RunningShare]:
    """Share a cache during the block."""
    share = RunningShare(hub, *names, **options)
    try:
        yield share
    finally:
        share.close()
