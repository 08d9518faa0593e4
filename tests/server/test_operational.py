"""/v1/models, /health, /metrics, /openapi.json, unloading, the request log and its lines."""

from __future__ import annotations

import logging
from typing import Any

import jsonschema
import pytest

from mlxk_tui.server.app import all_routes
from mlxk_tui.server.request_log import RequestEntry, RequestState
from tests.engine.conftest import needs_mlx
from tests.server.served import (
    ANSWER,
    BABBLER,
    CHAT,
    COMPLETIONS,
    OTHER,
    QUESTION,
    TINY,
    Served,
    parsed,
    read_all,
)
from tests.support.clients import openai

pytestmark = needs_mlx


def test_models_list_has_only_runnable_models(served: Served) -> None:
    served.chat(QUESTION, max_tokens=1)
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        models = {model.id: model for model in client.models.list()}
        one = client.models.retrieve(TINY)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("no/such")
    assert set(models) == {TINY, BABBLER, OTHER}
    assert models[TINY] == one
    facts: Any = models[TINY].model_dump()
    assert (facts["context_length"], facts["loaded"], facts["owned_by"]) == (4096, True, "mlxk-tui")
    assert facts["created"] > 1_000_000_000
    assert served.get("/v1/models/mlxk-tui%2Ftiny-demo").json["id"] == TINY
    assert served.get("/v1/models/babbler").json["id"] == BABBLER


def test_model_name_in_a_path_is_its_rest_decoded_once(served: Served) -> None:
    assert served.get("/v1/models/%6dlxk-tui/tiny%2Ddemo").json["id"] == TINY
    for name in ("mlxk-tui%252Ftiny-demo", "mlxk-tui/tiny-demo%0A", "a%0Ab", "mlxk-tui/tiny-demo/"):
        reply = served.get(f"/v1/models/{name}")
        assert reply.status in {400, 404}
        assert reply.error["type"] in {"model_not_found", "validation_error"}, name


def test_alias_and_default_select_a_model(served: Served) -> None:
    with served.options(aliases={"gpt-4o": TINY}, model="gpt-4o"):
        assert served.chat(QUESTION, model="gpt-4o").json["model"] == TINY
        assert served.chat(QUESTION, model=None).text == ANSWER
        assert "gpt-4o" in {model["id"] for model in served.get("/v1/models").json["data"]}
    assert served.chat(QUESTION, model="gpt-4o").status == 404


def test_without_a_name_the_loaded_model_is_used(served: Served) -> None:
    served.chat(QUESTION, max_tokens=1)
    assert served.chat(QUESTION, model=...).text == ANSWER
    served.post("/v1/engine/unload", {})
    refused = served.chat(QUESTION, model=...)
    assert (refused.status, refused.error["param"]) == (400, "model")


def test_model_is_unloaded_on_request(served: Served) -> None:
    served.chat(QUESTION, max_tokens=1)
    assert served.post("/v1/engine/unload", b"").json == {"status": "unloaded", "model": TINY}
    health = served.get("/health").json
    assert (health["status"], health["model"]) == ("ready", None)
    assert served.post("/v1/engine/unload", b"").json["model"] is None


def test_missing_routes_have_the_same_error_format(served: Served) -> None:
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models/x", 405),
        ("PUT", "/health", 405),
        ("POST", "/chat/completions", 404),
        ("GET", "/v1/models/", 404),
        ("PATCH", "/%ff", 404),
    ):
        reply = served.ask(method, path)
        assert (reply.status, reply.error["type"]) == (status, "route_not_found"), (method, path)
        assert ("Allow" in reply.headers) is (status == 405)
    assert "/v1/chat/completions" in served.ask("POST", "/chat/completions", b"{}").error["message"]
    assert served.get("/").error["message"].startswith("Not found: /.")
    for path in ("/v1/models/x", "/health"):
        wrong = served.ask("DELETE", path)
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert wrong.error["message"].endswith("Use GET.")
    head = served.ask("HEAD", "/health")
    assert (head.status, head.body) == (200, b"")


def test_every_answer_has_a_request_id(served: Served) -> None:
    for path in ("/health", "/v1/models", "/nowhere", "/metrics"):
        assert served.get(path, **{"X-Request-ID": "my-id:1"}).headers["X-Request-ID"] == "my-id:1"
        assert served.get(path, **{"X-Request-ID": "<b>"}).headers["X-Request-ID"].startswith("req-")
    stream = served.chat(QUESTION, stream=True, max_tokens=1)
    assert stream.headers["X-Request-ID"].startswith("req-")
    for raw, status in (
        (b"this is not HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA header without a colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 400),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n", 408),  # and nothing more
        (b"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: x\r\nConnection: close\r\n\r\n", 417),
    ):
        with served.raw() as connection:
            connection.sendall(raw)
            reply = parsed(read_all(connection))
        assert reply.status == status
        assert reply.error["type"] == "validation_error"
        assert reply.headers["X-Request-ID"].startswith("req-"), raw
        assert reply.headers["Server"] == "mlxk-tui"
        assert "aiohttp" not in str(reply.headers)


