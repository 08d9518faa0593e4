"""Writes all output to stdout and stderr: always valid JSON, and no traceback on a closed pipe."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract, Envelope

EXIT_OUTPUT_FAILED = 1
EXIT_CLOSED_PIPE = 141
"""128 + SIGPIPE: the status that a shell reports for a program whose output pipe was closed."""

_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def wants_json(argv: Sequence[str]) -> bool:
    """Return whether `--json` appears anywhere before a `--`, even if the command line is not valid."""
    for argument in argv:
        if argument == "--":
            return False
        if argument == "--json" or argument.startswith("--json="):
            return True
    return False


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is open and a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def write(text: str) -> int:
    """Write to stdout; return 0, or the exit status if it could not be written."""
    stream: TextIO | None = sys.stdout  # None if the process was started with stdout closed
    if stream is None:
        return EXIT_OUTPUT_FAILED
    try:
        _write_all(stream, text)
    except BrokenPipeError:
        _redirect_to_null(stream)
        return EXIT_CLOSED_PIPE
    except (OSError, ValueError) as error:
        _redirect_to_null(stream)
        warn(f"The result could not be written: {getattr(error, 'strerror', None) or 'stdout is closed'}.")
        return EXIT_OUTPUT_FAILED
    return 0


def warn(text: str) -> None:
    """Write text to stderr with control characters escaped; a closed stderr is ignored."""
    from mlxk_tui.ops.core.text import printable  # not needed for `--version`

    write_error(printable(text, keep_newlines=True).rstrip("\n") + "\n")


def write_error(text: str) -> None:
    """Write text to stderr unchanged; a closed stderr is ignored."""
    stream: TextIO | None = sys.stderr
    if stream is None:
        return
    try:
        _write_all(stream, text)
    except (OSError, ValueError):
        _redirect_to_null(stream)


def _write_all(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    # Characters that the stream's encoding lacks are escaped.
    raw = text.encode(encoding, "backslashreplace")
    stream.flush()
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # not a real file (a test's buffer)
        stream.write(raw.decode(encoding))
        stream.flush()
        return
    left = memoryview(raw)
    while left:
        left = left[_write_some(descriptor, left) :]


def _write_some(descriptor: int, data: memoryview) -> int:
    """Write as much as the file accepts and return the number of bytes; wait while it accepts none."""
    try:
        return os.write(descriptor, data)
    except BlockingIOError:  # the parent process made the pipe non-blocking and reads slowly
        import select

        select.select((), (descriptor,), ())
        return 0


def _redirect_to_null(stream: TextIO) -> None:
    """Redirect the stream to the null device, so that the flush at exit does not raise."""
    try:
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
    except (OSError, ValueError):  # not a real file (a test's buffer)
        return


def to_json(value: object) -> str:
    r"""Return JSON in ASCII that every parser accepts.

    Python would write lone surrogates and NaN, which RFC 8259 does not allow. An undecodable byte becomes
    `\xff` in the text (as in the human-readable output), NaN and infinities become strings.
    """
    import json  # not needed for `--version`

    try:
        text = json.dumps(value, allow_nan=False)
        if "\\ud" not in text:  # neither an emoji (two surrogates) nor a lone one
            return text
    except ValueError:
        pass
    return json.dumps(_clean(value), allow_nan=False)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _LONE_SURROGATE.sub(_escape, value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _NOT_FINITE[str(value)]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def envelope_json(envelope: Envelope) -> str:
    """Return an envelope as the line of JSON that `--json` prints."""
    error: dict[str, object] | None = None
    if envelope.error is not None:
        error = envelope.error.model_dump(exclude_none=True)
    return to_json(
        {
            "status": envelope.status,
            "command": envelope.command,
            "data": _dump(envelope.data),
            "error": error,
        }
    )


def _dump(data: Contract | None) -> dict[str, object] | None:
    return None if data is None else data.model_dump()


def report_fatal(argv: Sequence[str], type_: str, message: str) -> int:
    """Report an error without pydantic or Rich, and return exit status 1."""
    if not wants_json(argv):
        write_error(f"Error: {message}\n")
        return 1
    error = {"type": type_, "message": message}
    return write(to_json({"status": "error", "command": "cli", "data": None, "error": error}) + "\n") or 1


def debug_traceback(error: BaseException) -> None:
    """Write the traceback to stderr if `MLXK_DEBUG=1` is set."""
    if os.environ.get("MLXK_DEBUG") == "1":
        import traceback

        warn("".join(traceback.format_exception(type(error), error, error.__traceback__)))
