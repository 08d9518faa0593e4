"""Uploads: creating repos, branches and tags, LFS and inline files, and commits."""

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
from mlxk_tui.demo.hub.handlers.models import compute_checksums
from mlxk_tui.demo.hub.replies import HubError, Reply, json_reply, repo_not_found, revision_not_found
from mlxk_tui.demo.hub.store.repos import HubRepo, HubTreeEntry, front_matter
from mlxk_tui.demo.hub.store.users import check_readable, check_visible, check_writable

_NAME = re.compile(r"[\w.-]{1,96}")
_MISSING_OBJECT = "Your push was rejected because an LFS pointer pointed to a file that does not exist"
_SHA256 = re.compile(r"[0-9a-f]{64}")


async def validate_yaml(context: HandlerContext) -> Reply:
    """Handle the validation of README.md that `HfApi.create_commit` requests before hashing files."""
    content = (await context.json()).get("content", "")
    try:
        document = front_matter(str(content).replace("\r\n", "\n"))
    except yaml.YAMLError as problem:
        message = f"Invalid YAML: {str(problem).splitlines()[0]}"
        return json_reply({"errors": [{"message": message}], "warnings": []}, 400)
    warnings = [] if document else [{"message": "empty or missing yaml metadata in repo card"}]
    return json_reply({"errors": [], "warnings": warnings})


async def create_repo(context: HandlerContext) -> Reply:
    """Handle `HfApi.create_repo`; the 409 for an existing repo has the `url` that `exist_ok` needs."""
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
    """Handle `HfApi.delete_repo`."""
    body = await context.json()
    name = f"{body.get('organization') or (context.user.name if context.user else '')}/{body.get('name')}"
    if name not in context.state.repos:
        raise repo_not_found(authenticated=context.user is not None)
    check_writable(name.partition("/")[0], context.user)
    del context.state.repos[name]
    return json_reply({})


async def settings(context: HandlerContext, repo: HubRepo) -> Reply:
    """Handle `HfApi.update_repo_settings`."""
    _check_writable(context, repo)
    body = await context.json()
    if "visibility" in body or "private" in body:
        repo.private = body.get("visibility") == "private" or body.get("private") is True
    if "gated" in body:
        repo.gated = body["gated"]
    return json_reply({"private": repo.private, "gated": repo.gated})


async def create_branch(context: HandlerContext, repo: HubRepo, branch: str) -> Reply:
    """Handle `HfApi.create_branch`."""
    _check_writable(context, repo)
    if branch in repo.branches:
        raise HubError(409, f"Reference already exists: refs/heads/{branch}")
    repo.branches[branch] = repo.find((await context.json()).get("startingPoint") or "main")
    return json_reply({}, 201)


async def delete_branch(context: HandlerContext, repo: HubRepo, branch: str) -> Reply:
    """Handle `HfApi.delete_branch`."""
    _check_writable(context, repo)
    if branch == "main":
        raise HubError(403, "The default branch cannot be deleted")
    if repo.branches.pop(branch, None) is None:
        raise revision_not_found(branch)
    return json_reply({})


async def create_tag(context: HandlerContext, repo: HubRepo, revision: str) -> Reply:
    """Handle `HfApi.create_tag`."""
    _check_writable(context, repo)
    tag = str((await context.json()).get("tag", ""))
    if tag in repo.tags:
        raise HubError(409, f"Tag reference exists already: {tag}")
    repo.tags[tag] = repo.find(revision)
    return json_reply({}, 201)


async def preupload(context: HandlerContext, repo: HubRepo, revision: str) -> Reply:
    """Return the upload mode of each file, and the `oid` of the current file with its name.

    The client (huggingface_hub 2.4, `_fetch_upload_modes`) detects unchanged files by `oid`, which is the
    SHA-256 for LFS files, and requires `shouldIgnore`.
    """
    _check_writable(context, repo)
    body = await context.json()
    head = repo.find(revision)
    await compute_checksums(head.entries.values())
    files: list[dict[str, Any]] = []
    for item in body.get("files", []):
        try:
            path, size = str(item["path"]), int(item["size"])
            sample = base64.b64decode(item.get("sample", ""))
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise HubError(400, "Invalid preupload payload") from problem
        current = head.entries.get(path)
        mode = "lfs" if repo.in_lfs(path, size, sample) else "regular"
        oid = {"oid": current.etag} if current is not None else {}
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
    return json_reply({"files": files, "commitOid": head.oid})


