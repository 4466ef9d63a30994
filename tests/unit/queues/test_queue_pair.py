"""The two queues of a QP: depth, what may start, completion order, flush. Without a wire."""

from collections.abc import Callable

import pytest

from softndk.errors import Aborted, QueueFull, RequestCancelled
from softndk.flags import LocalToken, OperationType, OpFlag
from softndk.memory.sge import Sge
from softndk.queues.completion import CompletionRing
from softndk.queues.pair import QueuePair
from softndk.queues.shared import SharedReceives
from softndk.queues.work import (
    InitiatorRequest,
    LocalRequest,
    ReadWork,
    ReceiveRequest,
    SendWork,
    WriteWork,
)
from softndk.status import Status

SUCCESS, CANCELLED = Status.SUCCESS, Status.CANCELLED
SILENT, FENCED = OpFlag.SILENT_SUCCESS, OpFlag.READ_FENCE


class Queues:
    """A pair with a ring for each queue."""

    def __init__(self, *, depth: int = 8, limit: int = 4, shared: SharedReceives | None = None) -> None:
        self.receives = CompletionRing(64, lambda status: None, lambda: None)
        self.initiator = CompletionRing(64, lambda status: None, lambda: None)
        self.pair = QueuePair(
            "qp1",
            "the QP's context",
            self.receives,
            self.initiator,
            receive_depth=depth,
            initiator_depth=depth,
            shared=shared,
        )
        self.pair.outbound_read_limit = limit

    def post(self, request: InitiatorRequest, *, deferred: bool = False) -> InitiatorRequest:
        self.pair.post_initiator(request, deferred=deferred)
        return request

    def start(self) -> InitiatorRequest | None:
        """Start the next request, if one may."""
        request = self.pair.startable()
        if request is not None:
            self.pair.start(request)
        return request

    def start_all(self) -> list[object]:
        started = []
        while (request := self.start()) is not None:
            started.append(request.context)
        return started

    def done(self) -> list[tuple[object, Status]]:
        return [(result.request_context, result.status) for result in self.initiator.take(None)]

    def received(self) -> list[tuple[object, Status]]:
        return [(result.request_context, result.status) for result in self.receives.take(None)]


def send(context: object = None, flags: int = 0) -> SendWork:
    return SendWork(flags, context, [], b"data")


def read(context: object = None, flags: int = 0) -> ReadWork:
    return ReadWork(flags, context, [Sge(0, 8, LocalToken(1))], 0, 1)


def local(context: object = None, flags: int = 0, *, waits_for_reads: bool = False) -> LocalRequest:
    return LocalRequest(OperationType.INVALIDATE, flags, context, lambda: None, waits_for_reads=waits_for_reads)


def write(context: object = None, flags: int = 0) -> WriteWork:
    return WriteWork(flags, context, [], b"data", 0, 1)


def receive(context: object = None, length: int = 8) -> ReceiveRequest:
    return ReceiveRequest([Sge(0, length, LocalToken(1))], context)


GONE = Aborted("the peer has gone", provider_error_code=0x11100)


class TestDepth:
    """R-WR-8."""

    def test_receives(self) -> None:
        queues = Queues(depth=2)
        queues.pair.post_receive(receive(1))
        queues.pair.post_receive(receive(2))
        with pytest.raises(QueueFull, match="receive_queue_depth=2") as caught:
            queues.pair.post_receive(receive(3))
        assert caught.value.status is Status.NO_MORE_ENTRIES
        queues.pair.complete_receive(queues.pair.receives[0], 0, solicited=False)
        queues.pair.post_receive(receive(3))

    def test_initiator_requests_count_until_they_have_finished(self) -> None:
        queues = Queues(depth=2)
        first = queues.post(send(1))
        queues.post(send(2), deferred=True)
        with pytest.raises(QueueFull, match="initiator_queue_depth=2"):
            queues.post(send(3))
        queues.start_all()
        with pytest.raises(QueueFull):
            queues.post(send(3))
        queues.pair.finish(first)
        queues.post(send(3))
        assert queues.pair.sends_in_use == 2

    @pytest.mark.rules("R-WR-8")
    def test_an_entry_is_free_whether_or_not_its_completion_was_fetched(self) -> None:
        queues = Queues(depth=1)
        for number in range(5):
            request = queues.post(send(number, SILENT if number % 2 else 0))
            queues.start_all()
            queues.pair.finish(request)

    def test_a_finished_request_behind_an_unfinished_one_keeps_its_entry(self) -> None:
        queues = Queues(depth=2)
        first, second = queues.post(send(1)), queues.post(send(2))
        queues.start_all()
        queues.pair.finish(second)
        with pytest.raises(QueueFull):
            queues.post(send(3))
        queues.pair.finish(first)
        assert queues.pair.idle

    @pytest.mark.rules("R-COMP-1")
    def test_a_refused_post_changes_nothing(self) -> None:
        """R-COMP-1: it never produces a completion."""
        queues = Queues(depth=1)
        request = queues.post(send(1))
        with pytest.raises(QueueFull):
            queues.post(send(2))
        queues.start_all()
        queues.pair.finish(request)
        queues.pair.flush(GONE)
        assert queues.done() == [(1, SUCCESS)]


