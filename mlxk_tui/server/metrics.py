"""Prometheus metrics: requests since the process started, and the current state of server and engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mlxk_tui.engine.status import EngineState, EngineStatus
from mlxk_tui.server.request_log import RequestEntry

_TTFT_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DURATION_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True)
class CurrentValues:
    """The values that are read at each scrape."""

    status: EngineStatus
    in_flight: int
    """Requests in progress."""
    generations: int
    """Running and queued generations."""
    rejected: int
    """Requests rejected so far because the queue was full."""
    restarts: int
    """Crashes of the inference process so far."""


class Metrics:
    """The metrics of one server, in a registry of its own.

    Args:
        read: returns the current values; called once per scrape.
    """

    def __init__(self, read: Callable[[], CurrentValues]) -> None:
        self._registry = _Registry()
        self._requests = Counter(
            "mlxk_requests",
            "Finished requests by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self._prompt = self._counter("mlxk_prompt_tokens", "Tokens: prompt.")
        self._cached = self._counter("mlxk_cached_tokens", "Prompt tokens read from the prompt cache.")
        self._completion = self._counter("mlxk_completion_tokens", "Tokens: completion.")
        self._ttft = self._histogram(
            "mlxk_time_to_first_token_seconds", "From request to first token.", _TTFT_S
        )
        self._duration = self._histogram(
            "mlxk_generation_duration_seconds", "From request to last byte.", _DURATION_S
        )
        self._registry.register(_CurrentValuesCollector(read))

    def count(self, entry: RequestEntry) -> None:
        """Count a finished request, with its tokens and times."""
        self._requests.labels(entry.route, entry.status or 0).inc()
        self._prompt.inc(entry.prompt_tokens)
        self._cached.inc(entry.cached_tokens)
        self._completion.inc(entry.completion_tokens)
        if entry.ttft_s is not None:
            self._ttft.observe(entry.ttft_s)
            self._duration.observe(entry.age_s)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the response body and its content type: OpenMetrics if accepted, else Prometheus' text.

        Args:
            accept: the request's `Accept` header, or "".
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # an invalid version
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(name, help_text, registry=self._registry)

    def _histogram(self, name: str, help_text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(name, help_text, buckets=bounds, registry=self._registry)


class _Registry(CollectorRegistry):
    """A registry without the `_created` series, which would double the number of counter series."""

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family


class _CurrentValuesCollector(Collector):
    """Makes metric families of values that are counted elsewhere."""

    def __init__(self, read: Callable[[], CurrentValues]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        current = self._read()
        status = current.status
        for name, help_text, value in (
            ("mlxk_requests_in_flight", "Requests in progress.", current.in_flight),
            ("mlxk_generations", "Generations that are running or queued.", current.generations),
            ("mlxk_tokens_per_second", "All streams, averaged over a second.", status.tokens_per_s),
            ("mlxk_engine_memory_bytes", "Memory used by MLX.", status.memory_bytes),
            ("mlxk_tokenizing_memory_bytes", "Memory of the tokenizing processes.", status.tokenizing_bytes),
            ("mlxk_engine_waiting", "Requests waiting for another model.", status.waiting),
        ):
            yield GaugeMetricFamily(name, help_text, value)
        for name, help_text, value in (
            ("mlxk_requests_rejected", "Requests rejected because the queue was full.", current.rejected),
            ("mlxk_engine_restarts", "Crashes of the inference process.", current.restarts),
        ):
            yield CounterMetricFamily(name, help_text, value)
        states = GaugeMetricFamily(
            "mlxk_engine_state", "1 for the current state of the engine.", labels=("state",)
        )
        for state in EngineState:
            states.add_metric((state.value,), int(state is status.state))
        yield states
