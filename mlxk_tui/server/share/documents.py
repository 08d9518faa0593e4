"""The JSON of the hub's API for shared models: metadata, file lists, search results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Any

from mlxk_tui.ops.cache.documents import Json
from mlxk_tui.ops.share.files import SharedFile
from mlxk_tui.ops.share.shared_models import SharedSnapshot

_CARD_TEXTS = ("license", "library_name", "pipeline_tag")
"""Fields of a model card that are passed on; others may have any size and shape."""
_MAX_TAGS = 100
_MAX_TEXT = 200


def model_document(shared: SharedSnapshot, *, files: bool = True, blobs: bool = False) -> dict[str, Any]:
    """Return a model object of the API.

    Args:
        shared: the snapshot.
        files: whether to add the names of the files.
        blobs: whether to add their sizes and checksums.
    """
    card = {name: text for name in _CARD_TEXTS if (text := _text(shared.card.get(name))) is not None}
    document: dict[str, Any] = {
        "_id": hashlib.sha1(shared.name.encode(), usedforsecurity=False).hexdigest()[:24],
        "id": shared.name,
        "modelId": shared.name,
        "author": shared.name.partition("/")[0] if "/" in shared.name else None,
        "sha": shared.commit,
        "lastModified": _date(shared.modified),
        "createdAt": _date(shared.modified),
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags(shared.card),
        "cardData": card,
        "usedStorage": shared.disk_bytes,
    }
    if shared.access is not None:
        # Unknown is not the same as false: the other machine would take the repo for public and share it.
        document["gated"] = "manual" if shared.access.gated else False
        document["private"] = shared.access.private
    document.update({name: text for name, text in card.items() if name != "license"})
    if files:
        document["siblings"] = [_sibling(file, blobs=blobs) for file in shared.files]
    return document


def tags(card: Json) -> list[str]:
    """Return the tags of a model card, with library, task and license, as on the hub."""
    given = card.get("tags")
    found = [card.get("library_name"), *(given[:_MAX_TAGS] if isinstance(given, list) else ())]
    found.append(card.get("pipeline_tag"))
    license_name = _text(card.get("license"))
    if license_name is not None:
        found.append(f"license:{license_name}")
    return list(dict.fromkeys(text for tag in found if (text := _text(tag)) is not None))


def tree_items(shared: SharedSnapshot, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """Return the files and folders below a folder; empty if it does not exist.

    Args:
        shared: the snapshot.
        folder: path in the repo; empty for its root.
        recursive: whether to list the contents of folders, too.
    """
    prefix = f"{folder}/" if folder else ""
    items: dict[str, dict[str, Any]] = {}
    for file in shared.files:
        if not file.path.startswith(prefix):
            continue
        inner = file.path[len(prefix) :]
        for parent in reversed(PurePosixPath(inner).parents):
            name = prefix + parent.as_posix()
            if parent.name and name not in items and (recursive or len(parent.parts) == 1):
                items[name] = {"type": "directory", "oid": _folder_oid(shared, name), "size": 0, "path": name}
        if recursive or "/" not in inner:
            items[file.path] = _tree_file(file)
    return list(items.values())


def search(models: Iterable[SharedSnapshot], query: dict[str, list[str]]) -> list[SharedSnapshot]:
    """Return the models that match all words of `search`, all `filter`s and the `author`."""
    words = " ".join(query.get("search", [])).lower().split()
    filters = {tag.strip() for given in query.get("filter", []) for tag in given.split(",") if tag.strip()}
    author = query.get("author", [None])[-1]
    return [
        model
        for model in models
        if all(word in model.name.lower() for word in words)
        and (author is None or model.name.lower().startswith(f"{author.lower()}/"))
        and filters <= set(tags(model.card))
    ]


def _sibling(file: SharedFile, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": file.path}
    found: dict[str, Any] = {"rfilename": file.path, "size": file.size, "blobId": file.oid}
    if file.sha256 is not None:
        found["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return found


def _tree_file(file: SharedFile) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.size, "path": file.path}
    if file.sha256 is not None:
        item["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return item


def _folder_oid(shared: SharedSnapshot, name: str) -> str:
    """Return a stable identifier of a folder; the hub's is git's, which the cache does not record."""
    return hashlib.sha1(f"{shared.commit} {name}".encode(), usedforsecurity=False).hexdigest()


def _text(value: Any) -> str | None:
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_TEXT else None


def _date(epoch: float) -> str:
    return datetime.fromtimestamp(int(epoch), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
