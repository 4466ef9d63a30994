"""The two queues of a QP: depth, order, deferral, fences, completion, flush. Knows nothing of the wire.

Initiator requests move through `waiting` (posted) and `active` (started) and leave in posting order (R-COMP-4): a
request that has finished stays in `active` until everything before it has finished too.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from softndk.errors import NdkError, QueueFull
from softndk.flags import OperationType, RemoteToken
from softndk.queues.completion import CompletionRing
from softndk.queues.shared import SharedReceives
from softndk.queues.work import (
    AtomicWork,
    FetchWork,
    ImmediateWork,
    InitiatorRequest,
    LocalRequest,
    ReceiveRequest,
    Request,
)
from softndk.results import Result
from softndk.status import Status

__all__ = ["QueuePair"]


class QueuePair:
    """Receive queue and initiator queue of one QP.

    `outbound_read_limit` is the effective ORD once connected. `failure`: what ended the QP, the cause of every
    cancelled request. `flushing`: posts are accepted and cancelled at once (A-3). `provider_codes`: results carry them
    (from interface version 2.1 on).
    """

    def __init__(
        self,
        name: str,
        context: Any,
        receive_ring: CompletionRing,
        initiator_ring: CompletionRing,
        *,
        receive_depth: int,
        initiator_depth: int,
        shared: SharedReceives | None = None,
        provider_codes: bool = True,
    ) -> None:
        self.name = name
        self.context = context
        self.receive_ring = receive_ring
        self.initiator_ring = initiator_ring
        self.receive_depth = receive_depth
        self.initiator_depth = initiator_depth
        self.outbound_read_limit = 0
        self.receives: deque[ReceiveRequest] = deque()
        self.waiting: deque[InitiatorRequest] = deque()
        self.active: deque[InitiatorRequest] = deque()
        self.released = 0  # how many of `waiting`, from the head, may start: the others are deferred
        self.reads_outstanding = 0  # and atomics
        self.extended = False  # something of RFC 7306 has been started
        self.failure: NdkError | None = None
        self.flushing = False
        self.shared = shared
        self.provider_codes = provider_codes
        self.on_receive: Callable[[], None] | None = None  # called when a held-back message may find its receive

    @property
    def sends_in_use(self) -> int:
        return len(self.waiting) + len(self.active)

    @property
    def idle(self) -> bool:
        """No initiator request is unfinished."""
        return not self.waiting and not self.active

    # ---- user verbs

    def post_receive(self, request: ReceiveRequest) -> None:
        """Queue a receive. Raises QueueFull (R-WR-8)."""
        if len(self.receives) >= self.receive_depth:
            raise QueueFull(
                f"{self.name} receive: {len(self.receives)} receives outstanding,"
                f" limit receive_queue_depth={self.receive_depth}; take results or create the QP deeper"
                " [NO_MORE_ENTRIES, R-WR-8]"
            )
        self.receives.append(request)
        if self.flushing:
            self._flush_receives()

    def post_initiator(self, request: InitiatorRequest, *, deferred: bool) -> None:
        """Queue an initiator request; without `deferred`, or with the queue full now, everything up to it may start
        (R-DEFER-5, -7). Raises QueueFull.
        """
        if self.sends_in_use >= self.initiator_depth:
            raise QueueFull(
                f"{self.name} {request.type.name.lower()}: {self.sends_in_use} requests outstanding,"
                f" limit initiator_queue_depth={self.initiator_depth}; take results or create the QP deeper"
                " [NO_MORE_ENTRIES, R-WR-8]"
            )
        self.waiting.append(request)
        request.entered()
        if self.flushing:
            self._flush_initiator()
        elif not deferred or self.sends_in_use == self.initiator_depth:
            self.release_deferred()

    def release_deferred(self) -> None:
        """Let everything posted so far start: the doorbell (R-DEFER-3, -5, -7)."""
        self.released = len(self.waiting)

    # ---- for the data path

    @property
    def has_receive(self) -> bool:
        """A message that begins now would find a receive."""
        return bool(self.receives) or bool(self.shared)

    def next_receive(self) -> ReceiveRequest | None:
        """The receive for the message that begins, taken from the SRQ if there is one; None: there is none now."""
        if not self.receives and self.shared is not None:
            request = self.shared.take(self._wake)
            if request is not None:
                self.receives.append(request)
        return self.receives[0] if self.receives else None

    def startable(self) -> InitiatorRequest | None:
        """The request that may start now: the head of the queue, unless deferred, fenced or over the read limit."""
        if not self.released:
            return None
        head = self.waiting[0]
        if self.reads_outstanding:
            if head.fenced:
                return None
            if isinstance(head, FetchWork):
                if self.reads_outstanding >= self.outbound_read_limit:
                    return None
            elif isinstance(head, LocalRequest) and head.waits_for_reads:
                return None
        return head

    def start(self, request: InitiatorRequest) -> None:
        """`request`, the head, begins."""
        self.waiting.popleft()
        self.released -= 1
        self.active.append(request)
        if isinstance(request, (AtomicWork, ImmediateWork)):
            self.extended = True
        if isinstance(request, FetchWork):
            self.reads_outstanding += 1

    def finish(self, request: InitiatorRequest) -> None:
        """`request` is done, with success unless it has been failed; completes what is in turn (R-COMP-4)."""
        if isinstance(request, FetchWork):
            self.reads_outstanding -= 1
        if request.status is None:
            request.status = Status.SUCCESS
        request.left()
        while self.active and self.active[0].status is not None:
            head = self.active.popleft()
            head.left()  # one that was failed is not finished otherwise
            self._complete_initiator(head)

    def complete_receive(
        self,
        request: ReceiveRequest,
        length: int,
        *,
        solicited: bool,
        invalidated: int | None = None,
        immediate: bytes | None = None,
    ) -> None:
        """The message for `request`, the oldest receive, is placed whole; `immediate`: it was Immediate Data."""
        assert self.receives[0] is request
        self.receives.popleft()
        request.status = Status.SUCCESS
        kind, token = OperationType.RECEIVE, None
        if invalidated is not None:
            kind, token = OperationType.RECEIVE_AND_INVALIDATE, RemoteToken(invalidated)
        elif immediate is not None:
            kind = OperationType.RECEIVE_IMMEDIATE
        self.receive_ring.push(
            Result(
                type=kind,
                bytes_transferred=length,
                qp_context=self.context,
                request_context=request.context,
                invalidated_token=token,
                immediate_data=immediate,
            ),
            solicited=solicited,
        )

    def flush(self, failure: NdkError) -> None:
        """Cancel everything pending, now and from now on (R-FLUSH-1, R-COMP-6, A-3).

        `failure` becomes the cause of the cancelled ones if it is the first. Requests that have finished or have been
        failed keep their status (R-FLUSH-7); the queue with a request that failed completes first.
        """
        if self.failure is None:
            self.failure = failure
        self.flushing = True
        if self.shared is not None:
            self.shared.forget(self._wake)
        self.reads_outstanding = 0
        self.released = 0
        if self.receives and self.receives[0].status is not None:
            self._flush_receives()
        self._flush_initiator()
        self._flush_receives()

    def cancel_pending(self, failure: NdkError) -> None:
        """Cancel what is pending on a QP without a connection; it stays usable (R-FLUSH-1)."""
        earlier, was_flushing = self.failure, self.flushing
        self.flush(failure)
        self.failure, self.flushing = earlier, was_flushing

    def _flush_initiator(self) -> None:
        self.active.extend(self.waiting)
        self.waiting.clear()
        while self.active:
            request = self.active.popleft()
            self._cancel(request)
            request.left()
            self._complete_initiator(request)

    def _flush_receives(self) -> None:
        while self.receives:
            request = self.receives.popleft()
            self._cancel(request)
            self._push_failure(self.receive_ring, request)

    def _wake(self) -> None:
        if self.on_receive is not None:
            self.on_receive()

    def _cancel(self, request: Request) -> None:
        cause = self.failure
        code = 0 if cause is None else cause.provider_error_code
        request.fail(Status.CANCELLED, "", cause, code)

    def _complete_initiator(self, request: InitiatorRequest) -> None:
        if request.status is not Status.SUCCESS:
            self._push_failure(self.initiator_ring, request)
        elif not request.silent:
            self.initiator_ring.push(
                Result(
                    type=request.type,
                    qp_context=self.context,
                    request_context=request.context,
                    original_value=request.original if isinstance(request, AtomicWork) else None,
                )
            )

    def _push_failure(self, ring: CompletionRing, request: Request) -> None:
        assert request.status is not None
        ring.push(
            Result(
                type=request.type,
                status=request.status,
                qp_context=self.context,
                request_context=request.context,
                provider_error_code=request.provider_error_code if self.provider_codes else 0,
                _explain=_Explanation(self.name, request),
            )
        )


class _Explanation:
    """Text and cause of a failed request, made when somebody asks: ten thousand cancelled results cost nothing."""

    __slots__ = ("_name", "_request")

    def __init__(self, name: str, request: Request) -> None:
        self._name = name
        self._request = request

    def __call__(self) -> tuple[str, NdkError | None]:
        request = self._request
        text, cause = request.explanation() if request.explanation is not None else ("", None)
        if not text:
            why = "" if cause is None else f": {cause}"
            text = f"{self._name} {request.type.name.lower()}: cancelled{why} [CANCELLED, R-FLUSH-1]"
        return text, cause
