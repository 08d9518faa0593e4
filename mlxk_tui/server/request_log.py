"""The request log: requests in progress and finished ones, for the Server pane, metrics and log lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from mlxk_tui.ops.core.events import Publisher


class RequestState(str, Enum):
    """The progress of a request."""

    WAITING = "waiting"
    """It waits for its body, in the queue, or for another model's streams to end."""
    LOADING = "loading"
    """Its model is being loaded."""
    READING = "reading"
    """Its prompt is being processed (prefill)."""
    GENERATING = "generating"
    DONE = "done"


@dataclass(eq=False)
class RequestEntry:
    """One request; its counts are updated while it is in progress."""

    number: int
    """Sequence number in order of arrival, starting at 1."""
    id: str
    """Its `X-Request-ID`."""
    client: str
    """The client's IP address."""
    method: str
    route: str
    """The route's path, such as `/v1/models/{id}`; `-` if no route matches."""
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    key: str | None = None
    """Name of the API key, not its value."""
    model: str | None = None
    """Full repo name, once resolved."""
    stream: bool = False
    state: RequestState = RequestState.WAITING
    status: int | None = None
    """HTTP status; None while in progress. A stream that failed has status 200 and an `error`."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ttft_s: float | None = None
    """Time to first token since arrival, in seconds."""
    duration_s: float | None = None
    """From arrival to the last byte, in seconds; None while in progress."""
    tokens_per_s: float | None = None
    """GenerationRequest speed as measured by the engine; None until it ends."""
    finish_reason: str | None = None
    error: str | None = None
    """The message that the client got."""
    error_type: str | None = None
    prompt: str | None = None
    """Only with `log_prompts`."""
    answer: str | None = None
    """Only with `log_prompts`."""
    arrived: float = field(default_factory=time.monotonic)
    """Arrival in seconds of the monotonic clock."""

    @property
    def live(self) -> bool:
        """Whether the request is in progress."""
        return self.duration_s is None

    @property
    def age_s(self) -> float:
        """Total duration, or the time since arrival while in progress, in seconds."""
        return time.monotonic() - self.arrived if self.duration_s is None else self.duration_s

    @property
    def rate(self) -> float | None:
        """Tokens per second: final, or measured so far; None if there are too few tokens yet."""
        if self.tokens_per_s is not None or self.ttft_s is None or not self.live:
            return self.tokens_per_s
        generating = self.age_s - self.ttft_s
        return (self.completion_tokens - 1) / generating if generating > 0.05 else None


class RequestLog:
    """Requests in progress and the last `size` finished ones. Not thread-safe: use it in one event loop."""

    def __init__(self, size: int = 1000) -> None:
        self.total = 0
        """Number of requests since the start."""
        self._live: dict[int, RequestEntry] = {}
        self._finished: deque[RequestEntry] = deque(maxlen=size)
        self.changed: Publisher[RequestEntry] = Publisher()
        """Published when a request arrives, changes state or ends; not for each token."""

    def __len__(self) -> int:
        return len(self._live) + len(self._finished)

    def __iter__(self) -> Iterator[RequestEntry]:
        """Iterate over requests in progress, then finished ones, each newest first."""
        yield from reversed(self._live.values())
        yield from reversed(self._finished)

    @property
    def live(self) -> tuple[RequestEntry, ...]:
        """Requests in progress, in order of arrival."""
        return tuple(self._live.values())

    @property
    def finished(self) -> tuple[RequestEntry, ...]:
        """Finished requests, in the order they finished."""
        return tuple(self._finished)

    def begin(self, id: str, client: str, method: str, route: str) -> RequestEntry:  # noqa: A002 - a field of the entry
        """Add a new request in state `waiting` and notify subscribers."""
        self.total += 1
        entry = RequestEntry(self.total, id, client, method, route)
        self._live[entry.number] = entry
        self.changed.publish(entry)
        return entry

    def set_state(self, entry: RequestEntry, state: RequestState) -> None:
        """Update the state of a request."""
        if entry.state is not state:
            entry.state = state
            self.changed.publish(entry)

    def end(self, entry: RequestEntry, status: int) -> None:
        """Mark a request as finished; status 499 means that the client disconnected."""
        if self._live.pop(entry.number, None) is None:
            return
        entry.duration_s = time.monotonic() - entry.arrived
        entry.status = status
        entry.state = RequestState.DONE
        self._finished.append(entry)
        self.changed.publish(entry)

    def clear(self) -> None:
        """Remove the finished requests; those in progress stay."""
        self._finished.clear()
