"""Arming and overrun of a completion queue: every cell of the tables R-ARM-7 and R-ARM-8, and R-CQERR."""

import pytest

from softndk.flags import MAXULONG, CqNotify, OperationType
from softndk.queues.completion import CompletionRing, stronger_arm
from softndk.results import Result
from softndk.status import Status

ANY, ERRORS, SOLICITED = CqNotify.ANY, CqNotify.ERRORS, CqNotify.SOLICITED
SUCCESS = Status.SUCCESS
FAILURES = [
    Status.CANCELLED,
    Status.BUFFER_OVERFLOW,
    Status.ACCESS_VIOLATION,
    Status.INVALID_DEVICE_REQUEST,
    Status.REMOTE_RESOURCES,
]


class Ring:
    """A ring that remembers what it has asked its owner to do."""

    def __init__(self, depth: int = 8) -> None:
        self.fired: list[Status] = []
        self.placed = 0
        self.delays: list[int] = []
        self.ring = CompletionRing(depth, self.fired.append, self.note, self.delays.append)

    def note(self) -> None:
        self.placed += 1

    def push(self, context: object = None, *, status: Status = SUCCESS, solicited: bool = False) -> None:
        self.ring.push(Result(type=OperationType.RECEIVE, status=status, request_context=context), solicited=solicited)

    def take(self, limit: int | None = None) -> list[object]:
        return [result.request_context for result in self.ring.take(limit)]


class TestEntries:
    @pytest.mark.rules("R-GETCQ-1")
    def test_oldest_first(self) -> None:
        """R-GETCQ-1."""
        ring = Ring()
        for number in range(5):
            ring.push(number)
        assert len(ring.ring) == 5
        assert ring.take(2) == [0, 1]
        assert ring.take(0) == []
        assert ring.take(None) == [2, 3, 4]
        assert ring.take(3) == []

    def test_the_owner_hears_of_every_entry(self) -> None:
        ring = Ring()
        ring.push()
        ring.push()
        assert ring.placed == 2

    @pytest.mark.parametrize("kind", CqNotify)
    def test_what_is_present_by_kind(self, kind: CqNotify) -> None:
        """A waiter's condition is a level."""
        ring = Ring()
        assert not ring.ring.holds(kind)
        ring.push(1)
        assert ring.ring.holds(kind) == (kind is ANY)
        ring.push(2, solicited=True)
        ring.push(3)
        assert ring.ring.holds(kind) == (kind is not ERRORS)
        ring.take(2)
        assert ring.ring.holds(kind) == (kind is ANY)
        ring.take()
        assert not ring.ring.holds(kind)


class TestMatching:
    """R-ARM-8, each cell, with the entry placed after the arm and before it."""

    def cell(self, kind: CqNotify, *, status: Status, solicited: bool, arm_first: bool) -> bool:
        ring = Ring()
        if arm_first:
            ring.ring.arm(kind)
            assert ring.fired == []
        ring.push(status=status, solicited=solicited)
        if not arm_first:
            assert ring.fired == []
            ring.ring.arm(kind)
        assert ring.ring.armed is (None if ring.fired else kind)
        assert ring.fired in ([], [SUCCESS])
        return bool(ring.fired)

    @pytest.mark.rules("R-ARM-8")
    @pytest.mark.parametrize("arm_first", [True, False])
    @pytest.mark.parametrize(("kind", "fires"), [(ANY, True), (SOLICITED, True), (ERRORS, False)])
    def test_solicited_receive(self, kind: CqNotify, fires: bool, arm_first: bool) -> None:
        assert self.cell(kind, status=SUCCESS, solicited=True, arm_first=arm_first) == fires

    @pytest.mark.rules("R-ARM-8")
    @pytest.mark.parametrize("arm_first", [True, False])
    @pytest.mark.parametrize(("kind", "fires"), [(ANY, True), (SOLICITED, False), (ERRORS, False)])
    def test_any_other_success(self, kind: CqNotify, fires: bool, arm_first: bool) -> None:
        assert self.cell(kind, status=SUCCESS, solicited=False, arm_first=arm_first) == fires

    @pytest.mark.rules("R-ARM-8", "A-11")
    @pytest.mark.parametrize("arm_first", [True, False])
    @pytest.mark.parametrize("status", FAILURES)
    @pytest.mark.parametrize(("kind", "fires"), [(ANY, True), (SOLICITED, True), (ERRORS, False)])
    def test_error_completion(self, kind: CqNotify, fires: bool, status: Status, arm_first: bool) -> None:
        """A-11: fires ANY and SOLICITED, not ERRORS."""
        assert self.cell(kind, status=status, solicited=False, arm_first=arm_first) == fires

    @pytest.mark.rules("R-ARM-8")
    @pytest.mark.parametrize("status", [Status.BUFFER_OVERFLOW, Status.INTERNAL_ERROR])
    @pytest.mark.parametrize("arm_first", [True, False])
    @pytest.mark.parametrize("kind", CqNotify)
    def test_failure_of_the_queue(self, kind: CqNotify, arm_first: bool, status: Status) -> None:
        ring = Ring()
        if arm_first:
            ring.ring.arm(kind)
        ring.ring.fail(status)
        if not arm_first:
            assert ring.fired == []
            ring.ring.arm(kind)
        assert ring.fired == [status]


