"""Starting and stopping: repeatedly in an event loop, and as a process with signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from mlxk_tui.demo import tiny_model
from mlxk_tui.engine.client import Engine
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.health.machine import may_have_gpu
from mlxk_tui.server.http import keys
from mlxk_tui.server.options import Address, ServerOptions
from mlxk_tui.server.server import Server
from tests.engine.conftest import is_gone, needs_mlx
from tests.headless.running import PROGRAM, call, checked, environment, headless
from tests.server.served import BABBLER, COMPLETIONS, TINY, Served
from tests.support.pipes import fill_stderr_of
from tests.support.waiting import PATIENCE_S, wait_until
from tests.ui.test_chat_interruptions import HUGE, add_huge

LONG = {"model": BABBLER, "prompt": "Hello", "max_tokens": 4000, "logit_bias": {"0": -100}, "stream": True}


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """Return a server with an empty cache and an engine that never starts."""
    engine = Engine()
    server = Server(engine, Cache(tmp_path), ServerOptions(port=0))
    yield server
    await server.stop()
    await engine.stop()


async def status_of(address: Address, path: str = "/health") -> int:
    async with aiohttp.ClientSession(address.url) as client, client.get(path) as response:
        return response.status


async def test_server_can_be_restarted_on_the_same_port(server: Server) -> None:
    first = await server.start()
    assert await server.start() == first
    for _ in range(5):
        assert await status_of(first) == 200
        await server.stop()
        await server.stop()
        assert server.address is None
        with pytest.raises(aiohttp.ClientConnectionError):
            await status_of(first)
        server.reload(ServerOptions(port=first.port))
        assert await server.start() == first
    assert server.log.total == 0


async def test_used_port_is_reported_with_its_program(server: Server) -> None:
    address = await server.start()
    second = Server(Engine(), Cache(Path("/")), ServerOptions(port=address.port))
    with pytest.raises(OpError) as caught:
        await second.start()
    assert caught.value.type is ErrorType.PORT_IN_USE
    assert f"Port {address.port}" in caught.value.message
    assert caught.value.remedy is Remedy.CHOOSE_ANOTHER_PORT
    if sys.platform == "linux":
        assert f"process {os.getpid()}" in caught.value.message
    assert await status_of(address) == 200


@pytest.mark.parametrize(
    ("host", "port"), [("no-such-host.invalid", 0), ("127.0.0.1", 70_000), ("192.0.2.1", 0), ("a" * 300, 0)]
)
async def test_invalid_host_or_port_is_rejected(host: str, port: int) -> None:
    server = Server(Engine(), Cache(Path("/")), ServerOptions(host=host, port=port, api_keys={"a": "b"}))
    with pytest.raises(OpError) as caught:
        await server.start()
    assert caught.value.type is ErrorType.VALIDATION_ERROR


async def test_localhost_listens_on_its_addresses(server: Server) -> None:
    server.reload(ServerOptions(host="localhost", port=0))
    address = await server.start()
    assert address.url == f"http://localhost:{address.port}"
    assert await status_of(address) == 200


async def test_idle_connection_does_not_delay_the_stop(server: Server) -> None:
    address = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
    await asyncio.wait_for(server.stop(grace_s=2 * PATIENCE_S), PATIENCE_S)
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    writer.close()


def test_url_of_an_address_works() -> None:
    assert Address("0.0.0.0", 1).url == "http://127.0.0.1:1"
    assert Address("::", 1).url == "http://[::1]:1"
    assert Address("::1", 1).url == "http://[::1]:1"
    assert Address("box.local", 1).url == "http://box.local:1"


@needs_mlx
def test_stopping_ends_streams_with_an_error_and_a_restart_works(served: Served) -> None:
    replies: list[Any] = []
    thread = threading.Thread(target=lambda: replies.append(served.post(COMPLETIONS, LONG)))
    thread.start()
    served.until(lambda: any(entry.completion_tokens for entry in served.server.log.live))
    port = served.address.port
    served.call(served.server.stop(grace_s=0.05))
    thread.join(PATIENCE_S)
    assert replies[0].status == 200
    assert replies[0].events[-1]["error"]["type"] == "cancelled"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    served.address = served.call(served.server.start())
    assert served.engine.status.streams == 0
    served.still_well()


# The process


@contextmanager
def process(
    *arguments: str, hub: Path, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """Run `mlxk-headless serve --json`; yield the process and its envelope's data once it listens."""
    child = subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0", *arguments, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(hub, MLX_DISABLE_COMPILE="1", **env),
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline().decode()
        envelope = checked(line)
        assert envelope["command"] == "server"
        assert envelope["status"] == "success", envelope
        yield child, envelope["data"]
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=PATIENCE_S)


