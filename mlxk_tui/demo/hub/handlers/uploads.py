"""What clients send: repos, branches, files through LFS or inline, and the commits that name them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
import secrets
from datetime import datetime, timezone
from typing import Any

import yaml

from mlxk_tui.demo.hub.blobs import BytesBlob, PathBlob
from mlxk_tui.demo.hub.context import HandlerContext
from mlxk_tui.demo.hub.handlers import xet
from mlxk_tui.demo.hub.handlers.models import hash_all
from mlxk_tui.demo.hub.replies import HubError, Reply, json_reply, no_revision, not_found
from mlxk_tui.demo.hub.store.repos import HubRepo, HubTreeEntry, front_matter
from mlxk_tui.demo.hub.store.users import check_readable, check_visible, check_writable

_NAME = re.compile(r"[\w.-]{1,96}")
_NO_OBJECT = "Your push was rejected because an LFS pointer pointed to a file that does not exist"
_SHA256 = re.compile(r"[0-9a-f]{64}")


async def validate_yaml(context: HandlerContext) -> Reply:
    """Answer the check of README.md that `HfApi.create_commit` makes before it hashes anything."""
    content = (await context.json()).get("content", "")
    try:
        document = front_matter(str(content).replace("\r\n", "\n"))
    except yaml.YAMLError as problem:
        message = f"Invalid YAML: {str(problem).splitlines()[0]}"
        return json_reply({"errors": [{"message": message}], "warnings": []}, 400)
    warnings = [] if document else [{"message": "empty or missing yaml metadata in repo card"}]
    return json_reply({"errors": [], "warnings": warnings})


async def create_repo(context: HandlerContext) -> Reply:
    """Answer `HfApi.create_repo`; the 409 of one that exists carries the `url` that `exist_ok` needs."""
    body = await context.json()
    user = context.user
    if user is None:
        raise HubError(401, "Invalid username or password.")
    namespace = body.get("organization") or user.name
    check_writable(namespace, user)
    if body.get("type") not in {None, "model"} or not _NAME.fullmatch(str(body.get("name"))):
        raise HubError(400, "Invalid repo name or type")
    name = f"{namespace}/{body['name']}"
    url = f"{context.state.url}/{name}"
    if name in context.state.repos:
        message = "You already created this model repo"
        error = HubError(409, message, url=url, name=name)
        raise error
    repo = HubRepo(name, private=body.get("visibility") == "private" or body.get("private") is True)
    repo.add_commit({}, title="initial commit", author=user.name)
    context.state.repos[name] = repo
    return json_reply({"url": url, "name": name, "id": secrets.token_hex(12)})


async def delete_repo(context: HandlerContext) -> Reply:
    """Answer `HfApi.delete_repo`."""
    body = await context.json()
    name = f"{body.get('organization') or (context.user.name if context.user else '')}/{body.get('name')}"
    if name not in context.state.repos:
        raise not_found(known=context.user is not None)
    check_writable(name.partition("/")[0], context.user)
    del context.state.repos[name]
    return json_reply({})


async def settings(context: HandlerContext, repo: HubRepo) -> Reply:
    """Answer `HfApi.update_repo_settings`."""
    _may_write(context, repo)
    body = await context.json()
    if "visibility" in body or "private" in body:
        repo.private = body.get("visibility") == "private" or body.get("private") is True
    if "gated" in body:
        repo.gated = body["gated"]
    return json_reply({"private": repo.private, "gated": repo.gated})


async def create_branch(context: HandlerContext, repo: HubRepo, branch: str) -> Reply:
    """Answer `HfApi.create_branch`."""
    _may_write(context, repo)
    if branch in repo.branches:
        raise HubError(409, f"Reference already exists: refs/heads/{branch}")
    repo.branches[branch] = repo.find((await context.json()).get("startingPoint") or "main")
    return json_reply({}, 201)


async def delete_branch(context: HandlerContext, repo: HubRepo, branch: str) -> Reply:
    """Answer `HfApi.delete_branch`."""
    _may_write(context, repo)
    if branch == "main":
        raise HubError(403, "The default branch cannot be deleted")
    if repo.branches.pop(branch, None) is None:
        raise no_revision(branch)
    return json_reply({})


async def create_tag(context: HandlerContext, repo: HubRepo, revision: str) -> Reply:
    """Answer `HfApi.create_tag`."""
    _may_write(context, repo)
    tag = str((await context.json()).get("tag", ""))
    if tag in repo.tags:
        raise HubError(409, f"Tag reference exists already: {tag}")
    repo.tags[tag] = repo.find(revision)
    return json_reply({}, 201)


async def preupload(context: HandlerContext, repo: HubRepo, revision: str) -> Reply:
    """Say for each file how it is to be sent, and what the revision has under its name.

    Without the right `oid` the client never sees that nothing changed, and it asks for `shouldIgnore`
    by subscript (huggingface_hub 2.4, `_fetch_upload_modes`). The oid is the sha256 of what is in LFS.
    """
    _may_write(context, repo)
    body = await context.json()
    head = repo.find(revision)
    await hash_all(head.entries.values())
    files: list[dict[str, Any]] = []
    for item in body.get("files", []):
        try:
            path, size = str(item["path"]), int(item["size"])
            sample = base64.b64decode(item.get("sample", ""))
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise HubError(400, "Invalid preupload payload") from problem
        present = head.entries.get(path)
        mode = "lfs" if repo.in_lfs(path, size, sample) else "regular"
        known = {"oid": present.etag} if present is not None else {}
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    return json_reply({"files": files, "commitOid": head.oid})


async def lfs(context: HandlerContext, name: str, parts: list[str]) -> Reply:
    """Answer Git LFS requests: which objects are missing and where to put them, and the check after."""
    repo = context.repo(name)
    _may_write(context, repo)
    body = await context.json()
    match parts:
        case ["objects", "batch"]:
            known = _in_lfs(context, repo)
            objects = [_instruct(context, repo, item, known=known) for item in body.get("objects", [])]
            multipart = any("chunk_size" in item.get("actions", {}).get("upload", {}).get("header", {})
                            for item in objects)  # fmt: skip
            document = {"transfer": "multipart" if multipart else "basic", "objects": objects}
            return json_reply(document, headers={"Content-Type": "application/vnd.git-lfs+json"})
        case ["verify"]:
            blob = context.state.lfs.get(str(body.get("oid")))
            if blob is None or blob.size != body.get("size"):
                raise HubError(404, "Object does not exist on the server or has another size")
            return json_reply({})
    raise HubError(404, "Not found")


async def put(context: HandlerContext) -> Reply:
    """Take an object, or a part of one, at the signed address that the batch answer gave."""
    match context.segments:
        case ["upload", sha256, part] if _SHA256.fullmatch(sha256) and part.isdigit():
            pass
        case _:
            raise HubError(404, "Not found")
    if context.record.authorization:
        raise HubError(400, "Only one auth mechanism allowed; the link is signed, leave Authorization out.")
    if context.query.get("Signature") != [context.state.sign("upload", sha256, part)]:
        raise HubError(403, "The signature does not match or has expired.")
    digest = hashlib.sha256()
    target = context.state.uploads / f"{sha256}.{part}"
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    with partial.open("wb") as file:
        async for chunk in context.chunks():
            digest.update(chunk)
            file.write(chunk)
    partial.replace(target)
    if part == "0":
        if digest.hexdigest() != sha256:
            target.unlink()
            raise HubError(400, "The bytes do not have the checksum that the address names.")
        context.state.lfs[sha256] = PathBlob(target, sha256=sha256)
    return Reply(200, {"ETag": f'"{digest.hexdigest()}"'})


async def complete(context: HandlerContext) -> Reply:
    """Put the parts of an object together, once all of them are there."""
    sha256 = context.segments[1]
    if context.query.get("Signature") != [context.state.sign("complete", sha256)]:
        raise HubError(403, "The signature does not match or has expired.")
    parts = (await context.json()).get("parts", [])
    target = context.state.uploads / f"{sha256}.0"
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for number in sorted(int(part["partNumber"]) for part in parts):
            piece = context.state.uploads / f"{sha256}.{number}"
            if not piece.exists():
                raise HubError(400, f"Part {number} was not uploaded")
            data = piece.read_bytes()
            digest.update(data)
            file.write(data)
            piece.unlink()
    if digest.hexdigest() != sha256:
        target.unlink()
        raise HubError(400, "The parts together do not have the checksum that the address names.")
    context.state.lfs[sha256] = PathBlob(target, sha256=sha256)
    return json_reply({"success": True})


async def commit(context: HandlerContext, repo: HubRepo, revision: str) -> Reply:
    """Answer the commit: a line of JSON for the header and for each file (newline-delimited)."""
    user = _may_write(context, repo)
    if revision not in repo.branches:
        raise no_revision(revision)
    head = repo.branches[revision]
    known = _in_lfs(context, repo)
    changes: dict[str, HubTreeEntry | None] = {}
    title = "Update"
    for line in (await context.body()).splitlines():
        if not line.strip():
            continue
        try:
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                title = str(value.get("summary") or title)
                parent = value.get("parentCommit")
                if parent is not None and parent != head.oid:
                    raise HubError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                data = base64.b64decode(value["content"], validate=True)
                changes[value["path"]] = HubTreeEntry(value["path"], BytesBlob(data), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in known:
                    await _take_from_xet(context, value["oid"], known)
                if value["oid"] not in known:
                    raise HubError(400, f"{_NO_OBJECT}: {value['path']}")
                changes[value["path"]] = HubTreeEntry(value["path"], known[value["oid"]], lfs=True)
            elif key in {"deletedFile", "deletedFolder"}:
                gone = _deleted(value["path"], [*head.entries], folder=key == "deletedFolder")
                changes.update(dict.fromkeys(gone))
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as problem:
            raise HubError(400, "Invalid commit payload") from problem
    created = repo.add_commit(
        changes, branch=revision, title=title, author=user.name, date=datetime.now(timezone.utc)
    )
    url = f"{context.state.url}/{repo.name}/commit/{created.oid}"
    document = {"success": True, "commitOid": created.oid, "commitUrl": url, "hookOutput": ""}
    if context.flag("create_pr"):
        document["pullRequestUrl"] = f"{context.state.url}/{repo.name}/discussions/1"
    return json_reply(document)


def _may_write(context: HandlerContext, repo: HubRepo) -> Any:
    check_visible(repo, context.user)
    if context.user is not None:
        check_readable(repo, context.user)
    return check_writable(repo.namespace, context.user)


def _in_lfs(context: HandlerContext, repo: HubRepo) -> dict[str, Any]:
    """Return the LFS objects that a commit to the repo may name."""
    known: dict[str, Any] = dict(context.state.lfs)
    for revision in list(repo.commits.values()):
        for entry in revision.entries.values():
            if entry.lfs:
                known[entry.blob.sha256] = entry.blob
    return known


async def _take_from_xet(context: HandlerContext, oid: str, known: dict[str, Any]) -> None:
    """Look for an object among what came by Xet."""
    if not _SHA256.fullmatch(oid):
        return
    folder = context.state.uploads
    blob = await asyncio.to_thread(xet.fetch, folder / "xet", oid, folder / f"{oid}.0")
    if blob is not None:
        known[oid] = context.state.lfs[oid] = blob


def _instruct(
    context: HandlerContext, repo: HubRepo, item: dict[str, Any], *, known: dict[str, Any]
) -> dict[str, Any]:
    """Say where an object is to be put; nothing when it is there already."""
    oid, size = str(item.get("oid")), int(item.get("size", 0))
    if not _SHA256.fullmatch(oid):
        return {"oid": oid, "size": size, "error": {"code": 422, "message": "Invalid oid"}}
    if oid in known:
        return {"oid": oid, "size": size}
    state = context.state

    def part(number: int) -> str:
        return f"{state.cdn_url}/upload/{oid}/{number}?Signature={state.sign('upload', oid, str(number))}"

    verify = {"href": f"{state.url}/{repo.name}.git/info/lfs/verify", "header": {}}
    if size <= state.multipart_over:
        return {"oid": oid, "size": size, "actions": {"upload": {"href": part(0)}, "verify": verify}}
    count = -(-size // state.part_size)
    header = {"chunk_size": str(state.part_size), **{f"{n:05}": part(n) for n in range(1, count + 1)}}
    href = f"{state.cdn_url}/complete/{oid}?Signature={state.sign('complete', oid)}"
    upload = {"href": href, "header": header}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


def _deleted(path: str, paths: list[str], *, folder: bool) -> list[str]:
    if folder:
        gone = [name for name in paths if name.startswith(f"{path.rstrip('/')}/")]
    else:
        gone = [path] if path in paths else []
    if not gone:
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
    return gone
