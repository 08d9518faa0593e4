"""Requests to the hub, with huggingface_hub's client, headers and errors.

Requests block and cannot be stopped, so they run in threads with time-outs. A cancelled task stops waiting
immediately; its thread ends by itself within the time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from mlxk_tui.ops.core.detached import run_detached
from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.retry_after import retry_after
from mlxk_tui.ops.hub.client import (
    Timeouts,
    headers_for,
    http_library,
    new_api,
    new_client,
    prepare,
    raise_for_status,
    stored_token,
)
from mlxk_tui.ops.hub.errors import (
    RequestContext,
    display_endpoint,
    invalid_response_error,
    map_error,
    offline_error,
    timeout_error,
)
from mlxk_tui.ops.hub.responses import (
    MAX_FILES,
    HubModel,
    RepoInfo,
    ResponseError,
    TreeEntry,
    parse_hub_model,
    parse_repo_info,
    parse_tree,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

DEFAULT_ENDPOINT = "https://huggingface.co"
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Variables that may hold a token, in order; the login file comes after them."""
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_PAUSES = (0.3, 1.0)
"""Seconds before the second and the third attempt."""
_MAX_PAUSE = 5.0
_MAX_ANSWER = 64_000_000
"""Largest response in bytes; a page of a file list has about 300 kB."""
_EXPAND = (
    "cardData", "downloads", "gated", "lastModified", "library_name", "likes", "pipeline_tag", "safetensors",
    "tags", "usedStorage",
)  # fmt: skip


class _StoppedError(Exception):
    """Raised inside the thread when the response is no longer needed."""