def ask(data: dict[str, Any], path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    """Send a request to the process."""
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(data["url"] + path, raw, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@needs_mlx
def test_signal_waits_for_answers_and_leaves_no_processes(model_hub: Path) -> None:
    with process("tiny-demo", hub=model_hub) as (child, data):
        assert (data["model"], data["pid"], data["host"]) == (TINY, child.pid, "127.0.0.1")
        replies: list[tuple[int, bytes]] = []
        body = {**LONG, "max_tokens": 300}
        thread = threading.Thread(target=lambda: replies.append(ask(data, COMPLETIONS, body)))
        thread.start()
        wait_until(lambda: json.loads(ask(data, "/health")[1])["streams"] == 1)
        children = psutil.Process(child.pid).children(recursive=True)
        assert children
        child.send_signal(signal.SIGTERM)
        thread.join(PATIENCE_S)
        out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0
    assert out == b""  # the one object was printed when it listened
    status, raw = replies[0]
    assert status == 200
    assert raw.endswith(b"data: [DONE]\n\n")
    assert b'"finish_reason":"length"' in raw
    assert b"200 mlx-community/Babbler" in err
    assert all(is_gone(one.pid) for one in children)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there its pipe can be filled")
def test_unread_log_blocks_neither_answers_nor_a_signal(hub: Path) -> None:
    with process(hub=hub) as (child, data):
        fill_stderr_of(child.pid)
        for _ in range(3):
            assert ask(data, "/v1/models")[0] == 200
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_S) == 0


@pytest.mark.slow
@needs_mlx
def test_second_signal_stops_at_once(model_hub: Path) -> None:
    with process("--grace", str(2 * PATIENCE_S), hub=model_hub) as (child, data):
        assert data["model"] is None
        replies: list[tuple[int, bytes]] = []
        thread = threading.Thread(target=lambda: replies.append(ask(data, COMPLETIONS, LONG)))
        thread.start()
        wait_until(lambda: json.loads(ask(data, "/health")[1])["streams"] == 1)
        children = psutil.Process(child.pid).children(recursive=True)
        child.send_signal(signal.SIGINT)
        wait_until(lambda: not _listens(data["port"]))
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE_S) == 0
        thread.join(PATIENCE_S)
        assert b'"type":"cancelled"' in replies[0][1]
        wait_until(lambda: all(is_gone(one.pid) for one in children))


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def test_sighup_reloads_keys_and_origins(hub: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    with process(hub=hub, MLXK_CONFIG=str(config)) as (child, data):
        assert ask(data, "/v1/models")[0] == 200
        keys.save_keys(tmp_path / "api-keys", {"alice": "key-a"})
        config.write_text('server_origins = "https://chat.example.org"\n')
        child.send_signal(signal.SIGHUP)
        wait_until(lambda: ask(data, "/v1/models")[0] == 401)
        headers = {"Authorization": "Bearer key-a", "Origin": "https://chat.example.org"}
        assert ask(data, "/v1/models", **headers)[0] == 200
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=PATIENCE_S)
    assert b"Settings reloaded." in err
    assert b"key-a" not in err


def test_sighup_changes_nothing_if_the_keys_cannot_be_read(hub: Path, tmp_path: Path) -> None:
    config, key_file = tmp_path / "config.toml", tmp_path / "api-keys"
    config.write_text("")
    keys.save_keys(key_file, {"alice": "key-a"})
    with process(hub=hub, MLXK_CONFIG=str(config)) as (child, data):
        key_file.chmod(0o644)
        child.send_signal(signal.SIGHUP)
        assert child.stderr is not None
        line = next(line for line in child.stderr if b" settings " in line)
        assert ask(data, "/v1/models")[0] == 401
        assert ask(data, "/v1/models", Authorization="Bearer key-a")[0] == 200
    assert b"error The settings were not reloaded: " in line
    assert b"chmod 600" in line


