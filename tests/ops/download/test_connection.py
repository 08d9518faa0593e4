"""Connections of the downloader: TLS, proxies, and their number."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.download.connection_count import ConnectionTuner
from mlxk_tui.ops.download.download import DownloadResult, DownloadSource, download
from mlxk_tui.ops.hub.remote_files import RemoteFile
from tests.support.downloads import FAST
from tests.support.socks_proxy import socks_proxy

DATA = bytes(range(256)) * 200
FILE = RemoteFile("m.bin", len(DATA), hashlib.sha256(DATA).hexdigest(), "sha256")


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA at every path, over TLS if it has a certificate, and also works as a proxy."""

    daemon_threads = True

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None]] = []
        """Request targets and the credentials for the proxy."""
        self.tls = certificate is not None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Proxy-Authorization"]))
        first, last = 0, len(DATA) - 1
        if "Range" in self.headers:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(DATA)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(DATA[first : last + 1])

    def do_CONNECT(self) -> None:
        self.server.seen.append((self.path, self.headers["Proxy-Authorization"]))
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(target, self.connection), daemon=True)
            back.start()
            _pump(self.connection, target)
            back.join()
        self.close_connection = True


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.socket.close()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(path) + ".crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def plain() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


@pytest.fixture
def secure(certificate: Path) -> Iterator[Server]:
    with running(Server(certificate)) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


async def fetch(server: Server, cache: Path) -> DownloadResult:
    source = DownloadSource(server.url, "org/model", "a" * 40)
    return await download(source, [FILE], cache / "models--org--model", options=FAST)


async def test_tls_works_with_a_trusted_certificate(
    secure: Server, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert (await fetch(secure, tmp_path)).bytes_downloaded == len(DATA)


async def test_untrusted_certificate_is_an_error_without_retry(secure: Server, tmp_path: Path) -> None:
    with pytest.raises(OpError, match="certificate of localhost is not valid") as caught:
        await fetch(secure, tmp_path)
    assert caught.value.type is ErrorType.NETWORK_ERROR
    assert secure.seen == []


async def test_proxy_is_used_for_plain_http(
    plain: Server, proxy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:p%40ss@"))
    await fetch(plain, tmp_path)
    assert plain.seen == []
    assert proxy.seen[0][0].startswith(f"{plain.url}/org/model/resolve/")
    assert proxy.seen[0][1] == "Basic dXNlcjpwQHNz"


async def test_proxy_opens_a_tunnel_for_https(
    secure: Server, proxy: Server, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("https_proxy", proxy.url)
    await fetch(secure, tmp_path)
    assert {target for target, _ in proxy.seen} == {secure.url.removeprefix("https://")}
    assert secure.seen


async def test_no_proxy_is_respected(plain: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost")
    assert (await fetch(plain, tmp_path)).bytes_downloaded == len(DATA)


async def test_unsupported_proxy_is_named_in_the_error(
    plain: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "socks4://127.0.0.1:1")
    with pytest.raises(OpError, match="'socks4' is not supported, only http:// or socks5://"):
        await fetch(plain, tmp_path)


@pytest.mark.parametrize("kind", ["socks5", "socks5h"])
async def test_socks_proxy_opens_a_tunnel(
    kind: str, secure: Server, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with socks_proxy() as proxy:
        monkeypatch.setenv("all_proxy", f"{kind}://{proxy.address}")
        await fetch(secure, tmp_path)
    assert set(proxy.reached) == {("localhost", secure.server_address[1])}


@pytest.mark.parametrize(
    ("login", "words"),
    [("", "it requires a user name and password"), ("user:wrong@", "rejected the user name")],
)
async def test_socks_proxy_that_needs_credentials_is_named_in_the_error(
    login: str, words: str, plain: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socks_proxy(("user", "right")) as proxy:
        monkeypatch.setenv("all_proxy", f"socks5://{login}{proxy.address}")
        with pytest.raises(OpError, match=words) as caught:
            await fetch(plain, tmp_path)
    assert caught.value.type is ErrorType.NETWORK_ERROR
    assert plain.seen == []


def settle(probe: ConnectionTuner, rate_of: dict[int, float]) -> int:
    """Run the probe for ten simulated seconds; `rate_of` returns the rate for a number of connections."""
    fetched = 0.0
    for tick in range(100):
        fetched += rate_of[probe.connections] / 10
        probe.measure(tick / 10, int(fetched), probe.connections)
    return probe.connections


def test_connections_are_added_while_the_rate_increases() -> None:
    assert settle(ConnectionTuner(4, 16), {4: 4e6, 8: 8e6, 16: 16e6}) == 16


def test_useless_connections_are_removed() -> None:
    assert settle(ConnectionTuner(4, 16), {4: 9e6, 8: 9.5e6, 16: 9.5e6}) == 4


def test_number_of_connections_settles_at_the_optimum() -> None:
    assert settle(ConnectionTuner(4, 16), {4: 4e6, 8: 8e6, 16: 8.2e6}) == 8


def test_connections_that_are_still_opening_are_not_measured() -> None:
    """With a far hub their first bytes arrive late; until then they look useless."""
    probe, fetched, receiving, opened_at = ConnectionTuner(4, 16), 0.0, 4, -10
    for tick in range(60):
        if probe.connections > receiving and opened_at < 0:
            opened_at = tick + 8
        if tick == opened_at:
            receiving, opened_at = probe.connections, -10
        fetched += receiving * 1e5
        probe.measure(tick / 10, int(fetched), receiving)
    assert probe.connections == 16
