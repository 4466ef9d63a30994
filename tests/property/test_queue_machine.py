"""A queue pair under random interleavings, against a model of a few lists.

Whatever is posted, deferred, started, finished, failed and flushed in whatever order: each accepted request completes
exactly once and in posting order, silent successes never, and only what may start starts.
"""

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from softndk.errors import Aborted, QueueFull
from softndk.flags import OperationType, OpFlag
from softndk.queues.completion import CompletionRing
from softndk.queues.pair import QueuePair
from softndk.queues.work import (
    AtomicWork,
    ImmediateWork,
    InitiatorRequest,
    LocalRequest,
    ReadWork,
    ReceiveRequest,
    SendWork,
    WriteWork,
)
from softndk.status import Status

DEPTH = 6
Kind = Literal["send", "write", "read", "atomic", "immediate", "bind", "invalidate"]
KINDS: list[Kind] = ["send", "write", "read", "read", "atomic", "atomic", "immediate", "bind", "invalidate"]
FETCHES = ("read", "atomic")


@dataclass
class Modelled:
    """One initiator request as the model sees it. `status` None: unfinished."""

    number: int
    kind: Kind
    silent: bool
    fenced: bool
    request: InitiatorRequest
    released: bool = False
    started: bool = False
    status: Status | None = None


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.receive_ring = CompletionRing(100_000, lambda status: None, lambda: None)
        self.initiator_ring = CompletionRing(100_000, lambda status: None, lambda: None)
        self.pair = QueuePair(
            "qp", None, self.receive_ring, self.initiator_ring, receive_depth=DEPTH, initiator_depth=DEPTH
        )
        self.limit = 0
        self.numbers = 0
        self.queue: list[Modelled] = []  # accepted and not complete, in posting order
        self.expected: list[tuple[int, Status]] = []
        self.receives: list[tuple[int, ReceiveRequest]] = []
        self.expected_receives: list[tuple[int, Status]] = []
        self.flushed = False

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def retire(self) -> None:
        """Completions appear in posting order: whatever is finished at the head leaves."""
        while self.queue and self.queue[0].status is not None:
            done = self.queue.pop(0)
            assert done.status is not None
            if done.status is not Status.SUCCESS or not done.silent:
                self.expected.append((done.number, done.status))

    def reads(self) -> int:
        return sum(item.kind in FETCHES and item.started and item.status is None for item in self.queue)

    def head(self) -> Modelled | None:
        """The request that may start, by the rules."""
        item = next((item for item in self.queue if not item.started), None)
        if item is None or not item.released:
            return None
        if self.reads() and (item.fenced or item.kind == "invalidate"):
            return None
        if item.kind in FETCHES and self.reads() >= self.limit:
            return None
        return item

    @initialize(limit=st.integers(1, 3))
    def connect(self, limit: int) -> None:
        self.limit = self.pair.outbound_read_limit = limit

    # ---- what a program does

    @rule(
        kind=st.sampled_from(KINDS),
        silent=st.booleans(),
        fenced=st.sampled_from([False, False, True]),
        deferred=st.booleans(),
    )
    def post(self, kind: Kind, silent: bool, fenced: bool, deferred: bool) -> None:
        number = self.number()
        flags = (OpFlag.SILENT_SUCCESS if silent else 0) | (OpFlag.READ_FENCE if fenced else 0)
        request: InitiatorRequest
        if kind == "send":
            request = SendWork(flags, number, (), b"")
        elif kind == "write":
            request = WriteWork(flags, number, (), b"", 0, 1)
        elif kind == "read":
            request = ReadWork(flags, number, (), 0, 1)
        elif kind == "atomic":
            request = AtomicWork(OperationType.FETCH_ADD, flags, number, (), 0, 1, data=1, mask=0)
        elif kind == "immediate":
            request = ImmediateWork(flags, number, bytes(8))
        else:
            operation = OperationType.BIND if kind == "bind" else OperationType.INVALIDATE
            request = LocalRequest(operation, flags, number, lambda: None, waits_for_reads=kind == "invalidate")
        if len(self.queue) >= DEPTH:
            with pytest.raises(QueueFull):
                self.pair.post_initiator(request, deferred=deferred)
            return
        self.pair.post_initiator(request, deferred=deferred)
        item = Modelled(number, kind, silent, fenced, request)
        self.queue.append(item)
        if self.flushed:
            item.status = Status.CANCELLED
            self.retire()
        elif not deferred or len(self.queue) == DEPTH:
            self.release()

    @rule()
    def ring_the_doorbell(self) -> None:
        self.pair.release_deferred()
        self.release()

    def release(self) -> None:
        for item in self.queue:
            item.released = True

    @rule(count=st.integers(1, 3))
    def post_receives(self, count: int) -> None:
        for _ in range(count):
            number = self.number()
            request = ReceiveRequest((), number)
            if len(self.receives) >= DEPTH:
                with pytest.raises(QueueFull):
                    self.pair.post_receive(request)
                return
            self.pair.post_receive(request)
            if self.flushed:
                self.expected_receives.append((number, Status.CANCELLED))
            else:
                self.receives.append((number, request))

    @precondition(lambda self: self.numbers > 20)
    @rule()
    def flush(self) -> None:
        self.pair.flush(Aborted("over"))
        for item in self.queue:
            item.status = Status.CANCELLED if item.status is None else item.status
        self.retire()
        self.expected_receives += [(number, Status.CANCELLED) for number, _ in self.receives]
        self.receives.clear()
        self.flushed = True

    # ---- what a data path does

    @rule()
    def start(self) -> None:
        item = self.head()
        request = self.pair.startable()
        assert request is (None if item is None else item.request)
        if item is not None and request is not None:
            self.pair.start(request)
            item.started = True

    @precondition(lambda self: any(item.started and item.status is None for item in self.queue))
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def finish(self, data: st.DataObject, fails: bool) -> None:
        item = data.draw(st.sampled_from([item for item in self.queue if item.started and item.status is None]))
        if fails:
            item.request.fail(Status.ACCESS_VIOLATION, "no")
        self.pair.finish(item.request)
        item.status = Status.ACCESS_VIOLATION if fails else Status.SUCCESS
        self.retire()

    @precondition(lambda self: self.receives)
    @rule()
    def message(self) -> None:
        number, request = self.receives.pop(0)
        assert self.pair.next_receive() is request
        self.pair.complete_receive(request, 0, solicited=False)
        self.expected_receives.append((number, Status.SUCCESS))

    # ---- what must hold

    @invariant()
    def each_request_completes_once_and_in_order(self) -> None:
        for ring, expected in ((self.initiator_ring, self.expected), (self.receive_ring, self.expected_receives)):
            assert [(result.request_context, result.status) for result in ring.take(None)] == expected
            expected.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert self.pair.sends_in_use == len(self.queue)
        assert self.pair.idle == (not self.queue)
        assert self.pair.reads_outstanding == self.reads()
        assert len(self.pair.receives) == len(self.receives)
        assert self.pair.flushing == self.flushed

    @invariant()
    def what_may_start_is_what_the_rules_say(self) -> None:
        item = self.head()
        assert self.pair.startable() is (None if item is None else item.request)

    def teardown(self) -> None:
        """At the end everything that was accepted comes back."""
        self.flush()
        self.each_request_completes_once_and_in_order()
        assert self.pair.idle


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
TestQueueMachine = QueueMachine.TestCase
