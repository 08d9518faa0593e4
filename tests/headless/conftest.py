"""A cache for the command's tests: healthy models, broken models, hostile names."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.support.hf_cache import HfCache, model_files, safetensors

HEALTHY = "mlx-community/Tiny-Instruct-4bit"
BASE = "mlx-community/Tiny-Base-4bit"
OTHER = "acme/Widget-Chat"
BROKEN = "mlx-community/Truncated-Instruct-4bit"
PYTORCH = "acme/Plain"
RED = "evil/\\x1b[31mred"
UNDECODABLE = "odd/\\xff\\xfe"


def fill(hub: Path) -> HfCache:
    """Write the models to a hub folder."""
    cache = HfCache(hub)
    cache.repo(HEALTHY).add(model_files(), modified=1_756_555_200.0)
    cache.repo(BASE).add(model_files(chat=False, fill=b"\x02"))
    cache.repo(OTHER).add(model_files(fill=b"\x03"))
    files = model_files(fill=b"\x04")
    cache.repo(BROKEN).add({**files, "model.safetensors": files["model.safetensors"][:-3]}, tree=False)
    cache.repo(PYTORCH).add(
        {"config.json": b'{"model_type": "llama"}', "model.safetensors": safetensors(fill=b"\x05")}
    )
    (hub / "models--evil--\x1b[31mred").mkdir()
    with contextlib.suppress(OSError):  # APFS refuses such a name
        os.mkdir(os.fsencode(hub) + b"/models--odd--\xff\xfe")
    return cache


@pytest.fixture
def filled(hub: Path) -> Path:
    """Return this test's hub folder with the models in it."""
    fill(hub)
    return hub