@pytest.mark.slow
@needs_mlx
def test_missing_model_in_the_settings_does_not_prevent_serving(hub: Path, tmp_path: Path) -> None:
    tiny_model.install(hub)
    config = tmp_path / "config.toml"
    config.write_text('server_model = "org/gone"\n')
    body = {"prompt": "Hello", "max_tokens": 1}
    with process(hub=hub, MLXK_CONFIG=str(config)) as (child, data):
        assert data["model"] is None
        assert ask(data, "/v1/completions", body)[0] == 404
        assert ask(data, "/v1/completions", {**body, "model": TINY})[0] == 200
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=PATIENCE_S)
    assert b"Warning: org/gone, the model of the setting server_model, was not loaded: " in err


@pytest.mark.slow
@needs_mlx
@pytest.mark.skipif(may_have_gpu(), reason="it is for machines without a GPU")
def test_format_of_weights_follows_the_command_line_and_is_logged(hub: Path, tmp_path: Path) -> None:
    tiny_model.install(hub)
    config = tmp_path / "config.toml"
    config.write_text(f'cpu_weights = "float32"\n\n[model_cpu_weights]\n"{TINY}" = "float32"\n')
    with process(TINY, "--cpu-weights", "stored", hub=hub, MLXK_CONFIG=str(config)) as (child, _):
        assert child.stderr is not None
        line = next(line for line in child.stderr if b" Weights of " in line)
    assert f" Weights of {TINY}: as stored, ".encode() in line


@pytest.mark.slow
@needs_mlx
def test_model_that_does_not_fit_is_served_only_if_forced(hub: Path) -> None:
    tiny_model.install(hub)
    add_huge(hub, tiny_model.folder())
    body = {"model": HUGE, "prompt": "Hello", "max_tokens": 1}
    with process(hub=hub) as (_, data):
        status, said = ask(data, "/v1/completions", body)
        assert (status, json.loads(said)["error"]["code"]) == (503, "insufficient_memory")
    with process(HUGE, "--force", hub=hub) as (_, data):
        assert data["model"] == HUGE
        assert ask(data, "/v1/completions", body)[0] == 200
    result = call("--json", "serve", "--port", "0", HUGE, hub=hub)
    assert (result.status, result.error["type"]) == (1, "insufficient_memory")


@pytest.mark.parametrize(
    ("arguments", "kind", "status"),
    [
        (["no-such-model"], "model_not_found", 1),
        (["--host", "0.0.0.0"], "validation_error", 1),
        (["--api-key", "a b"], "validation_error", 1),
        (["--alias", "x"], "validation_error", 1),
        (["--allow-origin", "example.org"], "validation_error", 1),
        (["--max-tokens", "0"], "validation_error", 1),
        (["--idle-unload", "-1"], "validation_error", 1),
        (["--port", "x"], "command_error", 2),
        (["--log-level", "loud"], "command_error", 2),
        (["--cpu-weights", "half"], "command_error", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_serve_errors_are_one_envelope(arguments: list[str], kind: str, status: int, hub: Path) -> None:
    result = call("--json", "serve", "--port", "0", *arguments, hub=hub)
    assert (result.status, result.error["type"]) == (status, kind)
    assert result.envelope["command"] == "server"
    assert "a b" not in result.error["message"]


def test_text_output_shows_the_address(hub: Path) -> None:
    child = subprocess.Popen(
        [*PROGRAM, "server", "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(hub),
    )
    try:
        assert child.stdout is not None
        first, base, model = (child.stdout.readline().decode() for _ in range(3))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE_S)
    finally:
        child.kill()
    assert first.startswith("Serving on http://127.0.0.1:")
    assert base.strip().endswith("/v1")
    assert "any cached model" in model
    assert (child.returncode, out, err) == (0, b"", b"")


def test_used_port_ends_the_command(hub: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = headless("server", "--port", port, "--json", hub=hub)
    assert (result.status, result.error["type"]) == (1, "port_in_use")
    assert result.stderr == ""
