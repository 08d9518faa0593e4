"""The list of models in Anthropic's format for its client; other clients get OpenAI's format."""

from __future__ import annotations

import pytest

from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, OTHER, TINY, Served
from tests.support.clients import anthropic

pytestmark = needs_mlx

VERSION = {"Anthropic-Version": "2023-06-01"}
ALL = sorted([BABBLER, OTHER, TINY], key=str.casefold)


@pytest.mark.slow
def test_models_are_paged(claude: anthropic.Anthropic) -> None:
    whole = claude.models.list()
    assert [model.id for model in whole.data] == ALL
    assert (whole.has_more, whole.first_id, whole.last_id) == (False, ALL[0], ALL[-1])
    for limit in (1, 2, 3):
        assert [model.id for model in claude.models.list(limit=limit)] == ALL
    after = claude.models.list(after_id=ALL[0], limit=1)
    assert ([model.id for model in after.data], after.has_more) == ([ALL[1]], True)
    before = claude.models.list(before_id=ALL[2], limit=1)
    assert ([model.id for model in before.data], before.has_more) == ([ALL[1]], True)
    assert claude.models.list(before_id=ALL[0]).data == []
    assert [model.id for model in claude.beta.models.list()] == ALL


def test_model_is_retrieved(claude: anthropic.Anthropic) -> None:
    model = claude.models.retrieve(TINY)
    assert (model.id, model.type, model.display_name, model.lifecycle) == (TINY, "model", TINY, "active")
    assert model.created_at.year >= 2000
    assert model.max_input_tokens == 4096
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.models.retrieve("no/such")
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *(("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=%C2%B2", "limit")),
        *(("after_id=nobody", "after_id"), ("before_id=nobody", "before_id")),
        (f"after_id={TINY}&before_id={TINY}", "after_id"),
    ],
)
def test_invalid_page_is_rejected(served: Served, query: str, param: str) -> None:
    reply = served.get(f"/v1/models?{query}", **VERSION)
    assert (reply.status, reply.json["type"], reply.json["error"]["param"]) == (400, "error", param)
    assert served.get(f"/v1/models?{query}").status == 200


def test_format_depends_only_on_the_header(served: Served) -> None:
    for headers in ({}, {"X-API-Key": "none"}, {"Authorization": "Bearer none"}):
        assert served.get("/v1/models", **headers).json["object"] == "list"
        assert served.get(f"/v1/models/{TINY}", **headers).json["object"] == "model"
        assert "type" in served.get("/v1/models/no/such", **headers).error
    for path in ("/v1/models/no/such", "/v1/messages/batches", "/nowhere"):
        assert served.get(path, **VERSION).json["error"]["type"] == "not_found_error"
    with served.options(api_keys={"a": "secret"}):
        refused = served.get("/v1/models", **VERSION)
        assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")
        assert served.get("/v1/models", **VERSION, **{"X-API-Key": "secret"}).json["has_more"] is False
