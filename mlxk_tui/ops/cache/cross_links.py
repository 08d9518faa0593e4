"""Finds links from one repo into another, which deduplication tools create.

huggingface_hub itself links a blob only into the shared store. A link into another repo's folder works
until that repo is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.names import PREFIX
from mlxk_tui.ops.core.errors import OpError

_MAX_DEPTH = 8

CrossLinks = dict[str, dict[str, set[str]]]
"""Repo folder -> path inside it that is a link target -> names of the repos with such links."""


def find_cross_links(cache: Cache) -> CrossLinks:
    """Return the files of each repo that other repos link to; reads all links of the cache once."""
    found: CrossLinks = {}
    root = os.path.join(os.path.realpath(cache.root), "")
    try:
        refs = cache.repos()
    except OpError:
        return found
    for ref in refs:
        for path in _links(ref.folder, 0):
            try:
                if PREFIX not in os.readlink(path):  # normal links stay inside their repo
                    continue
                target = os.path.realpath(path, strict=True)
            except OSError:
                continue
            if not target.startswith(root):
                continue
            owner, _, inner = target[len(root) :].partition("/")
            if owner.startswith(PREFIX) and owner != ref.folder_name:
                found.setdefault(owner, {}).setdefault(inner, set()).add(ref.name)
    return found


def _links(folder: str, depth: int) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield entry.path
                elif depth < _MAX_DEPTH and entry.is_dir(follow_symlinks=False):
                    yield from _links(entry.path, depth + 1)
    except OSError:
        return
