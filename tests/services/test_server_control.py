"""The server's control without a screen, as the app and `mlxk-headless serve` use it; no model is loaded."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.server.http import keys
from mlxk_tui.services.server.control import ServerControl, ServerPhase
from mlxk_tui.settings import LoadedSettings, load
from tests.support.waiting import until

FREE_PORT = {"port": 0}


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedSettings:
    """Return the settings of a config file that is not there yet."""
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    return load({}, tmp_path / "config.toml")


def control_of(loaded: LoadedSettings, hub: Path, **given: Any) -> ServerControl:
    return ServerControl(loaded, Cache(hub), Engine, given={**FREE_PORT, **given}, sample_seconds=0)


def problems_of(control: ServerControl) -> tuple[OpError | None, OpError | None]:
    """Return why the last start failed, and why the stored keys cannot be read."""
    return control.problem, control.keys_problem


async def status_of(control: ServerControl, headers: str = "") -> int:
    """Return the status of a list of the models."""
    reader, writer = await asyncio.open_connection("127.0.0.1", control.port)
    writer.write(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def test_it_starts_and_stops_and_publishes_each_phase(loaded: LoadedSettings, hub: Path) -> None:
    control = control_of(loaded, hub)
    phases: list[ServerPhase] = []
    control.changed.subscribe(lambda structure: phases.append(control.phase))
    assert (control.address, control.port, control.entries) == (None, 0, [])
    for _ in range(2):
        address = await control.start()
        assert (control.address, control.url, control.phase) == (address, address.url, ServerPhase.ON)
        assert await status_of(control) == 200
        await control.stop()
        assert (control.address, control.phase) == (None, ServerPhase.OFF)
    assert phases[:4] == [ServerPhase.STARTING, ServerPhase.ON, ServerPhase.STOPPING, ServerPhase.OFF]
    await control.close()


async def test_toggling_is_starting_and_stopping(loaded: LoadedSettings, hub: Path) -> None:
    control = control_of(loaded, hub)
    control.toggle()
    await until(lambda: control.phase is ServerPhase.ON)
    control.toggle()
    await until(lambda: control.phase is ServerPhase.OFF)
    control.toggle()
    await until(lambda: control.phase is ServerPhase.ON)
    await control.close()
    assert (control.phase, control.address) == (ServerPhase.OFF, None)


async def test_why_it_did_not_start_is_raised_and_kept(loaded: LoadedSettings, hub: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        control = control_of(loaded, hub, port=port)
        with pytest.raises(OpError) as caught:
            await control.start()
        assert caught.value is control.problem
        assert (caught.value.type, control.phase) == (ErrorType.PORT_IN_USE, ServerPhase.OFF)
        assert control.free_port is not None
        assert control.free_port > port
        control.toggle()  # nobody waits for this one: the problem is enough
        await until(lambda: control.phase is ServerPhase.OFF and control.problem is not caught.value)
        assert control.problem is not None
        assert control.problem.type is ErrorType.PORT_IN_USE
    await control.start()
    assert problems_of(control) == (None, None)
    assert control.address is not None
    await control.stop()


async def test_beyond_this_machine_it_does_not_start_without_a_key(loaded: LoadedSettings, hub: Path) -> None:
    control = control_of(loaded, hub, host="0.0.0.0")
    with pytest.raises(OpError) as caught:
        await control.start()
    assert caught.value.remedy is Remedy.SET_API_KEY


async def test_keys_come_from_the_command_line_then_the_environment_then_the_file(
    loaded: LoadedSettings, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.save_keys(loaded.key_file, {"file": "key-file"})
    control = control_of(loaded, hub)
    control.read_keys()
    assert (dict(control.options.api_keys), control.keys_from_environment) == ({"file": "key-file"}, False)

    monkeypatch.setenv(keys.VARIABLE, "env:key-env")
    control = control_of(loaded, hub)
    control.read_keys()
    assert (dict(control.options.api_keys), control.keys_from_environment) == ({"env": "key-env"}, True)

    control = control_of(loaded, hub, api_keys={"cli": "key-cli"})
    control.read_keys()
    assert (dict(control.options.api_keys), control.keys_from_environment) == ({"cli": "key-cli"}, False)


async def test_with_keys_that_cannot_be_read_it_does_not_start(loaded: LoadedSettings, hub: Path) -> None:
    keys.save_keys(loaded.key_file, {"file": "key-file"})
    loaded.key_file.chmod(0o644)
    control = control_of(loaded, hub)
    control.read_keys()
    assert isinstance(problems_of(control)[1], OpError)
    with pytest.raises(OpError) as caught:
        await control.start()
    assert caught.value.type is ErrorType.PERMISSION_DENIED
    loaded.key_file.chmod(0o600)
    await control.start()
    assert problems_of(control) == (None, None)
    assert await status_of(control) == 401
    await control.stop()


async def test_a_model_of_the_settings_may_be_gone_and_one_of_the_command_line_may_not(
    loaded: LoadedSettings, hub: Path
) -> None:
    kept = replace(loaded, settings=replace(loaded.settings, server_model="org/gone"))
    control = control_of(kept, hub)
    await control.start()
    assert control.model is None
    assert control.model_problem is not None
    assert control.model_problem.type is ErrorType.MODEL_NOT_FOUND
    await control.stop()

    named = control_of(loaded, hub, model="org/gone")
    with pytest.raises(OpError) as caught:
        await named.start()
    assert caught.value.type is ErrorType.MODEL_NOT_FOUND
    assert named.phase is ServerPhase.OFF


async def test_settings_that_were_read_again_hold_at_once_or_not_at_all(
    loaded: LoadedSettings, hub: Path
) -> None:
    control = control_of(loaded, hub)
    await control.start()
    assert await status_of(control) == 200
    keys.save_keys(loaded.key_file, {"file": "key-file"})
    control.reload(replace(loaded, settings=replace(loaded.settings, server_origins="https://a.example")))
    assert control.options.origins == ("https://a.example",)
    assert await status_of(control) == 401
    assert await status_of(control, "Authorization: Bearer key-file\r\n") == 200

    loaded.key_file.chmod(0o644)
    before = control.options
    with pytest.raises(OpError):
        control.reload(loaded)
    assert control.options == before
    assert await status_of(control, "Authorization: Bearer key-file\r\n") == 200
    await control.stop()


async def test_changed_options_are_saved_and_another_port_is_listened_on(
    loaded: LoadedSettings, hub: Path
) -> None:
    control = ServerControl(
        replace(loaded, settings=replace(loaded.settings, server_port=0)),
        Cache(hub),
        Engine,
        sample_seconds=0,
    )
    await control.start()
    first = control.port
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    await control.change(replace(control.options, port=port, api_keys={"editor": "key-a"}))
    assert (control.port, control.phase) == (port, ServerPhase.ON)
    assert control.port != first
    assert keys.read_keys(loaded.key_file) == {"editor": "key-a"}
    assert load({}, loaded.path).settings.server_port == port
    assert await status_of(control) == 401
    await control.close()
