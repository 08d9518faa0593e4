"""A chat store for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlxk_tui.chats.store import ChatStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chats" / "chats.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[ChatStore]:
    async with await ChatStore.open(path) as store:
        yield store
