"""What arrives: DDP and RDMAP receive semantics of one stream (RFC 5041, RFC 5040, RFC 7306).

Takes checked ULPDUs in stream order, places their payload, completes receives, reads and atomics, queues what must be answered.
Checks run in a fixed order, and nothing of a segment is used before all that concern it have passed. Knows nothing of
framing, of sockets and of time.
"""

from collections import deque
from typing import Final

from softndk.errors import NdkError
from softndk.iwarp import atomics
from softndk.iwarp.atomics import OutstandingAtomic, PendingAtomic
from softndk.iwarp.faults import (
    Cause,
    ProtocolFault,
    atomic_cause,
    read_source_cause,
    sent_code,
    status_for_denial,
    write_cause,
)
from softndk.iwarp.payload import copy, scatter
from softndk.memory.access import AccessDenied, Denial, MemoryAccess
from softndk.memory.tokens import Right, masked
from softndk.queues.pair import QueuePair
from softndk.queues.work import AtomicWork, ReadWork, ReceiveRequest
from softndk.status import Status
from softndk.wire import ddp, rdmap, terminate
from softndk.wire.ddp import QueueNumber
from softndk.wire.rdmap import Opcode

__all__ = ["Inbound", "OutstandingRead", "PendingResponse", "is_terminate"]

_BASE_OPCODES: Final = frozenset(Opcode) - rdmap.RFC7306
_BASE_QUEUES: Final = frozenset({QueueNumber.SEND, QueueNumber.READ_REQUEST, QueueNumber.TERMINATE})
_ATOMIC_OPERATIONS: Final = frozenset(rdmap.AtomicOperation)
_NAMES: Final = {
    **dict.fromkeys((Opcode.SEND, Opcode.SEND_INVALIDATE, Opcode.SEND_SE, Opcode.SEND_SE_INVALIDATE), "Send"),
    **dict.fromkeys((Opcode.IMMEDIATE, Opcode.IMMEDIATE_SE), "Immediate Data"),
    Opcode.READ_REQUEST: "Read Request",
    Opcode.ATOMIC_REQUEST: "Atomic Request",
    Opcode.ATOMIC_RESPONSE: "Atomic Response",
}
_MSN_MASK: Final = 0xFFFFFFFF
_HEADERS: Final = ddp.UNTAGGED_HEADER + rdmap.READ_REQUEST_LENGTH


class OutstandingRead:
    """One of our reads on the wire.

    Choice: a Read Request carries `sink_stag`, a token made for this one read that names no memory. So a sink needs local
    write only and may have several SGEs (R-SINK-6).

    `request` is None for the zero-length read that serves as ready-to-receive indication.
    """

    __slots__ = ("received", "request", "sink_stag")

    def __init__(self, request: ReadWork | None, sink_stag: int) -> None:
        self.request = request
        self.sink_stag = sink_stag
        self.received = 0

    @property
    def length(self) -> int:
        return 0 if self.request is None else self.request.length


class PendingResponse:
    """A read of the peer that waits for its answer. `sent`: octets already in response segments."""

    __slots__ = ("read", "sent", "ulpdu")

    def __init__(self, read: rdmap.ReadRequest, ulpdu: bytes) -> None:
        self.read = read
        self.sent = 0
        self.ulpdu = ulpdu