class TestStarting:
    def test_in_order(self) -> None:
        queues = Queues()
        kinds: list[Callable[[object], InitiatorRequest]] = [send, write, local, read]
        for number in range(4):
            queues.post(kinds[number](number))
        assert queues.start_all() == [0, 1, 2, 3]

    def test_nothing_to_start(self) -> None:
        assert Queues().pair.startable() is None

    @pytest.mark.rules("R-DEFER-5")
    def test_deferred(self) -> None:
        """R-DEFER-5."""
        queues = Queues()
        queues.post(send(1), deferred=True)
        queues.post(send(2), deferred=True)
        assert queues.start_all() == []
        queues.post(send(3))
        queues.post(send(4), deferred=True)
        assert queues.start_all() == [1, 2, 3]
        queues.pair.release_deferred()
        assert queues.start_all() == [4]

    @pytest.mark.rules("R-DEFER-7")
    def test_a_full_queue_starts_its_deferred_requests(self) -> None:
        """R-DEFER-7."""
        queues = Queues(depth=2)
        queues.post(send(1), deferred=True)
        queues.post(send(2), deferred=True)
        assert queues.start_all() == [1, 2]

    @pytest.mark.rules("R-WR-11")
    @pytest.mark.parametrize("make", [send, write, local, read])
    def test_read_fence(self, make: Callable[[object, int], InitiatorRequest]) -> None:
        """R-WR-11."""
        queues = Queues()
        reads = [queues.post(read(number)) for number in range(2)]
        queues.post(make("fenced", FENCED))
        queues.post(send("behind"))
        assert queues.start_all() == [0, 1]
        queues.pair.finish(reads[0])
        assert queues.start_all() == []
        queues.pair.finish(reads[1])
        assert queues.start_all() == ["fenced", "behind"]

    @pytest.mark.rules("R-READ-4")
    def test_the_read_limit(self) -> None:
        """R-READ-4: at the head, blocking what follows."""
        queues = Queues(limit=2)
        reads = [queues.post(read(number)) for number in range(4)]
        queues.post(send("behind"))
        assert queues.start_all() == [0, 1]
        queues.pair.finish(reads[0])
        assert queues.start_all() == [2]
        queues.pair.finish(reads[1])
        assert queues.start_all() == [3, "behind"]

    def test_an_invalidate_waits_for_earlier_reads(self) -> None:
        queues = Queues()
        first = queues.post(read(1))
        queues.post(local(2, waits_for_reads=True))
        queues.post(local(3))
        assert queues.start_all() == [1]
        queues.pair.finish(first)
        assert queues.start_all() == [2, 3]

    def test_other_local_requests_do_not(self) -> None:
        queues = Queues()
        queues.post(read(1))
        queues.post(local(2))
        assert queues.start_all() == [1, 2]


