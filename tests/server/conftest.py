"""One server and engine for most of these tests, because importing MLX takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import is_gone
from tests.server.served import Served, fill
from tests.support.clients import anthropic, openai


@pytest.fixture(scope="session")
def model_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a hub folder with three runnable models; tests do not change it."""
    folder = tmp_path_factory.mktemp("server")
    fill(folder / "hub", folder)
    return folder / "hub"


@pytest.fixture(scope="session")
def served(model_hub: Path) -> Iterator[Served]:
    """Return the shared server."""
    served = Served(model_hub, header_timeout_s=1.0, body_timeout_s=1.0)
    yield served
    pid = served.engine.status.pid
    served.close()
    assert pid is None or is_gone(pid)


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    """Return OpenAI's client for the current address of `served`."""
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(served: Served) -> Iterator[anthropic.Anthropic]:
    """Return Anthropic's client for the current address of `served`."""
    with anthropic.Anthropic(base_url=served.address.url, api_key="none", max_retries=0) as client:
        yield client
