"""The downloader with a failing hub: it completes, or raises an error and can be resumed."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mlxk_tui.demo.hub import Fault, Generated, LocalHub
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.download.download import DownloadSource, download
from mlxk_tui.ops.download.transport.connection import ConnectionPool, DownloadConnection
from mlxk_tui.ops.download.transport.errors import ConnectionStoppedError
from mlxk_tui.ops.download.transport.range_requests import _redirected
from mlxk_tui_headless.error_text import error_text
from tests.support.downloads import FAST, Model, small_files
from tests.support.sockets import kill_and_count_unread
from tests.support.waiting import PATIENCE_S, cancel, until, wait_until

WEIGHTS = "*model.safetensors"
DISABLED = "Access to this resource is disabled."
"""The hub's message; it sends no error code with it."""
SENDABLE = {
    ErrorType.NETWORK_ERROR,
    ErrorType.DOWNLOAD_FAILED,
    ErrorType.CHECKSUM_MISMATCH,
    ErrorType.AUTH_ERROR,
    ErrorType.ACCESS_DENIED,
    ErrorType.REPO_NOT_FOUND,
}


@pytest.fixture(scope="module")
def local_hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


@pytest.fixture
def model(local_hub: LocalHub, hub: Path) -> Model:
    local_hub.faults.clear()
    local_hub.requests.clear()
    local_hub.rate_per_connection = None
    return Model(local_hub, "org/model", local_hub.add_repo("org/model", small_files()), hub)


async def fails(model: Model, **options: float) -> OpError:
    """Run a download that must fail, then remove the hub's faults."""
    with pytest.raises(OpError) as caught:
        await model.download(replace(FAST, **options))  # type: ignore[arg-type]  # of the right types
    model.check_nothing_wrong()
    assert model.hub.GOOD_TOKEN not in caught.value.message
    model.hub.faults.clear()
    return caught.value


async def interrupt(model: Model) -> None:
    """Run a download that fails after 200,000 bytes of the weights."""
    model.hub.faults.add(Fault("cut", WEIGHTS, origin="cdn", after_bytes=200_000))
    model.hub.faults.add(Fault("cut", WEIGHTS, origin="cdn", times=None))
    await fails(model)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", WEIGHTS, origin="cdn"),
        Fault("cut", WEIGHTS, origin="cdn", after_bytes=0),
        Fault("cut", WEIGHTS, origin="cdn", after_bytes=9_999, times=3),
        Fault("cut", "*notes.md", after_bytes=100),
        Fault("cut", "*", origin="hub", times=2),
        Fault("corrupt", WEIGHTS, origin="cdn", after_bytes=5_000),
        Fault("corrupt", "*config.json"),
        Fault("silent", WEIGHTS, origin="cdn"),
        Fault("silent", WEIGHTS, origin="cdn", after_bytes=3_000),
        Fault("silent", "*notes.md", origin="hub"),
        Fault("status", "*", status=500, times=2),
        Fault("status", "*", status=503, retry_after=0),
        Fault("status", WEIGHTS, status=429, retry_after="0", times=2),
        Fault("status", WEIGHTS, origin="cdn", status=416),
        Fault("status", WEIGHTS, origin="cdn", status=403),
        Fault("ignore_range", WEIGHTS, origin="cdn"),
        Fault("ignore_range", WEIGHTS, origin="cdn", times=None),
        Fault("wrong_range", WEIGHTS, origin="cdn", times=2),
        Fault("wrong_size", WEIGHTS, origin="cdn", times=2),
        Fault("wrong_size", "*notes.md", size_delta=7),
        Fault("wrong_size", WEIGHTS, origin="cdn", size_delta=7),
        Fault("slow", "*", delay_s=0.05, rate=1e6, times=4),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.path[1:]}-{fault.after_bytes}-{fault.times}-{fault.status}",
)
async def test_transient_faults_are_retried(model: Model, fault: Fault) -> None:
    model.commit = model.hub.add_repo("org/model", small_files(2 << 20))  # is requested in ranges
    model.hub.faults.add(fault)
    await model.download(replace(FAST, read_s=0.3))
    assert model.hub.faults.hits() > 0
    model.check_whole()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault("cut", WEIGHTS, origin="cdn"), ErrorType.NETWORK_ERROR, "stopped after 6 attempts"),
        (Fault("cut", WEIGHTS, after_bytes=10, origin="cdn"), ErrorType.NETWORK_ERROR, "closed early"),
        (Fault("corrupt", WEIGHTS, origin="cdn"), ErrorType.CHECKSUM_MISMATCH, "checksum, twice"),
        (Fault("status", WEIGHTS, status=500), ErrorType.DOWNLOAD_FAILED, "status 500"),
        (Fault("status", WEIGHTS, status=429), ErrorType.DOWNLOAD_FAILED, "busy"),
        (Fault("status", WEIGHTS, status=418), ErrorType.DOWNLOAD_FAILED, "status 418"),
        (Fault("status", WEIGHTS, status=404, error_code="EntryNotFound"), ErrorType.DOWNLOAD_FAILED, "404"),
        (Fault("status", WEIGHTS, status=404, error_code="RepoNotFound"),
         ErrorType.REPO_NOT_FOUND, "is not on"),
        (Fault("status", WEIGHTS, status=401), ErrorType.AUTH_ERROR, "HF_TOKEN"),
        (Fault("status", WEIGHTS, status=403), ErrorType.ACCESS_DENIED, "denies access"),
        (Fault("status", WEIGHTS, status=403, error_code="GatedRepo"), ErrorType.ACCESS_DENIED, "gated"),
        (Fault("status", WEIGHTS, status=451), ErrorType.ACCESS_DENIED, "denies access"),
        (Fault("status", WEIGHTS, status=403, headers={"X-Error-Message": DISABLED}),
         ErrorType.ACCESS_DENIED, "is disabled"),
        (Fault("status", WEIGHTS, status=429, retry_after=3600), ErrorType.DOWNLOAD_FAILED, "in 3600 s"),
        (Fault("wrong_range", WEIGHTS, origin="cdn"), ErrorType.DOWNLOAD_FAILED, "another range"),
        (Fault("wrong_size", WEIGHTS, origin="cdn"), ErrorType.DOWNLOAD_FAILED, "bytes instead of"),
        (Fault("wrong_size", "*notes.md", size_delta=9), ErrorType.DOWNLOAD_FAILED, "bytes instead of"),
        (Fault("status", WEIGHTS, status=302, headers={"Location": "file:///etc/passwd"}),
         ErrorType.DOWNLOAD_FAILED, "invalid address"),
        (Fault("status", WEIGHTS, status=302, headers={"Location": ""}),
         ErrorType.DOWNLOAD_FAILED, "without an address"),
        (Fault("status", WEIGHTS, status=302, headers={"Location": "/x/model.safetensors"}),
         ErrorType.DOWNLOAD_FAILED, "more than 5 times"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else str(value),
)  # fmt: skip
async def test_persistent_fault_is_an_error_and_the_download_can_be_resumed(
    model: Model, fault: Fault, error: ErrorType, words: str
) -> None:
    model.commit = model.hub.add_repo("org/model", small_files(2 << 20))  # is requested in ranges
    model.hub.faults.add(replace(fault, times=None))
    found = await fails(model)
    assert found.type is error
    assert words in error_text(found)
    assert not (model.snapshot / "model.safetensors").exists() or "notes" in fault.path
    await model.download()
    model.check_whole()


