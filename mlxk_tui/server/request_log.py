"""The request log: what is being answered now and what was, for the pane, the metrics and the log lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from mlxk_tui.ops.core.events import Publisher


class RequestState(str, Enum):
    """How far a request is."""

    WAITING = "waiting"
    """For its body, its turn, or another model's streams to end."""
    LOADING = "loading"
    """Its model is being loaded."""
    READING = "reading"
    """Its prompt is being read."""
    GENERATING = "generating"
    DONE = "done"


@dataclass(eq=False)
class RequestEntry:
    """One request; its numbers grow while it is live."""

    number: int
    """Counts from 1 in the order of arrival."""
    id: str
    """Its `X-Request-ID`."""
    client: str
    """Address of the client."""
    method: str
    route: str
    """Path as the API writes it, such as `/v1/models/{id}`; `-` where there is no such route."""
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    key: str | None = None
    """Name of the API key."""
    model: str | None = None
    """Full name, once it is resolved."""
    stream: bool = False
    state: RequestState = RequestState.WAITING
    status: int | None = None
    """HTTP status; None while it is open. A stream that broke off has an `error` beside its 200."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ttft_s: float | None = None
    """Time to the first token, from the arrival on, in seconds."""
    duration_s: float | None = None
    """From arrival to the last byte, in seconds; None while it is live."""
    tokens_per_s: float | None = None
    """Of the generation, as the engine counts it; None before its end."""
    finish_reason: str | None = None
    error: str | None = None
    """One sentence."""
    error_type: str | None = None
    prompt: str | None = None
    """Only with `log_prompts`."""
    answer: str | None = None
    """Only with `log_prompts`."""
    begun: float = field(default_factory=time.monotonic)
    """Arrival on the monotonic clock, in seconds."""

    @property
    def live(self) -> bool:
        """Whether it is still being answered."""
        return self.duration_s is None

    @property
    def age_s(self) -> float:
        """How long it took, or has taken so far."""
        return time.monotonic() - self.begun if self.duration_s is None else self.duration_s

    @property
    def rate(self) -> float | None:
        """Tokens per second: the final one, or what they came at so far; None where there is none yet."""
        if self.tokens_per_s is not None or self.ttft_s is None or not self.live:
            return self.tokens_per_s
        generating = self.age_s - self.ttft_s
        return (self.completion_tokens - 1) / generating if generating > 0.05 else None


class RequestLog:
    """The live requests and the last finished ones. Belongs to one event loop."""

    def __init__(self, size: int = 1000) -> None:
        self.total = 0
        """Requests ever."""
        self._live: dict[int, RequestEntry] = {}
        self._finished: deque[RequestEntry] = deque(maxlen=size)
        self.changed: Publisher[RequestEntry] = Publisher()
        """A request came, is in another state, or ended; not published for each token."""

    def __len__(self) -> int:
        return len(self._live) + len(self._finished)

    def __iter__(self) -> Iterator[RequestEntry]:
        """The live ones, then the finished ones; the newest first of each."""
        yield from reversed(self._live.values())
        yield from reversed(self._finished)

    @property
    def live(self) -> tuple[RequestEntry, ...]:
        """What is being answered now, in the order of arrival."""
        return tuple(self._live.values())

    @property
    def finished(self) -> tuple[RequestEntry, ...]:
        """What was answered, in the order of ending."""
        return tuple(self._finished)

    def begin(self, id: str, client: str, method: str, route: str) -> RequestEntry:  # noqa: A002
        """Add a request that has just come."""
        self.total += 1
        entry = RequestEntry(self.total, id, client, method, route)
        self._live[entry.number] = entry
        self.changed.publish(entry)
        return entry

    def move(self, entry: RequestEntry, state: RequestState) -> None:
        """Note how far a request is."""
        if entry.state is not state:
            entry.state = state
            self.changed.publish(entry)

    def end(self, entry: RequestEntry, status: int) -> None:
        """Note that a request was answered, or given up by its client (499)."""
        if self._live.pop(entry.number, None) is None:
            return
        entry.duration_s = time.monotonic() - entry.begun
        entry.status = status
        entry.state = RequestState.DONE
        self._finished.append(entry)
        self.changed.publish(entry)

    def clear(self) -> None:
        """Forget the finished ones."""
        self._finished.clear()