class TestCompletion:
    @pytest.mark.rules("R-COMP-4")
    def test_in_posting_order(self) -> None:
        """R-COMP-4."""
        queues = Queues()
        requests = [queues.post(send(number)) for number in range(4)]
        queues.start_all()
        for number in (2, 1, 3):
            queues.pair.finish(requests[number])
            assert queues.done() == []
        queues.pair.finish(requests[0])
        assert queues.done() == [(number, SUCCESS) for number in range(4)]

    @pytest.mark.rules("R-RESX-2", "R-COMP-3")
    @pytest.mark.parametrize(
        ("make", "kind"),
        [
            (send, OperationType.SEND),
            (write, OperationType.WRITE),
            (read, OperationType.READ),
            (local, OperationType.INVALIDATE),
        ],
    )
    def test_the_result(self, make: Callable[[object], InitiatorRequest], kind: OperationType) -> None:
        """R-RES, R-RESX-2, R-COMP-3."""
        queues = Queues()
        context = object()
        request = queues.post(make(context))
        queues.start_all()
        queues.pair.finish(request)
        (result,) = queues.initiator.take(None)
        assert result.type is kind
        assert result.request_context is context
        assert result.qp_context == "the QP's context"
        assert (result.status, result.bytes_transferred, result.provider_error_code) == (SUCCESS, 0, 0)
        assert result.invalidated_token is None
        assert result.error is None
        assert result.check() is result
        assert len(queues.receives) == 0

    def test_the_result_of_a_receive(self) -> None:
        queues = Queues()
        queues.pair.post_receive(receive("r"))
        queues.pair.complete_receive(queues.pair.receives[0], 5, solicited=False, invalidated=0)
        (result,) = queues.receives.take(None)
        assert result.type is OperationType.RECEIVE_AND_INVALIDATE
        assert (result.bytes_transferred, result.invalidated_token, result.request_context) == (5, 0, "r")

    def test_only_the_oldest_receive_completes(self) -> None:
        queues = Queues()
        queues.pair.post_receive(receive(1))
        queues.pair.post_receive(receive(2))
        with pytest.raises(AssertionError):
            queues.pair.complete_receive(queues.pair.receives[1], 0, solicited=False)

    @pytest.mark.rules("R-WR-12")
    def test_a_silent_success_is_not_seen(self) -> None:
        queues = Queues()
        requests = [queues.post(send(number, SILENT)) for number in range(3)]
        queues.start_all()
        for request in requests:
            queues.pair.finish(request)
        assert queues.done() == []
        assert queues.pair.idle

    @pytest.mark.rules("R-COMP-2")
    def test_a_silent_failure_is_seen(self) -> None:
        """R-COMP-2."""
        queues = Queues()
        request = queues.post(send(1, SILENT))
        queues.start_all()
        request.fail(Status.ACCESS_VIOLATION, "no such memory")
        queues.pair.finish(request)
        queues.post(send(2, SILENT))
        queues.pair.flush(GONE)
        assert queues.done() == [(1, Status.ACCESS_VIOLATION), (2, CANCELLED)]

    def test_the_first_failure_of_a_request_counts(self) -> None:
        request = send(1)
        request.fail(Status.ACCESS_VIOLATION, "first", None, 1)
        request.fail(CANCELLED, "second", None, 2)
        assert (request.status, request.provider_error_code) == (Status.ACCESS_VIOLATION, 1)
        assert request.explanation is not None
        assert request.explanation() == ("first", None)