class Inbound:
    """Receiving side of one stream.

    `reads`, `atomics`: ours on the wire, oldest first, filled by the sending side. `responses`: the peer's reads and
    atomics to answer, in the order of the requests. `read_limit`: IRD, how many of those we hold. `peer_terminate`: the
    peer's last word, once it has come. rfc7306: False: be a peer that does not know Immediate Data and atomics.
    send_indication: an empty Send that comes first is the ready-to-receive indication. Choice: it is number 1 of its
    queue, uses up no receive and is not delivered (RFC 6581 5 does not say).
    """

    def __init__(
        self,
        pair: QueuePair,
        access: MemoryAccess,
        *,
        read_limit: int,
        send_indication: bool = False,
        rfc7306: bool = True,
    ) -> None:
        self.pair = pair
        self.access = access
        self.read_limit = read_limit
        self.reads: deque[OutstandingRead] = deque()
        self.atomics: deque[OutstandingAtomic] = deque()
        self.responses: deque[PendingResponse | PendingAtomic] = deque()
        self.peer_terminate: terminate.Terminate | None = None
        self.refuse_reads = False
        self.segments = 0
        self._send_indication = send_indication
        self._opcodes = frozenset(Opcode) if rfc7306 else _BASE_OPCODES
        self._queues = frozenset(QueueNumber) if rfc7306 else _BASE_QUEUES
        self._send_msn = 1
        self._request_msn = 1
        self._atomic_response_msn = 1
        self._receive: ReceiveRequest | None = None  # of the message that has begun
        self._opcode = Opcode.SEND
        self._offset = 0

    @property
    def inside_message(self) -> bool:
        """A message has begun and its last segment has not come."""
        return self._receive is not None or bool(self.reads and self.reads[0].received)

    def handle(self, ulpdu: memoryview, *, hold: bool = False) -> bool:
        """Take one ULPDU. Returns False if it must be offered again later: no receive is posted and `hold` is set.

        Raises: ProtocolFault: the stream must end; nothing of this segment has been placed, except in the rows
        where the payload of the last segment precedes the check (invalidation).
        """
        if len(ulpdu) < 2:
            raise ProtocolFault(Cause.SHORT_HEADER, f"segment of {len(ulpdu)} octets has no control octets")
        tagged = ddp.is_tagged(ulpdu[0])
        need = ddp.TAGGED_HEADER if tagged else ddp.UNTAGGED_HEADER
        if len(ulpdu) < need:
            kind = "tagged" if tagged else "untagged"
            raise ProtocolFault(
                Cause.SHORT_HEADER,
                f"{kind} segment of {len(ulpdu)} octets is shorter than its header of {need}",
            )
        self.segments += 1
        if tagged:
            self._handle_tagged(ulpdu)
            return True
        return self._handle_untagged(ulpdu, hold)

    # ---- tagged: RDMA Write, Read Response

    def _handle_tagged(self, ulpdu: memoryview) -> None:
        header = ddp.parse_tagged(ulpdu)
        if header.version != ddp.VERSION:
            raise self._fault(Cause.TAGGED_VERSION, f"DDP version {header.version}, only 1 is spoken here", ulpdu)
        opcode = self._opcode_of(header.rsvdulp, ulpdu)
        if not rdmap.OPCODES[opcode].tagged:
            raise self._fault(
                Cause.OPCODE_ON_WRONG_QUEUE,
                f"{opcode.name} in a tagged segment; it is an untagged message",
                ulpdu,
            )
        payload = ulpdu[ddp.TAGGED_HEADER :]
        if opcode is Opcode.WRITE:
            self._place_write(header, payload, ulpdu)
        else:
            self._place_response(header, payload, ulpdu)

    def _place_write(self, header: ddp.TaggedHeader, payload: memoryview, ulpdu: memoryview) -> None:
        if not payload:
            return  # zero length: STag and TO are not looked at (RFC 5041 5.1)
        try:
            targets = self.access.remote(header.stag, header.to, len(payload), Right.REMOTE_WRITE)
        except AccessDenied as denied:
            raise self._fault(
                write_cause(denied.denial), f"RDMA Write of {len(payload)} octets: {denied.text}", ulpdu
            ) from None
        copy(payload, targets)

    def _place_response(self, header: ddp.TaggedHeader, payload: memoryview, ulpdu: memoryview) -> None:
        if not self.reads:
            raise self._fault(
                Cause.UNEXPECTED_RESPONSE,
                f"Read Response of {len(payload)} octets, but no read is outstanding",
                ulpdu,
            )
        read = self.reads[0]
        total = read.length
        if payload:
            if header.stag != read.sink_stag:
                raise self._response_fault(
                    Cause.RESPONSE_STAG,
                    f"Read Response to {masked(header.stag)}, not the oldest read's sink",
                    ulpdu,
                )
            if header.to != read.received:
                raise self._response_fault(
                    Cause.RESPONSE_BOUNDS,
                    f"Read Response at offset {header.to}, expected {read.received}",
                    ulpdu,
                )
            if read.received + len(payload) > total:
                raise self._response_fault(
                    Cause.RESPONSE_BOUNDS,
                    f"Read Response brings {read.received + len(payload)} octets, {total} were asked for",
                    ulpdu,
                )
        if header.last and read.received + len(payload) != total:
            raise self._response_fault(
                Cause.RESPONSE_BOUNDS,
                f"Read Response ends after {read.received + len(payload)} octets, {total} were asked for",
                ulpdu,
            )
        request = read.request
        if payload and request is not None:
            try:
                scatter(self.access, request.sgl, read.received, payload)
            except AccessDenied as denied:
                raise self._sink_gone(request, denied, ulpdu) from None
            read.received += len(payload)
        if not header.last:
            return
        self.reads.popleft()
        if request is None:
            self.pair.reads_outstanding -= 1
            return
        if request.on_success is not None:
            try:
                request.on_success()
            except NdkError as error:  # a region with windows bound can't be invalidated (R-INVAL-4)
                request.fail(error.status, f"{self.pair.name} read: {error}")
                raise ProtocolFault(Cause.LOCAL_ERROR, f"{self.pair.name} read: {error}") from None
        self.pair.finish(request)

    # ---- untagged: Send family and Immediate Data, requests for an answer, Terminate, Atomic Response

    def _handle_untagged(self, ulpdu: memoryview, hold: bool) -> bool:
        header = ddp.parse_untagged(ulpdu)
        if header.version != ddp.VERSION:
            raise self._fault(Cause.UNTAGGED_VERSION, f"DDP version {header.version}, only 1 is spoken here", ulpdu)
        opcode = self._opcode_of(header.rsvdulp, ulpdu)
        queue = rdmap.OPCODES[opcode].queue
        if queue is None:
            raise self._fault(
                Cause.OPCODE_ON_WRONG_QUEUE,
                f"{opcode.name} in an untagged segment; it is a tagged message",
                ulpdu,
            )
        if header.qn not in self._queues:
            raise self._fault(
                Cause.INVALID_QN, f"{opcode.name} on queue number {header.qn}; 0 to {max(self._queues)} exist", ulpdu
            )
        if header.qn != queue:
            raise self._fault(
                Cause.OPCODE_ON_WRONG_QUEUE,
                f"{opcode.name} on queue number {header.qn}; its queue is {queue.value}",
                ulpdu,
            )
        if queue is QueueNumber.SEND:
            return self._place_send(header, opcode, ulpdu, hold)
        if queue is QueueNumber.READ_REQUEST:
            self._queue_response(header, opcode, ulpdu)
        elif queue is QueueNumber.ATOMIC_RESPONSE:
            self._take_atomic_response(header, ulpdu)
        else:
            self._take_terminate(ulpdu)
        return True

    def _place_send(self, header: ddp.UntaggedHeader, opcode: Opcode, ulpdu: memoryview, hold: bool) -> bool:
        if header.msn != self._send_msn:
            raise self._fault(
                Cause.INVALID_MSN, f"{_NAMES[opcode]} with MSN {header.msn}, expected {self._send_msn}", ulpdu
            )
        if self._send_indication and self.segments == 1 and self._is_empty_send(header, opcode, ulpdu):
            self._send_msn += 1
            return True
        receive = self._receive
        if receive is None:
            receive = self.pair.next_receive()
            if receive is None:
                if hold or self.pair.shared is not None:  # an empty SRQ must not fail the connection (R-SRQ-3)
                    self.segments -= 1
                    return False
                raise self._fault(
                    Cause.NO_RECEIVE,
                    f"{self.pair.name}: a message came and no receive is posted; post receives before the peer sends,"
                    " or set receive_wait_s",
                    ulpdu,
                )
            expected = 0
        else:
            expected = self._offset
            if opcode is not self._opcode:
                raise self._fault(
                    Cause.CHANGED_OPCODE,
                    f"{opcode.name} inside a message that began as {self._opcode.name}",
                    ulpdu,
                )
        payload = ulpdu[ddp.UNTAGGED_HEADER :]
        if header.mo != expected:
            raise self._fault(
                Cause.INVALID_MO, f"{_NAMES[opcode]} at message offset {header.mo}, expected {expected}", ulpdu
            )
        if opcode in rdmap.IMMEDIATES:
            self._deliver_immediate(header, receive, ulpdu, solicited=opcode in rdmap.SOLICITING)
            return True
        end = expected + len(payload)
        if end > receive.length:
            fault = self._fault(
                Cause.RECEIVE_TOO_SMALL,
                f"{self.pair.name}: message of at least {end} octets, the posted receive has room for {receive.length}",
                ulpdu,
            )
            receive.fail(Status.BUFFER_OVERFLOW, f"{fault.text} [BUFFER_OVERFLOW, A-5]", None, sent_code(fault))
            raise fault
        try:
            scatter(self.access, receive.sgl, expected, payload)
        except AccessDenied as denied:
            raise self._local_fault(receive, denied) from None
        if not header.last:
            self._receive, self._opcode, self._offset = receive, opcode, end
            return True
        invalidated = None
        if opcode in rdmap.INVALIDATING:
            invalidated = header.rsvdulp_word
            self._invalidate(invalidated, receive, ulpdu)
        self._receive = None
        self._send_msn = self._send_msn + 1 & _MSN_MASK
        self.pair.complete_receive(receive, end, solicited=opcode in rdmap.SOLICITING, invalidated=invalidated)
        return True

    @staticmethod
    def _is_empty_send(header: ddp.UntaggedHeader, opcode: Opcode, ulpdu: memoryview) -> bool:
        return opcode is Opcode.SEND and header.last and not header.mo and len(ulpdu) == ddp.UNTAGGED_HEADER

    def _deliver_immediate(
        self, header: ddp.UntaggedHeader, receive: ReceiveRequest, ulpdu: memoryview, *, solicited: bool
    ) -> None:
        """The data goes into the completion; the memory of the receive is not touched (RFC 7306 6).

        Choice: Immediate Data in more than one segment is refused at once, even if it would be 8 octets together (RFC 7306 6).
        """
        data = bytes(ulpdu[ddp.UNTAGGED_HEADER :])
        if len(data) != rdmap.IMMEDIATE_LENGTH or not header.last:
            raise self._fault(
                Cause.IMMEDIATE_LENGTH,
                f"Immediate Data of {_size(header, data)}, it has {rdmap.IMMEDIATE_LENGTH}",
                ulpdu,
            )
        self._send_msn = self._send_msn + 1 & _MSN_MASK
        self.pair.complete_receive(receive, 0, solicited=solicited, immediate=data)

    def _invalidate(self, stag: int, receive: ReceiveRequest, ulpdu: memoryview) -> None:
        """The payload is placed; the token dies before the completion is visible, or the stream ends (R-INVAL-2)."""
        try:
            self.access.invalidate(stag)
        except AccessDenied as denied:
            cause = (
                Cause.INVALIDATE_NOT_ASSOCIATED if denied.denial is Denial.NOT_ASSOCIATED else Cause.CANNOT_INVALIDATE
            )
            fault = self._fault(cause, f"{self.pair.name}: Send with Invalidate: {denied.text}", ulpdu)
            receive.fail(
                Status.INVALID_DEVICE_REQUEST,
                f"{fault.text} [INVALID_DEVICE_REQUEST, R-SENDINV-2]",
                None,
                sent_code(fault),
            )
            raise fault from None

    def _queue_response(self, header: ddp.UntaggedHeader, opcode: Opcode, ulpdu: memoryview) -> None:
        """Reads and atomics share numbers and limit, and are answered in the order of the requests (RFC 7306 5)."""
        name = _NAMES[opcode]
        if header.msn != self._request_msn:
            raise self._fault(Cause.INVALID_MSN, f"{name} with MSN {header.msn}, expected {self._request_msn}", ulpdu)
        if len(self.responses) >= self.read_limit:
            raise self._fault(
                Cause.TOO_MANY_READS,
                f"{name} beyond the inbound read limit of {self.read_limit} in progress",
                ulpdu,
            )
        if header.mo:
            raise self._fault(Cause.INVALID_MO, f"{name} at message offset {header.mo}, expected 0", ulpdu)
        atomic = opcode is Opcode.ATOMIC_REQUEST
        pending = self._atomic_request(header, ulpdu) if atomic else self._read_request(header, ulpdu)
        if self.refuse_reads:
            raise self._fault(Cause.LOCAL_ERROR, f"{name} after this side's FIN: it can't be answered", ulpdu)
        self._request_msn = self._request_msn + 1 & _MSN_MASK
        self.responses.append(pending)

    def _read_request(self, header: ddp.UntaggedHeader, ulpdu: memoryview) -> PendingResponse:
        body = self._body(header, ulpdu, Cause.READ_REQUEST_TOO_LONG, Cause.READ_REQUEST_TOO_SHORT)
        read = rdmap.ReadRequest.parse(body)
        if read.size:
            try:
                self.access.remote(read.source_stag, read.source_to, read.size, Right.REMOTE_READ)
            except AccessDenied as denied:
                raise self._fault(
                    read_source_cause(denied.denial),
                    f"Read Request for {read.size} octets: {denied.text}",
                    ulpdu,
                ) from None
        return PendingResponse(read, bytes(ulpdu))

    def _atomic_request(self, header: ddp.UntaggedHeader, ulpdu: memoryview) -> PendingAtomic:
        """Checked now, carried out in its turn.

        Choice: an atomic's operation is checked before its access, its access before its alignment; the codes are those of
        an unknown opcode and of a Read Request (RFC 7306 5).
        """
        body = self._body(header, ulpdu, Cause.ATOMIC_TOO_LONG, Cause.ATOMIC_TOO_SHORT)
        request = rdmap.AtomicRequest.parse(body)
        if request.operation not in _ATOMIC_OPERATIONS:
            raise self._fault(
                Cause.ATOMIC_OPERATION, f"Atomic Request with operation {request.operation}; 0 and 2 exist", ulpdu
            )
        try:
            atomics.target(self.access, request)
        except AccessDenied as denied:
            raise self._fault(atomic_cause(denied.denial), f"Atomic Request: {denied.text}", ulpdu) from None
        if request.to % atomics.WIDTH:
            raise self._fault(
                Cause.ATOMIC_MISALIGNED,
                f"Atomic Request at address {request.to:#x}, which is no multiple of {atomics.WIDTH}",
                ulpdu,
            )
        return PendingAtomic(request, bytes(ulpdu))

    def _take_atomic_response(self, header: ddp.UntaggedHeader, ulpdu: memoryview) -> None:
        """Completes our oldest atomic.

        Choice: its place among the Read Responses is the responder's duty and not checked (RFC 7306 7).
        """
        if header.msn != self._atomic_response_msn:
            raise self._fault(
                Cause.INVALID_MSN, f"Atomic Response with MSN {header.msn}, expected {self._atomic_response_msn}", ulpdu
            )
        if not self.atomics:
            raise self._fault(Cause.UNEXPECTED_ATOMIC_RESPONSE, "Atomic Response, but no atomic is outstanding", ulpdu)
        if header.mo:
            raise self._fault(Cause.INVALID_MO, f"Atomic Response at message offset {header.mo}, expected 0", ulpdu)
        response = rdmap.AtomicResponse.parse(self._body(header, ulpdu, Cause.ATOMIC_TOO_LONG, Cause.ATOMIC_TOO_SHORT))
        atomic = self.atomics[0]
        if response.identifier != atomic.identifier:
            raise self._fault(
                Cause.UNEXPECTED_ATOMIC_RESPONSE,
                f"Atomic Response with identifier {response.identifier}, the oldest atomic has {atomic.identifier}",
                ulpdu,
            )
        request = atomic.request
        try:
            scatter(self.access, request.sgl, 0, memoryview(atomics.stored(response.original)))
        except AccessDenied as denied:  # no token of ours is on the wire: nothing that the peer did wrong
            raise self._local_fault(request, denied) from None
        self._atomic_response_msn = self._atomic_response_msn + 1 & _MSN_MASK
        self.atomics.popleft()
        request.original = response.original
        self.pair.finish(request)

    def _body(self, header: ddp.UntaggedHeader, ulpdu: memoryview, too_long: Cause, too_short: Cause) -> memoryview:
        """What a message of fixed length, which is one segment, has behind its header."""
        opcode = Opcode(rdmap.opcode_of(header.rsvdulp))
        wanted = rdmap.OPCODES[opcode].body
        assert wanted is not None
        body = ulpdu[ddp.UNTAGGED_HEADER :]
        if len(body) == wanted and header.last:
            return body
        raise self._fault(
            too_short if len(body) < wanted else too_long,
            f"{_NAMES[opcode]} with a body of {_size(header, body)}, it has {wanted}",
            ulpdu,
        )

    def _take_terminate(self, ulpdu: memoryview) -> None:
        """Read leniently: whatever it says, the stream is over (RFC 5040 4.8)."""
        self.peer_terminate = terminate.Terminate.parse_leniently(ulpdu[ddp.UNTAGGED_HEADER :])

    # ---- faults

    def _opcode_of(self, control: int, ulpdu: memoryview) -> Opcode:
        version, opcode = rdmap.version_of(control), rdmap.opcode_of(control)
        if version != rdmap.VERSION:
            raise self._fault(Cause.RDMAP_VERSION, f"RDMAP version {version}, only 1 is spoken here", ulpdu)
        if opcode not in self._opcodes:
            raise self._fault(Cause.UNKNOWN_OPCODE, f"RDMAP opcode {opcode} is not implemented here", ulpdu)
        return Opcode(opcode)

    @staticmethod
    def _fault(cause: Cause, text: str, ulpdu: memoryview) -> ProtocolFault:
        return ProtocolFault(cause, text, bytes(ulpdu[:_HEADERS]), len(ulpdu))

    def _response_fault(self, cause: Cause, text: str, ulpdu: memoryview) -> ProtocolFault:
        fault = self._fault(cause, text, ulpdu)
        request = self.reads[0].request
        if request is not None:
            request.fail(Status.INTERNAL_ERROR, f"{fault.text} [INTERNAL_ERROR]", None, sent_code(fault))
        return fault

    def _sink_gone(self, request: ReadWork, denied: AccessDenied, ulpdu: memoryview) -> ProtocolFault:
        """The sink was there when the read was sent, and is no more: to the peer its STag has become invalid."""
        fault = self._fault(Cause.RESPONSE_STAG, f"{self.pair.name} read: {denied.text}", ulpdu)
        status = status_for_denial(denied.denial)
        request.fail(status, f"{fault.text} [{status.name}, R-INV-3]", None, sent_code(fault))
        return fault

    def _local_fault(self, request: ReceiveRequest | AtomicWork, denied: AccessDenied) -> ProtocolFault:
        text = f"{self.pair.name} {request.type.name.lower()}: {denied.text}"
        request.fail(status_for_denial(denied.denial), f"{text} [{status_for_denial(denied.denial).name}, R-WR-15]")
        return ProtocolFault(Cause.LOCAL_ERROR, text)


def is_terminate(ulpdu: memoryview) -> bool:
    """A Terminate, as far as its headers say."""
    if len(ulpdu) < ddp.UNTAGGED_HEADER or ddp.is_tagged(ulpdu[0]):
        return False
    header = ddp.parse_untagged(ulpdu)
    return header.qn == QueueNumber.TERMINATE and rdmap.opcode_of(header.rsvdulp) == Opcode.TERMINATE


def _size(header: ddp.UntaggedHeader, body: bytes | memoryview) -> str:
    return f"{len(body)} octets" + ("" if header.last else " and more to come")
