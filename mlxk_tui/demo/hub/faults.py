"""Fault injection for the local hub: which requests a fault affects, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Literal

Kind = Literal["cut", "slow", "status", "corrupt", "silent", "ignore_range", "wrong_range", "wrong_size"]
"""What goes wrong:

- `cut`: the connection is closed after `after_bytes` of the body (None: before the headers).
- `slow`: the response starts after `delay_s` seconds, and its body is sent at `rate` bytes per second.
- `status`: the response has this `status`, `retry_after`, `error_code`, `headers` and `body` instead.
- `corrupt`: the byte at `after_bytes` of the body (None: the first one) is wrong.
- `silent`: nothing is sent after `after_bytes` (None: no headers either), but the connection stays open.
- `ignore_range`: a range request gets a 200 with the whole file.
- `wrong_range`: a range request gets a 206 whose Content-Range and bytes are off by one.
- `wrong_size`: the file is `size_delta` bytes longer (zeros) or shorter, in headers and body.
"""
Origin = Literal["hub", "cdn"]
"""`hub` serves the API and small files; `cdn` serves large files from another origin."""

_KINDS: tuple[Kind, ...] = (
    "cut", "slow", "status", "corrupt", "silent", "ignore_range", "wrong_range", "wrong_size",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault and the requests that it affects.

    Uploads are affected too: for them, `cut`, `silent` and `slow` apply to the request's body.
    """

    kind: Kind
    path: str = "*"
    """Glob for the unquoted path without query; `*` matches slashes too. On both origins the path of a file
    ends with its path in the repo, so `*/model.safetensors` matches on both."""
    method: str | None = None
    """HTTP method; None for any."""
    origin: Origin | None = None
    """None for both."""
    ranged: bool | None = None
    """Affects only requests with a Range (True), only those without (False), or both (None)."""
    skip: int = 0
    """Number of matching requests to skip first."""
    times: int | None = 1
    """Number of requests to affect; None for all."""
    after_bytes: int | None = None
    """Position in the body; see `Kind` for the meaning of None."""
    delay_s: float = 0
    """Delay in seconds."""
    rate: float | None = None
    """Bytes per second."""
    status: int = 503
    retry_after: str | float | None = None
    """Value of `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3)."""
    error_code: str | None = None
    """Value of `X-Error-Code`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    size_delta: int = -1
    """Difference of the size, in bytes."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"Unknown kind of fault {self.kind!r}. Use one of {', '.join(_KINDS)}.")

    def matches(self, origin: Origin, method: str, path: str, *, ranged: bool) -> bool:
        """Return whether a request matches the conditions of this fault."""
        return (
            self.origin in {None, origin}
            and self.method in {None, method}
            and self.ranged in {None, ranged}
            and fnmatchcase(path, self.path)
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Fault:
        """Convert a fault that was sent to the control endpoint.

        Raises:
            ValueError: a field or kind is unknown, or the kind is missing.
        """
        unknown = document.keys() - {item.name for item in fields(cls)}
        if unknown or "kind" not in document:
            raise ValueError(f"Unknown fields: {sorted(unknown)}; `kind` is required.")
        return cls(**document)


@dataclass
class _ActiveFault:
    fault: Fault
    skip: int
    left: int | None
    hits: int = 0


class Faults:
    """The faults of a hub, in the order in which they were added; the first match affects a request."""

    def __init__(self) -> None:
        self._active: list[_ActiveFault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Add a fault; it applies from the next request on."""
        with self._lock:
            self._active.append(_ActiveFault(fault, fault.skip, fault.times))
        return fault

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._active.clear()

    def hits(self, fault: Fault | None = None) -> int:
        """Return the number of requests that a fault (None: any fault) has affected."""
        with self._lock:
            return sum(item.hits for item in self._active if fault is None or item.fault is fault)

    def take(self, origin: Origin, method: str, path: str, *, ranged: bool) -> Fault | None:
        """Return the fault that affects this request, and count it."""
        with self._lock:
            for item in self._active:
                if item.left == 0 or not item.fault.matches(origin, method, path, ranged=ranged):
                    continue
                if item.skip > 0:
                    item.skip -= 1
                    continue
                if item.left is not None:
                    item.left -= 1
                item.hits += 1
                return item.fault
        return None

    def __iter__(self) -> Iterator[Fault]:
        with self._lock:
            return iter([item.fault for item in self._active])

    def to_json(self) -> list[dict[str, Any]]:
        """Return all faults, with the number of requests that each has affected and still affects."""
        with self._lock:
            return [{**asdict(item.fault), "hits": item.hits, "left": item.left} for item in self._active]
