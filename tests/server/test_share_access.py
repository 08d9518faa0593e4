"""Who gets in to a share, and which paths lead nowhere."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from mlxk_tui.ops.cache.access_record import ACCESS_FILE, RepoAccess, read_access, write_access
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.pull import pull
from mlxk_tui.ops.share.files import open_shared
from mlxk_tui.ops.share.shared_models import SharedModels
from mlxk_tui.server.options import ServerOptions
from mlxk_tui.server.share.share_server import ShareServer
from tests.server.served import parsed, read_all
from tests.support.hf_cache import HfCache, model_files
from tests.support.pulling import FILES, NAME
from tests.support.sharing import PUBLIC, RunningShare, ShareReply, add_model, sharing

CONFIG = f"/{NAME}/resolve/main/config.json"
SECRET = b"the secret of somebody else"


@pytest.fixture
def share(hub: Path) -> Iterator[RunningShare]:
    add_model(hub, NAME, FILES)
    with sharing(hub) as share:
        yield share


def sent_raw(share: RunningShare, target: str | bytes, *headers: str, method: str = "GET") -> ShareReply:
    """Send a request whose target no HTTP library would send."""
    raw = target.encode() if isinstance(target, str) else target
    lines = "".join(f"{line}\r\n" for line in (headers or ("Host: localhost",)))
    with share.raw() as wire:
        wire.sendall(
            method.encode() + b" " + raw + b" HTTP/1.1\r\n" + lines.encode() + b"Connection: close\r\n\r\n"
        )
        reply = parsed(read_all(wire))
    return ShareReply(reply.status, reply.headers, reply.body)


def test_strangers_are_refused(hub: Path) -> None:
    add_model(hub, NAME, FILES)
    cases: list[tuple[tuple[str, ...], int]] = [
        (("Host: localhost:8200",), 200),
        (("Host: 192.168.1.5",), 200),
        (("Host: models.office",), 200),
        (("Host: evil.example.com",), 403),
        (("Host: localhost.evil.example.com",), 403),
        (("Host: localhost", "Host: localhost"), 400),
        (("X-No-Host: 1",), 400),
        (("Host: evil@localhost",), 400),
        (("Host: localhost", "Origin: https://evil.example.com"), 403),
        (("Host: localhost", "Sec-Fetch-Site: cross-site"), 403),
    ]
    with sharing(hub, hosts=("models.office",)) as share:
        for headers, status in cases:
            for path in (CONFIG, "/health"):
                reply = sent_raw(share, path, *headers)
                assert reply.status == status, headers
                assert (reply.body == FILES["config.json"]) is (status == 200 and path == CONFIG)
        target = f"http://evil.example.com{CONFIG}"
        assert sent_raw(share, target, "Host: localhost").status == 403
        assert sent_raw(share, f"http://localhost{CONFIG}", "Host: localhost").status == 200


TRICKY_PATHS = (
    *("/../../secret", "/..%2f..%2fsecret", "/%2e%2e/secret", "/sub/../../../../secret", "//secret"),
    *("/./config.json", "/sub//notes.txt", "/sub%2Fnotes.txt", "/config.json%00", "/config.json%00.txt"),
    *("/config.json/", "/..", "/", "", "/%", "/%ff%fe", "/sub\\notes.txt", "/%5c..%5csecret", "/SECRET"),
    *("/sub", "/.", "/config.json%0d%0aX:%201", "/%E2%80%AEnosj", "/config.json;/../x", "/*", "/~"),
)


def test_tricky_paths_get_nothing(share: RunningShare, hub: Path) -> None:
    (hub / "secret").write_bytes(SECRET)
    (hub.parent / "secret").write_bytes(SECRET)
    (commit,) = os.listdir(HfCache(hub).repo(NAME).path / "snapshots")
    for revision in ("main", commit):
        for path in TRICKY_PATHS:
            reply = sent_raw(share, f"/{NAME}/resolve/{revision}{path}")
            assert reply.status in {400, 404}, path
            assert reply.code in {None, "EntryNotFound"}
            assert SECRET not in reply.body


TRICKY_TARGETS = (
    *(
        "/../secret",
        "/%2e%2e/secret",
        "/etc/passwd",
        "/mlx-community%2FTiny-4bit/resolve/main/config.json",
    ),
    *("/mlx-community/../mlx-community/Tiny-4bit/resolve/main/config.json", "*", "/api/models/.."),
    *("/api/models/mlx-community%2FTiny-4bit", "/api/models/..%2f..%2fx/tree/main", "/api/models//x"),
    *(f"/{NAME}/resolve/../config.json", f"/{NAME}/resolve/main%00/config.json", "/api/../etc/passwd"),
    *(f"/{NAME}/resolve/..%2f..%2f..%2fsecret/config.json", f"/{NAME}/raw/main/config.json"),
    *(f"/datasets/{NAME}/resolve/main/config.json", "/api/datasets", "/models--mlx-community--Tiny-4bit"),
    *(f"/{NAME.lower()}/resolve/main/config.json", "/mlx-community--Tiny-4bit/resolve/main/config.json"),
    *(
        f"/{NAME}/resolve/refs%2Fmain/config.json",
        f"/{NAME}/resolve/mai/config.json",
        "/api/models/a/b/c",
    ),
    *(
        f"/{NAME}/resolve/main/" + "x/" * 3000,
        "/" + "%2e%2e%2f" * 1000,
        f"/api/models/{NAME}/tree/main/..",
    ),
)


def test_tricky_routes_get_nothing(share: RunningShare) -> None:
    for target in TRICKY_TARGETS:
        reply = sent_raw(share, target)
        assert reply.status in {400, 404}, target
        code = reply.headers.get("X-Error-Code")
        assert code in {None, "RepoNotFound", "RevisionNotFound", "EntryNotFound"}
        assert b"config" not in reply.body.replace(b"config.json", b"")


def test_random_bytes_get_errors_and_the_share_goes_on(share: RunningShare) -> None:
    for number in range(20):
        with share.raw() as wire:
            wire.sendall(b"GET /" + secrets.token_bytes(number * 10) + b"\r\n\r\n")
            wire.shutdown(1)
            assert read_all(wire)[9:12] in {b"", b"400", b"404", b"408"}
    assert share.ask(CONFIG).body == FILES["config.json"]


def test_nothing_can_be_changed(share: RunningShare) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
        for path in (CONFIG, f"/api/models/{NAME}", "/api/repos/create", "/health"):
            reply = share.ask(path, method)
            assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")
            assert reply.json["error"] == "This share is read-only."


def test_links_out_of_the_cache_are_not_followed(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (hub / "secret.txt").write_bytes(SECRET)
    files = model_files()
    for name, target in (("org/link", tmp_path / "secret.txt"), ("org/chain", hub / "chain")):
        commit = add_model(hub, name, files)
        (HfCache(hub).repo(name).snapshot(commit) / "notes.txt").symlink_to(target)
    (hub / "chain").symlink_to(tmp_path / "secret.txt")
    elsewhere = tmp_path / "elsewhere"
    add_model(elsewhere, "org/away", files)
    (hub / "models--org--away").symlink_to(elsewhere / "models--org--away")
    add_model(hub, "org/blobs", files)
    blobs = hub / "models--org--blobs" / "blobs"
    blobs.rename(tmp_path / "blobs")
    blobs.symlink_to(tmp_path / "blobs")
    with sharing(hub) as share:
        assert share.ask("/api/models").json == []
        for name in ("org/link", "org/chain", "org/away", "org/blobs"):
            for path in ("notes.txt", "config.json"):
                assert share.ask(f"/{name}/resolve/main/{path}").code == "RepoNotFound"
        reasons = {name: error.message for name, error in share.models.not_shared().items()}
    assert all("outside the cache" in text or "out of the cache" in text for text in reasons.values()), (
        reasons
    )


def test_file_that_becomes_a_link_is_not_followed(hub: Path, tmp_path: Path) -> None:
    add_model(hub, NAME, FILES)
    models = SharedModels(Cache(hub))
    shared = models.find(NAME)
    config = shared.find_file("config.json")
    assert config is not None
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(config.size))
    with open_shared(Cache(hub), config) as stream:
        assert stream.read() == FILES["config.json"]
    os.unlink(config.target)
    os.symlink(secret, config.target)
    with pytest.raises(PermissionError):
        open_shared(Cache(hub), config)
    os.unlink(config.target)
    os.mkfifo(config.target)
    with pytest.raises(OSError, match="changed"):
        open_shared(Cache(hub), config)


async def test_key_is_needed(hub: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "mlxk_tui.server")
    add_model(hub, NAME, FILES)
    wrong = "hf_" + "z" * 34
    with sharing(hub, api_keys={"office": "right-key"}) as share:
        for headers in ({}, {"Authorization": f"Bearer {wrong}"}, {"Authorization": "right-key"}):
            for path in (CONFIG, "/api/models", "/api/whoami-v2", "/nowhere"):
                refused = share.ask(path, **headers)
                assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
                assert refused.code is None
        assert share.ask("/health").json == {"status": "ready"}
        assert share.ask(CONFIG, Authorization="Bearer right-key").body == FILES["config.json"]
        for token in (None, wrong):
            with pytest.raises(OpError) as caught:
                await pull(Cache(tmp_path), NAME, hub=Hub(share.url, token))
            assert caught.value.type is ErrorType.ACCESS_DENIED
            if token is not None:
                assert caught.value.reason is AccessReason.UNAUTHORIZED
            with pytest.raises(HfHubHTTPError, match="Invalid credentials") as raised:
                HfApi(share.url, token=token or False).model_info(NAME)
            assert not isinstance(raised.value, RepositoryNotFoundError)
        assert not os.listdir(tmp_path)
        await pull(Cache(tmp_path), NAME, hub=Hub(share.url, "right-key"))
    assert "key=office" in caplog.text
    assert "right-key" not in caplog.text
    assert wrong not in caplog.text


def test_token_of_the_real_hub_is_ignored_without_keys(
    share: RunningShare, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "mlxk_tui.server")
    token = "hf_" + "y" * 34
    assert share.ask(CONFIG, Authorization=f"Bearer {token}").status == 200
    assert share.ask("/api/whoami-v2", Authorization=f"Bearer {token}").status == 401
    assert token not in caplog.text


async def test_other_machines_need_a_key(hub: Path) -> None:
    server = ShareServer(SharedModels(Cache(hub)), ServerOptions(host="0.0.0.0", port=0))
    with pytest.raises(OpError) as caught:
        await server.start()
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    await server.stop()


def test_connections_are_limited(hub: Path) -> None:
    add_model(hub, NAME, {**FILES, "big.bin": b"\x01" * (16 << 20)})
    with sharing(hub, max_connections=1) as share, share.raw() as busy:
        busy.sendall(f"GET /{NAME}/resolve/main/big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert busy.recv(100).startswith(b"HTTP/1.1 200")
        refused = share.ask(CONFIG)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert share.ask("/health").status == 200


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"{", b"[" * 4000, b'{"format_version": 2, "gated": false, "private": false}',
     b'{"format_version": 1, "gated": 0, "private": false}', b'{"format_version": 1, "private": false}',
     b'{"format_version": 1, "gated": false, "private": false}' + b" " * 5000],
)  # fmt: skip
def test_invalid_record_of_the_access_means_unknown(content: bytes, tmp_path: Path) -> None:
    write_access(tmp_path, PUBLIC)
    assert read_access(tmp_path) == PUBLIC
    (tmp_path / ACCESS_FILE).write_bytes(content)
    assert read_access(tmp_path) is None
    write_access(tmp_path, RepoAccess(gated=True, private=False))
    assert read_access(tmp_path) == RepoAccess(gated=True, private=False)


def test_linked_record_of_the_access_means_unknown(tmp_path: Path) -> None:
    write_access(tmp_path / "a", PUBLIC)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ACCESS_FILE).symlink_to(tmp_path / "a" / ACCESS_FILE)
    assert read_access(tmp_path / "b") is None
    write_access(tmp_path / "b", RepoAccess(gated=False, private=True))
    assert read_access(tmp_path / "a") == PUBLIC