class TestFlush:
    """R-FLUSH, A-3."""

    @pytest.mark.rules("R-FLUSH-1")
    def test_everything_once_in_order(self) -> None:
        queues = Queues()
        requests = [queues.post(send(number)) for number in range(3)]
        queues.post(send(3), deferred=True)
        queues.start()
        queues.start()
        queues.pair.finish(requests[0])
        for number in range(2):
            queues.pair.post_receive(receive(number))
        queues.pair.flush(GONE)
        assert queues.done() == [(0, SUCCESS), (1, CANCELLED), (2, CANCELLED), (3, CANCELLED)]
        assert queues.received() == [(0, CANCELLED), (1, CANCELLED)]
        queues.pair.flush(GONE)
        assert queues.done() == queues.received() == []

    @pytest.mark.rules("R-FLUSH-7")
    def test_finished_requests_keep_their_status(self) -> None:
        """R-FLUSH-7, also those that wait for their turn."""
        queues = Queues()
        queues.post(read(1))
        second = queues.post(send(2))
        queues.start_all()
        queues.pair.finish(second)
        queues.pair.flush(GONE)
        assert queues.done() == [(1, CANCELLED), (2, SUCCESS)]

    def test_failed_requests_keep_their_status(self) -> None:
        queues = Queues()
        first = queues.post(send(1))
        queues.post(send(2))
        queues.start()
        first.fail(Status.ACCESS_VIOLATION, "no", None, 7)
        queues.pair.flush(GONE)
        results = queues.initiator.take(None)
        assert [(result.status, result.provider_error_code) for result in results] == [
            (Status.ACCESS_VIOLATION, 7),
            (CANCELLED, 0x11100),
        ]

    def test_the_queue_in_which_a_request_failed_comes_first(self) -> None:
        """With one CQ for both queues the failure stands before what it has cancelled."""
        for failed in ("receive", "send"):
            ring = CompletionRing(64, lambda status: None, lambda: None)
            pair = QueuePair("qp1", None, ring, ring, receive_depth=4, initiator_depth=4)
            bad_receive, bad_send = receive("receive"), send("send")
            pair.post_receive(bad_receive)
            pair.post_receive(receive("receive 2"))
            pair.post_initiator(bad_send, deferred=False)
            pair.post_initiator(send("send 2"), deferred=False)
            (bad_receive if failed == "receive" else bad_send).fail(Status.BUFFER_OVERFLOW, "no")
            pair.flush(GONE)
            contexts = [result.request_context for result in ring.take(None)]
            assert contexts[0] == failed
            assert sorted(map(str, contexts)) == ["receive", "receive 2", "send", "send 2"]

    @pytest.mark.rules("A-3")
    @pytest.mark.parametrize("deferred", [True, False])
    def test_later_posts_are_cancelled_at_once(self, deferred: bool) -> None:
        queues = Queues(depth=1)
        queues.pair.flush(GONE)
        for number in range(3):
            queues.post(send(number, SILENT), deferred=deferred)
            queues.pair.post_receive(receive(number))
        assert queues.done() == queues.received() == [(number, CANCELLED) for number in range(3)]
        assert queues.pair.startable() is None

    def test_a_flushed_read_no_longer_counts(self) -> None:
        queues = Queues(limit=1)
        queues.post(read(1))
        queues.start_all()
        queues.pair.flush(GONE)
        assert queues.pair.reads_outstanding == 0

    def test_the_first_failure_is_the_cause_of_all(self) -> None:
        queues = Queues()
        queues.post(send(1))
        queues.pair.flush(GONE)
        queues.pair.flush(Aborted("something later"))
        queues.post(send(2))
        for result in queues.initiator.take(None):
            error = result.error
            assert isinstance(error, RequestCancelled)
            assert error.__cause__ is GONE
            assert "the peer has gone" in str(error)
            assert "qp1 send" in str(error)
            assert result.provider_error_code == 0x11100
            with pytest.raises(RequestCancelled):
                result.check()

    def test_without_a_connection_the_pair_stays_usable(self) -> None:
        """NdkFlush before connecting: what is pending comes back, the QP may still be connected."""
        queues = Queues()
        queues.pair.post_receive(receive(1))
        queues.pair.cancel_pending(Aborted("flushed by this side"))
        assert queues.received() == [(1, CANCELLED)]
        assert queues.pair.failure is None
        queues.pair.post_receive(receive(2))
        assert queues.received() == []


class TestLocalRequests:
    class Subject:
        posted = 0

    @pytest.mark.rules("R-WR-16", "A-9")
    @pytest.mark.parametrize("end", ["finish", "flush before it starts", "flush", "post after a flush"])
    def test_subjects_are_counted_while_it_can_still_change_them(self, end: str) -> None:
        """Whether an inline check may be made depends on it (R-WR-16, A-9)."""
        queues = Queues()
        subjects = [self.Subject(), self.Subject()]
        request = LocalRequest(OperationType.BIND, 0, None, lambda: None, subjects)
        if end == "post after a flush":
            queues.pair.flush(GONE)
        queues.post(request)
        if end == "flush before it starts":
            assert [subject.posted for subject in subjects] == [1, 1]
            queues.pair.flush(GONE)
        elif end != "post after a flush":
            queues.start_all()
            assert [subject.posted for subject in subjects] == [1, 1]
            if end == "finish":
                queues.pair.finish(request)
            else:
                queues.pair.flush(GONE)
        assert [subject.posted for subject in subjects] == [0, 0]

    def test_a_finished_one_no_longer_counts_though_its_completion_waits(self) -> None:
        queues = Queues()
        subject = self.Subject()
        queues.post(read(1))
        request = queues.post(LocalRequest(OperationType.BIND, 0, 2, lambda: None, [subject]))
        queues.start_all()
        queues.pair.finish(request)
        assert subject.posted == 0
        queues.pair.flush(GONE)
        assert subject.posted == 0


