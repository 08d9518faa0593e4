"""The hub: what it knows about repos, asked with huggingface_hub's client, headers and errors.

Requests block and cannot be stopped, so they run in threads with time-outs on everything; whoever waits
for an answer stops waiting at once when cancelled. The thread ends by itself within the time-out, and
holds nothing up.
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
from mlxk_tui.ops.hub.answers import (
    MAX_FILES,
    AnswerError,
    FoundModel,
    RepoInfo,
    TreeEntry,
    found_model,
    repo_info,
    tree_entries,
)
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
    map_error,
    not_understood,
    offline,
    shown_endpoint,
    timed_out,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

DEFAULT_ENDPOINT = "https://huggingface.co"
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Where a token is looked for before the login file; none is copied into another."""
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_PAUSES = (0.3, 1.0)
"""Seconds before the second and the third attempt."""
_MAX_PAUSE = 5.0
_MAX_ANSWER = 64_000_000
"""Bytes of one answer; a page of a tree has about 300 kB."""
_EXPAND = (
    "cardData", "downloads", "gated", "lastModified", "library_name", "likes", "pipeline_tag", "safetensors",
    "tags", "usedStorage",
)  # fmt: skip


class _StoppedError(Exception):
    """Nobody waits for the answer any longer; only ever seen inside the thread."""


