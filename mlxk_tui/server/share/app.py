"""Answers the requests to a share: access checks, routes, errors as the hub words them.

Paths are parsed here and not by aiohttp's router, because the hub's API puts branches with encoded slashes
(`feat%2Fx`) beside file paths with plain ones, and an encoded slash anywhere else is an attack.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

from aiohttp import web

from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.share.files import open_shared
from mlxk_tui.ops.share.shared_models import SharedModels, SharedSnapshot
from mlxk_tui.server.errors import ApiError, json_response
from mlxk_tui.server.http.connections import HttpConnection, common_headers
from mlxk_tui.server.http.security import Guard
from mlxk_tui.server.share.documents import model_document, search, tree_items
from mlxk_tui.server.share.replies import (
    INVALID_KEY,
    ShareError,
    entry_not_found,
    page_not_found,
    share_error,
)
from mlxk_tui.server.share.transmission import head_response, requested_range, send

_INCOMPLETE = 499
"""Status in the log if the client did not get the whole response (nginx's number)."""
_PAGE = 1000
"""Items of a page, as on the hub."""
_MAX_QUERY_FIELDS = 200
_MODEL_ROUTES = frozenset({"auth-check", "revision", "tree"})
_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_log = logging.getLogger("mlxk_tui.server")


@dataclass
class _ShareCall:
    """A request in progress."""

    request: web.BaseRequest
    segments: list[str]
    """The decoded path, split at its slashes."""
    query: dict[str, list[str]]
    key: str | None = None
    """Name of the key that the client sent."""
    broken: bool = False
    """Whether the client did not get the whole body."""

    def flag(self, name: str) -> bool:
        """Return whether a query parameter is true."""
        return self.query.get(name, [""])[-1].lower() in {"true", "1"}

    def number(self, name: str, default: int) -> int:
        """Return a query parameter that is a natural number.

        Raises:
            ShareError: 400 if it is anything else.
        """
        text = self.query.get(name, [str(default)])[-1]
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ShareError(400, f"Invalid {name}.")
        return int(text)


class ShareApp:
    """The request handler of a share.

    Args:
        models: the shared models.
        guard: the allowed hosts and the keys.
        stall_s: seconds after which a client that does not read is disconnected.
    """

    def __init__(self, models: SharedModels, guard: Guard, stall_s: float) -> None:
        self._models = models
        self._guard = guard
        self._stall_s = stall_s
        self._tasks: set[asyncio.Task[Any]] = set()
        """The connections whose requests are in progress."""

    async def cancel_all(self, timeout_s: float) -> None:
        """Cancel all requests in progress, and wait at most `timeout_s` seconds until they have ended.

        Closing a connection whose transfer has not ended makes asyncio report an error (3.11, `sendfile`).
        """
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; raises nothing but `asyncio.CancelledError` (the client is gone)."""
        connection = request.protocol
        if isinstance(connection, HttpConnection):
            connection.begin()
        began = time.monotonic()
        call = _ShareCall(request, [], {})
        headers = common_headers(request.headers)
        status = _INCOMPLETE
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            try:
                response = await self._respond(call)
            except (ShareError, ApiError) as error:
                response = _error_response(error)
            except Exception as error:  # noqa: BLE001 - the boundary: every exception becomes a response
                _log.debug("%s failed", request.method, exc_info=error)
                response = share_error(error).response()
            status = _INCOMPLETE if call.broken else response.status
            if not response.prepared:
                response.headers.update(headers)
            return response
        finally:
            if task is not None:
                self._tasks.discard(task)
            if isinstance(connection, HttpConnection):
                connection.end()
            _log_request(call, status, time.monotonic() - began)

    async def _respond(self, call: _ShareCall) -> web.StreamResponse:
        request = call.request
        self._guard.check_host(request)
        self._guard.check_site(request)
        self._guard.cors(request)
        if request.method not in {"GET", "HEAD"}:
            raise ShareError(405, "This share is read-only.", headers={"Allow": "GET, HEAD"})
        call.segments, call.query = _parse_target(request.raw_path)
        if call.segments == ["health"]:
            return json_response({"status": "ready"})
        call.key = self._guard.key_name(request)
        if self._guard.needs_key and call.key is None:
            raise ShareError(401, INVALID_KEY, headers={"WWW-Authenticate": "Bearer"})
        connection = request.protocol
        if isinstance(connection, HttpConnection) and connection.over_limit:
            busy = {"Connection": "close", "Retry-After": "5"}
            raise ShareError(503, "Too many connections are open. Try again in a moment.", headers=busy)
        return await self._route(call)

    async def _route(self, call: _ShareCall) -> web.StreamResponse:
        match call.segments:
            case ["api", "whoami-v2"]:
                return self._whoami(call)
            case ["api", "models"]:
                return await self._search(call)
            case ["api", "models", *rest]:
                return await self._model(call, rest)
            case ["api" | "datasets" | "spaces", *_]:
                raise page_not_found()
            case [_, _, "resolve", revision, *path] if path:
                return await self._resolve(call, call.segments[:2], revision, path)
            case [_, "resolve", revision, *path] if path:
                return await self._resolve(call, call.segments[:1], revision, path)
        raise page_not_found()

    async def _model(self, call: _ShareCall, rest: list[str]) -> web.StreamResponse:
        """Answer `/api/models/{repo}/…`; a repo's name has one or two segments."""
        count = 1 if len(rest) == 1 or rest[1] in _MODEL_ROUTES else 2
        _check_plain(rest[:count])
        repo = "/".join(rest[:count])
        match rest[count:]:
            case []:
                return await self._info(call, repo, None)
            case ["revision", revision]:
                return await self._info(call, repo, revision)
            case ["auth-check"]:
                await self._find(repo, None)
                return json_response({"ok": True})
            case ["tree", revision, *folder]:
                return await self._tree(call, repo, revision, folder)
        raise page_not_found()

    async def _find(self, repo: str, revision: str | None) -> SharedSnapshot:
        return await asyncio.to_thread(self._models.find, repo, revision)

    async def _info(self, call: _ShareCall, repo: str, revision: str | None) -> web.StreamResponse:
        shared = await self._find(repo, revision)
        document = model_document(shared, blobs=call.flag("blobs"))
        return json_response(document, headers={"X-Repo-Commit": shared.commit})

    async def _tree(
        self, call: _ShareCall, repo: str, revision: str, folder: list[str]
    ) -> web.StreamResponse:
        _check_plain(folder)
        shared = await self._find(repo, revision)
        path = "/".join(folder).strip("/")
        items = tree_items(shared, path, recursive=call.flag("recursive"))
        if not items and path:
            raise entry_not_found(path)
        return _page(call, items, {"X-Repo-Commit": shared.commit})

    async def _search(self, call: _ShareCall) -> web.StreamResponse:
        models = search(await asyncio.to_thread(self._models.all), call.query)
        files = call.flag("full") or "siblings" in call.query.get("expand", [])
        return _page(call, [model_document(model, files=files) for model in models], {})

    def _whoami(self, call: _ShareCall) -> web.StreamResponse:
        if call.key is None:
            raise ShareError(401, INVALID_KEY)
        token = {"displayName": call.key, "role": "read"}
        return json_response(
            {
                "type": "user",
                "id": "0" * 24,
                "name": call.key,
                "fullname": call.key,
                "isPro": False,
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": token},
            }
        )

    async def _resolve(
        self, call: _ShareCall, repo: list[str], revision: str, parts: list[str]
    ) -> web.StreamResponse:
        _check_plain([*repo, *parts])
        shared = await self._find("/".join(repo), revision)
        path = "/".join(parts)
        file = shared.find_file(path)
        if path in shared.left_out:
            # Not EntryNotFound: clients would record that the commit has no such file.
            raise ShareError(404, f"{path} is part of the repo, but not in this cache.")
        if file is None:
            error = entry_not_found(path)
            error.headers["X-Repo-Commit"] = shared.commit
            raise error
        etag = f'"{file.etag}"'
        headers = {
            **common_headers(call.request.headers),
            "X-Repo-Commit": shared.commit,
            "ETag": etag,
            "X-Linked-ETag": etag,
            "X-Linked-Size": str(file.size),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "X-Content-Type-Options": "nosniff",
        }
        part = requested_range(call.request, file.etag, file.size)
        response = head_response(headers, file.size, part)
        if call.request.method == "HEAD":
            return response
        try:
            stream = await asyncio.to_thread(open_shared, self._models.cache, file)
        except OSError:
            raise entry_not_found(path) from None
        with stream:
            wanted = range(file.size) if part is None else part
            call.broken = not await send(call.request, response, stream, wanted, self._stall_s)
        return response


def _parse_target(target: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the decoded segments of a request target, and its query.

    Raises:
        ShareError: 400 if it is not valid UTF-8, or has too many parameters.
    """
    origin = _ORIGIN.match(target)
    path, _, query = (target[origin.end() :] if origin else target).partition("?")
    try:
        segments = [unquote(part, errors="strict") for part in path.removeprefix("/").split("/")]
        fields = parse_qs(query, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        raise ShareError(400, "The request target is malformed.") from None
    return segments, fields


def _check_plain(segments: list[str]) -> None:
    """Refuse segments that are not names: such paths exist in no repo.

    Raises:
        ShareError: 404.
    """
    for segment in segments:
        if "/" in segment or "\\" in segment or segment in {".", ".."} or not segment.isprintable():
            raise page_not_found()


def _page(call: _ShareCall, items: list[dict[str, Any]], headers: dict[str, str]) -> web.Response:
    """Return one page of items, with the address of the next one; the cursor is the first item's index."""
    start = call.number("cursor", 0)
    end = start + max(1, min(call.number("limit", _PAGE), _PAGE))
    if end < len(items):
        fields = [
            (name, value) for name, values in call.query.items() for value in values if name != "cursor"
        ]
        path = call.request.raw_path.partition("?")[0]
        url = f"http://{call.request.host}{path[path.index('/') :]}"
        headers = {**headers, "Link": f'<{url}?{urlencode([*fields, ("cursor", str(end))])}>; rel="next"'}
    return json_response(items[start:end], headers=headers)


def _error_response(error: ShareError | ApiError) -> web.Response:
    if isinstance(error, ApiError):
        return ShareError(error.status, error.message, headers=error.headers).response()
    return error.response()


def _log_request(call: _ShareCall, status: int, seconds: float) -> None:
    """Log a finished request; neither keys nor other tokens are in the line."""
    if call.segments == ["health"] or not _log.isEnabledFor(logging.INFO):
        return
    path = printable("/" + "/".join(call.segments))[:300] if call.segments else "-"
    key = f" key={call.key}" if call.key is not None else ""
    client = call.request.remote or "-"
    _log.info("%s %s %s %s%s %.3f s", client, call.request.method, path, status, key, seconds)
