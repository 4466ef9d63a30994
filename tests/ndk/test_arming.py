"""Arming and waiting on a real completion queue: R-ARM-1 to -13, R-CQERR, the descriptor, and waiters side by side.

That nothing fires is proved without waiting for it: a notification that is due has been handed to the callback thread
by the time its completion can be seen, and `callbacks_have_run` waits for everything handed over.
"""

import asyncio
import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import trio

from softndk import (
    MAXULONG,
    BufferOverflow,
    ConnectionInvalid,
    Cq,
    CqNotify,
    InvalidHandle,
    InvalidParameter,
    NdkError,
    OpFlag,
    Qp,
    Result,
    Status,
    open_adapter,
)
from softndk.conformance.bench import OwnLock
from softndk.testing import End, Pair, kill
from tests.ndk.ends import PATIENCE_S, callbacks_have_run, connect, contexts, loose_end, one, succeed, take

ANY, SOLICITED, ERRORS = CqNotify.ANY, CqNotify.SOLICITED, CqNotify.ERRORS


@dataclass
class Armed:
    """A CQ with a callback that fills from a connected peer, and from a QP that was never connected."""

    peer: End
    end: End
    cq: Cq
    qp: Qp
    loose: Qp
    told: list[Status] = field(default_factory=list)
    number: int = 0

    def deliver(self, kind: str) -> None:
        """Place one completion, and return when it is placed; nothing is taken and nothing is armed."""
        self.number += 1
        if kind == "error":
            self.loose.receive([], context=self.number)
            self.loose.flush()
            return
        self.qp.receive(self.end.mr[0:8], context=self.number)
        self.peer.qp.send(b"x", flags=OpFlag.SEND_AND_SOLICIT_EVENT if kind == "solicited" else 0)
        self.peer.qp.read([], 0, self.peer.mr.remote_token)  # answered only after the Send has been delivered
        succeed(self.peer.cq, 2)

    @property
    def fired(self) -> int:
        """How often the callback has been called for what has happened so far."""
        callbacks_have_run(self.end.adapter)
        return len(self.told)

    @property
    def readable(self) -> bool:
        return bool(select.select([self.cq.fileno()], [], [], 0)[0])


@contextmanager
def armed_cq(depth: int = 64) -> Iterator[Armed]:
    with open_adapter() as active, open_adapter() as passive:
        peer, end = loose_end(active), loose_end(passive)
        rig: Armed

        def on_notify(cq: Cq, status: Status) -> None:
            assert cq is rig.cq
            rig.told.append(status)

        cq = passive.create_cq(depth, on_notify)
        qp = end.pd.create_qp(cq, end.cq, receive_queue_depth=64, initiator_queue_depth=64)
        loose = end.pd.create_qp(cq, cq, receive_queue_depth=64, initiator_queue_depth=1)
        rig = Armed(peer, end, cq, qp, loose)
        connect(active, peer.qp, passive, qp)
        yield rig


@pytest.fixture
def rig() -> Iterator[Armed]:
    with armed_cq() as made:
        yield made


# ---- R-ARM-1, -2, -8: one arm, one callback, for what matches


@pytest.mark.rules("R-ARM-1")
def test_without_an_arm_there_is_no_callback(rig: Armed) -> None:
    for kind in ("plain", "solicited", "error"):
        rig.deliver(kind)
    assert rig.fired == 0


@pytest.mark.rules("R-ARM-1")
def test_one_arm_gives_at_most_one_callback(rig: Armed) -> None:
    rig.cq.arm()
    for _ in range(3):
        rig.deliver("solicited")
    assert rig.fired == 1


@pytest.mark.rules("R-ARM-1", "R-ARM-2")
def test_an_arm_alone_fires_nothing(rig: Armed) -> None:
    rig.cq.arm()
    assert rig.fired == 0