async def lfs(context: HandlerContext, name: str, parts: list[str]) -> Reply:
    """Handle the Git LFS batch API and the verification of an upload.

    See https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md.
    """
    repo = context.repo(name)
    _check_writable(context, repo)
    body = await context.json()
    match parts:
        case ["objects", "batch"]:
            known = _in_lfs(context, repo)
            objects = [_batch_object(context, repo, item, known=known) for item in body.get("objects", [])]
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
    """Receive an object or a part of one, at the signed URL of the batch response."""
    match context.segments:
        case ["upload", sha256, part] if _SHA256.fullmatch(sha256) and part.isdigit():
            pass
        case _:
            raise HubError(404, "Not found")
    if context.record.authorization:
        raise HubError(400, "Only one auth mechanism allowed; the URL is signed, remove Authorization.")
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
            raise HubError(400, "The content does not match the checksum in the URL.")
        context.state.lfs[sha256] = PathBlob(target, sha256=sha256)
    return Reply(200, {"ETag": f'"{digest.hexdigest()}"'})


async def complete(context: HandlerContext) -> Reply:
    """Join the parts of an object, after all of them were uploaded."""
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
        raise HubError(400, "The joined parts do not match the checksum in the URL.")
    context.state.lfs[sha256] = PathBlob(target, sha256=sha256)
    return json_reply({"success": True})


async def commit(context: HandlerContext, repo: HubRepo, revision: str) -> Reply:
    """Handle a commit: newline-delimited JSON with a header and an operation per file."""
    user = _check_writable(context, repo)
    if revision not in repo.branches:
        raise revision_not_found(revision)
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
                    await _find_in_xet(context, value["oid"], known)
                if value["oid"] not in known:
                    raise HubError(400, f"{_MISSING_OBJECT}: {value['path']}")
                changes[value["path"]] = HubTreeEntry(value["path"], known[value["oid"]], lfs=True)
            elif key in {"deletedFile", "deletedFolder"}:
                deleted = _deleted_paths(value["path"], [*head.entries], folder=key == "deletedFolder")
                changes.update(dict.fromkeys(deleted))
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


def _check_writable(context: HandlerContext, repo: HubRepo) -> Any:
    check_visible(repo, context.user)
    if context.user is not None:
        check_readable(repo, context.user)
    return check_writable(repo.namespace, context.user)


def _in_lfs(context: HandlerContext, repo: HubRepo) -> dict[str, Any]:
    """Return the LFS objects that a commit to the repo can refer to."""
    known: dict[str, Any] = dict(context.state.lfs)
    for revision in list(repo.commits.values()):
        for entry in revision.entries.values():
            if entry.lfs:
                known[entry.blob.sha256] = entry.blob
    return known


async def _find_in_xet(context: HandlerContext, oid: str, known: dict[str, Any]) -> None:
    """Add an object that was uploaded with Xet to the known objects."""
    if not _SHA256.fullmatch(oid):
        return
    folder = context.state.uploads
    blob = await asyncio.to_thread(xet.fetch, folder / "xet", oid, folder / f"{oid}.0")
    if blob is not None:
        known[oid] = context.state.lfs[oid] = blob


def _batch_object(
    context: HandlerContext, repo: HubRepo, item: dict[str, Any], *, known: dict[str, Any]
) -> dict[str, Any]:
    """Return an object of the batch response, with upload URLs if it is missing."""
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


def _deleted_paths(path: str, paths: list[str], *, folder: bool) -> list[str]:
    if folder:
        deleted = [name for name in paths if name.startswith(f"{path.rstrip('/')}/")]
    else:
        deleted = [path] if path in paths else []
    if not deleted:
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
    return deleted
