"""Metadata of models: info, access check, tree, refs, commits; also public for gated repos, as on the Hub."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

from mlxk_tui.demo.hub.context import HandlerContext
from mlxk_tui.demo.hub.replies import HubError, Reply, entry_not_found, json_reply
from mlxk_tui.demo.hub.store.repos import Commit, HubRepo, HubTreeEntry
from mlxk_tui.demo.hub.store.users import check_readable, check_visible, check_writable


async def info(context: HandlerContext, repo: HubRepo, revision: str = "main") -> Reply:
    """Handle `HfApi.model_info`: `blobs=true` adds sizes and checksums, `expand` selects fields.

    The metadata of gated repos is public, so success doesn't mean that the user has access to the files.
    """
    check_visible(repo, context.user)
    commit = repo.find(revision)
    if context.flag("blobs"):
        await compute_checksums(commit.entries.values())
    fields = context.query.get("expand")
    document = describe(repo, commit, blobs=context.flag("blobs"), fields=fields)
    return json_reply(document, headers={"X-Repo-Commit": commit.oid})


async def auth_check(context: HandlerContext, repo: HubRepo, write: bool) -> Reply:
    """Handle `HfApi.auth_check`."""
    check_readable(repo, context.user)
    if write:
        check_writable(repo.namespace, context.user)
    return json_reply({"ok": True})


async def refs(context: HandlerContext, repo: HubRepo) -> Reply:
    """Handle `HfApi.list_repo_refs`."""
    check_visible(repo, context.user)
    document: dict[str, list[dict[str, str]]] = {
        "branches": [_ref(name, "heads", commit) for name, commit in repo.branches.items()],
        "tags": [_ref(name, "tags", commit) for name, commit in repo.tags.items()],
        "converts": [],
    }
    if context.flag("include_prs"):
        document["pullRequests"] = []
    return json_reply(document)


async def commits(context: HandlerContext, repo: HubRepo, revision: str) -> Reply:
    """Handle `HfApi.list_repo_commits`, newest first."""
    check_visible(repo, context.user)
    return json_reply(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": "",
                "authors": [{"user": commit.author, "avatar": ""}],
                "date": format_date(commit.date),
            }
            for commit in repo.find(revision).history()
        ]
    )


async def tree(context: HandlerContext, repo: HubRepo, revision: str, path: str) -> Reply:
    """Handle `HfApi.list_repo_tree`, with pagination by the Link header."""
    check_visible(repo, context.user)
    commit = repo.find(revision)
    await compute_checksums(commit.entries.values())
    items = _tree_items(commit, path.strip("/"), recursive=context.flag("recursive"))
    if not items and path:
        raise entry_not_found(path)
    return page(context, items, headers={"X-Repo-Commit": commit.oid})


async def paths_info(context: HandlerContext, repo: HubRepo, revision: str) -> Reply:
    """Handle `HfApi.get_paths_info`; paths that don't exist are omitted."""
    check_visible(repo, context.user)
    commit = repo.find(revision)
    await compute_checksums(commit.entries.values())
    form = (await context.request.post()).getall("paths", [])
    items = {item["path"]: item for item in _tree_items(commit, "", recursive=True)}
    return json_reply([items[path] for path in map(str, form) if path in items])


def page(context: HandlerContext, items: list[dict[str, Any]], *, headers: dict[str, str]) -> Reply:
    """Return one page of `items`; the cursor is the index of its first item."""
    query = context.query
    try:
        at = int(query.get("cursor", ["0"])[-1])
        size = min(int(query.get("limit", [str(context.state.page_size)])[-1]), context.state.page_size)
    except ValueError as problem:
        raise HubError(400, "Invalid cursor or limit") from problem
    end = at + max(size, 1)
    if end < len(items):
        parameters = [(name, value) for name, values in query.items() for value in values if name != "cursor"]
        url = f"{context.state.url}{context.request.raw_path.partition('?')[0]}"
        link = f'<{url}?{urlencode([*parameters, ("cursor", str(end))])}>; rel="next"'
        headers = {**headers, "Link": link}
    return json_reply(items[at:end], headers=headers)


