"""/openapi.json is correct: requests are generated from it, and responses are validated with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import given, strategies as st

from mlxk_tui.server.app import all_routes
from mlxk_tui.server.calls import Route
from mlxk_tui.server.operations.openapi import document
from mlxk_tui.server.requests.schema import parse
from tests.engine.conftest import needs_mlx
from tests.server.fuzzing import fuzz
from tests.server.served import TINY, Reply, Served

pytestmark = needs_mlx

DOCUMENT = document(all_routes())
COMPONENTS: dict[str, Any] = DOCUMENT["components"]
WITH_BODY = [route for route in all_routes() if route.schema is not None]
WITHOUT = [route for route in all_routes() if route.schema is None]
WORDS = [
    *("text", "function", "message", "user", "assistant", "tool", "json_object", "json_schema", "auto"),
    *("input_text", "output_text", "tool_use", "tool_result", "thinking", "reasoning", "function_call"),
    *("none", "low", "disabled", "a", "a b", "{}", TINY, ""),
]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]}
LIMITS = {"max_tokens": 3, "max_completion_tokens": 3, "max_output_tokens": 3, "n": 2, "best_of": 2}
"""What keeps an answer short; no field is put in that was not drawn, but those that end an answer."""

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=2),
    max_leaves=4,
)


def drawn(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for values that match a schema of the document."""
    if "$ref" in schema:
        return drawn(COMPONENTS["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(drawn, schema["anyOf"]))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return _object(schema)
    if kind == "array":
        least = schema.get("minItems", 0)
        return st.lists(drawn(schema["items"]), min_size=least, max_size=least + 2)
    if kind == "string":
        least = schema.get("minLength", 0)
        words = [word for word in WORDS if len(word) >= least]
        return st.sampled_from(words) | st.text(min_size=least, max_size=8)
    if kind == "integer":
        most = schema.get("maximum", schema.get("exclusiveMaximum", 2**40 + 1) - 1)
        return st.integers(schema.get("minimum", -(2**40)), most)
    if kind == "number":
        return st.floats(schema.get("minimum", -100), schema.get("maximum", 100))
    return {"boolean": st.booleans(), "null": st.none(), None: anything}[kind]


@st.composite
def _object(draw: st.DrawFn, schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    if properties is None:
        more = schema.get("additionalProperties")
        values = drawn(more) if isinstance(more, dict) else anything
        names = ["1", "42"] if "propertyNames" in schema else WORDS  # token ids
        return draw(st.dictionaries(st.sampled_from(names), values, max_size=2))
    required = schema.get("required", [])
    optional = [name for name in properties if name not in required]
    chosen = draw(st.lists(st.sampled_from(optional), unique=True, max_size=4)) if optional else []
    found = {name: draw(drawn(properties[name])) for name in (*required, *chosen)}
    for choice in schema.get("allOf", []):
        condition = draw(st.sampled_from(choice["anyOf"]))
        for name, told in condition["properties"].items():
            if name in condition["required"] or name in found:
                found[name] = draw(drawn(properties[name]).filter(partial(fits, schema=told)))
    return found


@st.composite
def requests(draw: st.DrawFn) -> tuple[Route, dict[str, Any]]:
    """Return a strategy for requests that match the document."""
    route = draw(st.sampled_from(WITH_BODY))
    body = draw(drawn(body_schema(route)))
    body["model"] = draw(st.sampled_from([TINY] * 8 + ["tiny-demo", None, "a", "mlx-community"]))
    properties = COMPONENTS["schemas"][body_schema(route)["$ref"].rpartition("/")[2]]["properties"]
    for name, most in LIMITS.items():
        if name in body or (name in properties and name.startswith("max_")):
            body[name] = min(body.get(name) or most, most)
    return route, body


def operation(route: Route) -> dict[str, Any]:
    """Return the operation of a route in the document."""
    found: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
    return found


def body_schema(route: Route) -> dict[str, Any]:
    schema: dict[str, Any] = operation(route)["requestBody"]["content"]["application/json"]["schema"]
    return schema


def fits(value: object, schema: Mapping[str, Any]) -> bool:
    validator = jsonschema.Draft202012Validator({**schema, "components": COMPONENTS})
    return bool(validator.is_valid(value))


def check(route: Route, reply: Reply) -> None:
    """Validate a response with the document."""
    responses = operation(route)["responses"]
    assert str(reply.status) in responses, (route.path, reply.status, reply.body)
    told = responses[str(reply.status)]["content"]
    media = reply.headers["Content-Type"].partition(";")[0]
    assert media in told, (route.path, reply.status, media)
    if media == "application/json":
        assert fits(reply.json, told[media]["schema"]), (route.path, reply.status, reply.body)


def send(served: Served, route: Route, body: object) -> Reply:
    return served.ask(route.method, route.path, json.dumps(body).encode())


def test_served_document_is_the_generated_one(served: Served) -> None:
    assert served.get("/openapi.json").json == DOCUMENT


answered: Counter[str] = Counter()


@pytest.mark.slow
@fuzz(250)
@given(request=requests())
def test_valid_requests_get_answers_that_match_the_document(
    served: Served, request: tuple[Route, dict[str, Any]]
) -> None:
    route, body = request
    assert fits(body, body_schema(route))
    assert route.schema is not None
    parse(route.schema, json.loads(json.dumps(body)))
    reply = send(served, route, body)
    assert reply.status < 500, (route.path, body, reply.body)
    check(route, reply)
    answered[f"{route.path} {reply.status == 200}"] += 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}),
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 2, "logprobs": False}),
        ("/v1/chat/completions", {**CHAT, "tools": [], "functions": []}),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}),
        ("/tokenize", {}),
        ("/tokenize", {"prompt": None, "messages": None}),
        ("/tokenize", {"prompt": "a", **CHAT}),
    ],
)
def test_dependent_fields_are_documented_and_enforced(
    served: Served, path: str, body: dict[str, Any]
) -> None:
    route = next(route for route in WITH_BODY if route.path == path)
    assert not fits(body, body_schema(route))
    assert send(served, route, body).status == 400


