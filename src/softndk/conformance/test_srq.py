"""Shared receive queues."""

import threading
from collections.abc import Callable

import pytest

from softndk import (
    BufferOverflow,
    DataOverrun,
    InvalidParameter,
    InvalidState,
    OperationType,
    QueueFull,
    Srq,
    Status,
)
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    Pair,
    callbacks_have_run,
    contexts,
    delivered,
    ended,
    failure,
    one,
    refused,
    statuses,
    succeed,
    take,
    until,
)
from softndk.conformance.providers import Feature, Side

pytestmark = pytest.mark.requires(Feature.SRQ)


class Shop:
    """Several connections whose passive ends take their receives from one SRQ."""

    def __init__(
        self, bench: Bench, connections: int = 2, *, depth: int = 8, threshold: int = 0, sges: int = 2
    ) -> None:
        active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
        self.told: list[Status] = []
        self.host = bench.end(passive)
        self.srq = self.host.pd.create_srq(
            depth, max_receive_sge=sges, notify_threshold=threshold, on_notify=self._note
        )
        self.pairs: list[Pair] = []
        for number in range(connections):
            qp = self.host.pd.create_qp_with_srq(
                self.host.cq, self.host.cq, self.srq, initiator_queue_depth=16, context=number
            )
            end = End(passive, self.host.pd, self.host.cq, self.host.mr, self.host.buffer, qp)
            self.pairs.append(bench.connect(bench.end(active), end))

    def _note(self, srq: Srq, status: Status) -> None:
        assert srq is self.srq
        self.told.append(status)

    def receive(self, context: object = None, at: int = 0) -> None:
        """Post 16 octets."""
        self.srq.receive(self.host.mr[at : at + 16], context=context)

    def sell(self, number: int = 0, data: bytes = b"x") -> None:
        """One message over connection `number`, taken in."""
        self.pairs[number].a.qp.send(data)
        delivered(self.pairs[number].a)

    def hold_back(self, number: int, data: bytes) -> None:
        """One message over connection `number` that has come, and finds no receive."""
        before = self.host.adapter.query_statistics().rdma_in_octets
        self.pairs[number].a.qp.send(data)
        until(lambda: self.host.adapter.query_statistics().rdma_in_octets > before)
        assert self.host.cq.get_results() == []

    def fired(self) -> int:
        """How often the notification was given so far."""
        callbacks_have_run(self.host.adapter)
        return len(self.told)


@pytest.mark.rules("R-WR-1", "R-RES-1", "R-RECV-1", "R-COMP-3", "E-12", "R-SRQ-3")
def test_messages_of_all_queue_pairs_take_the_oldest_receive(bench: Bench) -> None:
    shop = Shop(bench, 3)
    for number in range(3):
        shop.receive(("receive", number), at=number * 16)
    for number in (2, 0, 1):
        shop.sell(number, bytes([65 + number]))
    results = succeed(shop.host.cq, 3)
    assert contexts(results) == [("receive", number) for number in range(3)]
    assert [result.qp_context for result in results] == [2, 0, 1]
    assert shop.host.content(48)[::16] == b"CAB"
    assert {result.type for result in results} == {OperationType.RECEIVE}


@pytest.mark.rules("R-QP-4")
def test_a_queue_pair_on_an_srq_takes_no_receives_itself(bench: Bench) -> None:
    shop = Shop(bench, 1)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        shop.pairs[0].b.qp.receive(shop.host.mr[0:16])
    shop.receive("ok")
    shop.sell()
    assert contexts(succeed(shop.host.cq)) == ["ok"]


@pytest.mark.rules("R-SRQ-3", "A-10")
def test_a_message_that_finds_the_queue_empty_waits(bench: Bench) -> None:
    shop = Shop(bench, 2)
    for number, pair in enumerate(shop.pairs):
        shop.hold_back(number, bytes([65 + number]))
        pair.b.qp.write([], 0, pair.a.mr.remote_token)  # the connection goes on in the other direction
        succeed(shop.host.cq)
    for number in range(2):
        shop.receive(number, at=number * 16)
    results = succeed(shop.host.cq, 2)
    assert {result.qp_context for result in results} == {0, 1}
    assert sorted(shop.host.content(32)[::16]) == [65, 66]
    for pair in shop.pairs:
        assert not pair.a.connector.disconnected.done()
        pair.b.qp.read([], 0, pair.a.mr.remote_token)
        succeed(shop.host.cq)


@pytest.mark.rules("R-SRQ-3", "R-COMP-4")
def test_many_messages_wait_and_keep_their_order(bench: Bench) -> None:
    shop = Shop(bench, 1, depth=16)
    shop.hold_back(0, bytes(10))
    for number in range(1, 10):
        shop.pairs[0].a.qp.send(bytes([number]) * 10)
    for number in range(10):
        shop.receive(number, at=number * 16)
    assert contexts(succeed(shop.host.cq, 10)) == list(range(10))
    assert shop.host.content(160)[::16] == bytes(range(10))


