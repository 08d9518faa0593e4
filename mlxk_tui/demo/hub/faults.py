"""Faults that the local hub can be told to have: which requests they hit, and what then goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Literal

Kind = Literal["cut", "slow", "status", "corrupt", "silent", "ignore_range", "wrong_range", "wrong_size"]
"""What goes wrong:

- `cut`: the connection is closed after `after_bytes` of the body (None: before any header).
- `slow`: the answer begins `delay_s` later, and its body comes at `rate` bytes a second.
- `status`: `status` in place of the answer, with `retry_after`, `error_code`, `headers` and `body`.
- `corrupt`: the byte at `after_bytes` of the body (None: the first) is wrong.
- `silent`: the connection stays open and nothing comes after `after_bytes` (None: not even a header).
- `ignore_range`: 200 and the whole file in answer to a Range.
- `wrong_range`: 206 whose Content-Range says a byte further than asked, with those bytes.
- `wrong_size`: the file seems `size_delta` bytes longer (zeros) or shorter, in headers and body alike.
"""
Origin = Literal["hub", "cdn"]
"""`hub` answers the API and small files, `cdn` holds large files at another origin."""

_KINDS: tuple[Kind, ...] = (
    "cut", "slow", "status", "corrupt", "silent", "ignore_range", "wrong_range", "wrong_size",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault and the requests that it hits.

    Requests to upload are hit too: `cut`, `silent` and `slow` then count what was received.
    """

    kind: Kind
    path: str = "*"
    """Glob over the URL's path without query, unquoted; `*` crosses slashes. A large file's path on the
    CDN ends with its name in the repo, as on the hub, so that `*/model.safetensors` fits on both."""
    method: str | None = None
    """None for any."""
    origin: Origin | None = None
    """None for both."""
    ranged: bool | None = None
    """Only requests with a Range (True), only those without (False), or either (None)."""
    skip: int = 0
    """How many matching requests go by unharmed first."""
    times: int | None = 1
    """How many requests it hits; None for all."""
    after_bytes: int | None = None
    """Bytes of the body; what None means depends on the kind."""
    delay_s: float = 0
    """Seconds."""
    rate: float | None = None
    """Bytes a second."""
    status: int = 503
    retry_after: str | float | None = None
    """`Retry-After`: seconds, or a date as RFC 9110 writes it."""
    error_code: str | None = None
    """`X-Error-Code`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    size_delta: int = -1
    """Bytes."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"There is no fault {self.kind!r}; there are {', '.join(_KINDS)}.")

    def fits(self, origin: Origin, method: str, path: str, *, ranged: bool) -> bool:
        """Tell whether the request is one of those that this fault hits."""
        return (
            self.origin in {None, origin}
            and self.method in {None, method}
            and self.ranged in {None, ranged}
            and fnmatchcase(path, self.path)
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Fault:
        """Return the fault that the control endpoint was sent.

        Raises:
            ValueError: an unknown field or kind.
        """
        unknown = document.keys() - {item.name for item in fields(cls)}
        if unknown or "kind" not in document:
            raise ValueError(f"Unknown fields: {sorted(unknown)}; `kind` must be there.")
        return cls(**document)


@dataclass
class _Set:
    fault: Fault
    skip: int
    left: int | None
    hits: int = 0


class Faults:
    """The faults of a hub, in the order they were added; a request meets the first one that fits."""

    def __init__(self) -> None:
        self._sets: list[_Set] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Let the hub have the fault from the next request on."""
        with self._lock:
            self._sets.append(_Set(fault, fault.skip, fault.times))
        return fault

    def clear(self) -> None:
        """Mend everything."""
        with self._lock:
            self._sets.clear()

    def hits(self, fault: Fault | None = None) -> int:
        """Return how many requests the fault (None: all of them) has hit."""
        with self._lock:
            return sum(item.hits for item in self._sets if fault is None or item.fault is fault)

    def take(self, origin: Origin, method: str, path: str, *, ranged: bool) -> Fault | None:
        """Return the fault that this request meets, and count it."""
        with self._lock:
            for item in self._sets:
                if item.left == 0 or not item.fault.fits(origin, method, path, ranged=ranged):
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
            return iter([item.fault for item in self._sets])

    def to_json(self) -> list[dict[str, Any]]:
        """Return every fault with its `hits` and what is `left` of it."""
        with self._lock:
            return [{**asdict(item.fault), "hits": item.hits, "left": item.left} for item in self._sets]