@pytest.mark.slow
@fuzz(250)
@given(request=requests(), field=st.integers(0, 99), value=anything)
def test_invalid_requests_are_rejected_as_documented(
    served: Served, request: tuple[Route, dict[str, Any]], field: int, value: object
) -> None:
    route, body = request
    names = sorted(set(COMPONENTS["schemas"][body_schema(route)["$ref"].rpartition("/")[2]]["properties"]))
    name = names[field % len(names)]
    if name not in LIMITS:
        body[name] = value
    reply = send(served, route, body)
    assert reply.status < 500, (route.path, body, reply.body)
    assert reply.status >= 400 or fits(body, body_schema(route)), (route.path, body)
    check(route, reply)
    answered[f"{route.path} {reply.status == 200}"] += 1


@pytest.mark.slow
def test_every_route_was_tested_with_success_and_error() -> None:
    for route in WITH_BODY:
        if route.path != "/v1/embeddings":  # none of these is an embedding model
            assert answered[f"{route.path} True"] > 1, answered
        assert answered[f"{route.path} False"] > 1, answered


@pytest.mark.parametrize("route", WITHOUT, ids=lambda route: f"{route.method} {route.path}")
def test_routes_without_a_body_answer_as_documented(served: Served, route: Route) -> None:
    served.post("/v1/completions", {"model": TINY, "prompt": "x", "max_tokens": 1})  # loads it
    for name in (TINY, quote(TINY, safe=""), "no/such", "mlx-community", "a@b@c", "%ff", "x" * 300):
        reply = served.ask(route.method, route.path.replace("{id}", name))
        check(route, reply)
        if name == TINY:
            assert reply.status == 200
        elif route.prefix is not None and name != quote(TINY, safe=""):
            assert reply.status >= 400


@pytest.mark.parametrize("route", all_routes(), ids=lambda route: f"{route.method} {route.path}")
def test_unauthorized_requests_are_rejected_as_documented(served: Served, route: Route) -> None:
    path = route.path.replace("{id}", "x")
    with served.options(api_keys={"alice": "key-a"}):
        reply = served.ask(route.method, path, b"{}")
    assert reply.status == (200 if route.public else 401)
    check(route, reply)
    reply = served.ask(route.method, path, b"{}", {"Origin": "https://evil.example.com"})
    assert reply.status == 403
    check(route, reply)
