"""Formatting of text, and escaping of untrusted text."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from mlxk_tui.ops.core.text import age, compact_size, format_size, plural, printable, truncate_middle


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain-Name_1.0", "plain-Name_1.0"),
        ("日本語 é 👍🏽", "日本語 é 👍🏽"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\tb\nc", "a\\x09b\\x0ac"),
        ("\x9b31m", "\\x9b31m"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("a\u202eb\u061cc\xadd", "a\\u202eb\\u061cc\\xadd"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_newlines_are_kept_on_request() -> None:
    assert printable("a\n\tb\x1b", keep_newlines=True) == "a\n\tb\\x1b"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 KB"),
        (9_994, "9.99 KB"),
        (9_996, "10.0 KB"),
        (99_960, "100 KB"),
        (999_499, "999 KB"),
        (999_600, "1.00 MB"),
        (2_284_000_000, "2.28 GB"),
        (10**18, "1.00 EB"),
        (10**22, "10000 EB"),
    ],
)
def test_sizes_have_three_significant_digits(count: int | None, shown: str) -> None:
    assert format_size(count) == shown
    assert compact_size(count) == shown.replace(" ", "")


@pytest.mark.parametrize(
    ("iso", "shown"),
    [
        (None, "-"),
        ("2026-01-31T11:59:30Z", "just now"),
        ("2026-01-31T11:57:00Z", "3m ago"),
        ("2026-01-31T07:00:00Z", "5h ago"),
        ("2026-01-20T12:00:00Z", "11d ago"),
        ("2025-08-30T12:00:00Z", "2025-08-30"),
        ("2027-01-01T00:00:00Z", "just now"),
        ("nonsense\x1b", "nonsense\\x1b"),
    ],
)
def test_ages_are_short_and_old_ones_are_dates(iso: str | None, shown: str) -> None:
    assert age(iso, datetime(2026, 1, 31, 12, tzinfo=timezone.utc)) == shown


@pytest.mark.parametrize(
    ("width", "shown"), [(40, "mlx-community/Qwen3"), (10, "mlx…Qwen3"), (1, "…"), (0, "")]
)
def test_long_names_are_shortened_in_the_middle(width: int, shown: str) -> None:
    cut = truncate_middle("mlx-community/Qwen3", width)
    assert len(cut) <= max(width, 0)
    assert cut[:1] == shown[:1]
    assert width < 2 or cut[-3:] == "en3"


def test_counts_have_the_right_plural() -> None:
    assert (plural(1, "file"), plural(1204, "file")) == ("1 file", "1,204 files")
