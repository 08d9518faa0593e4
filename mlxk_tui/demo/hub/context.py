"""The context of a request of the local hub: the parsed request and the hub's state."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import web

from mlxk_tui.demo.hub.faults import Fault
from mlxk_tui.demo.hub.log import LoggedRequest
from mlxk_tui.demo.hub.replies import HubError, Redirect, repo_not_found
from mlxk_tui.demo.hub.store.repos import HubRepo
from mlxk_tui.demo.hub.store.users import User

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mlxk_tui.demo.hub.store.state import HubState

_BODY_LIMIT = 512 << 20


class DropConnection(Exception):  # noqa: N818 - not an error, but the effect of a fault
    """The connection must be closed without a response."""


@dataclass
class HandlerContext:
    """One request and its context; the argument of every handler."""

    state: HubState
    request: web.BaseRequest
    record: LoggedRequest
    fault: Fault | None = None
    user: User | None = None
    segments: list[str] = field(default_factory=list)
    """The unquoted segments of the path; a segment can contain quoted slashes, such as a branch name."""

    @property
    def query(self) -> dict[str, list[str]]:
        """The query parameters; the names don't include a trailing `[]`."""
        values: dict[str, list[str]] = {}
        for name, value in self.request.query.items():
            values.setdefault(name.removesuffix("[]"), []).append(value)
        return values

    def flag(self, name: str) -> bool:
        """Return whether a query parameter is `1` or `true`."""
        return self.query.get(name, ["false"])[-1].lower() in {"1", "true"}

    def repo(self, name: str) -> HubRepo:
        """Return a repo by its name.

        Raises:
            Redirect: it has been renamed (307, like on the Hub).
            HubError: it doesn't exist.
        """
        found = self.state.repos.get(name)
        if found is not None:
            return found
        moved = self.state.renamed.get(name)
        if moved is not None:
            raise Redirect(self.request.raw_path.replace(f"/{name}", f"/{moved}", 1))
        raise repo_not_found(authenticated=self.user is not None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the chunks of the request's body, with the rate limit and the fault of the request."""
        fault = self.fault
        due = time.monotonic()
        async for chunk in self.request.content.iter_any():
            self.record.bytes_received += len(chunk)
            if fault and fault.after_bytes is not None and self.record.bytes_received >= fault.after_bytes:
                if fault.kind == "cut":
                    raise DropConnection
                if fault.kind == "silent":
                    await self.state.hang()
            rate = (fault.rate if fault and fault.kind == "slow" else None) or self.state.rate_per_connection
            if rate:
                due = max(due, time.monotonic() - 1) + len(chunk) / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield chunk

    async def body(self) -> bytes:
        """Return the request's body.

        Raises:
            HubError: 413 if it is larger than 512 MiB.
        """
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > _BODY_LIMIT:
                raise HubError(413, "Payload too large")
        return b"".join(parts)

    async def json(self) -> dict[str, Any]:
        """Return the request's body as a JSON object.

        Raises:
            HubError: 400 if it isn't one.
        """
        try:
            document = json.loads(await self.body() or b"{}")
        except ValueError as problem:
            raise HubError(400, "The body is not JSON") from problem
        if not isinstance(document, dict):
            raise HubError(400, "The body is not a JSON object")
        return document


def split_path(raw: str) -> list[str]:
    """Return the unquoted segments of a raw path, without the query."""
    return [unquote(part) for part in raw.partition("?")[0].split("/")[1:]]
