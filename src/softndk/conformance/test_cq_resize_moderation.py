"""Resizing a completion queue, and interrupt moderation.

How long a notification is delayed is not measured: an interval is either far longer than the case waits, or the case
waits for the notification.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from softndk import MAXULONG, BufferOverflow, Cq, CqNotify, InvalidParameter, Qp, Status
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    callbacks_have_run,
    contexts,
    failure,
    refused,
    succeed,
    until,
)
from softndk.conformance.providers import Feature, Side

LONG_US = 3_600_000_000
RESIZE = pytest.mark.requires(Feature.CQ_RESIZE)
MODERATION = pytest.mark.requires(Feature.MODERATION)


@dataclass
class Rig:
    """A CQ with a callback, filled by a QP that was never connected."""

    cq: Cq
    qp: Qp
    settle: Callable[[], None]
    told: list[Status] = field(default_factory=list)
    number: int = 0

    def place(self, count: int = 1) -> None:
        """Place results, one at a time."""
        for _ in range(count):
            self.qp.receive([], context=self.number)
            self.qp.flush()
            self.number += 1

    def fired(self) -> int:
        """How often the callback was called so far."""
        self.settle()
        return len(self.told)


@pytest.fixture
def rig(bench: Bench) -> Rig:
    adapter = bench.adapter()
    made: list[Rig] = []
    cq = adapter.create_cq(16, lambda _, status: made[0].told.append(status))
    qp = adapter.create_pd().create_qp(cq, cq, receive_queue_depth=16, initiator_queue_depth=1)
    made.append(Rig(cq, qp, lambda: callbacks_have_run(adapter)))
    return made[0]


# ---- resize


@pytest.mark.rules("R-RESIZE-3", "R-CQ-1")
@RESIZE
def test_a_larger_queue_keeps_its_results_and_holds_more(rig: Rig) -> None:
    rig.place(16)
    rig.cq.resize(20).result(PATIENCE_S)
    assert rig.cq.depth == 20
    rig.place(4)
    assert contexts(rig.cq.get_results()) == list(range(20))
    assert rig.cq.status is Status.SUCCESS


@pytest.mark.rules("R-RESIZE-2", "R-CQ-1")
@RESIZE
def test_a_queue_may_shrink_to_what_it_holds_and_not_below(rig: Rig) -> None:
    rig.place(5)
    error = failure(rig.cq.resize(4))
    assert (type(error), error.status) == (BufferOverflow, Status.BUFFER_OVERFLOW)
    assert rig.cq.depth == 16
    rig.cq.resize(5).result(PATIENCE_S)
    assert contexts(rig.cq.get_results()) == list(range(5))
    rig.place(6)
    assert rig.cq.status is Status.BUFFER_OVERFLOW
    assert contexts(rig.cq.get_results()) == list(range(5, 10))


@pytest.mark.rules("R-RESIZE-1", "R-CQ-5", "R-QINFO-1")
@RESIZE
def test_the_new_depth_is_from_1_to_the_adapters_maximum(rig: Rig, bench: Bench) -> None:
    most = bench.adapter().query_info().max_cq_depth
    for depth in (0, most + 1):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            rig.cq.resize(depth)
    assert rig.cq.depth == 16
    for depth in (1, most):
        rig.cq.resize(depth).result(PATIENCE_S)
        assert rig.cq.depth == depth


@pytest.mark.rules("R-RESIZE-3", "R-ARM-13")
@RESIZE
@pytest.mark.parametrize("kind", [CqNotify.ANY, CqNotify.SOLICITED])
def test_resizing_leaves_the_arm_alone(rig: Rig, kind: CqNotify) -> None:
    rig.cq.arm(kind)
    rig.cq.resize(20).result(PATIENCE_S)
    assert rig.fired() == 0
    rig.place()
    assert rig.fired() == 1
    rig.cq.resize(16).result(PATIENCE_S)
    rig.place()
    assert rig.fired() == 1


@pytest.mark.rules("R-RESIZE-3")
@RESIZE
def test_a_queue_may_be_resized_under_traffic(bench: Bench) -> None:
    a, b = bench.connect(bench.end(), bench.end(side=Side.PASSIVE))
    for number in range(50):
        b.qp.receive(b.mr[0:8], context=number)

    def send() -> None:
        for _ in range(50):
            a.qp.send(b"x")

    sender = threading.Thread(target=send)
    sender.start()
    for depth in (300, 257, 400, 100):
        b.cq.resize(depth).result(PATIENCE_S)
    sender.join(PATIENCE_S)
    assert contexts(succeed(b.cq, 50)) == list(range(50))


# ---- interrupt moderation


@pytest.mark.rules("R-MOD-1", "R-ARM-2")
def test_a_new_queue_is_not_moderated(rig: Rig) -> None:
    rig.cq.arm()
    rig.place()
    assert rig.fired() == 1


@pytest.mark.rules("R-MOD-1", "E-5", "R-MOD-2")
@MODERATION
@pytest.mark.parametrize(
    ("interval", "count"), [(0, 5), (0, MAXULONG), (LONG_US, 0), (LONG_US, 1), (MAXULONG, 0), (MAXULONG, 1), (0, 0)]
)
def test_interval_0_or_count_0_or_1_is_at_once(rig: Rig, interval: int, count: int) -> None:
    rig.cq.control_interrupt_moderation(interval, count)
    rig.cq.arm()
    rig.place()
    assert rig.fired() == 1


@pytest.mark.rules("R-MOD-5")
@MODERATION
@pytest.mark.parametrize("interval", [MAXULONG, LONG_US])
def test_when_the_count_is_reached_the_notification_comes(rig: Rig, interval: int) -> None:
    rig.cq.control_interrupt_moderation(interval, 3)
    rig.cq.arm()
    rig.place(3)
    assert rig.fired() == 1
    assert contexts(rig.cq.get_results()) == [0, 1, 2]


@pytest.mark.rules("R-MOD-5")
@MODERATION
@pytest.mark.parametrize("count", [MAXULONG, 17, 5])
def test_when_the_interval_is_over_the_notification_comes(rig: Rig, count: int) -> None:
    """Also where the count can never be reached."""
    rig.cq.control_interrupt_moderation(1000, count)
    rig.cq.arm()
    rig.place()
    until(rig.fired)
    assert rig.fired() == 1


@pytest.mark.rules("R-MOD-5", "R-ARM-1")
@MODERATION
def test_a_delayed_notification_is_one(rig: Rig) -> None:
    rig.cq.control_interrupt_moderation(LONG_US, 3)
    rig.cq.arm()
    rig.place(16)
    assert rig.fired() == 1
    rig.cq.get_results()
    rig.place(3)
    assert rig.fired() == 1, "it was armed once"


@pytest.mark.rules("R-MOD-2")
@MODERATION
def test_the_latest_settings_hold_for_a_notification_that_is_waiting(rig: Rig) -> None:
    rig.cq.control_interrupt_moderation(LONG_US, 10)
    rig.cq.arm()
    rig.place(2)
    rig.cq.control_interrupt_moderation(0, 0)
    until(rig.fired)


@pytest.mark.rules("R-MOD-5", "R-MOD-2")
@MODERATION
def test_an_interval_and_a_count_without_limit_are_refused_together(rig: Rig) -> None:
    for count in (MAXULONG, 17):
        with refused(InvalidParameter, Status.INVALID_PARAMETER_MIX):
            rig.cq.control_interrupt_moderation(MAXULONG, count)
    rig.cq.control_interrupt_moderation(MAXULONG, 16)
    rig.cq.arm()
    rig.place(16)
    assert rig.fired() == 1


@pytest.mark.rules("R-ARM-13", "R-MOD-2")
@MODERATION
def test_moderation_leaves_the_arm_alone(rig: Rig) -> None:
    rig.cq.control_interrupt_moderation(1000, 2)
    rig.place(2)
    assert rig.fired() == 0
    rig.cq.get_results()
    rig.cq.arm(CqNotify.ERRORS)
    rig.cq.control_interrupt_moderation(0, 0)
    rig.place()
    assert rig.fired() == 0


@pytest.mark.rules("R-CQERR-3", "R-MOD-5", "R-ARM-8")
@MODERATION
def test_a_failed_queue_is_told_without_delay(rig: Rig) -> None:
    rig.cq.control_interrupt_moderation(LONG_US, 10)
    rig.place(17)
    rig.cq.arm()
    until(rig.fired)
    assert rig.told == [Status.BUFFER_OVERFLOW]
