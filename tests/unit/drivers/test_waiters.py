"""softndk.drivers.waiters: no wake-up is lost, whenever it comes."""

import threading

import pytest

from softndk.drivers.waiters import ThreadWaiter, async_waiter, check_may_block, current_library
from tests.unit.drivers.driver_parts import PATIENCE_S


def parks(waiter: ThreadWaiter, timeout: float | None) -> threading.Thread:
    thread = threading.Thread(target=waiter.park, args=(timeout,), daemon=True)
    thread.start()
    return thread


def ends(thread: threading.Thread, within: float = PATIENCE_S) -> bool:
    thread.join(within)
    return not thread.is_alive()


def test_a_wake_before_the_sleep_is_not_lost() -> None:
    waiter = ThreadWaiter()
    assert waiter.wake()
    assert ends(parks(waiter, None))


def test_a_wake_during_the_sleep() -> None:
    waiter = ThreadWaiter()
    thread = parks(waiter, None)
    assert not ends(thread, 0.01)
    waiter.wake()
    assert ends(thread)


def test_many_wakes_count_as_one() -> None:
    waiter = ThreadWaiter()
    for _ in range(3):
        waiter.wake()
    assert ends(parks(waiter, None))
    thread = parks(waiter, None)
    assert not ends(thread, 0.01)
    waiter.reset()
    waiter.wake()
    assert ends(thread)


@pytest.mark.parametrize("slept", [True, False], ids=["slept", "did not sleep"])
def test_after_reset_only_a_new_wake_counts(slept: bool) -> None:
    waiter = ThreadWaiter()
    waiter.wake()
    if slept:
        assert ends(parks(waiter, None))
    waiter.reset()
    thread = parks(waiter, None)
    assert not ends(thread, 0.01)
    waiter.wake()
    assert ends(thread)


def test_reset_without_a_wake_changes_nothing() -> None:
    waiter = ThreadWaiter()
    waiter.reset()
    thread = parks(waiter, None)
    assert not ends(thread, 0.01)
    waiter.wake()
    assert ends(thread)


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_a_sleep_ends_with_its_time(timeout: float) -> None:
    assert ends(parks(ThreadWaiter(), timeout))


def test_an_alarm_takes_the_place_of_the_usual_way() -> None:
    waiter = ThreadWaiter()
    rung: list[int] = []
    waiter.alarm = lambda: rung.append(1)
    waiter.wake()
    waiter.wake()
    assert rung == [1]
    waiter.alarm = None
    waiter.reset()
    thread = parks(waiter, None)
    assert not ends(thread, 0.01)
    waiter.wake()
    assert ends(thread)


def test_outside_of_any_loop_there_is_no_library_and_blocking_is_allowed() -> None:
    check_may_block("x")
    with pytest.raises(RuntimeError, match="result"):
        current_library()


def test_an_asyncio_waiter_is_made_in_a_running_loop_only() -> None:
    with pytest.raises(RuntimeError):
        async_waiter("asyncio")
