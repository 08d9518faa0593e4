"""What is said of a request: glyph, words, times; whatever a client sent is made safe here."""

from __future__ import annotations

from datetime import datetime

from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.request_log import RequestEntry, RequestState
from mlxk_tui.ui.widgets.text import Part, sentence

_GONE = 499
_WORDS = {
    RequestState.WAITING: "waiting",
    RequestState.LOADING: "loading",
    RequestState.READING: "reading",
    RequestState.GENERATING: "writing",
}
_LONG = {
    RequestState.WAITING: "Waiting for its turn",
    RequestState.LOADING: "Its model is being loaded",
    RequestState.READING: "Its prompt is being read",
    RequestState.GENERATING: "The answer is being written",
}
_MEANINGS = {
    400: "the request is malformed",
    401: "the key is missing or wrong",
    403: "not allowed",
    404: "not found",
    405: "the route takes another method",
    408: "it came too slowly",
    413: "it is too large",
    422: "it cannot be processed",
    429: "the queue was full",
    499: "the client went away",
    500: "a fault of the server",
    503: "no engine to answer",
    504: "it took too long",
    507: "not enough memory",
}


def glyph(entry: RequestEntry) -> Part:
    """Return one cell that tells the state without colour, and its token."""
    if entry.live:
        return ("●", "accent") if entry.state is RequestState.GENERATING else ("·", "accent")
    status = entry.status or 0
    if status == _GONE:
        return "∅", "faint"
    if status >= 500 or (entry.error is not None and status < 400):
        return "✗", "bad"
    return ("▲", "attention") if status >= 400 else ("✓", "good")


def status_word(entry: RequestEntry) -> str:
    """Return the state in at most seven cells: a word while it is open, then the HTTP status."""
    if entry.live:
        return _WORDS.get(entry.state, "open")
    if entry.status == _GONE:
        return "gone"
    return "broke" if entry.error is not None and (entry.status or 0) < 400 else str(entry.status or "–")


def status_phrase(entry: RequestEntry) -> str:
    """Return the state in words."""
    if entry.live:
        return _LONG.get(entry.state, "Open")
    status = entry.status or 0
    if entry.error is not None and status < 400:
        return f"{status}, but the stream broke off"
    meaning = _MEANINGS.get(status)
    return f"{status}, {meaning}" if meaning else f"{status}, answered"


def clock_time(seconds: float, *, exact: bool = False) -> str:
    """Return a time of day of this machine; with its date where it must be exact."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S" if exact else "%H:%M:%S")


def seconds_text(seconds: float | None) -> str:
    """Return a duration in at most seven cells: `21 ms`, `0.21 s`, `12.3 s`, `4 min`."""
    if seconds is None:
        return ""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def rate_text(rate: float | None) -> str:
    """Return tokens per second in at most five cells."""
    if rate is None:
        return ""
    return f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"


def count_text(tokens: int) -> str:
    """Return a number of tokens in at most six cells; nothing for none."""
    if not tokens:
        return ""
    return f"{tokens:,}" if tokens < 100_000 else f"{tokens / 1000:,.0f}k"


def short_route(route: str) -> str:
    """Return a route without what all have, in a word where it is the common one."""
    short = printable(route).removeprefix("/v1/")
    return "chat" if short == "chat/completions" else short


def model_name(entry: RequestEntry) -> str:
    """Return the model's own name, safe to show; empty where none is known."""
    return printable((entry.model or "").rpartition("/")[2])


def error_text(entry: RequestEntry) -> str:
    """Return what went wrong as one safe line."""
    return sentence(entry.error or "")
