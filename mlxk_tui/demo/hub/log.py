"""The request log of the local hub, with the number of bytes actually sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from mlxk_tui.demo.hub.faults import Origin


@dataclass
class LoggedRequest:
    """One request; it is updated while the request is in progress."""

    origin: Origin
    method: str
    path: str
    """The unquoted path, without query."""
    query: str
    range: str | None
    """The Range header."""
    authorization: bool
    """Whether it has an Authorization header."""
    user_agent: str
    connection: int
    """A number that identifies the TCP connection."""
    status: int = 0
    """HTTP status; 0 before the response."""
    bytes_sent: int = 0
    """Bytes of the response's body that were passed to the operating system."""
    bytes_received: int = 0
    """Bytes of the request's body."""
    fault: str | None = None
    """The kind of fault that affected it."""
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None
    """None while in progress; in seconds of the monotonic clock, like `started`."""


class HubLog:
    """All requests, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._requests: list[LoggedRequest] = []
        self._lock = threading.Lock()

    def add(self, request: LoggedRequest) -> LoggedRequest:
        """Add a request and return it."""
        with self._lock:
            self._requests.append(request)
        return request

    def clear(self) -> None:
        """Remove all requests."""
        with self._lock:
            self._requests.clear()

    def matching(
        self, path: str = "*", *, method: str | None = None, origin: Origin | None = None
    ) -> list[LoggedRequest]:
        """Return the requests whose path matches a glob (`*` matches slashes too)."""
        return [
            request
            for request in self
            if fnmatchcase(request.path, path)
            and method in {None, request.method}
            and origin in {None, request.origin}
        ]

    def bytes_sent(self, path: str = "*", *, origin: Origin | None = None) -> int:
        """Return the number of bytes that were sent for matching paths."""
        return sum(request.bytes_sent for request in self.matching(path, origin=origin))

    @property
    def running(self) -> int:
        """Number of requests in progress."""
        return sum(request.finished is None for request in self)

    def to_json(self) -> list[dict[str, Any]]:
        """Return all requests as JSON values."""
        return [asdict(request) for request in self]

    def __iter__(self) -> Iterator[LoggedRequest]:
        with self._lock:
            return iter(list(self._requests))

    def __len__(self) -> int:
        return len(self._requests)
