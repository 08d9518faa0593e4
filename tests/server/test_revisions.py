"""Revisions of a model, aliases of short names, and a model that does not fit into memory."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlxk_tui.demo.layout import RepoLayout
from tests.engine.conftest import is_gone, needs_mlx
from tests.engine.small_models import make_model
from tests.server.served import BABBLER, CHAT, COMPLETIONS, TINY, Reply, Served, fill
from tests.support.clients import anthropic, openai

pytestmark = needs_mlx

TWINS = "mlx-community/Twins"
OLD, NEW = "a" * 40, "b" * 40
HUGE = "mlx-community/Huge"
ASKED = {"prompt": "Hello", "temperature": 0, "max_tokens": 8}


@pytest.fixture(scope="module")
def revised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server whose cache has two revisions of one model, and a model that is too large."""
    scratch = tmp_path_factory.mktemp("revised")
    hub = scratch / "hub"
    fill(hub, scratch)
    twins = RepoLayout(hub, TWINS)
    for number, (commit, ref) in enumerate(((OLD, "old"), (NEW, "main")), 7):
        twins.add_snapshot(commit, files_of(make_model(scratch / ref, seed=number)))
        twins.set_ref(ref, commit)
    files = files_of(scratch / "main")
    for name in ("one/Same", "two/Same"):
        same = RepoLayout(hub, name)
        same.add_snapshot("d" * 40, files)
        same.set_ref("main", "d" * 40)
    config = json.loads(files["config.json"])
    files["config.json"] = json.dumps({**config, "num_hidden_layers": 10**9}).encode()
    huge = RepoLayout(hub, HUGE)
    huge.add_snapshot("c" * 40, files)
    huge.set_ref("main", "c" * 40)
    served = Served(hub)
    yield served
    pid = served.engine.status.pid
    served.close()
    assert pid is None or is_gone(pid)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["x", "twin", "community/Twins", "mlx-community", "Twins-8bit", "twin@old"])
def test_partial_name_is_not_found(revised: Served, name: str) -> None:
    messages = [{"role": "user", "content": "x"}]
    bodies: dict[str, dict[str, Any]] = {
        COMPLETIONS: {"prompt": "x"},
        CHAT: {"messages": messages},
        "/v1/responses": {"input": "x"},
        "/v1/embeddings": {"input": "x"},
        "/v1/messages": {"messages": messages, "max_tokens": 1},
        "/v1/messages/count_tokens": {"messages": messages},
    }
    for path, body in bodies.items():
        for stream in (False, True):
            reply = revised.post(path, {**body, "model": name, "stream": stream})
            assert reply.status == 404, (path, reply.body)
            error = reply.json["error"]
            anthropics = path.startswith("/v1/messages")
            assert error["type"] == ("not_found_error" if anthropics else "model_not_found")
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            assert "GET /v1/models" in error["message"]
    one = revised.get(f"/v1/models/{name}")
    assert (one.status, one.error["type"]) == (404, "model_not_found")


@pytest.mark.slow
def test_unique_last_part_of_a_name_is_found(revised: Served) -> None:
    for name in ("twins", "TWINS@old", "mlx-COMMUNITY/twins", f"twins@{OLD}"):
        assert ask(revised, name).json["model"] == TWINS
    for path, body in ((COMPLETIONS, {**ASKED, "model": "same"}), ("/v1/models/same", None)):
        reply = revised.ask("POST" if body else "GET", path, body)
        assert (reply.status, reply.error["type"], reply.error["param"]) == (409, "ambiguous_match", "model")
        assert "one/Same, two/Same" in reply.error["message"]
        assert reply.headers["X-Should-Retry"] == "false"
    before = revised.server.log.total
    with (
        openai.OpenAI(base_url=revised.url, api_key="none", max_retries=2) as client,
        pytest.raises(openai.ConflictError),
    ):
        client.completions.create(model="same", prompt="x")
    assert revised.server.log.total == before + 1
    whole = revised.post(COMPLETIONS, {**ASKED, "model": "ONE/same"})
    assert (whole.status, "one/Same" in whole.error["message"]) == (422, True)  # it is found


def ask(served: Served, model: str | None) -> Reply:
    reply = served.post(COMPLETIONS, {**ASKED, "model": model})
    assert reply.status == 200, reply.body
    return reply