@pytest.mark.slow
@pytest.mark.parametrize("after", [None, 0])
@pytest.mark.parametrize("skip", [0, 3])
async def test_silent_hub_is_a_network_error(model: Model, after: int | None, skip: int) -> None:
    model.hub.faults.add(Fault("silent", "*", times=None, after_bytes=after, skip=skip))
    found = await asyncio.wait_for(fails(model, read_s=0.4, silence_s=1.0), PATIENCE_S)
    assert found.type is ErrorType.NETWORK_ERROR
    await model.download()
    model.check_whole()


def test_default_timeouts_detect_silence_within_thirty_seconds() -> None:
    from mlxk_tui.ops.download.download import DownloadOptions

    options = DownloadOptions()
    assert options.silence_s + 1 < 30
    assert max(options.read_s, options.connect_s) < options.silence_s


async def test_unreachable_hub_is_a_network_error(model: Model) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        source = DownloadSource(f"http://127.0.0.1:{nobody.getsockname()[1]}", model.name, model.commit)
        with pytest.raises(OpError, match="cannot be reached") as caught:
            await download(source, model.files, model.folder, options=FAST)
    assert caught.value.type is ErrorType.NETWORK_ERROR


async def test_hub_that_accepts_no_connections_is_a_network_error(model: Model) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)  # the queue is full now: connecting hangs, or is never answered
            source = DownloadSource(f"http://127.0.0.1:{address[1]}", model.name, model.commit)
            options = replace(FAST, connect_s=0.2, read_s=0.2, silence_s=0.8)
            with pytest.raises(OpError) as caught:
                await download(source, model.files, model.folder, options=options)
    assert caught.value.type is ErrorType.NETWORK_ERROR


async def test_retry_after_is_respected(model: Model) -> None:
    model.hub.faults.add(Fault("status", WEIGHTS, status=429, retry_after=1))
    begin = asyncio.get_running_loop().time()
    await model.download()
    assert asyncio.get_running_loop().time() - begin >= 1
    model.check_whole()


async def test_retry_after_wait_can_be_cancelled(model: Model) -> None:
    fault = model.hub.faults.add(Fault("status", WEIGHTS, status=429, retry_after=PATIENCE_S + 20))
    task = asyncio.create_task(model.download())
    await until(lambda: model.hub.faults.hits(fault) > 0)
    await cancel(task)


async def test_download_can_be_cancelled_while_the_hub_is_silent(model: Model) -> None:
    fault = model.hub.faults.add(Fault("silent", "*", times=None, after_bytes=1))
    patient = replace(FAST, read_s=2 * PATIENCE_S, silence_s=2 * PATIENCE_S)
    task = asyncio.create_task(model.download(patient))
    await until(lambda: model.hub.faults.hits(fault) > 2)
    await cancel(task)


