"""The local hub's server: two origins on the loopback address, in a thread of their own."""

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
from mlxk_tui.demo.hub.context import HandlerContext, Hangup, split_path
from mlxk_tui.demo.hub.faults import Faults, Origin
from mlxk_tui.demo.hub.log import HubLog, LoggedRequest
from mlxk_tui.demo.hub.replies import HubError, Redirect, Reply
from mlxk_tui.demo.hub.routes import route_cdn, route_hub
from mlxk_tui.demo.hub.store import users
from mlxk_tui.demo.hub.store.repos import LFS_OVER, Commit, HubRepo
from mlxk_tui.demo.hub.store.state import HubState
from mlxk_tui.demo.hub.transmit import transmit

_START_WITHIN_S = 20
_STOP_WITHIN_S = 1.0
_SEND_BUFFER = 256 << 10
"""Bytes that the system holds for a connection. What waits there counts as sent, so it is kept small."""
_LONGEST_LINE = 1 << 16


class LocalHub:
    """A hub of models on this machine that the unmodified huggingface_hub client accepts.

    It runs in its own thread from `start` (or the beginning of a `with` block) to `stop`, on free
    loopback ports. Large files lie at another origin, `localhost` in place of `127.0.0.1`.

    Args:
        port: port of the hub; 0 for a free one.
        listening: a socket of 127.0.0.1 that listens already, in place of a port.
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
        """What HF_ENDPOINT is set to."""
        return self.state.url

    @property
    def cdn_url(self) -> str:
        """The other origin, which holds large files."""
        return self.state.cdn_url

    @property
    def tokens(self) -> dict[str, users.User]:
        """Known tokens and their users; more may be added."""
        return self.state.tokens

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self.state.faults

    @property
    def requests(self) -> HubLog:
        """What was asked for."""
        return self.state.requests

    @property
    def repos(self) -> dict[str, HubRepo]:
        """The repos by name."""
        return self.state.repos

    @property
    def rate_per_connection(self) -> float | None:
        """Bytes a second that one connection gets, both ways; None for no limit."""
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
        """Make a repo with one commit on main and return the commit's hash.

        Args:
            name: `org/name`.
            files: contents by path; bytes, a file on disk, or `Generated`.
            private: hide it from all but the people of its namespace.
            gated: `auto`, `manual` or True: metadata for all, files for those `granted`.
            granted: names of users who passed the gate.
            disabled: the hub took it down.
            card: front matter in place of README.md's.
            tags: more tags.
            downloads: in the last month.
            likes: hearts.
            modified: what search shows; None for the time of the newest commit.
            lfs_over: bytes from which on a file is in LFS whatever its name.
            oid: the commit's hash, 40 hex digits; None for one that follows from the contents.
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
        """Put a commit on a branch (made from main when it is new) and return its hash; None deletes."""
        repo = self.state.repos[name]
        if branch not in repo.branches:
            repo.branches[branch] = repo.head
        return self._commit(repo, files, branch=branch, title=title)

    def tag(self, name: str, tag: str, revision: str = "main") -> None:
        """Give a revision a name that stays."""
        repo = self.state.repos[name]
        repo.tags[tag] = repo.find(revision)

    def rename(self, name: str, new: str) -> None:
        """Give the repo another name; the old one redirects."""
        repo = self.state.repos.pop(name)
        repo.name = new
        self.state.repos[new] = repo
        self.state.renamed[name] = new

    def files(self, name: str, revision: str = "main") -> dict[str, StoredBlob]:
        """Return what a revision holds, by path."""
        entries = self.state.repos[name].find(revision).entries
        return {path: entry.blob for path, entry in entries.items()}

    def read(self, name: str, path: str, revision: str = "main") -> bytes:
        """Return a file's bytes."""
        return self.files(name, revision)[path].read()

    def history(self, name: str, revision: str = "main") -> list[Commit]:
        """Return the commits of a revision, newest first."""
        return list(self.state.repos[name].find(revision).history())

    def start(self) -> LocalHub:
        """Listen, and return when clients may come."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="local-hub", daemon=True)
        self._thread.start()
        ready.result(_START_WITHIN_S)
        return self

    def stop(self, *, forget: bool = True) -> None:
        """Drop every connection. Without `forget` it can start again, at the same addresses, as it was."""
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
    """Answers the requests to one origin."""

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
        except (Hangup, ConnectionError):  # a fault's doing, or the client left
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


class _Listening:
    """A server on one port of the loopback address."""

    def __init__(self, server: web.Server, runner: web.ServerRunner, port: int) -> None:
        self._server = server
        self._runner = runner
        self.port = port

    async def close(self) -> None:
        """Drop every connection, which cancels its handler, and listen no more."""
        for site in list(self._runner.sites):
            await site.stop()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()


async def _listen(handler: _Handler, port: int, listening: socket.socket | None = None) -> _Listening:
    """Listen at 127.0.0.1, and at ::1 where that exists: `localhost` may mean either."""
    server = web.Server(
        handler, handler_cancellation=True, access_log=None, max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE, logger=logging.getLogger("mlxk_tui.demo.hub"),
    )  # fmt: skip
    runner = web.ServerRunner(server, shutdown_timeout=_STOP_WITHIN_S)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port) if listening is None else web.SockSite(runner, listening)
    await site.start()
    taken = runner.addresses[0][1]
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            await web.TCPSite(runner, "::1", taken).start()
    return _Listening(server, runner, taken)
