"""Clones a model from the cache into a folder; a missing or broken model is pulled first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.clone.from_cache import clone_cached, resolve_target
from mlxk_tui.ops.contract.results import CloneData
from mlxk_tui.ops.core.background import run_in_thread
from mlxk_tui.ops.core.events import OnEvent, ignore_event

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


async def clone(
    cache: Cache,
    spec: str,
    target: Path,
    *,
    revision: str | None = None,
    check_health: bool = True,
    hub: Hub | None = None,
    via_hub: bool = False,
    on_event: OnEvent = ignore_event,
) -> CloneData:
    """Copy a model into a folder that does not exist yet or is empty.

    Args:
        cache: the cache with the model.
        spec: `NAME[@REV]`.
        target: the folder to create; missing parents are created too.
        revision: branch, tag or commit, instead of `@REV`.
        check_health: refuse a broken model.
        hub: the hub to pull a missing or broken model from; None uses only the cache.
        via_hub: let huggingface_hub transfer the files of that pull.
        on_event: receives progress, in a thread.

    Raises:
        OpError: `validation_error` for the target or contradictory revisions, `model_not_found`,
            `ambiguous_match`, `revision_not_found`, `clone_failed` (with `data`) if the model is broken or
            changes meanwhile, `disk_full`, `permission_denied`; with a hub the errors of `pull`.
    """

    async def copy_cached(cached_spec: str, revision: str | None) -> CloneData:
        return await run_in_thread(
            lambda stop: clone_cached(
                cache,
                cached_spec,
                target,
                revision=revision,
                check_health=check_health,
                stop=stop,
                on_event=on_event,
            )
        )

    if hub is None:
        return await copy_cached(spec, revision)
    from mlxk_tui.ops.clone.from_hub import clone_or_pull

    return await clone_or_pull(
        copy_cached,
        lambda: resolve_target(cache, target),
        cache,
        spec,
        revision=revision,
        hub=hub,
        via_hub=via_hub,
        on_event=on_event,
    )
