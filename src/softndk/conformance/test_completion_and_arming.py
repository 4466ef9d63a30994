"""Completion queues: results, arming, notification, overrun.

That nothing is notified is proved without waiting for it: a notification that is due has been handed over by the time
its result can be seen, and `callbacks_have_run` waits for everything handed over.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from softndk import (
    BufferOverflow,
    ConnectionInvalid,
    Cq,
    CqNotify,
    InvalidParameter,
    OpFlag,
    Qp,
    Result,
    Status,
)
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    OwnLock,
    Pair,
    callbacks_have_run,
    contexts,
    delivered,
    ended,
    one,
    refused,
    statuses,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import Side

ANY, SOLICITED, ERRORS = CqNotify.ANY, CqNotify.SOLICITED, CqNotify.ERRORS


@dataclass
class Rig:
    """A CQ with a callback. It fills from a connected peer, and from a QP that was never connected."""

    peer: End
    end: End
    loose: Qp
    told: list[Status] = field(default_factory=list)
    number: int = 0

    @property
    def cq(self) -> Cq:
        return self.end.cq

    def place(self, event: str) -> None:
        """Place one result, and return when it is placed; nothing is taken."""
        self.number += 1
        if event == "error":
            self.loose.receive([], context=self.number)
            self.loose.flush()
            return
        self.end.qp.receive(self.end.mr[0:8], context=self.number)
        flags = OpFlag.SEND_AND_SOLICIT_EVENT if event == "solicited" else 0
        self.peer.qp.send(b"x", flags=flags | OpFlag.SILENT_SUCCESS)
        assert delivered(self.peer) == []

    def fired(self) -> int:
        """How often the callback has been called for what has happened so far."""
        callbacks_have_run(self.end.adapter)
        return len(self.told)


def make_rig(bench: Bench, depth: int = 64) -> Rig:
    """A rig on two adapters."""
    passive = bench.adapter(Side.PASSIVE)
    rig: Rig

    def on_notify(cq: Cq, status: Status) -> None:
        assert cq is rig.cq
        rig.told.append(status)

    end = bench.end(passive, cq=passive.create_cq(depth, on_notify))
    loose = end.pd.create_qp(end.cq, end.cq, receive_queue_depth=16, initiator_queue_depth=1)
    peer = bench.end()
    bench.connect(peer, end)
    rig = Rig(peer, end, loose)
    return rig


@pytest.fixture
def rig(bench: Bench) -> Rig:
    return make_rig(bench)


# ---- one arm, one callback


@pytest.mark.rules("R-ARM-1", "R-CQ-2")
def test_without_an_arm_there_is_no_callback(rig: Rig) -> None:
    for event in ("plain", "solicited", "error"):
        rig.place(event)
    assert rig.fired() == 0


@pytest.mark.rules("R-ARM-1", "R-ARM-2")
def test_one_arm_gives_one_callback(rig: Rig) -> None:
    rig.cq.arm()
    assert rig.fired() == 0
    for _ in range(3):
        rig.place("plain")
    assert rig.fired() == 1
    assert rig.told == [Status.SUCCESS]


@pytest.mark.rules("R-ARM-8", "A-11", "R-ARM-2")
@pytest.mark.parametrize(
    ("kind", "event", "fires"),
    [
        (ANY, "plain", True),
        (ANY, "solicited", True),
        (ANY, "error", True),
        (SOLICITED, "plain", False),
        (SOLICITED, "solicited", True),
        (SOLICITED, "error", True),
        (ERRORS, "plain", False),
        (ERRORS, "solicited", False),
        (ERRORS, "error", False),
    ],
)
def test_what_satisfies_which_arm(rig: Rig, kind: CqNotify, event: str, fires: bool) -> None:
    rig.cq.arm(kind)
    rig.place(event)
    assert rig.fired() == fires


@pytest.mark.rules("R-ARM-3", "R-ARM-9")
@pytest.mark.parametrize(
    ("kind", "event", "fires"),
    [(ANY, "plain", True), (SOLICITED, "plain", False), (SOLICITED, "solicited", True), (SOLICITED, "error", True)],
)
def test_an_arm_over_new_results_is_satisfied_at_once_by_one_that_matches(
    rig: Rig, kind: CqNotify, event: str, fires: bool
) -> None:
    rig.place("plain")
    rig.place(event)
    rig.cq.arm(kind)
    assert rig.fired() == fires


@pytest.mark.rules("R-ARM-3")
def test_results_from_before_the_last_callback_are_not_new(rig: Rig) -> None:
    rig.cq.arm()
    rig.place("plain")
    assert rig.fired() == 1
    rig.cq.arm()
    assert rig.fired() == 1
    rig.place("plain")
    assert rig.fired() == 2


@pytest.mark.rules("R-ARM-3", "R-ARM-4")
def test_one_new_result_among_older_ones_satisfies_an_arm(rig: Rig) -> None:
    rig.cq.arm()
    rig.place("plain")
    assert rig.fired() == 1
    rig.place("plain")
    rig.cq.arm()
    assert rig.fired() == 2


@pytest.mark.rules("R-ARM-4", "R-ARM-6")
def test_who_empties_and_then_arms_misses_nothing(bench: Bench) -> None:
    """A program that does nothing but what its callback does."""
    total = 200
    done = threading.Event()
    arrived: list[object] = []
    passive = bench.adapter(Side.PASSIVE)

    def on_notify(cq: Cq, _: Status) -> None:
        while results := cq.get_results(3):
            for result in results:
                arrived.append(result.request_context)
                end.qp.receive(end.mr[0:8], context=len(arrived))
        if len(arrived) >= total:
            done.set()
        else:
            cq.arm()

    end = bench.end(passive, cq=passive.create_cq(64, on_notify))
    peer = bench.end()
    bench.connect(peer, end)
    for _ in range(32):
        end.qp.receive(end.mr[0:8])
    end.cq.arm()
    for _ in range(total // 20):
        for _ in range(20):
            peer.qp.send(b"x", flags=OpFlag.SILENT_SUCCESS)
        delivered(peer)
        callbacks_have_run(passive)
    assert done.wait(PATIENCE_S), f"{len(arrived)} of {total}"


@pytest.mark.rules("R-ARM-6", "R-ARM-5")
def test_a_result_that_comes_while_the_callback_runs_is_new(bench: Bench) -> None:
    end = bench.end()
    calls = threading.Semaphore(0)
    first = [True]

    def on_notify(cq: Cq, _: Status) -> None:
        if first:
            first.clear()
            cq.get_results()
            qp.receive([])
            qp.flush()
            cq.arm()
        calls.release()

    cq = end.adapter.create_cq(8, on_notify)
    qp = end.pd.create_qp(cq, cq, receive_queue_depth=8, initiator_queue_depth=8)
    cq.arm()
    qp.receive([])
    qp.flush()
    for _ in range(2):
        assert calls.acquire(timeout=PATIENCE_S)


@pytest.mark.rules("R-ARM-6", "R-ARM-3")
def test_what_came_while_the_callback_ran_is_new_to_an_arm_after_it(bench: Bench) -> None:
    end = bench.end()
    told: list[Status] = []

    def on_notify(_: Cq, status: Status) -> None:
        told.append(status)
        if len(told) == 1:
            qp.receive([], context="inside")
            qp.flush()

    cq = end.adapter.create_cq(8, on_notify)
    qp = end.pd.create_qp(cq, cq, receive_queue_depth=8, initiator_queue_depth=8)
    cq.arm()
    qp.receive([], context="before")
    qp.flush()
    callbacks_have_run(end.adapter)
    cq.arm()
    callbacks_have_run(end.adapter)
    assert len(told) == 2
    assert contexts(cq.get_results()) == ["before", "inside"]


TABLE = {
    (ANY, ANY): ANY,
    (ANY, ERRORS): ANY,
    (ANY, SOLICITED): ANY,
    (ERRORS, ANY): ANY,
    (ERRORS, ERRORS): ERRORS,
    (ERRORS, SOLICITED): SOLICITED,
    (SOLICITED, ANY): ANY,
    (SOLICITED, ERRORS): SOLICITED,
    (SOLICITED, SOLICITED): SOLICITED,
}


@pytest.mark.rules("R-ARM-7")
@pytest.mark.parametrize(("first", "second"), TABLE)
def test_of_two_arms_the_wider_one_holds(rig: Rig, first: CqNotify, second: CqNotify) -> None:
    kind = TABLE[first, second]
    rig.cq.arm(first)
    rig.cq.arm(second)
    rig.place("plain")
    assert rig.fired() == (kind is ANY)
    rig.place("solicited")
    assert rig.fired() == (kind is not ERRORS)
    rig.place("plain")
    assert rig.fired() == (kind is not ERRORS), "the two arms were one"


@pytest.mark.rules("R-ARM-10", "R-SEND-3")
def test_the_solicited_result_is_there_when_the_callback_runs(bench: Bench) -> None:
    found: list[Result] = []
    passive = bench.adapter(Side.PASSIVE)
    end = bench.end(passive, cq=passive.create_cq(8, lambda cq, _: found.extend(cq.get_results())))
    peer = bench.end()
    bench.connect(peer, end)
    for _ in range(20):
        end.cq.arm(SOLICITED)
        end.qp.receive(end.mr[0:8])
        peer.qp.send(b"seven..", flags=OpFlag.SEND_AND_SOLICIT_EVENT | OpFlag.SILENT_SUCCESS)
        delivered(peer)
        callbacks_have_run(passive)
        assert [result.bytes_transferred for result in found] == [7]
        found.clear()


@pytest.mark.rules("R-ARM-12")
def test_the_callback_runs_neither_inside_the_arm_nor_inside_a_post(bench: Bench) -> None:
    """The program may hold a lock of its own around both."""
    end = bench.end()
    threads: list[int] = []
    own = OwnLock()

    def on_notify(*_: object) -> None:
        threads.append(threading.get_ident())
        own.in_a_callback()

    cq = end.adapter.create_cq(8, on_notify)
    a, b = bench.connect(bench.end(end.adapter, cq=cq), bench.end(side=Side.PASSIVE))
    a.qp.flush()  # from now on every post completes within the post
    calls: list[Callable[[], None]] = [cq.arm, lambda: a.qp.receive([]), lambda: a.qp.send([])]
    with own.around_a_call():
        calls[1]()
        calls[0]()
    callbacks_have_run(end.adapter)
    for post in calls[1:]:
        cq.get_results()
        with own.around_a_call():
            calls[0]()
            post()
        callbacks_have_run(end.adapter)
    own.check()
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    assert b.cq.get_results() == []


@pytest.mark.rules("R-ARM-11")
def test_the_callback_tells_the_state_of_the_queue_not_of_the_result(rig: Rig) -> None:
    rig.cq.arm()
    rig.place("error")
    rig.fired()
    assert rig.told == [Status.SUCCESS]


@pytest.mark.rules("A-23", "R-CQ-2")
def test_a_queue_may_go_without_a_callback(both: Pair) -> None:
    for end in both:
        end.cq.arm()
    still_works(both)


# ---- results


@pytest.mark.rules("R-GETCQ-1", "R-COMP-4")
def test_results_are_taken_oldest_first_and_as_many_as_asked_for(bench: Bench) -> None:
    end = bench.end()
    for number in range(5):
        end.qp.receive([], context=number)
    assert end.cq.get_results() == []
    end.qp.flush()
    assert contexts(end.cq.get_results(2)) == [0, 1]
    assert end.cq.get_results(0) == []
    assert contexts(end.cq.get_results(10)) == [2, 3, 4]
    assert end.cq.get_results() == []


@pytest.mark.rules("R-CQ-1", "R-CQ-5", "R-QINFO-1")
def test_the_depth_is_from_1_to_the_adapters_maximum(bench: Bench) -> None:
    adapter = bench.adapter()
    most = adapter.query_info().max_cq_depth
    for depth in (1, most):
        assert adapter.create_cq(depth).depth == depth
    for depth in (0, most + 1):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            adapter.create_cq(depth)


@pytest.mark.rules("R-COMP-3")
def test_receives_and_the_other_requests_go_to_their_queues(bench: Bench) -> None:
    end = bench.end()
    receives, initiators = end.adapter.create_cq(8), end.adapter.create_cq(8)
    qp = end.pd.create_qp(receives, initiators, receive_queue_depth=4, initiator_queue_depth=4)
    other = bench.end(side=Side.PASSIVE)
    pair = bench.connect(End(end.adapter, end.pd, initiators, end.mr, end.buffer, qp), other)
    qp.receive([], context="receive")
    qp.write([], 0, other.mr.remote_token, context="write")
    assert contexts(take(initiators, 1)) == ["write"]
    qp.flush()
    assert contexts(take(receives, 1)) == ["receive"]
    assert initiators.get_results() == []
    assert not ended(pair.b).graceful


@pytest.mark.rules("R-COMP-1", "R-RESX-2")
def test_the_context_comes_back_as_the_very_object(both: Pair) -> None:
    a, b = both
    marks = [object(), {}, 0, None]
    for mark in marks:
        b.qp.receive(b.mr[0:8], context=mark)
        a.qp.send(b"x", context=mark)
    for end in both:
        for result, mark in zip(succeed(end.cq, len(marks)), marks, strict=True):
            assert result.request_context is mark


# ---- overrun


def overrun(rig: Rig) -> None:
    """One result more than the depth."""
    for _ in range(rig.cq.depth + 1):
        rig.loose.receive([], context="loose")
    rig.loose.flush()


@pytest.mark.rules("R-CQERR-1", "R-CQ-1", "R-COMP-8", "R-CQERR-4")
def test_one_result_too_many_makes_the_queue_and_its_queue_pairs_unusable(bench: Bench) -> None:
    rig = make_rig(bench, depth=4)
    rig.end.qp.receive([], context="posted")  # no post is refused for want of room
    overrun(rig)
    assert rig.cq.status is Status.BUFFER_OVERFLOW
    assert not ended(rig.peer).graceful
    callbacks_have_run(rig.end.adapter)
    assert contexts(rig.cq.get_results()) == ["loose"] * 4
    posts: list[Callable[[], object]] = [
        lambda: rig.end.qp.send([]),
        lambda: rig.loose.receive([]),
        lambda: rig.end.qp.receive([]),
    ]
    for post in posts:
        with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
            post()
    assert rig.cq.get_results() == []
    with refused(BufferOverflow, Status.BUFFER_OVERFLOW):
        rig.cq.wait(PATIENCE_S)


@pytest.mark.rules("R-CQERR-1", "R-CQ-1")
def test_as_many_results_as_the_depth_are_no_overrun(bench: Bench) -> None:
    rig = make_rig(bench, depth=4)
    for _ in range(4):
        rig.loose.receive([])
    rig.loose.flush()
    assert rig.cq.status is Status.SUCCESS
    assert len(rig.cq.get_results()) == 4
    rig.place("plain")
    assert rig.cq.status is Status.SUCCESS


@pytest.mark.rules("R-CQERR-3", "R-ARM-8", "R-ARM-11")
@pytest.mark.parametrize("kind", [ANY, SOLICITED, ERRORS])
def test_the_failure_is_told_at_the_next_arm_of_any_kind_and_once(bench: Bench, kind: CqNotify) -> None:
    rig = make_rig(bench, depth=4)
    overrun(rig)
    assert rig.fired() == 0
    rig.cq.arm(kind)
    rig.fired()
    assert rig.told == [Status.BUFFER_OVERFLOW]
    rig.cq.arm(kind)
    rig.fired()
    assert rig.told == [Status.BUFFER_OVERFLOW]


@pytest.mark.rules("R-CQERR-1", "R-ARM-8")
def test_an_arm_for_errors_is_satisfied_by_the_overrun(bench: Bench) -> None:
    rig = make_rig(bench, depth=4)
    rig.cq.arm(ERRORS)
    overrun(rig)
    rig.fired()
    assert rig.told == [Status.BUFFER_OVERFLOW]


@pytest.mark.rules("R-CQERR-4", "R-CQERR-1")
def test_every_connection_that_completes_into_a_failed_queue_is_ended(bench: Bench) -> None:
    passive = bench.adapter(Side.PASSIVE)
    cq = passive.create_cq(2)
    pairs = [bench.connect(bench.end(), bench.end(passive, cq=cq)) for _ in range(2)]
    bystander = bench.connect(bench.end(), bench.end(passive))
    a, b = pairs[0]
    for number in range(3):
        b.qp.receive([], context=number)
        a.qp.send([])
    for pair in pairs:
        for end in pair:
            assert not ended(end).graceful
    assert contexts(cq.get_results()) == [0, 1]
    assert statuses(take(a.cq, 3))[0] is Status.SUCCESS
    still_works(bystander)


@pytest.mark.rules("R-COMP-6", "R-RESX-2")
def test_a_failed_result_explains_itself(both: Pair) -> None:
    a, _ = both
    a.qp.receive([], context="receive")
    a.qp.flush()
    result = one(a.cq)
    assert result.status is Status.CANCELLED
    error = result.error
    assert error is not None
    assert error.status is Status.CANCELLED
    with pytest.raises(type(error)):
        result.check()
    assert (result.bytes_transferred, result.invalidated_token) == (0, None)
