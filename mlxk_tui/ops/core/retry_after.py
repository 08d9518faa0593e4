"""`Retry-After`, the header by which a server requests a pause (RFC 9110, section 10.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from http.client import HTTPMessage

HEADER = "Retry-After"
_MAX_DIGITS = 18


def retry_after(headers: Mapping[str, str] | HTTPMessage) -> float | None:
    """Return the seconds to wait by `Retry-After`; None if it is missing or malformed.

    Args:
        headers: a mapping with case-insensitive names, as HTTP libraries provide.
    """
    text = (headers.get(HEADER) or "").strip()
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return float(text)
    from email.utils import parsedate_to_datetime  # costs 5 ms; dates are rare

    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