@pytest.mark.rules("R-ARM-8", "R-ARM-2", "A-11")
@pytest.mark.parametrize(
    ("armed", "event", "fires"),
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
def test_what_matches_an_arm(rig: Armed, armed: CqNotify, event: str, fires: bool) -> None:
    rig.cq.arm(armed)
    rig.deliver(event)
    assert rig.fired == fires


@pytest.mark.rules("R-ARM-8", "R-CQERR-3")
@pytest.mark.parametrize("armed", [ANY, SOLICITED, ERRORS])
def test_an_overrun_matches_every_arm(armed: CqNotify) -> None:
    with armed_cq(depth=1) as rig:
        rig.deliver("plain")
        rig.cq.get_results()
        rig.cq.arm(armed)
        rig.loose.receive([])
        rig.loose.receive([])
        rig.loose.flush()
        callbacks_have_run(rig.end.adapter)
        if armed is ERRORS:
            assert rig.told == [Status.BUFFER_OVERFLOW]
        else:  # the entry that filled the queue satisfied the arm; the failure waits for the next one
            assert rig.told == [Status.SUCCESS]
            rig.cq.arm(armed)
            callbacks_have_run(rig.end.adapter)
            assert rig.told == [Status.SUCCESS, Status.BUFFER_OVERFLOW]


@pytest.mark.rules("R-ARM-1", "R-ARM-6")
def test_the_arm_is_cleared_before_the_callback_is_called(rig: Armed) -> None:
    """So an arm made inside the callback is a new one (R-ARM-1, R-ARM-6)."""
    rearmed = threading.Event()

    def on_notify(cq: Cq, status: Status) -> None:
        taken.extend(cq.get_results())
        cq.arm()
        rearmed.set()

    taken: list[Result] = []
    cq = rig.end.adapter.create_cq(8, on_notify)
    loose = rig.end.pd.create_qp(cq, cq, receive_queue_depth=8, initiator_queue_depth=8)
    cq.arm()
    for number in range(3):
        loose.receive([], context=number)
        loose.flush()
        assert rearmed.wait(PATIENCE_S)
        rearmed.clear()
    assert contexts(taken) == [0, 1, 2]


# ---- R-ARM-3, -4, -9: arming with completions in the queue


@pytest.mark.rules("R-ARM-3")
def test_an_arm_over_a_completion_that_is_new_is_satisfied_at_once(rig: Armed) -> None:
    rig.deliver("plain")
    assert rig.fired == 0
    rig.cq.arm()
    assert rig.fired == 1


@pytest.mark.rules("R-ARM-4")
def test_before_the_first_callback_everything_in_the_queue_is_new(rig: Armed) -> None:
    for _ in range(3):
        rig.deliver("plain")
    rig.cq.get_results(1)
    rig.cq.arm()
    assert rig.fired == 1


@pytest.mark.rules("R-ARM-3")
def test_an_arm_over_completions_that_were_there_at_the_last_callback_is_not_satisfied(rig: Armed) -> None:
    rig.cq.arm()
    rig.deliver("plain")
    assert rig.fired == 1
    rig.cq.arm()
    assert rig.fired == 1
    rig.deliver("plain")
    assert rig.fired == 2


@pytest.mark.rules("R-ARM-3")
def test_a_completion_placed_since_the_last_callback_satisfies_an_arm_over_older_ones(rig: Armed) -> None:
    rig.cq.arm()
    rig.deliver("plain")
    assert rig.fired == 1
    rig.deliver("plain")
    assert rig.fired == 1
    rig.cq.arm()
    assert rig.fired == 2


def test_an_arm_over_an_empty_queue_waits(rig: Armed) -> None:
    rig.deliver("plain")
    assert len(rig.cq.get_results()) == 1
    rig.cq.arm()
    assert rig.fired == 0
    rig.deliver("plain")
    assert rig.fired == 1


@pytest.mark.rules("R-ARM-9")
def test_a_solicited_arm_is_not_satisfied_by_new_unsolicited_completions(rig: Armed) -> None:
    rig.deliver("plain")
    rig.cq.arm(SOLICITED)
    assert rig.fired == 0
    rig.deliver("solicited")
    assert rig.fired == 1


@pytest.mark.rules("R-ARM-9", "R-ARM-8")
@pytest.mark.parametrize("event", ["solicited", "error"])
def test_a_solicited_arm_is_satisfied_by_a_new_matching_completion_below_others(rig: Armed, event: str) -> None:
    rig.deliver(event)
    rig.deliver("plain")
    rig.cq.arm(SOLICITED)
    assert rig.fired == 1


@pytest.mark.rules("R-ARM-9")
def test_a_solicited_completion_that_was_taken_satisfies_no_arm(rig: Armed) -> None:
    rig.deliver("solicited")
    rig.deliver("plain")
    assert len(rig.cq.get_results(1)) == 1
    rig.cq.arm(SOLICITED)
    assert rig.fired == 0


@pytest.mark.rules("R-ARM-4", "R-ARM-6")
def test_who_drains_and_then_arms_never_misses_a_completion() -> None:
    """A consumer that does nothing but what its callback does (R-ARM-4, -6): drain, repost, arm."""
    total = 300
    done = threading.Event()
    arrived: list[object] = []
    with open_adapter() as active, open_adapter() as passive:
        peer, end = loose_end(active), loose_end(passive)

        def on_notify(cq: Cq, status: Status) -> None:
            while results := cq.get_results(3):
                arrived.extend(contexts(results))
                for _ in results:
                    qp.receive(end.mr[0:8], context=len(arrived))
            if len(arrived) == total:
                done.set()
            else:
                cq.arm()

        cq = passive.create_cq(64, on_notify)
        qp = end.pd.create_qp(cq, end.cq, receive_queue_depth=64, initiator_queue_depth=1)
        connect(active, peer.qp, passive, qp)
        for _ in range(32):
            qp.receive(end.mr[0:8])
        cq.arm()
        for _ in range(total // 30):
            for _ in range(30):
                peer.qp.send(b"x", flags=OpFlag.SILENT_SUCCESS)
            peer.qp.read([], 0, peer.mr.remote_token)
            succeed(peer.cq)
            callbacks_have_run(passive)  # the receives are back
        assert done.wait(PATIENCE_S), f"{len(arrived)} of {total}"


# ---- R-ARM-5, -10, -12: how the callback is called


@pytest.mark.rules("R-ARM-5", "R-CONC-5")
def test_callbacks_of_one_queue_never_overlap_and_none_is_merged_away(rig: Armed) -> None:
    inside, entered, leave = [0], threading.Semaphore(0), threading.Semaphore(0)
    most = [0]

    def on_notify(cq: Cq, status: Status) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        entered.release()
        assert leave.acquire(timeout=PATIENCE_S)
        inside[0] -= 1

    cq = rig.end.adapter.create_cq(8, on_notify)
    loose = rig.end.pd.create_qp(cq, cq, receive_queue_depth=8, initiator_queue_depth=8)
    for turn in range(2):  # the second one is due while the first one runs
        cq.arm()
        loose.receive([], context=turn)
        loose.flush()
        if turn == 0:
            assert entered.acquire(timeout=PATIENCE_S)
    assert not entered.acquire(blocking=False)
    leave.release()
    assert entered.acquire(timeout=PATIENCE_S)
    leave.release()
    callbacks_have_run(rig.end.adapter)
    assert most == [1]


@pytest.mark.rules("R-ARM-6")
def test_a_completion_placed_during_a_callback_counts_as_new(rig: Armed) -> None:
    calls = threading.Semaphore(0)
    first = [True]

    def on_notify(cq: Cq, status: Status) -> None:
        if first and first.pop():
            cq.get_results()
            loose.receive([])
            loose.flush()  # placed while this callback runs
            cq.arm()
        calls.release()

    cq = rig.end.adapter.create_cq(8, on_notify)
    loose = rig.end.pd.create_qp(cq, cq, receive_queue_depth=8, initiator_queue_depth=8)
    cq.arm()
    loose.receive([])
    loose.flush()
    for _ in range(2):
        assert calls.acquire(timeout=PATIENCE_S)


@pytest.mark.rules("R-ARM-10")
def test_the_completion_is_in_the_queue_when_the_callback_runs() -> None:
    found: list[Result] = []
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        cq = passive.create_cq(8, lambda cq, _: found.extend(cq.get_results()))
        qp = b.pd.create_qp(cq, b.cq, receive_queue_depth=8, initiator_queue_depth=8)
        connect(active, a.qp, passive, qp)
        for _ in range(20):
            cq.arm(SOLICITED)
            qp.receive(b.mr[0:8])
            a.qp.send(b"solicit", flags=OpFlag.SEND_AND_SOLICIT_EVENT)
            a.qp.read([], 0, a.mr.remote_token)
            succeed(a.cq, 2)
            callbacks_have_run(passive)
            assert [r.bytes_transferred for r in found] == [7]
            found.clear()


@pytest.mark.rules("R-ARM-12")
def test_the_callback_never_runs_inside_arm_nor_inside_a_post(rig: Armed) -> None:
    """The program may hold a lock of its own around both (R-ARM-12)."""
    threads: list[int] = []
    own = OwnLock()

    def on_notify(cq: Cq, status: Status) -> None:
        threads.append(threading.get_ident())
        own.in_a_callback()

    cq = rig.end.adapter.create_cq(8, on_notify)
    over = rig.end.pd.create_qp(cq, cq, receive_queue_depth=8, initiator_queue_depth=8)
    other = rig.peer.pd.create_qp(rig.peer.cq, rig.peer.cq, receive_queue_depth=8, initiator_queue_depth=8)
    connect(rig.peer.adapter, other, rig.end.adapter, over)
    over.flush()  # from now on every post completes within the post
    with own.around_a_call():
        over.receive([])
        cq.arm()
    callbacks_have_run(rig.end.adapter)
    with own.around_a_call():
        cq.get_results()
        cq.arm()
        over.receive([])
    callbacks_have_run(rig.end.adapter)
    with own.around_a_call():
        cq.get_results()
        cq.arm()
        over.send([])
    callbacks_have_run(rig.end.adapter)
    own.check()
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    assert len(set(threads)) == 1


@pytest.mark.rules("R-ARM-11")
def test_a_notification_tells_its_queue_and_success(rig: Armed) -> None:
    rig.cq.arm()
    rig.deliver("error")
    callbacks_have_run(rig.end.adapter)
    assert rig.told == [Status.SUCCESS]  # of the queue, not of the completion (R-ARM-11)


@pytest.mark.rules("A-23")
def test_a_queue_without_a_callback_may_be_armed_without_effect(rig: Armed) -> None:
    cq = rig.end.cq
    cq.arm()
    rig.qp.receive(rig.end.mr[0:8])
    rig.peer.qp.send(b"x")
    succeed(rig.cq)
    succeed(rig.peer.cq)
    assert cq.get_results() == []


@pytest.mark.parametrize("kind", [3, -1])
def test_an_unknown_kind_of_arm_is_refused(rig: Armed, kind: int) -> None:
    with pytest.raises(InvalidParameter):
        rig.cq.arm(kind)  # type: ignore[arg-type]


# ---- R-ARM-7: a second arm before the first is satisfied

UPGRADES = {
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
@pytest.mark.parametrize(("first", "second"), UPGRADES, ids=lambda kind: kind.name)
def test_a_second_arm_before_the_first_is_satisfied_makes_the_type_of_the_table(
    rig: Armed, first: CqNotify, second: CqNotify
) -> None:
    rig.cq.arm(first)
    rig.cq.arm(second)
    after_each = []
    for event in ("plain", "solicited"):
        rig.deliver(event)
        after_each.append(rig.fired)
    expected = {ANY: [1, 1], SOLICITED: [0, 1], ERRORS: [0, 0]}
    assert after_each == expected[UPGRADES[first, second]]


# ---- R-ARM-13: resize and moderation leave the arm alone


@pytest.mark.parametrize("depth", [8, 128])
def test_a_resize_leaves_the_arm_as_it_is(rig: Armed, depth: int) -> None:
    rig.cq.arm(SOLICITED)
    rig.cq.resize(depth).result(PATIENCE_S)
    rig.deliver("plain")
    assert rig.fired == 0
    rig.deliver("solicited")
    assert rig.fired == 1


def test_a_resize_makes_nothing_old_new(rig: Armed) -> None:
    rig.cq.arm()
    rig.deliver("plain")
    assert rig.fired == 1
    rig.cq.resize(128).result(PATIENCE_S)
    rig.cq.arm()
    assert rig.fired == 1


def test_a_resize_loses_no_completion(rig: Armed) -> None:
    for _ in range(3):
        rig.deliver("plain")
    rig.cq.resize(3).result(PATIENCE_S)
    assert rig.cq.depth == 3
    assert contexts(rig.cq.get_results()) == [1, 2, 3]


def test_a_resize_below_the_content_is_buffer_overflow_and_changes_nothing(rig: Armed) -> None:
    for _ in range(3):
        rig.deliver("plain")
    with pytest.raises(BufferOverflow):
        rig.cq.resize(2).result(PATIENCE_S)
    assert (rig.cq.depth, rig.cq.status, len(rig.cq.get_results())) == (64, Status.SUCCESS, 3)


def test_moderation_may_delay_a_notification_and_loses_none(rig: Armed) -> None:
    """R-MOD: by count here, so that no time is involved; then the latest settings win."""
    rig.cq.control_interrupt_moderation(MAXULONG, 3)
    rig.cq.arm()
    for expected in (0, 0, 1):
        rig.deliver("plain")
        assert rig.fired in (expected, 1)  # calling back earlier is always correct (R-MOD-5)
    assert rig.fired == 1
    rig.cq.control_interrupt_moderation(0, 0)
    rig.cq.arm()
    rig.deliver("plain")
    assert rig.fired == 2


def test_moderation_that_would_never_notify_is_an_invalid_mix(rig: Armed) -> None:
    for count in (MAXULONG, 65):
        with pytest.raises(InvalidParameter) as refused:
            rig.cq.control_interrupt_moderation(MAXULONG, count)
        assert refused.value.status is Status.INVALID_PARAMETER_MIX


# ---- R-CQERR: failure


def overrun(rig: Armed) -> None:
    """One completion too many for a depth of 2."""
    for number in range(3):
        rig.loose.receive([], context=number)
    rig.loose.flush()


@pytest.mark.rules("R-CQERR-1")
def test_one_completion_too_many_is_buffer_overflow_for_good() -> None:
    with armed_cq(depth=2) as rig:
        overrun(rig)
        assert rig.cq.status is Status.BUFFER_OVERFLOW
        assert len(rig.cq.get_results()) == 2
        assert rig.cq.status is Status.BUFFER_OVERFLOW


@pytest.mark.rules("R-CQ-1")
def test_as_many_completions_as_the_depth_are_no_overrun() -> None:
    with armed_cq(depth=2) as rig:
        rig.loose.receive([])
        rig.loose.receive([])
        rig.loose.flush()
        assert rig.cq.status is Status.SUCCESS


@pytest.mark.rules("R-CQERR-3")
def test_the_failure_is_told_at_the_next_arm_of_any_type_and_once() -> None:
    for kind in CqNotify:
        with armed_cq(depth=2) as rig:
            overrun(rig)
            assert rig.fired == 0
            rig.cq.arm(kind)
            assert rig.fired == 1
            assert rig.told == [Status.BUFFER_OVERFLOW]
            rig.cq.arm(kind)
            assert rig.fired == 1


@pytest.mark.rules("R-CQERR-4")
def test_entries_placed_before_the_overrun_stay_readable_and_no_more_come() -> None:
    with armed_cq(depth=2) as rig:
        overrun(rig)
        assert contexts(rig.cq.get_results()) == [0, 1]
        assert rig.cq.get_results() == []


@pytest.mark.rules("R-CQERR-1", "R-CQERR-4")
def test_all_queue_pairs_of_a_failed_queue_are_unusable() -> None:
    with armed_cq(depth=2) as rig:
        overrun(rig)
        with pytest.raises(ConnectionInvalid, match="has failed with BUFFER_OVERFLOW"):
            rig.qp.send(b"x")
        with pytest.raises(ConnectionInvalid):
            rig.qp.receive([])


@pytest.mark.rules("R-CQERR-4")
def test_connections_of_a_failed_queue_are_aborted() -> None:
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive, cq_depth=2)
        outgoing, incoming = connect(active, a.qp, passive, b.qp)
        a.qp.receive([], context="flushed")
        for _ in range(3):
            b.qp.receive([])
        for _ in range(3):
            a.qp.send([], flags=OpFlag.SILENT_SUCCESS)
        assert not incoming.disconnected.result(PATIENCE_S).graceful
        assert not outgoing.disconnected.result(PATIENCE_S).graceful
        assert "flushed" in contexts(take(a.cq, 1))
        assert passive.query_statistics().cq_error == 1
        assert active.query_statistics().cq_error == 0


def test_after_a_failure_the_remaining_entries_come_first_then_every_wait_raises() -> None:
    with armed_cq(depth=2) as rig:
        overrun(rig)
        assert contexts(rig.cq.wait(PATIENCE_S, max_results=1)) == [0]
        assert contexts(rig.cq.wait(PATIENCE_S)) == [1]
        for _ in range(2):
            with pytest.raises(BufferOverflow, match="depth of 2"):
                rig.cq.wait(PATIENCE_S)


def test_a_failure_wakes_a_waiter() -> None:
    with armed_cq(depth=1) as rig, ThreadPoolExecutor() as pool:
        waiting = pool.submit(rig.cq.wait, PATIENCE_S, kind=ERRORS)  # no completion satisfies it
        for number in range(2):
            rig.loose.receive([], context=number)
        rig.loose.flush()
        assert contexts(waiting.result(PATIENCE_S)) == [0]
        with pytest.raises(BufferOverflow):
            pool.submit(rig.cq.wait, PATIENCE_S, kind=ERRORS).result(PATIENCE_S)


# ---- the descriptor


def test_the_descriptor_becomes_readable_when_an_arm_fires(rig: Armed) -> None:
    assert not rig.readable
    rig.cq.arm()
    assert not rig.readable
    rig.deliver("plain")
    assert rig.readable


def test_the_descriptor_is_not_readable_without_an_arm(rig: Armed) -> None:
    assert not rig.readable
    rig.deliver("solicited")
    assert not rig.readable


def test_the_descriptor_stays_readable_until_the_next_get_results(rig: Armed) -> None:
    assert not rig.readable
    rig.cq.arm()
    rig.deliver("plain")
    assert rig.readable
    assert rig.readable
    assert len(rig.cq.get_results()) == 1
    assert not rig.readable


def test_the_descriptor_stays_readable_until_the_next_arm(rig: Armed) -> None:
    assert not rig.readable
    rig.cq.arm()
    rig.deliver("plain")
    assert rig.readable
    rig.cq.arm()  # not satisfied at once: nothing is new
    assert not rig.readable
    rig.deliver("plain")
    assert rig.readable


def test_an_arm_that_is_satisfied_at_once_leaves_the_descriptor_readable(rig: Armed) -> None:
    assert not rig.readable
    rig.deliver("plain")
    rig.cq.arm()
    assert rig.readable


def test_a_wait_leaves_the_descriptor_as_it_is(rig: Armed) -> None:
    assert not rig.readable
    rig.cq.arm()
    rig.deliver("plain")
    assert len(rig.cq.wait(PATIENCE_S)) == 1
    assert rig.readable


def test_the_descriptor_works_without_a_callback(both: Pair) -> None:
    a, b = both
    fd = b.cq.fileno()
    b.cq.arm()
    b.qp.receive(b.mr[0:8])
    a.qp.send(b"x")
    assert select.select([fd], [], [], PATIENCE_S)[0] == [fd]
    assert len(b.cq.get_results()) == 1


def test_descriptor_and_callback_are_told_both(rig: Armed) -> None:
    assert not rig.readable
    rig.cq.arm()
    rig.deliver("plain")
    assert rig.readable
    assert rig.fired == 1


def test_the_descriptor_works_in_an_event_loop(both: Pair) -> None:
    a, b = both

    async def main() -> list[Result]:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(b.cq.fileno(), ready.set)
        b.cq.arm()
        a.qp.send(b"x")
        await asyncio.wait_for(ready.wait(), PATIENCE_S)
        loop.remove_reader(b.cq.fileno())
        return b.cq.get_results()

    b.qp.receive(b.mr[0:8])
    assert len(asyncio.run(main())) == 1


# ---- waiters beside arms


def test_a_waiter_does_not_arm(rig: Armed) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(rig.cq.wait, PATIENCE_S)
        rig.deliver("solicited")
        assert len(waiting.result(PATIENCE_S)) == 1
    assert rig.fired == 0


def test_a_waiter_does_not_satisfy_or_clear_an_arm(rig: Armed) -> None:
    rig.cq.arm(SOLICITED)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(rig.cq.wait, PATIENCE_S)
        rig.deliver("plain")
        assert len(waiting.result(PATIENCE_S)) == 1
    assert rig.fired == 0
    rig.deliver("solicited")
    assert rig.fired == 1


def test_a_waiter_does_not_upgrade_an_arm(rig: Armed) -> None:
    rig.cq.arm(SOLICITED)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(rig.cq.wait, PATIENCE_S, kind=ANY)
        rig.deliver("plain")
        waiting.result(PATIENCE_S)
    rig.deliver("plain")
    assert rig.fired == 0


def test_an_arm_consumes_no_waiter(rig: Armed) -> None:
    rig.cq.arm()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(rig.cq.wait, PATIENCE_S)
        rig.deliver("plain")
        assert len(waiting.result(PATIENCE_S)) == 1
    assert rig.fired == 1


def test_a_waiters_condition_is_a_level(rig: Armed) -> None:
    """What an arm has seen already is there all the same."""
    rig.cq.arm()
    rig.deliver("plain")
    assert rig.fired == 1
    assert len(rig.cq.wait(PATIENCE_S)) == 1


def test_a_waiter_waits_for_an_entry_that_matches_its_kind(rig: Armed) -> None:
    rig.deliver("plain")
    with pytest.raises(TimeoutError):
        rig.cq.wait(0, kind=SOLICITED)
    rig.deliver("solicited")
    rig.deliver("plain")
    assert contexts(rig.cq.wait(PATIENCE_S, kind=SOLICITED)) == [1, 2, 3]  # of every type, oldest first


def test_a_waiter_takes_no_more_than_it_may(rig: Armed) -> None:
    for _ in range(3):
        rig.deliver("plain")
    assert contexts(rig.cq.wait(PATIENCE_S, max_results=2)) == [1, 2]
    assert contexts(rig.cq.wait(PATIENCE_S, max_results=2)) == [3]


def test_an_expired_wait_is_a_plain_timeout_and_takes_nothing(rig: Armed) -> None:
    with pytest.raises(TimeoutError, match="cq2 wait") as expired:
        rig.cq.wait(0.01)
    assert not isinstance(expired.value, NdkError)
    rig.deliver("plain")
    assert len(rig.cq.wait(PATIENCE_S)) == 1


def test_each_result_reaches_exactly_one_of_many_waiters() -> None:
    total, waiters = 200, 5
    found: list[list[object]] = [[] for _ in range(waiters)]

    def consume(cq: Cq, mine: list[object]) -> None:
        while True:
            for result in cq.wait(PATIENCE_S, max_results=2):
                if result.request_context is None:
                    return
                mine.append(result.request_context)

    with armed_cq(depth=256) as rig, ThreadPoolExecutor(waiters) as pool:
        running = [pool.submit(consume, rig.cq, mine) for mine in found]
        for number in range(total):
            rig.loose.receive([], context=number)
            rig.loose.flush()
        for _ in range(2 * waiters):
            rig.loose.receive([])
            rig.loose.flush()
        for future in running:
            future.result(PATIENCE_S)
    everything = sorted(number for mine in found for number in mine if isinstance(number, int))
    assert everything == list(range(total))


def test_waiters_of_threads_asyncio_and_trio_share_one_queue(rig: Armed) -> None:
    async def in_asyncio() -> list[Result]:
        return await asyncio.wait_for(rig.cq.next_results(max_results=1), PATIENCE_S)

    async def in_trio() -> list[Result]:
        with trio.fail_after(PATIENCE_S):
            return await rig.cq.next_results(max_results=1)

    with ThreadPoolExecutor() as pool:
        running = [
            pool.submit(rig.cq.wait, PATIENCE_S, max_results=1),
            pool.submit(lambda: asyncio.run(in_asyncio())),
            pool.submit(lambda: trio.run(in_trio)),
        ]
        for _ in range(3):
            rig.deliver("plain")
        found = [result.request_context for future in running for result in future.result(PATIENCE_S)]
    assert sorted(found) == [1, 2, 3]


def test_async_for_takes_one_entry_a_step_and_a_break_loses_nothing(rig: Armed) -> None:
    for _ in range(3):
        rig.deliver("plain")

    async def first() -> Result:
        async for result in rig.cq:
            return result
        raise AssertionError("the loop ended")

    assert asyncio.run(first()).request_context == 1
    assert trio.run(first).request_context == 2
    assert contexts(rig.cq.get_results()) == [3]


def test_closing_the_queue_wakes_waiters_and_ends_async_for(rig: Armed) -> None:
    seen: list[object] = []

    async def consume() -> None:
        async for result in rig.cq:
            seen.append(result.request_context)

    with ThreadPoolExecutor() as pool:
        looping = pool.submit(lambda: asyncio.run(consume()))
        rig.deliver("plain")
        waiting = pool.submit(rig.cq.wait, PATIENCE_S, kind=ERRORS)
        rig.cq.close()
        looping.result(PATIENCE_S)
        with pytest.raises(InvalidHandle):
            waiting.result(PATIENCE_S)
    assert seen in ([1], [])


@pytest.mark.rules("R-CLOSE-11")
def test_no_callback_comes_once_the_close_has_been_asked_for(rig: Armed) -> None:
    rig.cq.arm()
    rig.cq.close()
    rig.loose.receive([])
    rig.loose.flush()
    assert rig.fired == 0


def test_a_cancelled_wait_takes_nothing(rig: Armed) -> None:
    waiting = rig.cq.next_results()
    assert waiting.cancel()
    rig.deliver("plain")
    assert len(rig.cq.get_results()) == 1


@pytest.mark.rules("R-GETCQ-1")
def test_get_results_takes_oldest_first_and_never_blocks(rig: Armed) -> None:
    assert rig.cq.get_results() == []
    for _ in range(3):
        rig.deliver("plain")
    assert contexts(rig.cq.get_results(2)) == [1, 2]
    assert rig.cq.get_results(0) == []
    assert contexts(rig.cq.get_results()) == [3]
    with pytest.raises(InvalidParameter):
        rig.cq.get_results(-1)


def test_a_disconnect_fires_for_the_receives_that_it_cancels(rig: Armed) -> None:
    rig.qp.receive([])
    rig.cq.arm(SOLICITED)
    kill(rig.peer.adapter, "reset")
    assert one(rig.cq).status is Status.CANCELLED
    assert rig.fired == 1


@pytest.mark.rules("R-FLUSH-3", "R-CQ-4")
def test_results_of_two_queue_pairs_share_a_queue_and_a_flush_of_one_leaves_the_other(rig: Armed) -> None:
    """R-CQ-4, R-FLUSH-3."""
    rig.qp.receive(rig.end.mr[0:8], context="kept")
    rig.loose.receive([], context="flushed")
    rig.loose.flush()
    assert contexts(take(rig.cq, 1)) == ["flushed"]
    rig.peer.qp.send(b"x")
    assert contexts(take(rig.cq, 1)) == ["kept"]
