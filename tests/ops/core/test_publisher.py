"""How a change reaches its subscribers: in order, each of them, and for as long as each wants."""

from __future__ import annotations

import gc
import weakref

import pytest

from mlxk_tui.ops.core.events import Publisher


def test_every_subscriber_is_called_in_order_until_it_unsubscribes() -> None:
    publisher: Publisher[int] = Publisher()
    seen: list[tuple[str, int]] = []
    leave = publisher.subscribe(lambda value: seen.append(("first", value)))
    publisher.subscribe(lambda value: seen.append(("second", value)))
    publisher.publish(1)
    leave()
    leave()  # once more does no harm
    publisher.publish(2)
    assert seen == [("first", 1), ("second", 1), ("second", 2)]
    assert publisher.subscriptions == 1


def test_one_callback_may_subscribe_twice_and_leave_once() -> None:
    publisher: Publisher[int] = Publisher()
    seen: list[int] = []
    leave = publisher.subscribe(seen.append)
    publisher.subscribe(seen.append)
    publisher.publish(1)
    leave()
    publisher.publish(2)
    assert seen == [1, 1, 2]


def test_an_exception_keeps_the_value_from_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    publisher: Publisher[int] = Publisher()
    seen: list[int] = []

    def fail(value: int) -> None:
        raise ValueError(value)

    publisher.subscribe(fail)
    publisher.subscribe(seen.append)
    publisher.publish(7)
    assert seen == [7]
    assert "ValueError: 7" in caplog.text


def test_subscriptions_may_change_while_a_value_is_published() -> None:
    publisher: Publisher[int] = Publisher()
    seen: list[tuple[str, int]] = []

    def first(value: int) -> None:
        seen.append(("first", value))
        leave_second()
        publisher.subscribe(lambda later: seen.append(("third", later)))

    leave_first = publisher.subscribe(first)
    leave_second = publisher.subscribe(lambda value: seen.append(("second", value)))
    publisher.publish(1)
    leave_first()
    publisher.publish(2)
    assert seen == [("first", 1), ("third", 2)]


def test_nothing_is_kept_of_a_subscription_that_has_ended() -> None:
    class Screen:
        def draw(self, value: int) -> None:
            """Draw."""

    publisher: Publisher[int] = Publisher()
    screen = Screen()
    gone = weakref.ref(screen)
    leave = publisher.subscribe(screen.draw)
    leave()
    del screen
    gc.collect()
    assert gone() is None