def test_metrics_have_the_format_of_prometheus(served: Served) -> None:
    def value(text: str, name: str) -> float:
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))

    before = served.get("/metrics").body.decode()
    usage = served.chat(QUESTION).json["usage"]
    reply = served.get("/metrics")
    after = reply.body.decode()
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    modern = served.get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert modern.body.endswith(b"# EOF\n")
    for name in ("prompt", "completion"):
        metric = f"mlxk_{name}_tokens_total"
        assert value(after, metric) - value(before, metric) == usage[f"{name}_tokens"]
    assert value(after, "mlxk_time_to_first_token_seconds_count") > 0
    assert 'mlxk_requests_total{route="/v1/chat/completions",status="200"}' in after
    names = {line.split()[2] for line in after.splitlines() if line.startswith("# TYPE")}
    for line in after.splitlines():
        if not line.startswith("#"):
            name, number = line.rsplit(" ", 1)
            float(number)
            base = name.split("{")[0]
            assert base in names or base.rsplit("_", 1)[0] in names, line


def test_openapi_document_has_every_route_and_valid_schemas(served: Served) -> None:
    document = served.get("/openapi.json").json
    assert set(document["paths"]) == {route.path for route in all_routes()}
    body = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = {**body, "components": document["components"]}
    jsonschema.validate({"messages": [{"role": "user", "content": "x"}], "temperature": None}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"messages": "x"}, schema)


def test_log_entry_follows_a_request_from_start_to_end(served: Served) -> None:
    seen: list[tuple[str, RequestState]] = []
    unsubscribe = served.server.log.changed.subscribe(lambda entry: seen.append((entry.id, entry.state)))
    reply = served.ask(
        "POST",
        CHAT,
        {"model": TINY, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 5, "stream": True},
        {"X-Request-ID": "mine"},
    )
    assert reply.status == 200
    served.until(lambda: not served.server.log.live)
    unsubscribe()
    states = [state for number, state in seen if number == "mine"]
    assert states[0] is RequestState.WAITING
    assert states[-2:] == [RequestState.GENERATING, RequestState.DONE]
    entry = next(iter(served.server.log))
    assert (entry.id, entry.route, entry.model, entry.status) == ("mine", CHAT, TINY, 200)
    assert (entry.client, entry.stream, entry.completion_tokens) == ("127.0.0.1", True, 5)
    assert entry.prompt_tokens > 5
    assert entry.ttft_s is not None
    assert entry.duration_s is not None
    assert 0 < entry.ttft_s <= entry.duration_s
    assert entry.finish_reason == "length"
    assert (entry.prompt, entry.answer) == (None, None)


def test_log_contains_prompts_only_on_request(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mlxk_tui.server"), served.options(log_prompts=True):
        served.chat(QUESTION)
        entry = served.server.log.finished[-1]
        assert entry.prompt is not None
        assert QUESTION in entry.prompt
        assert entry.answer == ANSWER
    assert any(QUESTION in record.getMessage() for record in caplog.records)
    assert not any(ANSWER in record.getMessage() for record in caplog.records)


def test_log_line_has_everything_except_prompts_and_keys(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mlxk_tui.server"), served.options(api_keys={"bob": "secret-key"}):
        served.ask("POST", CHAT, {"model": TINY, "messages": 5}, {"Authorization": "Bearer secret-key"})
        body = {"model": TINY, "prompt": "a private matter", "max_tokens": 2}
        served.ask("POST", COMPLETIONS, body, {"Authorization": "Bearer secret-key"})
        served.until(lambda: not served.server.log.live)
    refused, answered = [record.getMessage() for record in caplog.records][-2:]
    assert "400" in refused
    assert "validation_error" in refused
    assert f"200 key=bob {TINY}" in answered
    assert "+2 tokens" in answered
    for line in (refused, answered):
        assert "secret" not in line
        assert "private" not in line


def test_log_entry_has_a_rate_while_running() -> None:
    assert RequestEntry(1, "a", "b", "GET", "/").rate is None
    entry = RequestEntry(1, "a", "b", "GET", "/")
    entry.ttft_s, entry.completion_tokens, entry.arrived = 0.5, 101, entry.arrived - 2.5
    assert entry.rate is not None
    assert 45 < entry.rate < 55
    entry.tokens_per_s = 60.0
    assert entry.rate == 60.0
