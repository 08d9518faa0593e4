"""Cloning a model into a folder of the user's: from the cache; what is not there is pulled first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.clone.from_cache import clone_cached, usable_target
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
        cache: where the model is.
        spec: `NAME[@REV]`.
        target: the folder to make; its parents are made too.
        revision: branch, tag or commit, in place of `@REV`.
        check_health: refuse a model whose files are not sound.
        hub: where a model is pulled from that is not cached, or not sound; None stays with the cache.
        via_hub: let huggingface_hub move the bytes of that pull.
        on_event: receives progress, from a thread.

    Raises:
        OpError: `validation_error` for the target or a contradictory revision, `model_not_found`,
            `ambiguous_match`, `revision_not_found`, `clone_failed` (with `data`) when the model is
            not sound or changes meanwhile, `disk_full`, `permission_denied`; with a hub those of `pull`.
    """

    async def copy_cached(wanted: str, revision: str | None) -> CloneData:
        return await run_in_thread(
            lambda stop: clone_cached(
                cache,
                wanted,
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
        lambda: usable_target(cache, target),
        cache,
        spec,
        revision=revision,
        hub=hub,
        via_hub=via_hub,
        on_event=on_event,
    )