class Hub:
    """A hub, accessed with one account.

    Attributes:
        endpoint: address without a trailing slash.
        timeouts: time-outs of requests.
        offline: whether all requests are refused (HF_HUB_OFFLINE).
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        token: str | None = None,
        *,
        login_file: bool = False,
        offline: bool = False,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> None:
        """Store the settings; no request is sent yet.

        Args:
            endpoint: http or https address.
            token: sent with every request, or None.
            login_file: without a token, use the one stored by `hf auth login`.
            offline: refuse every request.
            timeouts: time-outs of requests.

        Raises:
            OpError: `validation_error` for an invalid address, `auth_error` for a malformed token.
        """
        self.endpoint = _checked_endpoint(endpoint)
        self.timeouts = timeouts
        self.offline = offline
        self._token = _checked_token(token)
        self._login_file = login_file and self._token is None
        self._lock = threading.Lock()
        self._client: Any = None

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> Hub:
        """Return the hub and the account that huggingface_hub would use.

        HF_ENDPOINT or huggingface.co; HF_TOKEN, then HUGGINGFACE_HUB_TOKEN, then the login file
        (HF_TOKEN_PATH, or in HF_HOME) unless HF_HUB_DISABLE_IMPLICIT_TOKEN is set; HF_HUB_OFFLINE.

        Raises:
            OpError: the errors of the constructor.
        """
        env = os.environ if environ is None else environ
        token = next((env[name] for name in TOKEN_VARIABLES if env.get(name, "").strip()), None)
        return cls(
            env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT,
            token,
            login_file=not _is_true(env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            offline=_is_true(env.get("HF_HUB_OFFLINE") or env.get("TRANSFORMERS_OFFLINE")),
            timeouts=timeouts,
        )

    async def token(self) -> str | None:
        """Return the token of requests, or None.

        The login file is read each time, so that a new login or a renewed token takes effect immediately.
        """
        if self._login_file:
            await run_detached(lambda stop: self._load_token(), self.timeouts.total_s)
        return self._token

    async def info(self, repo: str, revision: str | None = None, *, brief: bool = False) -> RepoInfo:
        """Return the metadata of a repo at a branch, tag or commit; None means its main branch.

        Metadata of gated repos is public; `check_access` checks access to the files. With `brief` it is only
        commit and time: 200 bytes instead of up to a megabyte.

        Raises:
            OpError: `repo_not_found`, `revision_not_found`, `access_denied`, `auth_error`, `network_error`.
        """
        path = f"/api/models/{repo}" + (f"/revision/{quote(revision, safe='')}" if revision else "")
        path += "?expand=sha&expand=lastModified" if brief else ""
        data, _ = await self._get(path, repo, revision)
        with self._validated(repo):
            return parse_repo_info(data, repo)

    async def check_access(self, repo: str, *, write: bool = False) -> None:
        """Check that this account may read the files of a repo, or with `write` change them.

        Raises:
            OpError: `access_denied`, and the errors of `info`.
        """
        await self._get(f"/api/models/{repo}/auth-check{'/write' * write}", repo, parsed=False)

    async def files(self, repo: str, revision: str) -> tuple[TreeEntry, ...]:
        """Return all files of a commit; follows the pages of the response.

        Raises:
            OpError: the errors of `info`.
        """
        path: str | None = f"/api/models/{repo}/tree/{quote(revision, safe='')}?recursive=true&expand=false"
        items: list[Any] = []
        with self._validated(repo):
            while path is not None:
                page, link = await self._get(path, repo, revision)
                if not isinstance(page, list) or (link is not None and not page):
                    raise ResponseError("not a list")
                items += page
                if len(items) > 2 * MAX_FILES:  # the list includes folders
                    raise ResponseError("too many files")
                path = self._next_page_path(link) if link else None
            return parse_tree(items)

    async def resolve_commit(self, repo: str, revision: str, file: str) -> str:
        """Return the commit of a revision, from the headers of a file download.

        Raises:
            OpError: the errors of `info`.
        """
        path = f"/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"
        context = await self._context(repo, revision)

        def work(stop: threading.Event) -> str:
            response = self._send_with_retries("HEAD", path, context, stop)
            return response.headers.get("X-Repo-Commit") or ""

        with self._validated(repo):
            return parse_repo_info({"sha": await self._run(work, context)}, repo).commit

    async def search(self, query: str, *, limit: int, mlx_only: bool) -> list[HubModel]:
        """Return models whose names contain `query`, the most downloaded first.

        Raises:
            OpError: `network_error`, `auth_error`.
        """
        parameters = [("search", query)] if query else []
        parameters += [("filter", "mlx")] if mlx_only else []
        parameters += [("sort", "downloads"), ("limit", str(limit)), *(("expand", name) for name in _EXPAND)]
        data, _ = await self._get(f"/api/models?{urlencode(parameters)}", "")
        if not isinstance(data, list):
            raise invalid_response_error(await self._context(""))
        found = [model for item in data[:limit] if (model := parse_hub_model(item)) is not None]
        return list({model.name: model for model in found}.values())

    async def call(
        self,
        work: Callable[[HfApi, threading.Event], T],
        *,
        repo: str = "",
        revision: str | None = None,
        total_s: float | None = None,
    ) -> T:
        """Run `work(api, stop)` with an HfApi client in a thread and return its result.

        The client's requests have this hub's time-outs. When the task is cancelled or `total_s` has passed,
        `stop` is set and the wait ends immediately; the thread ends with its current request.

        Raises:
            OpError: the mapped error of the work.
        """
        context = await self._context(repo, revision)
        return await self._run(lambda stop: work(self._api(), stop), context, total_s)

    async def _get(
        self, path: str, repo: str, revision: str | None = None, *, parsed: bool = True
    ) -> tuple[Any, str | None]:
        """GET a path of the API; return the parsed JSON and the address of the next page."""
        context = await self._context(repo, revision)

        def work(stop: threading.Event) -> tuple[Any, str | None]:
            response = self._send_with_retries("GET", path, context, stop)
            return (response.json() if parsed else None), response.links.get("next", {}).get("url")

        return await self._run(work, context)

    async def _context(self, repo: str, revision: str | None = None) -> RequestContext:
        if self.offline:
            raise offline_error(RequestContext(self.endpoint, repo, revision))
        token = await self.token()
        return RequestContext(self.endpoint, repo, revision, token is not None, token)

    async def _run(
        self, work: Callable[[threading.Event], T], context: RequestContext, total_s: float | None = None
    ) -> T:
        try:
            return await run_detached(work, self.timeouts.total_s if total_s is None else total_s)
        except asyncio.TimeoutError:
            raise timeout_error(context) from None
        except Exception as error:  # noqa: BLE001 - every error of the client is mapped to an OpError
            raise map_error(error, context) from None

    @contextlib.contextmanager
    def _validated(self, repo: str) -> Iterator[None]:
        try:
            yield
        except (ResponseError, RecursionError):
            raise invalid_response_error(RequestContext(self.endpoint, repo)) from None

    def _next_page_path(self, link: str) -> str:
        """Return the path of the next page; the token is sent only to this hub.

        Mirrors may return addresses of the original hub.
        """
        for origin in (self.endpoint, DEFAULT_ENDPOINT):
            if link.startswith(f"{origin}/"):
                return link[len(origin) :]
        raise ResponseError("the next page is on another host")

    def _send_with_retries(
        self, method: str, path: str, context: RequestContext, stop: threading.Event
    ) -> Any:
        """Send a request, with retries for transient errors; return its response. Blocking."""
        prepare()
        headers = headers_for(self._token)
        for pause in (*_PAUSES, None):
            try:
                response = self._send_once(method, path, headers, stop)
            except Exception as error:
                broke = {"NetworkError", "RemoteProtocolError"} & {
                    kind.__name__ for kind in type(error).__mro__
                }
                unreachable = type(error).__name__ == "ConnectError"
                if pause is None or not broke or unreachable:
                    raise
                wait = pause
            else:
                if pause is None or response.status_code not in _RETRIED:
                    break
                seconds = retry_after(response.headers)
                wait = pause if seconds is None else seconds
                if wait > _MAX_PAUSE:
                    break
            if stop.wait(wait):
                raise _StoppedError
        raise_for_status(response)
        return response

    def _send_once(self, method: str, path: str, headers: Mapping[str, str], stop: threading.Event) -> Any:
        """Send one request and read its response up to the size limit."""
        url = self.endpoint + path
        follow = method != "HEAD"  # the redirect itself has the headers that are needed
        with self._session().stream(method, url, headers=headers, follow_redirects=follow) as response:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if stop.is_set():
                    raise _StoppedError
                if len(content) > _MAX_ANSWER:
                    raise ResponseError("the response is too large")
            kept_headers = [
                (name, value)
                for name, value in response.headers.multi_items()
                if name.lower() not in {"content-encoding", "content-length", "transfer-encoding"}
            ]
            return http_library().Response(
                response.status_code, headers=kept_headers, content=bytes(content), request=response.request
            )

    def _session(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = new_client(self.timeouts)
            return self._client

    def _api(self) -> HfApi:
        """Return an HfApi client with this hub's time-outs. Blocking."""
        prepare(self.timeouts)
        return new_api(self.endpoint, self._token)

    def _load_token(self) -> None:
        prepare(self.timeouts)  # renewing the token of a browser login sends a request
        with contextlib.suppress(OSError, UnicodeDecodeError):
            self._token = _checked_token(stored_token())


def _is_true(value: str | None) -> bool:
    return (value or "").strip().upper() in _TRUE


def _checked_endpoint(endpoint: str) -> str:
    address = endpoint.strip().rstrip("/")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not address.isascii() or not address.isprintable() or " " in address:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"HF_ENDPOINT is not a valid address: '{display_endpoint(address)[:100]}'.",
            remedy=Remedy.CHANGE_ENDPOINT,
        )
    return address


def _checked_token(token: str | None) -> str | None:
    """Return a token that is valid in an HTTP header; its text never appears in a message."""
    token = (token or "").strip()
    if not token:
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise OpError(
            ErrorType.AUTH_ERROR,
            "The token contains invalid characters.",
            remedy=Remedy.REPLACE_TOKEN,
            reason=AccessReason.UNAUTHORIZED,
        )
    return token
