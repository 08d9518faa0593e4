"""A request as text: glyph, status, times; everything that a client sent is made safe here."""

from __future__ import annotations

from datetime import datetime

from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.request_log import RequestEntry, RequestState
from mlxk_tui.ui.widgets.text import Part, sentence

_DISCONNECTED = 499
_LABELS = {
    RequestState.WAITING: "waiting",
    RequestState.LOADING: "loading",
    RequestState.READING: "prefill",
    RequestState.GENERATING: "decode",
}
_DESCRIPTIONS = {
    RequestState.WAITING: "Waiting in the queue",
    RequestState.LOADING: "Loading the model",
    RequestState.READING: "Processing the prompt",
    RequestState.GENERATING: "Generating the answer",
}
_MEANINGS = {
    400: "bad request",
    401: "missing or invalid API key",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    408: "request timeout",
    413: "request too large",
    422: "unprocessable request",
    429: "queue full",
    499: "client disconnected",
    500: "server error",
    503: "engine unavailable",
    504: "timeout",
    507: "not enough memory",
}


def glyph(entry: RequestEntry) -> Part:
    """Return a one-cell glyph for the state, which needs no color, and its token."""
    if entry.live:
        return ("●", "accent") if entry.state is RequestState.GENERATING else ("·", "accent")
    status = entry.status or 0
    if status == _DISCONNECTED:
        return "∅", "faint"
    if status >= 500 or (entry.error is not None and status < 400):
        return "✗", "bad"
    return ("▲", "attention") if status >= 400 else ("✓", "good")


def status_label(entry: RequestEntry, width: int) -> str:
    """Return the state of an open request, else its HTTP status, in at most `width` (7 or more) cells."""
    if entry.live:
        return _LABELS.get(entry.state, "open")
    if entry.status == _DISCONNECTED and width >= len("disconnected"):
        return "disconnected"
    return "aborted" if entry.error is not None and (entry.status or 0) < 400 else str(entry.status or "–")


def status_description(entry: RequestEntry) -> str:
    """Return the state in full, such as `404, not found`."""
    if entry.live:
        return _DESCRIPTIONS.get(entry.state, "Open")
    status = entry.status or 0
    if entry.error is not None and status < 400:
        return f"{status}, stream aborted"
    meaning = _MEANINGS.get(status)
    return f"{status}, {meaning}" if meaning else f"{status}, OK"


def clock_time(seconds: float, *, exact: bool = False) -> str:
    """Return a local time of day; with `exact`, with its date."""
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
    """Return a number of tokens in at most six cells; empty for 0."""
    if not tokens:
        return ""
    return f"{tokens:,}" if tokens < 100_000 else f"{tokens / 1000:,.0f}k"


def short_route(route: str) -> str:
    """Return a route without `/v1/`; `chat` for `chat/completions`."""
    short = printable(route).removeprefix("/v1/")
    return "chat" if short == "chat/completions" else short


def model_name(entry: RequestEntry) -> str:
    """Return the model's name without its organization, safe to show; empty if unknown."""
    return printable((entry.model or "").rpartition("/")[2])


def error_text(entry: RequestEntry) -> str:
    """Return the error as one line, safe to show; empty for none."""
    return sentence(entry.error or "")
