"""The local hub's list of requests, with the bytes that really left for each."""

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
    """One request, and what became of it so far."""

    origin: Origin
    method: str
    path: str
    """Unquoted, without query."""
    query: str
    range: str | None
    """The Range header."""
    authorization: bool
    """Whether a token came with it."""
    user_agent: str
    connection: int
    """A number for the TCP connection; requests on one connection share it."""
    status: int = 0
    """0 as long as there is none."""
    bytes_sent: int = 0
    """Bytes of the body that were handed to the system."""
    bytes_received: int = 0
    """Bytes of the request's body."""
    fault: str | None = None
    """The kind of fault that it met."""
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None
    """None as long as it is being answered (monotonic seconds, as `started`)."""


class HubLog:
    """All requests, oldest first; safe to read from another thread."""

    def __init__(self) -> None:
        self._requests: list[LoggedRequest] = []
        self._lock = threading.Lock()

    def add(self, request: LoggedRequest) -> LoggedRequest:
        """Append a request."""
        with self._lock:
            self._requests.append(request)
        return request

    def clear(self) -> None:
        """Forget what was."""
        with self._lock:
            self._requests.clear()

    def matching(
        self, path: str = "*", *, method: str | None = None, origin: Origin | None = None
    ) -> list[LoggedRequest]:
        """Return the requests whose path fits the glob (`*` crosses slashes)."""
        return [
            request
            for request in self
            if fnmatchcase(request.path, path)
            and method in {None, request.method}
            and origin in {None, request.origin}
        ]

    def bytes_sent(self, path: str = "*", *, origin: Origin | None = None) -> int:
        """Return the bytes of all bodies that were sent for these paths."""
        return sum(request.bytes_sent for request in self.matching(path, origin=origin))

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return sum(request.finished is None for request in self)

    def to_json(self) -> list[dict[str, Any]]:
        """Return everything as plain values."""
        return [asdict(request) for request in self]

    def __iter__(self) -> Iterator[LoggedRequest]:
        with self._lock:
            return iter(list(self._requests))

    def __len__(self) -> int:
        return len(self._requests)
