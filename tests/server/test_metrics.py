"""The metrics for Prometheus: stable names and labels, and a registry per server."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mlxk_tui.engine.status import EngineState, EngineStatus
from mlxk_tui.server.metrics import CurrentValues, Metrics
from mlxk_tui.server.request_log import RequestEntry

NAMES = {
    "mlxk_requests_total": "counter",
    "mlxk_requests_in_flight": "gauge",
    "mlxk_generations": "gauge",
    "mlxk_requests_rejected_total": "counter",
    "mlxk_prompt_tokens_total": "counter",
    "mlxk_cached_tokens_total": "counter",
    "mlxk_completion_tokens_total": "counter",
    "mlxk_time_to_first_token_seconds": "histogram",
    "mlxk_generation_duration_seconds": "histogram",
    "mlxk_tokens_per_second": "gauge",
    "mlxk_engine_memory_bytes": "gauge",
    "mlxk_tokenizing_memory_bytes": "gauge",
    "mlxk_engine_waiting": "gauge",
    "mlxk_engine_restarts_total": "counter",
    "mlxk_engine_state": "gauge",
}
STATUS = EngineStatus(
    EngineState.READY, tokens_per_s=12.5, memory_bytes=3_770_000_000, tokenizing_bytes=7, waiting=2
)
"""What the engine of `counted` is doing."""


def counted(*entries: RequestEntry) -> Metrics:
    metrics = Metrics(lambda: CurrentValues(STATUS, in_flight=3, generations=4, rejected=5, restarts=6))
    for entry in entries:
        metrics.count(entry)
    return metrics


def answered(ttft_s: float | None = 0.3, duration_s: float = 2.0) -> RequestEntry:
    entry = RequestEntry(1, "a", "b", "POST", "/v1/chat/completions")
    entry.status, entry.ttft_s, entry.duration_s = 200, ttft_s, duration_s
    entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens = 10, 4, 20
    return entry


def samples(text: str) -> dict[str, float]:
    """Return the values by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
            found[f"{one.name}{{{labels}}}" if labels else one.name] = one.value
    return found


def test_metric_names_and_types_are_stable() -> None:
    text = counted(answered()).exposition("")[0].decode()
    told = dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE"))
    assert told == NAMES
    assert "_created" not in text


def test_requests_are_counted_once() -> None:
    found = samples(
        counted(answered(), answered(ttft_s=None), answered(0.05, 400)).exposition("")[0].decode()
    )
    assert found["mlxk_requests_total{route=/v1/chat/completions,status=200}"] == 3
    assert (found["mlxk_prompt_tokens_total"], found["mlxk_cached_tokens_total"]) == (30, 12)
    assert found["mlxk_completion_tokens_total"] == 60
    ttft = "mlxk_time_to_first_token_seconds"
    assert found[f"{ttft}_count"] == 2
    assert found[f"{ttft}_sum"] == pytest.approx(0.35)
    assert found[f"{ttft}_bucket{{le=0.025}}"] == 0
    assert found[f"{ttft}_bucket{{le=0.05}}"] == 1  # a bound belongs to its bucket
    assert found[f"{ttft}_bucket{{le=0.5}}"] == found[f"{ttft}_bucket{{le=+Inf}}"] == 2
    assert found["mlxk_generation_duration_seconds_bucket{le=300.0}"] == 1
    assert (found["mlxk_requests_in_flight"], found["mlxk_generations"]) == (3, 4)
    assert (found["mlxk_requests_rejected_total"], found["mlxk_engine_restarts_total"]) == (5, 6)
    assert found["mlxk_engine_memory_bytes"] == 3_770_000_000
    assert found["mlxk_tokens_per_second"] == 12.5
    states = {state: found[f"mlxk_engine_state{{state={state.value}}}"] for state in EngineState}
    assert states == {state: state is EngineState.READY for state in EngineState}


def test_metrics_start_at_zero() -> None:
    found = samples(counted().exposition("")[0].decode())
    assert found["mlxk_prompt_tokens_total"] == 0
    assert found["mlxk_time_to_first_token_seconds_count"] == 0


def test_openmetrics_is_sent_if_accepted() -> None:
    wanted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    body, content_type = counted(answered()).exposition(wanted)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    parsed = openmetrics.text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]  # it has no types
    families = {family.name: family.type for family in parsed}
    assert families == {name.removesuffix("_total"): kind for name, kind in NAMES.items()}


@pytest.mark.parametrize(
    "accept",
    [
        *("*/*", "text/html", "text/plain", ";;;,=,", "text/plain;version=;escaping=x", "x" * 5_000),
        *("text/plain;version=one", "application/openmetrics-text;version=1..x", "text/plain;version=0.0.4"),
    ],
)
def test_other_accept_headers_get_a_readable_format(accept: str) -> None:
    body, content_type = counted(answered()).exposition(accept)
    assert content_type.startswith(
        ("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0")
    )
    assert b"mlxk_prompt_tokens_total 10.0\n" in body


def test_servers_do_not_share_metrics() -> None:
    first, second = counted(answered()), counted()
    assert samples(first.exposition("")[0].decode())["mlxk_prompt_tokens_total"] == 10
    assert samples(second.exposition("")[0].decode())["mlxk_prompt_tokens_total"] == 0
    assert not any(family.name.startswith("mlxk_") for family in REGISTRY.collect())