@pytest.mark.rules("R-SRQ-1", "A-12", "R-SRQ-2", "R-MODSRQ-4")
def test_a_new_queue_notifies_when_the_number_falls_below_the_threshold(bench: Bench) -> None:
    shop = Shop(bench, 1, threshold=3)
    assert shop.fired() == 0, "it was below all the time"
    for number in range(5):
        shop.receive(number)
    for expected in (0, 0, 1, 1, 1):  # 4 and 3 are left: no; 2: yes; then it is disarmed
        shop.sell()
        assert shop.fired() == expected
    assert shop.told == [Status.SUCCESS]


@pytest.mark.rules("R-SRQ-1")
def test_threshold_0_asks_for_no_notification(bench: Bench) -> None:
    shop = Shop(bench, 1)
    shop.receive()
    shop.sell()
    assert shop.fired() == 0


@pytest.mark.rules("R-MODSRQ-3", "R-MODSRQ-4", "R-SRQ-1")
def test_a_threshold_set_later_arms_and_fires_at_once_if_there_are_fewer(bench: Bench) -> None:
    shop = Shop(bench, 1)
    for number in range(3):
        shop.receive(number)
    shop.srq.modify(notify_threshold=3).result(PATIENCE_S)
    assert shop.fired() == 0, "3 are not fewer than 3"
    shop.srq.modify(notify_threshold=4).result(PATIENCE_S)
    assert shop.fired() == 1
    shop.sell()
    assert shop.fired() == 1, "one notification for one arm"
    shop.srq.modify(notify_threshold=2).result(PATIENCE_S)
    assert shop.fired() == 1
    shop.sell()
    assert shop.fired() == 2


@pytest.mark.rules("R-MODSRQ-2", "R-MODSRQ-1")
def test_0_keeps_depth_threshold_and_arm(bench: Bench) -> None:
    shop = Shop(bench, 1, depth=4, threshold=2)
    for number in range(2):
        shop.receive(number)
    shop.srq.modify(8).result(PATIENCE_S)
    assert shop.srq.depth == 8
    assert shop.fired() == 0
    shop.srq.modify(0, 1).result(PATIENCE_S)
    assert shop.srq.depth == 8
    shop.srq.modify(0, 0).result(PATIENCE_S)
    shop.sell()
    assert shop.fired() == 0
    shop.sell()
    assert shop.fired() == 1


@pytest.mark.rules("R-MODSRQ-2", "R-MODSRQ-4")
def test_a_new_depth_alone_does_not_ask_for_the_notification_again(bench: Bench) -> None:
    shop = Shop(bench, 1, depth=4, threshold=2)
    for number in range(2):
        shop.receive(number)
    shop.sell()
    assert shop.fired() == 1
    shop.receive()
    shop.srq.modify(8).result(PATIENCE_S)
    shop.sell()
    assert shop.fired() == 1


@pytest.mark.rules("R-MODSRQ-1", "R-MODSRQ-3")
def test_a_depth_that_is_too_small_leaves_the_threshold_and_its_arm_as_they_were(bench: Bench) -> None:
    shop = Shop(bench, 1, depth=4, threshold=1)
    for number in range(3):
        shop.receive(number)
    assert failure(shop.srq.modify(2, 3)).status is Status.BUFFER_OVERFLOW
    assert shop.srq.depth == 4
    for _ in range(2):
        shop.sell()
        assert shop.fired() == 0, "the threshold is 1 as before"
    shop.sell()
    assert shop.fired() == 1


@pytest.mark.rules("R-MODSRQ-1", "R-WR-8")
def test_the_depth_is_the_limit_and_may_change(bench: Bench) -> None:
    shop = Shop(bench, 1, depth=2)
    for number in range(2):
        shop.receive(number)
    with refused(QueueFull, Status.NO_MORE_ENTRIES):
        shop.receive()
    error = failure(shop.srq.modify(1))
    assert (type(error), error.status) == (BufferOverflow, Status.BUFFER_OVERFLOW)
    assert shop.srq.depth == 2
    shop.srq.modify(3).result(PATIENCE_S)
    shop.receive(2)
    for _ in range(3):
        shop.sell()
    assert contexts(succeed(shop.host.cq, 3)) == [0, 1, 2]


