"""Everything that the local hub knows: repos, users, faults, requests, uploads."""

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
    """A hub's state. Commits never change, so another thread may look at it while it serves."""

    url: str = ""
    cdn_url: str = ""
    repos: dict[str, HubRepo] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    """Former names, and the names that they lead to."""
    tokens: dict[str, User] = field(default_factory=known_tokens)
    faults: Faults = field(default_factory=Faults)
    requests: HubLog = field(default_factory=HubLog)
    rate_per_connection: float | None = None
    """Bytes a second that a connection gets, both ways; None for no limit."""
    page_size: int = 1000
    """Entries on one page of a tree or search, at most (the hub's own number is 1000)."""
    multipart_over: int = 64 << 20
    """Bytes from which on an LFS upload is asked for in parts."""
    part_size: int = 16 << 20
    """Bytes of a part."""
    resolve_cache: bool = True
    """Whether small files are answered by a relative 307 first, as the hub does."""
    xet: bool = True
    """Whether clients with hf_xet may send large files by Xet."""
    lfs: dict[str, StoredBlob] = field(default_factory=dict)
    """What is in LFS and came by an upload, by sha256."""
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    _folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def uploads(self) -> Path:
        """The folder for what clients send; it goes with the hub."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mlxk-hub-")
        return Path(self._folder.name)

    def sign(self, *words: str) -> str:
        """Return the signature that a link to the CDN carries."""
        text = "\0".join(words).encode()
        return hashlib.blake2b(text, key=self._secret, digest_size=16).hexdigest()

    async def silence(self) -> None:
        """Wait until the client gives up or the hub stops."""
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Remove what was uploaded."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
