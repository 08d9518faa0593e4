"""Xet uploads, which huggingface_hub uses for large files if hf_xet is installed.

The token response contains the URL of the content store. For `local://<folder>`, hf_xet writes to that folder
itself, so no server is needed. A commit refers to files by SHA-256 only. The shards of the store map it to a
Xet hash. They consist of 48-byte records (hf_xet 1.8): a header, and for each file its hash, one record per
segment, optionally one verification record per segment, and optionally one with the SHA-256.
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
_EXPIRES = 4102444800


@dataclass(frozen=True)
class _StoredFile:
    sha256: str
    xet_hash: str
    size: int


async def token(context: HandlerContext, repo: HubRepo, *, write: bool) -> Reply:
    """Return the access token that hf_xet requests before a transfer, as headers and JSON."""
    if write:
        check_writable(repo.namespace, context.user)
    else:
        check_readable(repo, context.user)
    if not context.state.xet:
        raise HubError(404, "This repo is not in Xet storage")
    url = f"local://{context.state.uploads / 'xet'}"
    headers = {
        "X-Xet-Cas-Url": url,
        "X-Xet-Access-Token": "local",
        "X-Xet-Token-Expiration": str(_EXPIRES),
    }
    return json_reply({"casUrl": url, "accessToken": "local", "exp": _EXPIRES}, headers=headers)


def fetch(store: Path, sha256: str, target: Path) -> PathBlob | None:
    """Write a file from the store to `target`; return None if the store doesn't contain it."""
    found = next((item for item in _list_files(store) if item.sha256 == sha256), None)
    if found is None:
        return None
    hf_xet = importlib.import_module("hf_xet")  # installed, because the client uploaded with it
    session = hf_xet.XetSession()
    access = {"endpoint": f"local://{store}", "token": "local", "token_expiry_unix_secs": _EXPIRES}
    with session.new_file_download_group(**access) as group:
        group.start_download_file(hf_xet.XetFileInfo(found.xet_hash, found.size), str(target))
    blob = PathBlob(target)
    return blob if blob.sha256 == sha256 else None


def _list_files(store: Path) -> Iterator[_StoredFile]:
    """Yield all files in the shards of a store."""
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
                yield _StoredFile(_hex(data[at : at + 32]), xet_hash, size)
                at += _RECORD


def _hex(digest: bytes) -> str:
    """Return the string form of a Xet hash: four little-endian numbers in hex."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