# R-ARM-7: (first, second) -> result
TWICE = {
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


@pytest.mark.parametrize(("first", "second"), TWICE)
class TestArmedTwice:
    @pytest.mark.rules("R-ARM-7")
    def test_type(self, first: CqNotify, second: CqNotify) -> None:
        assert stronger_arm(first, second) is TWICE[first, second]
        ring = Ring()
        ring.ring.arm(first)
        ring.ring.arm(second)
        assert ring.ring.armed is TWICE[first, second]

    def test_one_notification_only(self, first: CqNotify, second: CqNotify) -> None:
        ring = Ring()
        ring.ring.arm(first)
        ring.ring.arm(second)
        ring.push(solicited=True)
        ring.push(solicited=True)
        assert len(ring.fired) == (0 if TWICE[first, second] is ERRORS else 1)

    def test_what_it_waits_for(self, first: CqNotify, second: CqNotify) -> None:
        ring = Ring()
        ring.ring.arm(first)
        ring.ring.arm(second)
        ring.push()
        assert bool(ring.fired) == (TWICE[first, second] is ANY)


class TestArming:
    @pytest.mark.rules("R-ARM-1", "R-CQ-2")
    def test_without_an_arm_there_is_no_notification(self) -> None:
        """R-ARM-1, R-CQ-2."""
        ring = Ring()
        ring.push(solicited=True)
        ring.push(status=Status.CANCELLED)
        assert ring.fired == []

    @pytest.mark.rules("R-ARM-1")
    def test_one_arm_one_notification(self) -> None:
        """R-ARM-1: the arm is cleared first."""
        ring = Ring()
        armed_meanwhile: list[object] = []
        ring.ring = CompletionRing(8, lambda status: armed_meanwhile.append(ring.ring.armed), ring.note)
        ring.ring.arm(ANY)
        ring.push()
        ring.push()
        assert armed_meanwhile == [None]

    @pytest.mark.rules("R-ARM-10")
    def test_the_completion_is_there_when_it_fires(self) -> None:
        """R-ARM-10."""
        ring = Ring()
        lengths: list[int] = []
        ring.ring = CompletionRing(8, lambda status: lengths.append(len(ring.ring)), ring.note)
        ring.ring.arm(SOLICITED)
        ring.push(solicited=True)
        assert lengths == [1]

    @pytest.mark.rules("R-ARM-4")
    def test_before_the_first_notification_everything_is_new(self) -> None:
        """R-ARM-4."""
        ring = Ring()
        ring.push()
        ring.ring.arm(ANY)
        assert ring.fired == [SUCCESS]

    @pytest.mark.rules("R-ARM-3")
    def test_new_ones_satisfy_at_once(self) -> None:
        """R-ARM-3, first case."""
        ring = Ring()
        ring.ring.arm(ANY)
        ring.push(1)
        ring.push(2)
        ring.ring.arm(ANY)
        assert len(ring.fired) == 2

    @pytest.mark.rules("R-ARM-3")
    def test_old_ones_do_not_fire_again(self) -> None:
        """R-ARM-3, second case."""
        ring = Ring()
        ring.push()
        ring.ring.arm(ANY)
        ring.ring.arm(ANY)
        assert len(ring.fired) == 1
        ring.push()
        assert len(ring.fired) == 2

    def test_taken_ones_do_not_fire(self) -> None:
        ring = Ring()
        ring.push(1, solicited=True)
        ring.push(2)
        ring.take(1)
        ring.ring.arm(SOLICITED)
        assert ring.fired == []
        ring.ring.arm(ANY)
        assert ring.fired == [SUCCESS]
        ring = Ring()
        ring.push()
        ring.take()
        ring.ring.arm(ANY)
        assert ring.fired == []

    @pytest.mark.rules("R-ARM-9")
    def test_the_type_filters_what_is_new(self) -> None:
        """R-ARM-9."""
        ring = Ring()
        ring.ring.arm(ANY)
        ring.push(1, solicited=True)
        ring.push(2)
        ring.ring.arm(SOLICITED)
        assert len(ring.fired) == 1
        ring.push(3, status=Status.CANCELLED)
        assert len(ring.fired) == 2

    @pytest.mark.rules("R-ARM-4", "R-ARM-6")
    def test_drain_then_arm_never_misses_one(self) -> None:
        """R-ARM-4, R-ARM-6: whenever the completion comes."""
        ring = Ring()
        ring.ring.arm(ANY)
        ring.push(1)  # fires; the callback is due
        ring.push(2)
        assert ring.take() == [1, 2]
        ring.push(3)  # between the last drain and the arm
        ring.ring.arm(ANY)
        assert len(ring.fired) == 2
        assert ring.take() == [3]
        ring.ring.arm(ANY)
        assert len(ring.fired) == 2
        ring.push(4)
        assert len(ring.fired) == 3

    def test_an_arm_of_the_wrong_type_stays(self) -> None:
        ring = Ring()
        ring.ring.arm(SOLICITED)
        ring.push()
        assert ring.fired == []
        assert ring.ring.armed is SOLICITED


class TestFailure:
    @pytest.mark.rules("R-CQERR-1")
    def test_one_completion_too_many(self) -> None:
        """R-CQERR-1."""
        ring = Ring(depth=2)
        told: list[str] = []
        ring.ring.on_overrun += [lambda: told.append("qp1"), lambda: told.append("qp2")]
        ring.push(1)
        ring.push(2)
        assert ring.ring.status is SUCCESS
        assert told == []
        ring.push(3)
        assert ring.ring.status.name == "BUFFER_OVERFLOW"
        assert told == ["qp1", "qp2"]

    @pytest.mark.rules("R-CQERR-1", "R-CQERR-4")
    def test_earlier_entries_stay_readable_and_no_new_ones_come(self) -> None:
        """R-CQERR-4."""
        ring = Ring(depth=2)
        for number in range(4):
            ring.push(number)
        assert ring.take(1) == [0]
        ring.push(9)
        assert ring.take() == [1]
        ring.push(9)
        assert ring.take() == []

    def test_full_is_not_overrun(self) -> None:
        ring = Ring(depth=2)
        for number in range(10):
            ring.push(number)
            ring.push(number)
            ring.take()
        assert ring.ring.status is SUCCESS

    @pytest.mark.rules("R-CQERR-3")
    @pytest.mark.parametrize("kind", CqNotify)
    def test_it_is_told_once_at_the_next_arm(self, kind: CqNotify) -> None:
        """R-CQERR-3."""
        ring = Ring(depth=1)
        ring.push()
        ring.push()
        assert ring.fired == []
        ring.ring.arm(kind)
        assert ring.fired == [Status.BUFFER_OVERFLOW]
        ring.ring.arm(ANY)
        ring.ring.arm(ERRORS)
        assert ring.fired == [Status.BUFFER_OVERFLOW]

    def test_an_arm_that_waits_is_told_at_once(self) -> None:
        ring = Ring(depth=1)
        ring.ring.arm(ERRORS)
        ring.push()
        assert ring.fired == []
        ring.push()
        assert ring.fired == [Status.BUFFER_OVERFLOW]

    @pytest.mark.rules("R-ARM-11", "R-CQERR-2")
    def test_the_first_failure_stays(self) -> None:
        """R-ARM-11, R-CQERR-2: latched."""
        ring = Ring()
        told: list[int] = []
        ring.ring.on_overrun.append(lambda: told.append(1))
        ring.ring.fail(Status.INTERNAL_ERROR)
        ring.ring.fail(Status.BUFFER_OVERFLOW)
        assert ring.ring.status is Status.INTERNAL_ERROR
        assert told == [1]

    def test_waiters_hear_of_it(self) -> None:
        ring = Ring()
        ring.ring.fail(Status.INTERNAL_ERROR)
        assert ring.placed == 1

    def test_a_qp_may_leave_while_it_is_told(self) -> None:
        ring = Ring()
        told: list[str] = []

        def leave() -> None:
            told.append("first")
            ring.ring.on_overrun.remove(leave)

        ring.ring.on_overrun += [leave, lambda: told.append("second")]
        ring.ring.fail(Status.INTERNAL_ERROR)
        assert told == ["first", "second"]


class TestModeration:
    """R-MOD: what happens once a completion satisfies an arm. The owner keeps the time and calls `mature`."""

    def moderated(self, interval: int, count: int, *, depth: int = 8) -> Ring:
        ring = Ring(depth)
        ring.ring.moderate(interval, count)
        ring.ring.arm(ANY)
        return ring

    @pytest.mark.parametrize(("interval", "count"), [(0, 5), (0, MAXULONG), (100, 0), (100, 1), (MAXULONG, 1)])
    def test_at_once(self, interval: int, count: int) -> None:
        ring = self.moderated(interval, count)
        ring.push()
        assert ring.fired == [SUCCESS]
        assert ring.delays == []

    @pytest.mark.rules("R-MOD-5")
    @pytest.mark.parametrize("count", [MAXULONG, 9])
    def test_by_time_only(self, count: int) -> None:
        ring = self.moderated(100, count)
        for _ in range(3):
            ring.push()
        assert ring.fired == []
        assert ring.delays == [100]
        ring.ring.mature()
        assert ring.fired == [SUCCESS]

    @pytest.mark.rules("R-MOD-5")
    def test_by_count_only(self) -> None:
        ring = self.moderated(MAXULONG, 3)
        ring.push()
        ring.push()
        assert ring.fired == []
        ring.push()
        assert ring.fired == [SUCCESS]
        assert ring.delays == []

    @pytest.mark.rules("R-MOD-5")
    @pytest.mark.parametrize("first", ["time", "count"])
    def test_whichever_comes_first(self, first: str) -> None:
        ring = self.moderated(100, 2)
        ring.push()
        assert ring.fired == []
        if first == "time":
            ring.ring.mature()
        else:
            ring.push()
        assert ring.fired == [SUCCESS]
        ring.ring.mature()
        assert ring.fired == [SUCCESS]

    def test_each_notification_gathers_anew(self) -> None:
        ring = self.moderated(MAXULONG, 2)
        for expected in (1, 2, 3):
            ring.push()
            ring.push()
            assert len(ring.fired) == expected
            ring.ring.arm(ANY)

    def test_an_arm_for_completions_that_are_there(self) -> None:
        ring = Ring()
        ring.ring.moderate(MAXULONG, 2)
        ring.push()
        ring.ring.arm(ANY)
        assert ring.fired == []
        ring.push()
        assert ring.fired == [SUCCESS]

    def test_what_was_taken_meanwhile_is_not_notified(self) -> None:
        ring = self.moderated(100, MAXULONG)
        ring.push()
        ring.take()
        ring.ring.mature()
        assert ring.fired == []
        assert ring.ring.armed is ANY
        ring.push()
        assert ring.delays == [100, 100]

    @pytest.mark.rules("R-MOD-2")
    def test_the_latest_settings_win(self) -> None:
        """R-MOD-2: also over a notification that is being delayed."""
        ring = self.moderated(MAXULONG, 5)
        ring.push()
        ring.ring.moderate(50, MAXULONG)
        assert ring.delays == [50]
        ring.ring.moderate(0, 0)
        assert ring.fired == [SUCCESS]

    def test_settings_alone_fire_nothing(self) -> None:
        ring = Ring()
        ring.push()
        ring.ring.moderate(0, 0)
        ring.ring.mature()
        assert ring.fired == []

    def test_a_failure_is_told_at_once(self) -> None:
        ring = self.moderated(MAXULONG, 5)
        ring.push()
        ring.ring.fail(Status.INTERNAL_ERROR)
        assert ring.fired == [Status.INTERNAL_ERROR]

    def test_a_full_queue_waits_for_no_company(self) -> None:
        """The count cannot be reached: the consumer must hear before the queue overruns."""
        ring = Ring(depth=4)
        ring.ring.arm(ANY)
        ring.push("old")
        ring.push("old")
        assert len(ring.fired) == 1
        ring.ring.moderate(MAXULONG, 4)
        ring.ring.arm(ANY)
        ring.push("new")
        assert len(ring.fired) == 1
        ring.push("new")
        assert len(ring.fired) == 2

    def test_a_queue_made_smaller_than_the_count(self) -> None:
        ring = self.moderated(MAXULONG, 8)
        ring.ring.resize(2)
        ring.push()
        assert ring.fired == []
        ring.push()
        assert ring.fired == [SUCCESS]


class TestResize:
    @pytest.mark.rules("R-RESIZE-3", "R-ARM-13")
    def test_entries_and_arm_stay(self) -> None:
        """R-RESIZE-3, R-ARM-13."""
        ring = Ring(depth=2)
        ring.push(1)
        ring.push(2)
        ring.ring.arm(SOLICITED)
        ring.ring.resize(3)
        assert ring.ring.armed is SOLICITED
        ring.push(3, solicited=True)
        assert ring.fired == [SUCCESS]
        assert ring.take() == [1, 2, 3]

    def test_the_new_depth_counts(self) -> None:
        ring = Ring(depth=8)
        ring.push(1)
        ring.ring.resize(1)
        ring.push(2)
        assert ring.ring.status is Status.BUFFER_OVERFLOW
