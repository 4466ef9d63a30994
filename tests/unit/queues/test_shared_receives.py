"""A shared receive queue: depth, order, and the one-shot notification of its low water (R-SRQ, R-MODSRQ, A-12)."""

import pytest

from softndk.errors import BufferOverflow, QueueFull
from softndk.queues.shared import SharedReceives
from softndk.queues.work import ReceiveRequest
from softndk.status import Status


class Shared:
    """A queue that remembers what it has notified. `receives` of it are posted at once."""

    def __init__(self, *, depth: int = 8, threshold: int = 0, receives: int = 0) -> None:
        self.fired: list[Status] = []
        self.queue = SharedReceives("srq1", depth, threshold, self.fired.append)
        self.post(receives)

    def post(self, count: int) -> None:
        for number in range(count):
            self.queue.post(ReceiveRequest([], number))

    def take(self, count: int = 1) -> list[object]:
        taken = [self.queue.take(self.nobody) for _ in range(count)]
        return [None if request is None else request.context for request in taken]

    def nobody(self) -> None:
        raise AssertionError("woken")


def test_oldest_first_and_none_when_empty() -> None:
    shared = Shared(receives=3)
    assert shared.take(3) == [0, 1, 2]
    shared.queue.forget(shared.nobody)
    assert shared.take() == [None]


def test_depth() -> None:
    shared = Shared(depth=2, receives=2)
    with pytest.raises(QueueFull) as caught:
        shared.post(1)
    assert caught.value.status is Status.NO_MORE_ENTRIES
    assert "depth=2" in str(caught.value)
    shared.take()
    shared.post(1)
    assert len(shared.queue) == 2


@pytest.mark.rules("R-SRQ-1")
def test_below_the_threshold_not_at_it() -> None:
    """R-SRQ-1: 5 queued with threshold 5 is not below."""
    shared = Shared(threshold=5, receives=6)
    shared.take()
    assert shared.fired == []
    shared.take()
    assert shared.fired == [Status.SUCCESS]


@pytest.mark.rules("A-12")
def test_a_new_queue_is_armed_but_fires_only_when_it_falls() -> None:
    """A-12."""
    shared = Shared(threshold=3, receives=2)
    assert shared.fired == []
    shared.take()
    assert shared.fired == []
    shared.post(2)
    shared.take()
    assert shared.fired == [Status.SUCCESS]


@pytest.mark.rules("R-SRQ-1")
def test_threshold_zero_is_no_notification() -> None:
    shared = Shared(receives=2)
    shared.take(2)
    assert shared.fired == []


@pytest.mark.rules("R-MODSRQ-4")
def test_one_shot() -> None:
    """R-MODSRQ-4."""
    shared = Shared(threshold=2, receives=4)
    shared.take(4)
    shared.post(4)
    shared.take(4)
    assert shared.fired == [Status.SUCCESS]


@pytest.mark.rules("R-MODSRQ-3")
def test_modify_arms_again() -> None:
    """R-MODSRQ-3."""
    shared = Shared(threshold=2, receives=2)
    shared.take()
    shared.post(2)
    shared.queue.modify(0, 3)
    assert len(shared.fired) == 1
    shared.take()
    assert len(shared.fired) == 2


@pytest.mark.rules("R-MODSRQ-3")
def test_modify_notifies_at_once_when_it_is_below_already() -> None:
    shared = Shared(receives=2)
    shared.queue.modify(0, 3)
    assert shared.fired == [Status.SUCCESS]
    shared.take()
    assert shared.fired == [Status.SUCCESS]


@pytest.mark.rules("R-MODSRQ-1", "R-MODSRQ-2")
def test_modify_with_zeros_keeps_both() -> None:
    """R-MODSRQ-1, -2."""
    shared = Shared(depth=5, threshold=2, receives=3)
    shared.take(2)
    shared.queue.modify(0, 0)
    assert (shared.queue.depth, shared.queue.threshold, shared.queue.armed) == (5, 2, False)
    shared.queue.modify(7, 0)
    assert shared.queue.depth == 7


def test_modify_below_what_is_queued() -> None:
    shared = Shared(receives=3)
    with pytest.raises(BufferOverflow) as caught:
        shared.queue.modify(2, 5)
    assert caught.value.status is Status.BUFFER_OVERFLOW
    assert (shared.queue.depth, shared.queue.threshold) == (8, 0)
    assert shared.fired == []
    shared.queue.modify(3, 0)


def test_failure() -> None:
    """R-CQERR-5, R-SRQCB."""
    shared = Shared()
    shared.queue.fail(Status.INTERNAL_ERROR)
    shared.queue.fail(Status.INTERNAL_ERROR)
    assert shared.queue.status is Status.INTERNAL_ERROR
    assert shared.fired == [Status.INTERNAL_ERROR]


def test_each_waiter_is_woken_once() -> None:
    shared = Shared()
    woken: list[str] = []

    def first() -> None:
        woken.append("first")
        shared.take()

    assert shared.queue.take(first) is None
    assert shared.queue.take(first) is None
    shared.post(2)
    assert woken == ["first"]
    assert len(shared.queue) == 1


def test_whoever_waits_longest_comes_first() -> None:
    shared = Shared()
    woken: list[int] = []
    waiters = [lambda number=number: woken.append(number) for number in range(3)]
    for waiter in waiters:
        shared.queue.take(waiter)
    shared.queue.forget(waiters[1])
    shared.post(1)
    assert woken == [0, 2]
