"""Xet uploads: huggingface_hub with hf_xet installed sends large files this way unless told not to.

A token answer names the content store; with `local://<folder>` hf_xet writes it there itself, so that
no server for it is needed. The commit then names files by sha256 alone. The store's shards tell which
Xet hash that is: 48-byte records (hf_xet 1.8) of a header, then for each file its hash, one record per
segment, one for each of them to verify it where a flag says so, and one that holds the sha256.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.demo.hub.blobs import PathBlob
from mlxk_tui.demo.hub.context import HandlerContext
from mlxk_tui.demo.hub.replies import HubError, Reply, json_reply
from mlxk_tui.demo.hub.store.repos import HubRepo
from mlxk_tui.demo.hub.store.users import check_readable, check_writable

_RECORD = 48
_END = b"\xff" * 32
_WITH_VERIFICATION = 1 << 31
_WITH_SHA256 = 1 << 30
_NEVER = 4102444800


@dataclass(frozen=True)
class _Stored:
    sha256: str
    xet_hash: str
    size: int


async def token(context: HandlerContext, repo: HubRepo, *, write: bool) -> Reply:
    """Answer what hf_xet asks before it moves bytes, in headers and as JSON."""
    if write:
        check_writable(repo.namespace, context.user)
    else:
        check_readable(repo, context.user)
    if not context.state.xet:
        raise HubError(404, "This repo is not in Xet storage")
    address = f"local://{context.state.uploads / 'xet'}"
    headers = {
        "X-Xet-Cas-Url": address,
        "X-Xet-Access-Token": "local",
        "X-Xet-Token-Expiration": str(_NEVER),
    }
    return json_reply({"casUrl": address, "accessToken": "local", "exp": _NEVER}, headers=headers)


def fetch(store: Path, sha256: str, target: Path) -> PathBlob | None:
    """Write the file with this checksum from the store to `target`; None when the store has it not."""
    found = next((item for item in _listed(store) if item.sha256 == sha256), None)
    if found is None:
        return None
    hf_xet = importlib.import_module("hf_xet")  # it is there, or the client had not sent by Xet
    session = hf_xet.XetSession()
    access = {"endpoint": f"local://{store}", "token": "local", "token_expiry_unix_secs": _NEVER}
    with session.new_file_download_group(**access) as group:
        group.start_download_file(hf_xet.XetFileInfo(found.xet_hash, found.size), str(target))
    blob = PathBlob(target)
    return blob if blob.sha256 == sha256 else None


def _listed(store: Path) -> Iterator[_Stored]:
    """Yield every file that the shards of a store name."""
    for shard in store.glob("**/shards/*.mdb"):
        data = shard.read_bytes()
        at = _RECORD
        while at + _RECORD <= len(data) and data[at : at + 32] != _END:
            flags, count = struct.unpack_from("<II", data, at + 32)
            xet_hash = _hex(data[at : at + 32])
            at += _RECORD
            size = sum(struct.unpack_from("<I", data, at + i * _RECORD + 36)[0] for i in range(count))
            at += count * _RECORD * (2 if flags & _WITH_VERIFICATION else 1)
            if flags & _WITH_SHA256:
                yield _Stored(_hex(data[at : at + 32]), xet_hash, size)
                at += _RECORD


def _hex(digest: bytes) -> str:
    """Return a hash as Xet writes it: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