def describe(
    repo: HubRepo, commit: Commit, *, blobs: bool = False, fields: list[str] | None = None
) -> dict[str, Any]:
    """Return a model object of the API with all fields, or with `id` and the given `fields`."""
    card = repo.card(commit)
    document: dict[str, Any] = {
        "_id": hashlib.sha1(repo.name.encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.namespace,
        "sha": commit.oid,
        "createdAt": format_date(repo.created),
        "lastModified": format_date(repo.last_modified),
        "private": repo.private,
        "gated": ("auto" if repo.gated is True else repo.gated) or False,
        "disabled": repo.disabled,
        "downloads": repo.downloads,
        "likes": repo.likes,
        "tags": tags(repo, card),
        "cardData": card,
        "usedStorage": repo.used_storage,
        "siblings": [_sibling(entry, blobs=blobs) for entry in commit.entries.values()],
        "spaces": [],
    }
    if isinstance(card.get("library_name"), str):
        document["library_name"] = card["library_name"]
    if isinstance(card.get("pipeline_tag"), str):
        document["pipeline_tag"] = card["pipeline_tag"]
    config = repo.config(commit)
    document["config"] = {name: config[name] for name in ("architectures", "model_type") if name in config}
    if fields is None or "safetensors" in fields:
        parameters = repo.parameters(commit)
        if parameters:
            document["safetensors"] = {"parameters": parameters, "total": sum(parameters.values())}
    if fields is None:
        return document
    return {name: value for name, value in document.items() if name in {"_id", "id", *fields}}


def tags(repo: HubRepo, card: dict[str, Any]) -> list[str]:
    """Return a model's tags like the Hub: from the fields of the model card, and the given ones."""
    found: list[str] = []
    given = card.get("tags")
    if isinstance(card.get("library_name"), str):
        found.append(card["library_name"])
    found += [tag for tag in given if isinstance(tag, str)] if isinstance(given, list) else []
    found += repo.tags_given
    if isinstance(card.get("pipeline_tag"), str):
        found.append(card["pipeline_tag"])
    for name in ("base_model", "license"):
        values = card.get(name)
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, str):
                found.append(f"{name}:{value}")
    languages = card.get("language")
    found += [tag for tag in languages if isinstance(tag, str)] if isinstance(languages, list) else []
    if any(path.endswith(".safetensors") for path in repo.head.entries):
        found.append("safetensors")
    return [*dict.fromkeys([*found, "region:us"])]


def format_date(date: datetime) -> str:
    """Return a date in the format of the Hub's API."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.") + f"{date.microsecond // 1000:03}Z"


async def compute_checksums(entries: Iterable[HubTreeEntry]) -> None:
    """Compute missing checksums in a thread, at about a gigabyte per second."""
    pending = [entry for entry in entries if not entry.hashed]
    if pending:
        await asyncio.to_thread(lambda: [(entry.oid, entry.etag) for entry in pending])


def _ref(name: str, kind: str, commit: Commit) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit.oid}


def _sibling(entry: HubTreeEntry, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    found: dict[str, Any] = {"rfilename": entry.path, "size": entry.blob.size, "blobId": entry.oid}
    if entry.lfs:
        pointer = len(entry.blob.pointer)
        found["lfs"] = {"sha256": entry.blob.sha256, "size": entry.blob.size, "pointerSize": pointer}
    return found


def _tree_items(commit: Commit, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    items: dict[str, dict[str, Any]] = {}
    for path, entry in commit.entries.items():
        if not path.startswith(prefix):
            continue
        inner = path.removeprefix(prefix)
        for parent in reversed(PurePosixPath(inner).parents):
            name = prefix + parent.as_posix()
            if parent.name and name not in items and (recursive or "/" not in parent.as_posix()):
                oid = hashlib.sha1(f"{commit.oid} {name}".encode(), usedforsecurity=False).hexdigest()
                items[name] = {"type": "directory", "oid": oid, "size": 0, "path": name}
        if recursive or "/" not in inner:
            items[path] = _tree_file(entry)
    return list(items.values())


def _tree_file(entry: HubTreeEntry) -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": "file",
        "oid": entry.oid,
        "size": entry.blob.size,
        "path": entry.path,
    }
    if entry.lfs:
        size, pointer = entry.blob.size, len(entry.blob.pointer)
        item["lfs"] = {"oid": entry.blob.sha256, "size": size, "pointerSize": pointer}
    return item


def quote_path(*parts: str) -> str:
    """Return an absolute path of quoted parts."""
    return "/".join(("", *(quote(part) for part in parts)))
