"""Human-readable output of `share` once it listens, and of `lock`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from mlxk_tui.ops.contract.sharing import LockData, NotSharedReason, ShareData
from mlxk_tui.ops.core.text import format_size, plural, printable

_REASONS = {
    NotSharedReason.UNHEALTHY: "incomplete or broken",
    NotSharedReason.RESTRICTED: "gated or private; --model shares it all the same",
    NotSharedReason.UNKNOWN_ACCESS: "not known to be public; pull it again to record this, or use --model",
    NotSharedReason.NOT_NAMED: "not named",
}
_MAX_NAMES = 5


def share_lines(data: ShareData) -> list[RenderableType]:
    """Return the lines with the address, the shared models, and why others are not shared."""
    lines: list[RenderableType] = [
        Text(f"Sharing {plural(len(data.models), 'model')} on {printable(data.url)}").append(
            "   Ctrl-C to stop", style="dim"
        ),
        Text(f"  clients   HF_ENDPOINT={printable(data.endpoint)}" + " HF_TOKEN=KEY" * data.needs_key),
    ]
    for reason in NotSharedReason:
        names = [printable(model.name) for model in data.not_shared if model.reason is reason]
        if names:
            more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
            shown = ", ".join(names[:_MAX_NAMES])
            lines.append(Text(f"  not shared ({_REASONS[reason]}): {shown}{more}"))
    return lines


def lock_lines(data: LockData) -> Iterator[RenderableType]:
    """Yield the locked models, or the differences."""
    for model in () if data.checked else data.models:
        count = plural(model.files_count, "file")
        yield Text(f"{printable(model.name)}  {model.commit[:12]}  {count}, {format_size(model.bytes_total)}")
    for difference in data.differences:
        yield Text(f"{printable(difference.model)}: {printable(difference.message)}")
    if data.checked:
        yield Text(printable(data.message))
    else:
        yield Text(f"{printable(data.message)} → {printable(data.path)}")
