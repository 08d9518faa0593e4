"""Proxies of the environment: used for API requests and downloads, and named in errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.demo.hub import LocalHub
from tests.headless.running import TIMEOUT, call, checked, started
from tests.support.hf_cache import model_files
from tests.support.socks_proxy import socks_proxy

NAME = "org/model"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
WITHOUT_SOCKSIO = (
    sys.executable,
    "-c",
    "import sys; sys.modules['socksio'] = None; from mlxk_tui_headless.__main__ import main; main()",
)


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with LocalHub() as server:
        server.add_repo(NAME, model_files())
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", server.GOOD_TOKEN)
        monkeypatch.setenv("MLXK2_ENABLE_EXPERIMENTAL_PUSH", "1")
        yield server


def test_pull_uses_a_socks_proxy(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("socksio")
    with socks_proxy(("user", "p@ss")) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://user:p%40ss@{proxy.address}")
        assert call("pull", NAME, "--json", hub=hub).data["download_status"] == "success"
    hosts = {host for host, _ in proxy.reached}
    assert {"127.0.0.1", "localhost"} <= hosts  # API requests and files, which have another host name


def test_no_proxy_bypasses_the_proxy(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("socksio")
    with socks_proxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{proxy.address}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        assert call("pull", NAME, "--json", hub=hub).data["download_status"] == "success"
    assert proxy.reached == []


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize("command", ["search", "pull", "clone", "push"])
def test_missing_socks_package_is_an_error_with_the_proxy_and_the_fix(
    command: str, variable: str, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "socks5://user:secret@127.0.0.1:9")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    arguments = {"clone": [NAME, "copy"], "push": [str(folder), NAME, "--private"]}.get(command, [NAME])
    with started(command, *arguments, "--json", program=WITHOUT_SOCKSIO, hub=hub) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    error = checked(out.decode())["error"]
    assert (process.returncode, err, error["type"]) == (1, b"", "dependency_missing")
    assert f"The proxy socks5://127.0.0.1:9 ({variable}) needs the package socksio" in error["message"]
    assert "secret" not in error["message"]


@pytest.mark.parametrize("command", ["search", "pull"])
def test_unsupported_proxy_is_named_in_the_error(
    command: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks4://127.0.0.1:9")
    error = call(command, NAME, "--json", hub=hub).error
    assert error["message"].startswith("The proxy socks4://127.0.0.1:9 (HTTP_PROXY) has an unsupported")
    assert "socks5://" in error["message"]
