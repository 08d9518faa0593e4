"""Transfer rates and the time left."""

from __future__ import annotations

from mlxk_tui.transfers.jobs import Pull, Transfer
from mlxk_tui.transfers.rates import HISTORY_SECONDS, RateHistory


def test_reused_bytes_do_not_count_as_speed() -> None:
    rates = RateHistory()
    rates.add(10.0, 5_000)
    rates.add(11.0, 5_000)
    assert rates.rate(11.0) == 0
    rates.add(12.0, 6_000)
    assert rates.rate(12.0) > 0


def test_rate_covers_the_last_seconds() -> None:
    rates = RateHistory()
    for second in range(30):
        rates.add(100.0 + second, second * 1_000_000)
    for second in range(30, 60):
        rates.add(100.0 + second, 29_000_000 + (second - 29) * 100)
    assert 80 < rates.rate(159.0) < 130


def test_history_has_one_minute_of_seconds_including_idle_ones() -> None:
    rates = RateHistory()
    rates.add(0.0, 0)
    rates.add(0.5, 10)
    rates.add(3.2, 40)
    assert rates.history(4.0) == [10, 0, 0, 30]
    assert len(rates.history(500.0)) == HISTORY_SECONDS


def test_restarted_file_gives_no_negative_rate() -> None:
    rates = RateHistory()
    rates.add(0.0, 0)
    rates.add(1.0, 100)
    rates.add(2.0, 20)
    rates.add(3.0, 50)
    assert rates.history(4.0) == [0, 100, 0, 30]


def test_time_left_follows_from_the_rate() -> None:
    transfer = Transfer("1", Pull("o/a"), bytes_total=1_000)
    assert transfer.seconds_left(0.0) is None
    for second in range(11):
        transfer.bytes_done = second * 50
        transfer.rates.add(float(second), transfer.bytes_done)
    left = transfer.seconds_left(10.9)
    assert left is not None
    assert 8 < left < 12


def test_time_left_is_unknown_at_first_and_stalls_are_detected() -> None:
    transfer = Transfer("1", Pull("o/a"), bytes_total=1_000)
    transfer.rates.add(100.0, 0)
    transfer.rates.add(101.0, 10)
    assert transfer.seconds_left(101.0) is None
    assert transfer.seconds_left(103.5) is not None
    assert not transfer.rates.stalled(104.0)
    assert transfer.rates.stalled(107.0)
    transfer.rates.add(107.1, 20)
    assert not transfer.rates.stalled(107.2)