def commit(served: Served) -> str:
    """Return the loaded commit."""
    loaded = served.engine.status.model
    assert loaded is not None
    return Path(loaded.folder).name


def test_loaded_revision_is_kept_until_another_is_requested(revised: Served) -> None:
    new = ask(revised, TWINS).text
    assert commit(revised) == NEW
    old = ask(revised, "twins@old").text
    assert (commit(revised), old == new) == (OLD, False)
    assert ask(revised, None).text == old
    assert commit(revised) == OLD
    assert ask(revised, TWINS).text == new
    assert ask(revised, None).text == new
    assert commit(revised) == NEW


def test_models_list_shows_the_loaded_revision(revised: Served) -> None:
    def loaded() -> dict[str, bool]:
        names = (TWINS, "twins@old", f"{TWINS}@{OLD[:8]}", "twins%40main")
        told = [revised.get(f"/v1/models/{name}").json for name in names]
        told += [one for one in revised.get("/v1/models").json["data"] if one["id"] == TWINS]
        return {f"{number}:{one['id']}": one["loaded"] for number, one in enumerate(told)}

    ask(revised, f"{TWINS}@old")
    names = [f"0:{TWINS}", f"1:{TWINS}@old", f"2:{TWINS}@{OLD[:8]}", f"3:{TWINS}@main", f"4:{TWINS}"]
    assert loaded() == dict(zip(names, (False, True, True, False, False), strict=True))
    ask(revised, TWINS)
    assert loaded() == dict(zip(names, (True, False, False, True, True), strict=True))


@pytest.mark.slow
def test_same_revision_is_loaded_after_a_crash(revised: Served) -> None:
    ask(revised, "twins@old")
    pid = revised.engine.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    revised.until(lambda: revised.engine.status.model is None)
    ask(revised, None)  # it waits for the model that is being reloaded
    revised.until(lambda: revised.server.health.value == "ready" and revised.engine.status.model is not None)
    assert commit(revised) == OLD


def test_aliases_of_short_names_and_revisions_are_listed(revised: Served) -> None:
    aliases = {
        "gpt-4o": "tiny-demo",
        "before": "twins@old",
        "nothing": "no-such-model",
        "any": "mlx",  # a part of several names
        "large": HUGE,
        BABBLER: TINY,  # hides the model of that name
    }
    known = {model["id"] for model in revised.get("/v1/models").json["data"]}
    with revised.options(aliases=aliases):
        answer = ask(revised, "before")
        assert answer.json["model"] == TWINS
        listed = {model["id"]: model for model in revised.get("/v1/models").json["data"]}
        assert set(listed) == known | {"gpt-4o", "before", "large"}
        for alias in ("gpt-4o", "before", BABBLER, TWINS):
            assert revised.get(f"/v1/models/{alias}").json == listed[alias]
        assert listed["before"]["loaded"] is True
        assert listed[TWINS]["loaded"] is listed["gpt-4o"]["loaded"] is False
        assert listed["gpt-4o"]["context_length"] == listed[TINY]["context_length"] == 4096
        assert listed[BABBLER]["owned_by"] == TINY.split("/")[0]
    assert {model["id"] for model in revised.get("/v1/models").json["data"]} == known


def test_insufficient_memory_is_not_retryable(revised: Served) -> None:
    body = {"model": HUGE, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
    for path in (CHAT, "/v1/messages"):
        reply = revised.post(path, body)
        assert (reply.status, reply.json["error"]["code"]) == (503, "insufficient_memory")
        assert "Retry-After" not in reply.headers
        assert reply.headers["X-Should-Retry"] == "false"
    asked = [entry.route for entry in revised.server.log.finished]
    message: Any = {"role": "user", "content": "x"}
    with (
        openai.OpenAI(base_url=revised.url, api_key="none", max_retries=2) as client,
        pytest.raises(openai.InternalServerError),
    ):
        client.chat.completions.create(model=HUGE, messages=[message])
    with (
        anthropic.Anthropic(base_url=revised.address.url, api_key="none", max_retries=2) as claude,
        pytest.raises(anthropic.InternalServerError),
    ):
        claude.messages.create(model=HUGE, max_tokens=5, messages=[message])
    revised.until(lambda: not revised.server.log.live)
    new = [entry.route for entry in revised.server.log.finished][len(asked) :]
    assert new == [CHAT, "/v1/messages"]  # once each
