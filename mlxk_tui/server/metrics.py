"""Counts for Prometheus, in its text format (version 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mlxk_tui.engine.status import EngineState, EngineStatus
from mlxk_tui.server.request_log import RequestEntry

_TTFT_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DURATION_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """Observations in buckets.

    Args:
        bounds: upper bounds, ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._sum += value
        self._counts[next((i for i, bound in enumerate(self._bounds) if value <= bound), -1)] += 1

    def lines(self, name: str) -> Iterator[str]:
        """Yield its samples."""
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """Sums over everything since the program started."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter()
        self._ttft = Histogram(_TTFT_S)
        self._duration = Histogram(_DURATION_S)

    def count(self, entry: RequestEntry) -> None:
        """Count a finished request."""
        self._requests[entry.route, entry.status or 0] += 1
        self._tokens["prompt"] += entry.prompt_tokens
        self._tokens["cached"] += entry.cached_tokens
        self._tokens["completion"] += entry.completion_tokens
        if entry.ttft_s is not None:
            self._ttft.observe(entry.ttft_s)
            self._duration.observe(entry.age_s)

    def text(
        self, status: EngineStatus, *, in_flight: int, generations: int, rejected: int, restarts: int
    ) -> str:
        """Return all samples."""
        lines: list[str] = []

        def add(name: str, kind: str, about: str, samples: Iterable[str]) -> None:
            lines.append(f"# HELP {name} {about}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(samples)

        def one(name: str, kind: str, about: str, value: float) -> None:
            add(name, kind, about, [f"{name} {value:.12g}"])

        add(
            "mlxk_requests_total",
            "counter",
            "Requests that were answered.",
            (
                f'mlxk_requests_total{{route="{route}",status="{code}"}} {count}'
                for (route, code), count in sorted(self._requests.items())
            ),
        )
        one("mlxk_requests_in_flight", "gauge", "Requests that are being answered.", in_flight)
        one("mlxk_generations", "gauge", "Generations that run or wait.", generations)
        one("mlxk_requests_rejected_total", "counter", "Requests refused because of too many.", rejected)
        for kind in ("prompt", "cached", "completion"):
            about = "Prompt tokens that the cache spared." if kind == "cached" else f"Tokens: {kind}."
            one(f"mlxk_{kind}_tokens_total", "counter", about, self._tokens[kind])
        for name, about, histogram in (
            ("mlxk_time_to_first_token_seconds", "From arrival to the first token.", self._ttft),
            ("mlxk_generation_duration_seconds", "From arrival to the last byte.", self._duration),
        ):
            add(name, "histogram", about, histogram.lines(name))
        one("mlxk_tokens_per_second", "gauge", "Over all streams, the last second.", status.tokens_per_s)
        one("mlxk_engine_memory_bytes", "gauge", "Memory that MLX holds.", status.memory_bytes)
        about = "Memory of the processes that read prompts."
        one("mlxk_tokenizing_memory_bytes", "gauge", about, status.tokenizing_bytes)
        one("mlxk_engine_waiting", "gauge", "Requests that wait for another model.", status.waiting)
        one("mlxk_engine_restarts_total", "counter", "Ends of the inference process.", restarts)
        add(
            "mlxk_engine_state",
            "gauge",
            "1 for the present state of the engine.",
            (f'mlxk_engine_state{{state="{s.value}"}} {int(s is status.state)}' for s in EngineState),
        )
        return "\n".join(lines) + "\n"