class TestRequests:
    def test_lengths(self) -> None:
        sgl = [Sge(0, 3, LocalToken(1)), Sge(9, 0, LocalToken(1)), Sge(5, 4, LocalToken(1))]
        assert ReceiveRequest(sgl, None).length == 7
        assert ReadWork(0, None, sgl, 0, 1).length == 7
        assert SendWork(0, None, sgl, None).length == 7
        assert WriteWork(0, None, (), b"inline", 0, 1).length == 6
        assert SendWork(0, None, (), b"").length == 0

    @pytest.mark.rules("R-WR-4")
    def test_the_sgl_is_read_only_at_the_post(self) -> None:
        """R-WR-4."""
        sgl = [Sge(0, 3, LocalToken(1))]
        request = ReceiveRequest(sgl, None)
        sgl.clear()
        assert request.length == sum(sge.length for sge in request.sgl) == 3

    def test_flags(self) -> None:
        flags = int(OpFlag.SILENT_SUCCESS | OpFlag.SEND_AND_SOLICIT_EVENT)
        request = SendWork(flags, None, (), b"")
        assert (request.silent, request.fenced, request.solicited) == (True, False, True)
        assert ReadWork(int(FENCED), None, (), 0, 1).fenced


class TestSharedReceives:
    """A QP with a shared receive queue (R-SRQ)."""

    def make(self, count: int = 2) -> tuple[Queues, Queues, SharedReceives]:
        shared = SharedReceives("srq1", 8, 0, lambda status: None)
        for number in range(count):
            shared.post(receive(number))
        return Queues(shared=shared), Queues(shared=shared), shared

    def test_a_message_takes_the_oldest(self) -> None:
        first, second, shared = self.make()
        for number, queues in enumerate((second, first)):
            request = queues.pair.next_receive()
            assert request is not None
            assert queues.pair.next_receive() is request
            queues.pair.complete_receive(request, 0, solicited=False)
            assert queues.received() == [(number, SUCCESS)]
        assert len(shared) == 0
        assert not first.pair.has_receive

    @pytest.mark.rules("R-FLUSH-8")
    def test_only_what_was_taken_is_flushed(self) -> None:
        """R-FLUSH-8."""
        queues, _, shared = self.make()
        assert queues.pair.next_receive() is not None
        assert queues.pair.has_receive
        queues.pair.flush(GONE)
        assert queues.received() == [(0, CANCELLED)]
        assert len(shared) == 1

    @pytest.mark.rules("R-SRQ-3")
    def test_an_empty_queue_wakes_the_one_that_waits_longest(self) -> None:
        """R-SRQ-3."""
        first, second, shared = self.make(0)
        woken: list[str] = []

        def wake_first() -> None:
            woken.append("first")
            first.pair.next_receive()

        first.pair.on_receive = wake_first
        second.pair.on_receive = lambda: woken.append("second")
        assert second.pair.next_receive() is None
        assert first.pair.next_receive() is None
        assert second.pair.next_receive() is None
        shared.post(receive("r"))
        assert woken == ["second", "first"]
        assert first.pair.receives[0].context == "r"

    def test_a_flushed_qp_is_not_woken(self) -> None:
        queues, other, shared = self.make(0)
        woken: list[str] = []
        queues.pair.on_receive = lambda: woken.append("flushed")
        queues.pair.next_receive()
        other.pair.next_receive()
        queues.pair.flush(GONE)
        shared.post(receive("r"))
        assert woken == []
        assert other.pair.on_receive is None
