"""Formats sizes and ages, and escapes untrusted text for display."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import overload

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\xad\u061c\u180e\u200b\u200e\u200f"  # invisible and bidirectional controls
    "\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"  # tags: invisible text
    "\ud800-\udfff]"  # lone surrogates: undecodable bytes after os.fsdecode
)
_BREAKS = re.compile("[\t\n]")


def printable(text: str, *, keep_newlines: bool = False) -> str:
    r"""Return `text` with everything that could control a terminal escaped.

    Control characters (ESC, BEL, C1), bidirectional overrides and invisible characters become
    `\x1b` or `\u202e`; a byte that was not UTF-8 becomes `\xff`. Tabs and newlines are escaped
    too unless `keep_newlines` is set.
    """
    if text.isascii() and text.isprintable():  # nearly every name; three times as fast
        return text
    safe = _UNSAFE.sub(_escape, text)
    return safe if keep_newlines else _BREAKS.sub(_escape, safe)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape of os.fsdecode: show the original byte
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_UNITS = ("KB", "MB", "GB", "TB", "PB", "EB")


def format_size(n: int | None) -> str:
    """Return `n` bytes in decimal units with three significant digits: `1.81 GB`. None becomes `-`."""
    if n is None:
        return "-"
    if n < 1000:
        return f"{n} B"
    value = float(n)
    for unit in _UNITS:
        value /= 1000
        # 999.5 would round up to four digits: that is the next unit's 1.00.
        if value < 999.5 or unit == _UNITS[-1]:
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def compact_size(n: int | None) -> str:
    """Return `n` bytes as in the JSON of MLX-Knife, without a space: `1.81GB`."""
    return format_size(n).replace(" ", "")


def age(iso: str | None, now: datetime | None = None) -> str:
    """Return the age of an ISO 8601 UTC time, such as `3m ago`, or its date after 30 days."""
    if not iso:
        return "-"
    try:
        then = datetime.strptime(iso, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return printable(iso)
    seconds = ((now or datetime.now(timezone.utc)) - then).total_seconds()
    if seconds < 45:
        return "just now"
    for limit, unit, suffix in ((3600, 60, "m"), (86400, 3600, "h"), (30 * 86400, 86400, "d")):
        if seconds < limit:
            return f"{max(1, int(seconds // unit))}{suffix} ago"
    return then.strftime("%Y-%m-%d")


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FIRST_SECOND = datetime.min.replace(tzinfo=timezone.utc).timestamp()
_LAST_SECOND = datetime.max.replace(tzinfo=timezone.utc, microsecond=0).timestamp()


@overload
def iso_utc(epoch: float) -> str: ...


@overload
def iso_utc(epoch: None) -> None: ...


def iso_utc(epoch: float | None) -> str | None:
    """Return an epoch time in seconds as ISO 8601 in UTC, ending in Z.

    Times outside the years 1 to 9999 become the nearest time that the calendar has.
    """
    if epoch is None:
        return None
    moment = _EPOCH + timedelta(seconds=int(min(max(epoch, _FIRST_SECOND), _LAST_SECOND)))
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def truncate_middle(text: str, width: int) -> str:
    """Return `text` shortened to `width` characters with an ellipsis in the middle."""
    if len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    tail = (width - 1) * 2 // 3  # keep more of the end, where variants of a name differ
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def unmentioned_path(message: str, path: str | None) -> str | None:
    """Return the path of a finding, escaped; None when its message already names the path."""
    if not path:
        return None
    return None if printable(path) in printable(message) else printable(path)


def plural(count: int, noun: str) -> str:
    """Return the count with the noun in its number: `1 file`, `3 files`, `1,204 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
