"""Prometheus metrics in the text exposition format, version 0.0.4.

See https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mlxk_tui.engine.status import EngineState, EngineStatus
from mlxk_tui.server.request_log import RequestEntry

_TTFT_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DURATION_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """A Prometheus histogram: observations in buckets.

    Args:
        bounds: upper bounds, ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Add an observation to its bucket and the sum."""
        self._sum += value
        self._counts[next((i for i, bound in enumerate(self._bounds) if value <= bound), -1)] += 1

    def lines(self, name: str) -> Iterator[str]:
        """Yield the sample lines of the metric `name`."""
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """Counters and histograms of all requests since the process started."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter()
        self._ttft = Histogram(_TTFT_S)
        self._duration = Histogram(_DURATION_S)

    def count(self, entry: RequestEntry) -> None:
        """Count a finished request, with its tokens and times."""
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
        """Return the text that `/metrics` serves."""
        lines: list[str] = []

        def add(name: str, kind: str, help_text: str, samples: Iterable[str]) -> None:
            lines.append(f"# HELP {name} {help_text}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(samples)

        def add_value(name: str, kind: str, help_text: str, value: float) -> None:
            add(name, kind, help_text, [f"{name} {value:.12g}"])

        add(
            "mlxk_requests_total",
            "counter",
            "Finished requests by route and status.",
            (
                f'mlxk_requests_total{{route="{route}",status="{code}"}} {count}'
                for (route, code), count in sorted(self._requests.items())
            ),
        )
        add_value("mlxk_requests_in_flight", "gauge", "Requests in progress.", in_flight)
        add_value("mlxk_generations", "gauge", "Generations that are running or queued.", generations)
        add_value(
            "mlxk_requests_rejected_total",
            "counter",
            "Requests rejected because the queue was full.",
            rejected,
        )
        for kind in ("prompt", "cached", "completion"):
            cached = kind == "cached"
            help_text = "Prompt tokens read from the prompt cache." if cached else f"Tokens: {kind}."
            add_value(f"mlxk_{kind}_tokens_total", "counter", help_text, self._tokens[kind])
        for name, help_text, histogram in (
            ("mlxk_time_to_first_token_seconds", "From request to first token.", self._ttft),
            ("mlxk_generation_duration_seconds", "From request to last byte.", self._duration),
        ):
            add(name, "histogram", help_text, histogram.lines(name))
        add_value(
            "mlxk_tokens_per_second", "gauge", "All streams, averaged over a second.", status.tokens_per_s
        )
        add_value("mlxk_engine_memory_bytes", "gauge", "Memory used by MLX.", status.memory_bytes)
        help_text = "Memory of the tokenizing processes."
        add_value("mlxk_tokenizing_memory_bytes", "gauge", help_text, status.tokenizing_bytes)
        add_value("mlxk_engine_waiting", "gauge", "Requests waiting for another model.", status.waiting)
        add_value("mlxk_engine_restarts_total", "counter", "Crashes of the inference process.", restarts)
        add(
            "mlxk_engine_state",
            "gauge",
            "1 for the current state of the engine.",
            (f'mlxk_engine_state{{state="{s.value}"}} {int(s is status.state)}' for s in EngineState),
        )
        return "\n".join(lines) + "\n"
