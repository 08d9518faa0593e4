"""Ranges and faults of the local hub, byte by byte, with a plain HTTP client."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import hf_hub_download
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from mlxk_tui.demo.hub import Content, Fault, Generated, LocalHub
from tests.support.waiting import PATIENCE_S, patience, wait_until

SIZE = 1_500_000
SMALL = "/org/tiny/resolve/main/config.json"
LARGE = "/org/tiny/resolve/main/model.safetensors"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    """The bytes received, even if incomplete."""


def ask(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 10,
    body: bytes | None = None,
) -> Answer:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body, dict(headers or {}))
        response = connection.getresponse()
        try:
            data = response.read()
        except http.client.IncompleteRead as short:
            data = short.partial
        return Answer(response.status, dict(response.getheaders()), data)
    finally:
        connection.close()


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.state.resolve_cache = False
        hub.add_repo("org/tiny", {"config.json": b"0123456789", "model.safetensors": Generated(SIZE, seed=1)})
        yield hub


@pytest.fixture
def link(hub: LocalHub) -> str:
    """The URL of the large file on the CDN."""
    return ask(f"{hub.url}{LARGE}").headers["Location"]


@pytest.fixture
def weights(hub: LocalHub) -> bytes:
    return hub.read("org/tiny", "model.safetensors")


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        (None, 200, None, b"0123456789"),
        ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
        ("bytes=7-", 206, "bytes 7-9/10", b"789"),
        ("bytes=7-99", 206, "bytes 7-9/10", b"789"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=5-2", 200, None, b"0123456789"),
        ("bytes=0-1,4-5", 200, None, b"0123456789"),
        ("lines=1-2", 200, None, b"0123456789"),
    ],
)
def test_range_requests_follow_rfc_9110(
    hub: LocalHub, asked: str | None, status: int, content_range: str | None, body: bytes
) -> None:
    answer = ask(f"{hub.url}{SMALL}", headers={"Range": asked} if asked else None)
    assert (answer.status, answer.headers.get("Content-Range"), answer.body) == (status, content_range, body)
    assert answer.headers["Content-Length"] == str(len(body))


def test_range_with_another_etag_returns_the_whole_file(hub: LocalHub) -> None:
    etag = ask(f"{hub.url}{SMALL}", "HEAD").headers["ETag"]
    assert ask(f"{hub.url}{SMALL}", headers={"Range": "bytes=1-2", "If-Range": etag}).body == b"12"
    assert ask(f"{hub.url}{SMALL}", headers={"Range": "bytes=1-2", "If-Range": '"old"'}).status == 200


def test_small_files_use_a_relative_redirect(hub: LocalHub) -> None:
    hub.state.resolve_cache = True
    answer = ask(f"{hub.url}{SMALL}", "HEAD")
    assert answer.status == 307
    assert answer.headers["Location"].startswith("/api/resolve-cache/models/org/tiny/")
    assert answer.headers["X-Linked-Size"] == "10"
    assert ask(f"{hub.url}{answer.headers['Location']}", headers={"Range": "bytes=8-"}).body == b"89"


def test_large_files_are_redirected_to_the_cdn(hub: LocalHub, link: str, weights: bytes) -> None:
    head = ask(f"{hub.url}{LARGE}", "HEAD")
    assert head.status == 302
    assert urlsplit(link).hostname == "localhost"
    assert head.headers["X-Linked-Etag"] == f'"{hub.files("org/tiny")["model.safetensors"].sha256}"'
    assert head.headers["X-Linked-Size"] == str(SIZE)
    assert ask(link, headers={"Range": "bytes=1048570-1048600"}).body == weights[1048570:1048601]
    assert ask(link).body == weights


def test_cut_closes_the_connection_after_a_number_of_bytes(hub: LocalHub, link: str, weights: bytes) -> None:
    fault = hub.faults.add(Fault("cut", path="*/model.safetensors", origin="cdn", after_bytes=300_001))
    answer = ask(link)
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(SIZE))
    assert answer.body == weights[:300_001]
    assert hub.faults.hits(fault) == 1
    assert [request.bytes_sent for request in hub.requests.matching(origin="cdn")] == [300_001]
    assert ask(link).body == weights, "the fault applies only once"


def test_cut_can_happen_before_the_first_header(hub: LocalHub, link: str) -> None:
    hub.faults.add(Fault("cut"))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(link)


def test_status_has_the_headers_and_body_of_the_fault(hub: LocalHub) -> None:
    hub.faults.add(Fault("status", path="*/resolve/*", status=429, retry_after=7, times=2))
    hub.faults.add(Fault("status", path="*/resolve/*", status=502, error_code="GatewayDown", body="<html>"))
    first, second, third = (ask(f"{hub.url}{SMALL}") for _ in range(3))
    assert (first.status, first.headers["Retry-After"]) == (429, "7")
    assert second.status == 429
    assert (third.status, third.headers["X-Error-Code"], third.body) == (502, "GatewayDown", b"<html>")
    assert ask(f"{hub.url}{SMALL}").status == 200


def test_faults_apply_only_to_matching_requests(hub: LocalHub, link: str) -> None:
    hub.faults.add(Fault("status", path="*config.json", method="HEAD", times=None))
    hub.faults.add(Fault("status", origin="cdn", ranged=True, skip=1))
    assert ask(f"{hub.url}{SMALL}").status == 200
    assert [ask(f"{hub.url}{SMALL}", "HEAD").status for _ in range(2)] == [503, 503]
    assert ask(link).status == 200
    assert [ask(link, headers={"Range": "bytes=0-9"}).status for _ in range(3)] == [206, 503, 206]
    hub.faults.clear()
    assert ask(f"{hub.url}{SMALL}", "HEAD").status == 200


def test_corrupt_changes_one_byte(hub: LocalHub, link: str, weights: bytes) -> None:
    hub.faults.add(Fault("corrupt", after_bytes=1_200_000))
    answer = ask(link)
    assert [at for at in range(SIZE) if answer.body[at] != weights[at]] == [1_200_000]


def test_ignore_range_sends_everything(hub: LocalHub, link: str, weights: bytes) -> None:
    hub.faults.add(Fault("ignore_range"))
    answer = ask(link, headers={"Range": "bytes=100-199"})
    assert (answer.status, answer.body) == (200, weights)


def test_wrong_range_sends_other_bytes_with_a_matching_header(
    hub: LocalHub, link: str, weights: bytes
) -> None:
    hub.faults.add(Fault("wrong_range"))
    answer = ask(link, headers={"Range": "bytes=100-199"})
    assert answer.headers["Content-Range"] == f"bytes 101-200/{SIZE}"
    assert answer.body == weights[101:201]


@pytest.mark.parametrize("delta", [-5, 5])
def test_wrong_size_is_consistent_in_all_responses(
    hub: LocalHub, link: str, weights: bytes, delta: int
) -> None:
    hub.faults.add(Fault("wrong_size", path="*model.safetensors", times=None, size_delta=delta))
    assert ask(f"{hub.url}{LARGE}", "HEAD").headers["X-Linked-Size"] == str(SIZE + delta)
    body = ask(link).body
    assert body == (weights + bytes(5))[: SIZE + delta]
    end = ask(link, headers={"Range": f"bytes={SIZE - 10}-"})
    assert end.headers["Content-Range"] == f"bytes {SIZE - 10}-{SIZE + delta - 1}/{SIZE + delta}"
    assert end.body == body[SIZE - 10 :]


def test_silent_never_responds_and_notices_disconnects(hub: LocalHub, link: str) -> None:
    hub.faults.add(Fault("silent"))
    with pytest.raises(TimeoutError):
        ask(link, timeout=0.1)
    wait_until(lambda: hub.requests.running == 0)
    hub.faults.add(Fault("silent", after_bytes=1000))
    with pytest.raises(TimeoutError):
        ask(link, timeout=0.1)
    assert hub.requests.matching(origin="cdn")[-1].bytes_sent == 1000
    wait_until(lambda: hub.requests.running == 0)


def test_silent_hub_stops_at_once(hub: LocalHub, link: str) -> None:
    hub.faults.add(Fault("silent", after_bytes=10))
    parts = urlsplit(link)
    with socket.create_connection((parts.hostname, parts.port or 0)) as client:
        client.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: cdn\r\n\r\n".encode())
        wait_until(lambda: hub.requests.bytes_sent(origin="cdn") == 10)
        with patience():
            hub.stop()
        client.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass


def test_hub_can_be_stopped_and_restarted(hub: LocalHub, link: str, weights: bytes) -> None:
    hub.stop(forget=False)
    with pytest.raises(ConnectionRefusedError):
        ask(f"{hub.url}{SMALL}")
    hub.start()
    assert ask(f"{hub.url}{SMALL}").status == 200
    assert ask(link).body == weights


def test_slow_fault_and_connection_rate_limit_the_speed(hub: LocalHub, link: str) -> None:
    def seconds(url: str, span: str) -> float:
        begun = time.monotonic()
        assert ask(url, headers={"Range": span}).status == 206
        return time.monotonic() - begun

    fault = hub.faults.add(Fault("slow", rate=1_000_000, delay_s=0.1))
    assert seconds(link, "bytes=0-199999") > 0.25
    assert seconds(link, "bytes=0-199999") > 0
    assert hub.faults.hits(fault) == 1
    hub.rate_per_connection = 1_000_000
    assert seconds(link, "bytes=0-199999") > 0.15
    hub.rate_per_connection = None
    assert seconds(link, "bytes=0-199999") < 0.2


def test_early_disconnect_counts_only_sent_bytes(hub: LocalHub, link: str) -> None:
    hub.rate_per_connection = 2_000_000
    parts = urlsplit(link)
    with socket.create_connection((parts.hostname, parts.port or 0)) as client:
        client.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: cdn\r\n\r\n".encode())
        got = 0
        while got < 200_000:
            got += len(client.recv(65536))
    wait_until(lambda: hub.requests.running == 0)
    assert 190_000 < hub.requests.bytes_sent(origin="cdn") < 900_000


def test_files_on_disk_are_sent_with_sendfile_and_counted(hub: LocalHub, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    (tmp_path / "weights").write_bytes(content)
    files: dict[str, Content] = {"model.safetensors": tmp_path / "weights"}
    hub.add_repo("org/disk", files)
    link = ask(f"{hub.url}/org/disk/resolve/main/model.safetensors").headers["Location"]
    assert ask(link).body == content
    assert ask(link, headers={"Range": "bytes=1000-5000999"}).body == content[1000:5_001_000]
    hub.faults.add(Fault("cut", after_bytes=77))
    assert ask(link).body == content[:77]
    assert hub.requests.bytes_sent("*/disk/*", origin="cdn") == len(content) + 5_000_000 + 77


def test_faults_apply_to_uploads(hub: LocalHub) -> None:
    body = json.dumps({"files": []}).encode()
    path = f"{hub.url}/api/models/org/tiny/preupload/main"
    hub.faults.add(Fault("cut", method="POST", after_bytes=1))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(path, "POST", body=body, headers={"Authorization": f"Bearer {hub.GOOD_TOKEN}"})
    assert ask(path, "POST", body=body, headers={"Authorization": f"Bearer {hub.GOOD_TOKEN}"}).status == 200


def test_huggingface_hub_resumes_after_a_cut(hub: LocalHub, tmp_path: Path, weights: bytes) -> None:
    hub.faults.add(Fault("cut", path="*/model.safetensors", origin="cdn", after_bytes=500_000))
    disable_progress_bars()
    try:
        path = hf_hub_download(
            "org/tiny", "model.safetensors", endpoint=hub.url, cache_dir=tmp_path, token=False
        )
    finally:
        enable_progress_bars()
    assert Path(path).read_bytes() == weights
    assert [request.fault for request in hub.requests.matching(origin="cdn")] == ["cut", None]


def test_invalid_faults_are_rejected() -> None:
    with pytest.raises(ValueError, match="Unknown kind of fault 'explode'"):
        Fault("explode")  # type: ignore[arg-type] # invalid on purpose
    with pytest.raises(ValueError, match="Unknown fields"):
        Fault.from_json({"kind": "cut", "colour": "red"})
