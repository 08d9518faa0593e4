"""The state of the local hub: repos, users, faults, requests, uploads."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from mlxk_tui.demo.hub.blobs import StoredBlob
from mlxk_tui.demo.hub.faults import Faults
from mlxk_tui.demo.hub.log import HubLog
from mlxk_tui.demo.hub.store.repos import HubRepo
from mlxk_tui.demo.hub.store.users import User, known_tokens


@dataclass
class HubState:
    """The state of a hub. Commits are immutable, so other threads can read it while it serves."""

    url: str = ""
    cdn_url: str = ""
    repos: dict[str, HubRepo] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    """New names of renamed repos, by former name."""
    tokens: dict[str, User] = field(default_factory=known_tokens)
    faults: Faults = field(default_factory=Faults)
    requests: HubLog = field(default_factory=HubLog)
    rate_per_connection: float | None = None
    """Maximum bytes per second and connection, in both directions; None for no limit."""
    page_size: int = 1000
    """Maximum entries per page of a tree or search; 1000 on the Hub."""
    multipart_over: int = 64 << 20
    """Size in bytes above which LFS uploads have several parts."""
    part_size: int = 16 << 20
    """Size of a part, in bytes."""
    resolve_cache: bool = True
    """Whether small files are served after a relative 307, as on the Hub."""
    xet: bool = True
    """Whether uploads with Xet are enabled."""
    lfs: dict[str, StoredBlob] = field(default_factory=dict)
    """Uploaded LFS objects by SHA-256."""
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    _folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def uploads(self) -> Path:
        """The folder for uploads; it is removed with the hub."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mlxk-hub-")
        return Path(self._folder.name)

    def sign(self, *parts: str) -> str:
        """Return the signature of a URL on the CDN."""
        text = "\0".join(parts).encode()
        return hashlib.blake2b(text, key=self._secret, digest_size=16).hexdigest()

    async def hang(self) -> None:
        """Wait until the client disconnects or the hub stops."""
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Remove uploaded files."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