def test_redirect_from_https_to_http_is_rejected() -> None:
    with pytest.raises(OpError, match="not followed"):
        _redirected(urlsplit("https://hub.example/x"), "http://hub.example/x", "x")
    assert _redirected(urlsplit("https://hub.example/a/b"), "/c d?e=1%2F", "x").geturl() == (
        "https://hub.example/c%20d?e=1%2F"
    )


async def test_hub_that_ignores_ranges_keeps_existing_bytes(model: Model) -> None:
    await interrupt(model)
    model.hub.faults.add(Fault("ignore_range", WEIGHTS, times=None))
    done = await model.download()
    assert done.bytes_reused > 100_000
    model.check_whole()


async def test_wrong_bytes_of_an_earlier_process_are_downloaded_again(model: Model) -> None:
    await interrupt(model)
    partial = model.blobs / f"{model.etag('model.safetensors')}.mlxk.incomplete"
    with partial.open("r+b") as file:
        file.write(b"wrong")
    await model.download()
    model.check_whole()


def faulty(seed: int) -> list[Fault]:
    """Return random faults for a seed."""
    pick = random.Random(seed)
    found = []
    for _ in range(pick.randint(1, 6)):
        kind = pick.choice(
            ["cut", "cut", "status", "corrupt", "silent", "ignore_range", "wrong_range", "wrong_size", "slow"]
        )
        found.append(
            Fault(
                kind,  # type: ignore[arg-type]  # one of them
                pick.choice(["*", WEIGHTS, WEIGHTS, "*notes.md", "*config.json"]),
                origin=pick.choice([None, "hub", "cdn"]),
                skip=pick.randint(0, 6),
                times=pick.choice([1, 1, 2, 5, None]),
                after_bytes=pick.choice([None, 0, 1, pick.randint(0, 60_000)]),
                rate=2e6,
                status=pick.choice([429, 500, 503, 403, 404, 416]),
                retry_after=pick.choice([None, 0]),
                size_delta=pick.choice([-1, 1, 5000]),
            )
        )
    return found


async def error_of(download: Awaitable[object]) -> OpError | None:
    try:
        await download
    except OpError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(10))
async def test_random_faults_end_complete_or_in_a_resumable_error(
    model: Model, batch: int, tmp_path: Path
) -> None:
    """200 seeds: a snapshot never contains wrong files, and the next download completes."""
    options = replace(
        FAST, attempts=4, backoff_s=0.002, longest_backoff_s=0.01, read_s=0.05, connect_s=0.5, silence_s=0.15
    )
    for seed in range(batch * 20, batch * 20 + 20):
        name = f"org/m{seed}"
        size = random.Random(seed).randint(1, 250_000) + (seed % 2) * (3 << 19)  # half of them in ranges
        commit = model.hub.add_repo(name, small_files(size, seed=seed))
        one = Model(model.hub, name, commit, tmp_path)
        for fault in faulty(seed):
            model.hub.faults.add(fault)
        error = await error_of(one.download(options))
        if error is None:
            one.check_whole()
        else:
            assert error.type in SENDABLE, f"seed {seed}: {error.type} {error.message}"
            one.check_nothing_wrong()
        model.hub.faults.clear()
        await one.download(FAST)
        one.check_whole()


@pytest.mark.parametrize(("size", "seed"), [(2 << 20, 1), (2 << 20, 2), (24 << 20, 3), (24 << 20, 4)])
async def test_killed_process_loses_at_most_five_percent(model: Model, size: int, seed: int) -> None:
    """SIGKILL at a random time; the hub's log shows the bytes that were sent twice."""
    files = {**small_files(size - 300_000, seed=seed), "tokenizer.json": Generated(299_000, seed + 100)}
    model.commit = model.hub.add_repo("org/model", files)
    model.hub.rate_per_connection = size / 4
    enough = random.Random(seed).uniform(0.05, 0.95) * size
    child = await asyncio.create_subprocess_exec(*model.command(), stdout=subprocess.DEVNULL)
    await until(lambda: model.sent >= enough)
    unread = kill_and_count_unread(child.pid, model.hub)
    assert await child.wait() == -signal.SIGKILL
    model.check_nothing_wrong()
    await until(lambda: model.hub.requests.running == 0)
    model.hub.rate_per_connection = None
    await model.download()
    model.check_whole()
    assert model.sent - unread <= 1.05 * size


def test_connection_that_is_aborted_while_connecting_is_not_unreachable() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second, ThreadPoolExecutor(1) as threads:
            second.setblocking(False)
            second.connect_ex(address)  # the queue is full now
            connection = DownloadConnection(ConnectionPool(PATIENCE_S, PATIENCE_S))
            url = urlsplit(f"http://127.0.0.1:{address[1]}/")
            request = threads.submit(connection.request, url, {})
            wait_until(lambda: connection._socket is not None)
            connection.abort()
            with pytest.raises(ConnectionStoppedError):
                request.result(PATIENCE_S)
