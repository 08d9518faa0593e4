"""Access control: API keys and their file, Host, Origin and CORS."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from mlxk_tui.engine.client import Engine
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.server.errors import ApiError
from mlxk_tui.server.http import keys
from mlxk_tui.server.http.security import Guard
from mlxk_tui.server.options import Address, ServerOptions
from mlxk_tui.server.server import Server
from tests.engine.conftest import needs_mlx
from tests.server.served import ANSWER, CHAT, QUESTION, Reply, Served, parsed, read_all

PAGE = "https://chat.example.org"
EVIL = "https://evil.example.com"


@needs_mlx
def test_api_key_is_required(served: Served) -> None:
    with served.options(api_keys={"alice": "key-a", "bob": "key-b"}):
        for headers in (
            {},
            {"Authorization": "Bearer key-c"},
            {"Authorization": "Bearer "},
            {"Authorization": "key-a"},
            {"Authorization": "Basic key-a"},
            {"X-API-Key": "key-"},
            {"Authorization": "Bearer k\xe9y"},
        ):
            for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
                refused = served.get(path, **headers)
                assert (refused.status, refused.error["type"]) == (401, "auth_error")
                assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert served.ask("POST", CHAT, b"{", headers).status == 401
        assert served.get("/v1/models", **{"X-API-Key": "key-b"}).status == 200
        body = {"model": "tiny-demo", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1}
        assert served.post(CHAT, body, Authorization="Bearer key-b").status == 200
        assert served.server.log.finished[-1].key == "bob"
        assert served.get("/health").json == {"status": "ready"}
        assert "model" in served.get("/health", Authorization="bearer key-a").json
    assert served.get("/v1/models").status == 200


@needs_mlx
@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:1", 200), ("localhost", 200), ("LOCALHOST:80", 200), ("app.localhost", 200)),
        *(("[::1]:8000", 200), ("192.168.1.5:8000", 200), ("models.example.org", 200)),
        *(("evil.example.com", 403), ("127.0.0.1.evil.example.com", 403), ("localhost.evil", 403)),
        *(("localhost.", 200), ("127.0.0.1:", 200), ("[::ffff:127.0.0.1]", 200), ("localhost:65535", 200)),
        *((name, 400) for name in ("[::1", "::1", "[::1]x", "[fe80::1%25eth0]", "[v1.x]", "[]", "[1.2.3.4]")),
        *((name, 400) for name in ("evil.example.com:127.0.0.1", "localhost:65536", "localhost:-1", ":80")),
        *((name, 400) for name in ("localhost/evil", "evil/@localhost", "evil@localhost", "u:p@127.0.0.1")),
        *((name, 400) for name in ("localhost#evil", "localhost?evil", "local%68ost", "127.0.0.1%00.evil")),
        *(
            (name, 400)
            for name in ("localhost, evil", "localhost evil", "localhost\\evil", "http://localhost")
        ),
        *((name, 400) for name in ("localhost..", ".localhost", "a..localhost", "l\xf6calhost", "x" * 300)),
        *((name, 403) for name in ("127.1", "0x7f.1", "2130706433", "localhost.evil.", "evil_localhost")),
    ],
)
def test_foreign_host_name_is_rejected(served: Served, host: str, status: int) -> None:
    with served.options(hosts=("models.example.org",)):
        reply = served.get("/v1/models", Host=host)
        assert reply.status == status, reply.body
        if status != 200:
            assert reply.error["type"] in {"access_denied", "validation_error"}


def ask_raw(served: Served, first: str, *lines: str) -> Reply:
    """Send a request with these lines and return the response."""
    with served.raw() as connection:
        connection.sendall("\r\n".join((first, *lines, "Connection: close", "", "")).encode("latin-1"))
        return parsed(read_all(connection))


@needs_mlx
@pytest.mark.parametrize(
    ("target", "status"),
    [
        *(("http://127.0.0.1/v1/models", 200), ("HTTP://LOCALHOST:1/v1/models", 200)),
        *(("https://[::1]/v1/models", 200), ("http://localhost?x", 404)),
        *(
            ("http://evil/", 403),
            ("http://evil/v1/models", 403),
            ("https://evil.example.com:8000/health", 403),
        ),
        *(("http://evil@127.0.0.1/v1/models", 400), ("http://127.0.0.1@evil/v1/models", 400)),
        *(("http://127.0.0.1%2f/health", 400), ("http://127.0.0.1:99999/health", 400)),
        *(("ftp://127.0.0.1/health", 400), ("evil:80/health", 400)),
    ],
)
def test_host_of_an_absolute_target_is_checked(served: Served, target: str, status: int) -> None:
    reply = ask_raw(served, f"GET {target} HTTP/1.1", "Host: 127.0.0.1")
    assert reply.status == status, reply.body
    if status != 200:
        assert reply.error["type"] in {"access_denied", "validation_error", "route_not_found"}


@needs_mlx
def test_both_hosts_are_checked_and_http_1_1_requires_one(served: Served) -> None:
    assert ask_raw(served, "GET http://127.0.0.1/health HTTP/1.1", "Host: evil").status == 403
    assert ask_raw(served, "GET /health HTTP/1.1", "Host: localhost", "Host: localhost").status == 400
    assert ask_raw(served, "GET /health HTTP/1.1").status == 400
    assert ask_raw(served, "GET /health HTTP/1.0").status == 200
    assert ask_raw(served, "OPTIONS * HTTP/1.1", "Host: localhost").status == 204
    assert ask_raw(served, "CONNECT evil:80 HTTP/1.1", "Host: localhost").status == 403


@needs_mlx
@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "new-word"])
def test_cross_site_request_without_origin_is_rejected(served: Served, site: str) -> None:
    image = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    frame = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    link = {**frame, "Sec-Fetch-Dest": "document"}
    for headers in ({"Sec-Fetch-Site": site}, image, frame):
        for path in ("/v1/models", "/health", "/metrics", "/openapi.json", "/nowhere"):
            refused = served.get(path, **headers)
            assert (refused.status, refused.error["type"]) == (403, "access_denied"), (path, headers)
    # Following a link reveals nothing to other pages, and links change nothing on the server.
    assert served.get("/v1/models", **link).status == 200
    assert served.post("/v1/engine/unload", {}, **link).status == 403
    for own in ("none", "same-origin"):
        assert served.get("/v1/models", **{**image, "Sec-Fetch-Site": own}).status == 200
    with served.options(origins=(PAGE,)):
        assert served.get("/v1/models", **image).status == 403
        assert served.get("/v1/models", Origin=PAGE, **image).status == 200
        assert served.get("/v1/models", Origin=EVIL, **image).status == 403
        assert served.ask("OPTIONS", CHAT, None, {"Origin": PAGE, **image}).status == 204
    with served.options(origins=("*",)):
        assert served.get("/v1/models", **image).status == 200


@needs_mlx
def test_several_origins_are_rejected(served: Served) -> None:
    own = f"Origin: http://127.0.0.1:{served.address.port}"
    host = f"Host: 127.0.0.1:{served.address.port}"
    assert ask_raw(served, "GET /health HTTP/1.1", host, own).status == 200
    assert ask_raw(served, "GET /health HTTP/1.1", host, own, f"Origin: {EVIL}").status == 400


@needs_mlx
def test_only_allowed_origins_may_call(served: Served) -> None:
    for origin in (EVIL, "null", PAGE, "https://chat.example.org.evil.com"):
        refused = served.get("/v1/models", Origin=origin)
        assert (refused.status, refused.error["type"]) == (403, "access_denied")
        assert "Access-Control-Allow-Origin" not in refused.headers
    own = f"http://127.0.0.1:{served.address.port}"
    assert served.get("/v1/models", Origin=own).status == 200
    with served.options(origins=(PAGE,)):
        allowed = served.chat(QUESTION)
        assert "Access-Control-Allow-Origin" not in allowed.headers
        reply = served.get("/v1/models", Origin=PAGE)
        assert reply.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Access-Control-Allow-Credentials" not in reply.headers
        assert served.get("/v1/models", Origin=EVIL).status == 403
        wrong = served.ask("POST", CHAT, b"{", {"Origin": PAGE})
        assert (wrong.status, wrong.headers["Access-Control-Allow-Origin"]) == (400, PAGE)
    with served.options(origins=("*",)):
        assert served.get("/v1/models", Origin=EVIL).headers["Access-Control-Allow-Origin"] == "*"


@needs_mlx
def test_preflight_needs_no_api_key(served: Served) -> None:
    asks = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
        "Access-Control-Request-Private-Network": "true",
    }
    with served.options(origins=(PAGE,), api_keys={"a": "secret"}):
        reply = served.ask("OPTIONS", CHAT, None, {"Origin": PAGE, **asks})
        assert reply.status == 204
        assert reply.headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in reply.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in reply.headers["Access-Control-Allow-Headers"]
        assert reply.headers["Access-Control-Allow-Private-Network"] == "true"
        assert served.ask("OPTIONS", CHAT, None, {"Origin": EVIL, **asks}).status == 403
        streamed = served.post(
            CHAT,
            {
                "model": "tiny-demo",
                "messages": [{"role": "user", "content": QUESTION}],
                "temperature": 0,
                "enable_thinking": False,
                "stream": True,
            },
            Origin=PAGE,
            Authorization="Bearer secret",
        )
        assert streamed.headers["Access-Control-Allow-Origin"] == PAGE
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in streamed.events)
        assert text == ANSWER


def preflight(served: Served, *asked: str) -> list[str]:
    """Send a preflight request for some headers; return the allowed ones in lower case."""
    with served.raw() as connection, served.options(origins=(PAGE,)):
        head = [f"OPTIONS {CHAT} HTTP/1.1", "Host: localhost", f"Origin: {PAGE}", "Connection: close"]
        head += [f"Access-Control-Request-Headers: {names}" for names in asked]
        connection.sendall("\r\n".join((*head, "", "")).encode("latin-1"))
        reply = parsed(read_all(connection))
    assert reply.status == 204
    return [name.strip() for name in reply.headers["Access-Control-Allow-Headers"].lower().split(",")]


@needs_mlx
def test_pages_may_use_the_clients_of_openai_and_anthropic(served: Served) -> None:
    sent = [
        *("anthropic-dangerous-direct-browser-access", "anthropic-version", "authorization", "content-type"),
        *("openai-organization", "openai-project", "user-agent", "x-api-key"),
        *(f"x-stainless-{name}" for name in ("arch", "lang", "os", "package-version", "retry-count")),
        *(f"x-stainless-{name}" for name in ("runtime", "runtime-version", "timeout", "helper-method")),
    ]
    assert set(sent) <= set(preflight(served, ",".join(sent)))
    assert set(sent) <= set(preflight(served, ", ".join(sent[:11]).upper(), " ,, ".join(sent[11:])))


@needs_mlx
def test_preflight_allows_only_known_headers(served: Served) -> None:
    usual = preflight(served)
    assert not any(name.startswith("x-stainless") for name in usual)
    for wrong in (
        *("x-evil", "cookie", "*", "x-stainless-", "x-stainless", "x-stainless-*", "x-stainless-a b"),
        *("x-stainless-a:b", "x-stainless-a;b", "x-stainless-\xe9", "x-stainless-a\tb", "ax-stainless-b"),
        "x-stainless-" + "a" * 51,
    ):
        assert preflight(served, wrong) == usual
    many = preflight(served, ",".join(f"x-stainless-{number}" for number in range(100)))
    assert len(many) == len(usual) + 32
    assert preflight(served, "x-stainless-os," * 100) == [*usual, "x-stainless-os"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
async def test_non_loopback_address_requires_an_api_key(host: str, tmp_path: Path) -> None:
    server = Server(Engine(), Cache(tmp_path), ServerOptions(host=host, port=0))
    with pytest.raises(OpError, match="API key") as caught:
        await server.start()
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert not server.running


async def test_keys_removed_during_the_start_prevent_it(tmp_path: Path) -> None:
    options = ServerOptions(host="0.0.0.0", port=0, api_keys={"alice": "key-a"})
    server = Server(Engine(), Cache(tmp_path), options)
    starting = asyncio.create_task(server.start())
    await asyncio.sleep(0)  # the start has begun: a thread resolves the host
    server.reload(replace(options, api_keys={}))
    with pytest.raises(OpError, match="API key") as caught:
        await starting
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert not server.running


async def test_reload_does_not_remove_the_last_key_of_a_public_server(tmp_path: Path) -> None:
    options = ServerOptions(port=0, api_keys={"alice": "key-a"}, model="old")
    server = Server(Engine(), Cache(tmp_path), options)
    address = await server.start()
    try:
        # The actual address counts, not its name; and tests only listen on loopback.
        server._bound = ("127.0.0.1", "0.0.0.0")
        with pytest.raises(OpError, match="API key") as caught:
            server.reload(replace(options, api_keys={}, model="new"))
        assert caught.value.type is ErrorType.VALIDATION_ERROR
        assert server.options == options
        assert await status_of(address, "/v1/models") == 401
        server.reload(replace(options, api_keys={"bob": "key-b"}))
        assert await status_of(address, "/v1/models", "key-a") == 401
        assert await status_of(address, "/v1/models", "key-b") == 200
        server._bound = ("127.0.0.1",)
        server.reload(
            replace(options, host="0.0.0.0", api_keys={})
        )  # the host applies from the next start on
        assert await status_of(address, "/v1/models") == 200
        await server.stop()
        server.reload(replace(options, host="0.0.0.0", api_keys={}))
        with pytest.raises(OpError, match="API key"):
            await server.start()
    finally:
        await server.stop()


async def status_of(address: Address, path: str, key: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    async with aiohttp.ClientSession(address.url) as client, client.get(path, headers=headers) as response:
        return response.status


def test_keys_have_names() -> None:
    assert keys.parse_keys(["one", "bob:two", "three"], "x") == {
        "default": "one",
        "bob": "two",
        "key-3": "three",
    }
    assert keys.from_environment({}) == {}
    assert keys.from_environment({"MLXK_API_KEY": " a:1 , b:2,"}) == {"a": "1", "b": "2"}
    for bad in (["a b"], [""], ["na me:key"], ["a:"], ["a:1", "a:2"], ["k\xe9y"], ["x" * 600]):
        with pytest.raises(OpError) as caught:
            keys.parse_keys(bad, "x")
        assert not any(len(part) > 1 and part in caught.value.message for part in bad)
    assert keys.find_key_name("two", {"a": "one", "b": "two"}) == "b"
    assert keys.find_key_name("", {"a": "one"}) is keys.find_key_name(None, {"a": "one"}) is None


def test_key_file_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "config" / "api-keys"
    assert keys.read_keys(path) == {}
    kept = {"alice": keys.new_key(), "bob": keys.new_key()}
    keys.save_keys(path, kept)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.read_keys(path) == kept
    assert [entry.name for entry in path.parent.iterdir()] == ["api-keys"]
    with open(path, "a") as stream:
        stream.write("# a comment\n\ncarol:three\n")
    assert keys.read_keys(path)["carol"] == "three"
    os.chmod(path, 0o644)
    with pytest.raises(OpError, match="Other users can read"):
        keys.read_keys(path)


def test_options_do_not_show_their_keys() -> None:
    assert "secret" not in repr(ServerOptions(api_keys={"a": "secret"}))


@pytest.mark.parametrize("name", ["mac.local", "mac", "mac.office.example"])
def test_short_name_of_the_machine_is_allowed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    guard = Guard(ServerOptions())
    for host in ("mac", "mac.local", name):
        guard.check_host(make_mocked_request("GET", "/", {"Host": f"{host}:8200"}))
    with pytest.raises(ApiError):
        guard.check_host(make_mocked_request("GET", "/", {"Host": "other.local"}))
