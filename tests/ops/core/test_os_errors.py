"""Error numbers, `Retry-After` headers and loopback addresses."""

from __future__ import annotations

import errno
import os
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.client import HTTPMessage

import pytest

from mlxk_tui.ops.core.addresses import is_loopback
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.os_errors import error_reason, error_type
from mlxk_tui.ops.core.retry_after import retry_after


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, ErrorType.DISK_FULL),
        (errno.EDQUOT, ErrorType.DISK_FULL),
        (errno.EACCES, ErrorType.PERMISSION_DENIED),
        (errno.EPERM, ErrorType.PERMISSION_DENIED),
        (errno.EROFS, ErrorType.PERMISSION_DENIED),
        (errno.EADDRINUSE, ErrorType.PORT_IN_USE),
        (errno.EIO, None),
    ],
)
def test_every_errno_has_an_error_type(number: int, kind: ErrorType | None) -> None:
    error = OSError(number, os.strerror(number), "/a/path")
    assert error_type(error) is kind
    assert error_reason(error) == os.strerror(number)


def test_error_without_errno_has_a_reason() -> None:
    assert error_type(OSError("lost")) is None
    assert error_reason(OSError("lost")) == "input/output error"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1.5", None),
        ("soon", None),
        ("-3", None),
        ("٣", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_in_seconds_is_a_whole_number(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}) == seconds


def test_retry_after_as_a_date_is_relative_to_now() -> None:
    headers = HTTPMessage()
    assert retry_after(headers) is None
    headers["retry-after"] = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)
    seconds = retry_after(headers)
    assert seconds is not None
    assert 3000 < seconds <= 3600
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 -0000"}) == 0.0


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("localhost", None),
        ("127.0.0.1.example.com", None),
        ("", None),
    ],
)
def test_loopback_is_known_only_for_ip_addresses(host: str, answer: bool | None) -> None:
    assert is_loopback(host) is answer
