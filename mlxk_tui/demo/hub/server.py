"""The HTTP server of the local hub: two origins on the loopback address, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import datetime
from types import TracebackType
from typing import Any

from aiohttp import web

from mlxk_tui.demo.hub.blobs import Content, StoredBlob, make_blob
from mlxk_tui.demo.hub.context import DropConnection, HandlerContext, split_path
from mlxk_tui.demo.hub.faults import Faults, Origin
from mlxk_tui.demo.hub.log import HubLog, LoggedRequest
from mlxk_tui.demo.hub.replies import HubError, Redirect, Reply
from mlxk_tui.demo.hub.routes import route_cdn, route_hub
from mlxk_tui.demo.hub.store import users
from mlxk_tui.demo.hub.store.repos import LFS_OVER, Commit, HubRepo
from mlxk_tui.demo.hub.store.state import HubState
from mlxk_tui.demo.hub.transmit import transmit

_START_TIMEOUT_S = 20
_STOP_TIMEOUT_S = 1.0
_SEND_BUFFER = 256 << 10
"""Size of a socket's send buffer in bytes. It is small because bytes in it count as sent."""
_MAX_LINE_BYTES = 1 << 16


class LocalHub:
    """A local hub that works with an unmodified huggingface_hub client.

    It runs in a thread from `start` (or the beginning of a `with` block) to `stop`, on free loopback ports.
    Large files have another origin, with `localhost` instead of `127.0.0.1`.

    Args:
        port: port of the hub; 0 for any free port.
        listening: a listening socket of 127.0.0.1 to use instead of a port.
    """

    GOOD_TOKEN = users.GOOD_TOKEN
    READ_TOKEN = users.READ_TOKEN
    OTHER_TOKEN = users.OTHER_TOKEN

    def __init__(self, *, port: int = 0, listening: socket.socket | None = None) -> None:
        self.state = HubState()
        self._listening = listening
        self._ports: dict[Origin, int] = {"hub": port, "cdn": 0}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """The URL of the hub, for HF_ENDPOINT."""
        return self.state.url

    @property
    def cdn_url(self) -> str:
        """The URL of the origin with large files."""
        return self.state.cdn_url

    @property
    def tokens(self) -> dict[str, users.User]:
        """Valid tokens and their users; the dict can be changed."""
        return self.state.tokens

    @property
    def faults(self) -> Faults:
        """The injected faults."""
        return self.state.faults

    @property
    def requests(self) -> HubLog:
        """The request log."""
        return self.state.requests

    @property
    def repos(self) -> dict[str, HubRepo]:
        """All repos by name."""
        return self.state.repos

    @property
    def rate_per_connection(self) -> float | None:
        """Maximum bytes per second and connection, in both directions; None for no limit."""
        return self.state.rate_per_connection

    @rate_per_connection.setter
    def rate_per_connection(self, rate: float | None) -> None:
        self.state.rate_per_connection = rate

    def add_repo(
        self,
        name: str,
        files: Mapping[str, Content | StoredBlob] | None = None,
        *,
        private: bool = False,
        gated: str | bool = False,
        granted: Iterable[str] = ("tester",),
        disabled: bool = False,
        card: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        downloads: int = 0,
        likes: int = 0,
        modified: datetime | None = None,
        lfs_over: int = LFS_OVER,
        oid: str | None = None,
    ) -> str:
        """Add a repo with one commit on main; return the commit hash.

        Args:
            name: `org/name`.
            files: content by path: bytes, the path of a file, or `Generated`.
            private: whether only members of the namespace can see it.
            gated: `auto`, `manual` or True: metadata is public, files are for `granted` users only.
            granted: names of users with access to a gated repo.
            disabled: whether the Hub has disabled it.
            card: the front matter, instead of that of README.md.
            tags: additional tags.
            downloads: number of downloads in the last month.
            likes: number of likes.
            modified: `lastModified`; None for the date of the newest commit.
            lfs_over: size in bytes above which all files are in LFS.
            oid: the commit hash, 40 hex digits; None for a hash of the contents.
        """
        repo = HubRepo(
            name, private=private, gated=gated, granted=frozenset(granted), disabled=disabled,
            downloads=downloads, likes=likes, modified=modified, tags_given=tuple(tags), card_given=card,
            lfs_over=lfs_over,
        )  # fmt: skip
        if modified is not None:
            repo.created = modified
        oid = self._commit(repo, files or {}, branch="main", title="initial commit", oid=oid)
        self.state.repos[name] = repo
        return oid

    def commit(
        self,
        name: str,
        files: Mapping[str, Content | StoredBlob | None],
        *,
        branch: str = "main",
        title: str = "Update",
    ) -> str:
        """Add a commit to a branch and return its hash; a content of None deletes the file.

        A branch that doesn't exist is created from main.
        """
        repo = self.state.repos[name]
        if branch not in repo.branches:
            repo.branches[branch] = repo.head
        return self._commit(repo, files, branch=branch, title=title)

    def tag(self, name: str, tag: str, revision: str = "main") -> None:
        """Create a tag for a revision."""
        repo = self.state.repos[name]
        repo.tags[tag] = repo.find(revision)

    def rename(self, name: str, new: str) -> None:
        """Rename a repo; the old name redirects to the new one."""
        repo = self.state.repos.pop(name)
        repo.name = new
        self.state.repos[new] = repo
        self.state.renamed[name] = new

    def files(self, name: str, revision: str = "main") -> dict[str, StoredBlob]:
        """Return the files of a revision, by path."""
        entries = self.state.repos[name].find(revision).entries
        return {path: entry.blob for path, entry in entries.items()}

    def read(self, name: str, path: str, revision: str = "main") -> bytes:
        """Return the content of a file."""
        return self.files(name, revision)[path].read()

    def history(self, name: str, revision: str = "main") -> list[Commit]:
        """Return the commits of a revision, newest first."""
        return list(self.state.repos[name].find(revision).history())

    def start(self) -> LocalHub:
        """Start the thread, and return when the hub is listening."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="local-hub", daemon=True)
        self._thread.start()
        ready.result(_START_TIMEOUT_S)
        return self

    def stop(self, *, forget: bool = True) -> None:
        """Close all connections and stop.

        Args:
            forget: whether to remove uploaded files. If False, it can be started again with the same URLs.
        """
        if self._thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None
        if forget:
            self.state.close()

    def __enter__(self) -> LocalHub:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _commit(
        self,
        repo: HubRepo,
        files: Mapping[str, Content | StoredBlob | None],
        *,
        branch: str,
        title: str,
        oid: str | None = None,
    ) -> str:
        changes = {
            path: None if content is None else repo.entry(path, make_blob(content))
            for path, content in files.items()
        }
        return repo.add_commit(changes, branch=branch, title=title, oid=oid).oid

    def _run(self, ready: Future[None]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as problem:
            if ready.done():
                raise
            ready.set_exception(problem)

    async def _serve(self, ready: Future[None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        hub = await _listen(_Handler(self.state, "hub", route_hub), self._ports["hub"], self._listening)
        cdn = await _listen(_Handler(self.state, "cdn", route_cdn), self._ports["cdn"])
        self._ports = {"hub": hub.port, "cdn": cdn.port}
        self.state.url = f"http://127.0.0.1:{hub.port}"
        self.state.cdn_url = f"http://localhost:{cdn.port}"
        ready.set_result(None)
        await self._stop.wait()
        await asyncio.gather(hub.close(), cdn.close())


class _Handler:
    """Handles the requests to one origin."""

    def __init__(
        self, state: HubState, origin: Origin, route: Callable[[HandlerContext], Awaitable[Reply]]
    ) -> None:
        self._state = state
        self._origin: Origin = origin
        self._route = route
        self._numbers = itertools.count(1)
        self._connections: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        segments = split_path(request.raw_path)
        record = self._record(request, segments)
        context = HandlerContext(self._state, request, record, segments=segments)
        if segments[0] != "-":
            self._state.requests.add(record)
            ranged = record.range is not None
            context.fault = self._state.faults.take(self._origin, request.method, record.path, ranged=ranged)
            record.fault = context.fault.kind if context.fault is not None else None
        try:
            return await transmit(context, await self._reply(context))
        except (DropConnection, ConnectionError):  # caused by a fault or the client
            if request.transport is not None:
                request.transport.close()
            return web.Response(status=record.status or 500)
        finally:
            record.finished = asyncio.get_running_loop().time()

    async def _reply(self, context: HandlerContext) -> Reply:
        try:
            reply = await self._route(context)
        except (HubError, Redirect) as problem:
            reply = problem.reply()
        reply.headers["X-Request-Id"] = f"Root=1-{secrets.token_hex(12)}"
        return reply

    def _record(self, request: web.BaseRequest, segments: list[str]) -> LoggedRequest:
        transport = request.transport
        number = self._connections.get(transport, 0) if transport is not None else 0
        if transport is not None and not number:
            number = self._connections[transport] = next(self._numbers)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        return LoggedRequest(
            self._origin,
            request.method,
            "/" + "/".join(segments),
            request.query_string,
            request.headers.get("Range"),
            "Authorization" in request.headers,
            request.headers.get("User-Agent", ""),
            number,
        )


class _Listener:
    """A running server on one loopback port."""

    def __init__(self, server: web.Server, runner: web.ServerRunner, port: int) -> None:
        self._server = server
        self._runner = runner
        self.port = port

    async def close(self) -> None:
        """Stop listening and close all connections, which cancels their handlers."""
        for site in list(self._runner.sites):
            await site.stop()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()


async def _listen(handler: _Handler, port: int, listening: socket.socket | None = None) -> _Listener:
    """Listen on 127.0.0.1 and, if available, ::1: `localhost` can be either."""
    server = web.Server(
        handler, handler_cancellation=True, access_log=None, max_line_size=_MAX_LINE_BYTES,
        max_field_size=_MAX_LINE_BYTES, logger=logging.getLogger("mlxk_tui.demo.hub"),
    )  # fmt: skip
    runner = web.ServerRunner(server, shutdown_timeout=_STOP_TIMEOUT_S)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port) if listening is None else web.SockSite(runner, listening)
    await site.start()
    actual_port = runner.addresses[0][1]
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            await web.TCPSite(runner, "::1", actual_port).start()
    return _Listener(server, runner, actual_port)