class Hub:
    """One hub, asked as one account.

    Attributes:
        endpoint: address without a trailing slash.
        timeouts: bounds on waiting.
        offline: whether nothing may be asked (HF_HUB_OFFLINE).
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
        """Describe a hub; nothing is asked yet.

        Args:
            endpoint: http or https address.
            token: sent with every request, or None.
            login_file: without a token, use the one that `hf auth login` keeps.
            offline: refuse every request.
            timeouts: bounds on waiting.

        Raises:
            OpError: `validation_error` for an address that is none, `auth_error` for a token that cannot
                be one.
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
            OpError: those of the constructor.
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
        """Return the token that requests carry, or None.

        The login file is read each time: who logs in meanwhile, or whose login is renewed, is known at once.
        """
        if self._login_file:
            await run_detached(lambda stop: self._load_token(), self.timeouts.total_s)
        return self._token

    async def info(self, repo: str, revision: str | None = None) -> RepoInfo:
        """Return what the hub says of a repo at a branch, tag or commit; None is its main branch.

        Metadata of gated repos is public: `check_access` tells whether the files are.

        Raises:
            OpError: `repo_not_found`, `revision_not_found`, `access_denied`, `auth_error`, `network_error`.
        """
        path = f"/api/models/{repo}" + (f"/revision/{quote(revision, safe='')}" if revision else "")
        answer, _ = await self._ask(path, repo, revision)
        with self._understood(repo):
            return repo_info(answer, repo)

    async def check_access(self, repo: str, *, write: bool = False) -> None:
        """Ask whether this account may read the files of a repo, or with `write` change them.

        Raises:
            OpError: `access_denied`, and those of `info`.
        """
        await self._ask(f"/api/models/{repo}/auth-check{'/write' * write}", repo, parsed=False)

    async def files(self, repo: str, revision: str) -> tuple[TreeEntry, ...]:
        """Return every file of a commit, from one answer in as many pages as it has.

        Raises:
            OpError: those of `info`.
        """
        path: str | None = f"/api/models/{repo}/tree/{quote(revision, safe='')}?recursive=true&expand=false"
        items: list[Any] = []
        with self._understood(repo):
            while path is not None:
                page, link = await self._ask(path, repo, revision)
                if not isinstance(page, list) or (link is not None and not page):
                    raise AnswerError("no list")
                items += page
                if len(items) > 2 * MAX_FILES:  # folders are listed too
                    raise AnswerError("too many files")
                path = self._own_path(link) if link else None
            return tree_entries(items)

    async def commit_of(self, repo: str, revision: str, file: str) -> str:
        """Return the commit that a revision names, as the download of a file tells it.

        Raises:
            OpError: those of `info`.
        """
        path = f"/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"
        asked = await self._asked(repo, revision)

        def work(stop: threading.Event) -> str:
            response = self._send("HEAD", path, asked, stop)
            return response.headers.get("X-Repo-Commit") or ""

        with self._understood(repo):
            return repo_info({"sha": await self._run(work, asked)}, repo).commit

    async def search(self, query: str, *, limit: int, mlx_only: bool) -> list[FoundModel]:
        """Return models whose names hold `query`, those with the most downloads first.

        Raises:
            OpError: `network_error`, `auth_error`.
        """
        wanted = [("search", query)] if query else []
        wanted += [("filter", "mlx")] if mlx_only else []
        wanted += [("sort", "downloads"), ("limit", str(limit)), *(("expand", name) for name in _EXPAND)]
        answer, _ = await self._ask(f"/api/models?{urlencode(wanted)}", "")
        if not isinstance(answer, list):
            raise not_understood(await self._asked(""))
        found = [model for item in answer[:limit] if (model := found_model(item)) is not None]
        return list({model.name: model for model in found}.values())

    async def call(
        self,
        work: Callable[[HfApi, threading.Event], T],
        *,
        repo: str = "",
        revision: str | None = None,
        total_s: float | None = None,
    ) -> T:
        """Run `work(api, stop)` with a client of huggingface_hub in a thread and return its result.

        Requests that the client makes have this hub's time-outs. When the task is cancelled or `total_s`
        is over, `stop` is set and the wait ends at once; the thread lingers until its request ends.

        Raises:
            OpError: whatever the work raises, mapped.
        """
        asked = await self._asked(repo, revision)
        return await self._run(lambda stop: work(self._api(), stop), asked, total_s)

    async def _ask(
        self, path: str, repo: str, revision: str | None = None, *, parsed: bool = True
    ) -> tuple[Any, str | None]:
        """GET a path of the API; return its JSON and the address of the next page."""
        asked = await self._asked(repo, revision)

        def work(stop: threading.Event) -> tuple[Any, str | None]:
            response = self._send("GET", path, asked, stop)
            return (response.json() if parsed else None), response.links.get("next", {}).get("url")

        return await self._run(work, asked)

    async def _asked(self, repo: str, revision: str | None = None) -> RequestContext:
        if self.offline:
            raise offline(RequestContext(self.endpoint, repo, revision))
        token = await self.token()
        return RequestContext(self.endpoint, repo, revision, token is not None, token)

    async def _run(
        self, work: Callable[[threading.Event], T], asked: RequestContext, total_s: float | None = None
    ) -> T:
        try:
            return await run_detached(work, self.timeouts.total_s if total_s is None else total_s)
        except asyncio.TimeoutError:
            raise timed_out(asked) from None
        except Exception as error:  # noqa: BLE001 - the border: whatever the client raises becomes typed
            raise map_error(error, asked) from None

    @contextlib.contextmanager
    def _understood(self, repo: str) -> Iterator[None]:
        try:
            yield
        except (AnswerError, RecursionError):
            raise not_understood(RequestContext(self.endpoint, repo)) from None

    def _own_path(self, link: str) -> str:
        """Return the path of a next page; the token goes nowhere but to this hub.

        A mirror may repeat the real hub's addresses.
        """
        for origin in (self.endpoint, DEFAULT_ENDPOINT):
            if link.startswith(f"{origin}/"):
                return link[len(origin) :]
        raise AnswerError("a page elsewhere")

    def _send(self, method: str, path: str, asked: RequestContext, stop: threading.Event) -> Any:
        """Send a request, again where that helps, and return its response; blocking, for threads."""
        prepare()
        headers = headers_for(self._token)
        for pause in (*_PAUSES, None):
            try:
                response = self._receive(method, path, headers, stop)
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

    def _receive(self, method: str, path: str, headers: Mapping[str, str], stop: threading.Event) -> Any:
        """Send one request and read its answer as far as is reasonable."""
        url = self.endpoint + path
        follow = method != "HEAD"  # what leads to a file's bytes says itself what is asked for
        with self._session().stream(method, url, headers=headers, follow_redirects=follow) as response:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if stop.is_set():
                    raise _StoppedError
                if len(content) > _MAX_ANSWER:
                    raise AnswerError("too long")
            kept = [
                (name, value)
                for name, value in response.headers.multi_items()
                if name.lower() not in {"content-encoding", "content-length", "transfer-encoding"}
            ]
            return http_library().Response(
                response.status_code, headers=kept, content=bytes(content), request=response.request
            )

    def _session(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = new_client(self.timeouts)
            return self._client

    def _api(self) -> HfApi:
        """Return a client of huggingface_hub; blocking, for threads."""
        prepare(self.timeouts)
        return new_api(self.endpoint, self._token)

    def _load_token(self) -> None:
        prepare(self.timeouts)  # renewing the token of a browser login asks the hub
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
            f"HF_ENDPOINT is not the address of a hub: '{shown_endpoint(address)[:100]}'.",
            remedy=Remedy.CHANGE_ENDPOINT,
        )
    return address


def _checked_token(token: str | None) -> str | None:
    """Return a token that an HTTP header can carry; its own text never reaches a message."""
    token = (token or "").strip()
    if not token:
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise OpError(
            ErrorType.AUTH_ERROR,
            "The token holds characters that no token has.",
            remedy=Remedy.REPLACE_TOKEN,
            reason=AccessReason.UNAUTHORIZED,
        )
    return token