@pytest.mark.rules("R-QINFO-1", "R-MODSRQ-1", "R-SRQ-1")
def test_depth_and_sges_are_limited_by_the_adapter(bench: Bench) -> None:
    end = bench.end()
    info = end.adapter.query_info()
    srq = end.pd.create_srq(info.max_srq_depth, max_receive_sge=info.max_receive_request_sge)
    calls: list[Callable[[], object]] = [
        lambda: end.pd.create_srq(info.max_srq_depth + 1),
        lambda: end.pd.create_srq(0),
        lambda: end.pd.create_srq(1, max_receive_sge=info.max_receive_request_sge + 1),
        lambda: srq.modify(info.max_srq_depth + 1),
    ]
    for call in calls:
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            call()


@pytest.mark.rules("R-WR-6", "R-WR-7", "R-RECV-3")
def test_shared_receives_are_checked_like_others(bench: Bench) -> None:
    shop = Shop(bench, 1, sges=2)
    mr = shop.host.mr
    with refused(DataOverrun, Status.DATA_OVERRUN):
        shop.srq.receive([mr[0:1]] * 3)
    shop.srq.receive([mr[0:2], mr[100:120]])
    shop.sell(0, b"abcdef")
    (result,) = succeed(shop.host.cq)
    assert result.bytes_transferred == 6
    assert (shop.host.content(2), shop.host.content(4, 100)) == (b"ab", b"cdef")


@pytest.mark.rules("R-FLUSH-8", "R-FLUSH-1", "R-CLOSE-13")
def test_receives_that_wait_in_the_queue_are_not_flushed_by_a_queue_pair(bench: Bench) -> None:
    shop = Shop(bench, 2)
    for number in range(2):
        shop.receive(number)
    shop.pairs[0].b.qp.flush()
    assert not ended(shop.pairs[0].a).graceful
    assert shop.host.cq.get_results() == []
    shop.pairs[0].b.connector.close().result(PATIENCE_S)
    shop.pairs[0].b.qp.close().result(PATIENCE_S)
    assert shop.host.cq.get_results() == []
    for _ in range(2):
        shop.sell(1)
    assert contexts(succeed(shop.host.cq, 2)) == [0, 1]


@pytest.mark.rules("R-RECV-2", "A-5", "R-COMP-6")
def test_a_receive_that_is_too_small_ends_only_the_connection_it_was_for(bench: Bench) -> None:
    shop = Shop(bench, 2)
    shop.srq.receive(shop.host.mr[0:4], context="small")
    shop.receive("next")
    shop.pairs[0].a.qp.send(b"too large")
    result = one(shop.host.cq)
    assert result.request_context == "small"
    assert result.qp_context == 0
    assert result.status in bench.provider.choices.receive_too_small
    shop.sell(1)
    assert contexts(succeed(shop.host.cq)) == ["next"]


@pytest.mark.rules("R-SENDINV-5", "R-RES-1", "R-RESX-3")
def test_an_invalidating_message_takes_a_shared_receive(bench: Bench) -> None:
    shop = Shop(bench, 1)
    (a, b) = shop.pairs[0]
    region = bench.fast_region(b)
    shop.receive("it")
    a.qp.send_and_invalidate(b"x", region.token)
    result = one(shop.host.cq)
    assert (result.type, result.invalidated_token) == (OperationType.RECEIVE_AND_INVALIDATE, region.token)
    assert (result.qp_context, result.request_context) == (0, "it")


@pytest.mark.rules("R-QP-5")
def test_the_srq_belongs_to_the_pd_of_the_queue_pair(bench: Bench) -> None:
    end = bench.end()
    other = end.adapter.create_pd()
    srq = end.pd.create_srq(1)
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        other.create_qp_with_srq(end.cq, end.cq, srq, initiator_queue_depth=1)


@pytest.mark.rules("R-SRQCB-1", "R-CLOSE-2")
def test_the_close_waits_for_the_running_notification(bench: Bench) -> None:
    end = bench.end()
    inside, leave = threading.Event(), threading.Event()

    def linger(*_: object) -> None:
        inside.set()
        leave.wait(PATIENCE_S)

    srq = end.pd.create_srq(4, on_notify=linger)
    srq.modify(notify_threshold=1)
    assert inside.wait(PATIENCE_S)
    closing = srq.close()
    assert not closing.done()
    leave.set()
    closing.result(PATIENCE_S)


@pytest.mark.rules("R-SRQ-3", "R-FLUSH-5")
def test_a_queue_pair_that_waits_for_a_receive_can_be_flushed_and_closed(bench: Bench) -> None:
    shop = Shop(bench, 2)
    pair = shop.pairs[0]
    shop.hold_back(0, b"held back")
    pair.b.qp.flush()
    assert not ended(pair.a).graceful
    pair.b.connector.close().result(PATIENCE_S)
    pair.b.qp.close().result(PATIENCE_S)
    shop.receive("for the other")
    shop.sell(1)
    results = take(shop.host.cq, 1)
    assert (contexts(results), statuses(results)) == (["for the other"], [Status.SUCCESS])
