"""What arrives: DDP and RDMAP receive semantics of one stream (RFC 5041, RFC 5040).

Takes checked ULPDUs in stream order, places their payload, completes receives and reads, queues what must be answered.
Checks run in a fixed order, and nothing of a segment is used before all that concern it have passed. Knows nothing of
framing, of sockets and of time.
"""

from collections import deque
from typing import Final

from softndk.errors import NdkError
from softndk.iwarp.faults import (
    Cause,
    ProtocolFault,
    read_source_cause,
    sent_code,
    status_for_denial,
    write_cause,
)
from softndk.memory.access import AccessDenied, Denial, MemoryAccess
from softndk.memory.sge import Sge
from softndk.memory.tokens import Right, masked
from softndk.queues.pair import QueuePair
from softndk.queues.work import ReadWork, ReceiveRequest
from softndk.status import Status
from softndk.wire import ddp, rdmap, terminate
from softndk.wire.ddp import QueueNumber
from softndk.wire.rdmap import Opcode

__all__ = ["Inbound", "OutstandingRead", "PendingResponse", "gather", "scatter"]

_SENDS: Final = frozenset({Opcode.SEND, Opcode.SEND_INVALIDATE, Opcode.SEND_SE, Opcode.SEND_SE_INVALIDATE})
_TAGGED: Final = frozenset({Opcode.WRITE, Opcode.READ_RESPONSE})
_QUEUE_OF: Final = {
    **dict.fromkeys(_SENDS, QueueNumber.SEND),
    Opcode.READ_REQUEST: QueueNumber.READ_REQUEST,
    Opcode.TERMINATE: QueueNumber.TERMINATE,
}
_SERVED_QUEUES: Final = frozenset(_QUEUE_OF.values())
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


def scatter(access: MemoryAccess, sgl: tuple[Sge, ...], offset: int, data: memoryview) -> None:
    """Copy `data` to message offset `offset` of the memory that `sgl` names.

    Raises: AccessDenied: nothing has been copied then.
    """
    _copy(data, _pieces(access, sgl, offset, len(data), write=True))


def gather(access: MemoryAccess, sgl: tuple[Sge, ...], offset: int, length: int) -> list[memoryview]:
    """Views of `length` octets from message offset `offset` of the memory that `sgl` names. Raises AccessDenied."""
    return _pieces(access, sgl, offset, length, write=False)


def _pieces(access: MemoryAccess, sgl: tuple[Sge, ...], offset: int, length: int, *, write: bool) -> list[memoryview]:
    found: list[memoryview] = []
    for sge in sgl:
        if not length:
            break
        if offset >= sge.length:
            offset -= sge.length
            continue
        take = min(length, sge.length - offset)
        for piece in access.local(sge.token, sge.address, sge.length, write=write):
            if offset >= piece.nbytes:
                offset -= piece.nbytes
                continue
            part = min(take, piece.nbytes - offset)
            if part <= 0:
                break
            found.append(piece[offset : offset + part])
            take -= part
            length -= part
            offset = 0
        offset = 0
    return found


class Inbound:
    """Receiving side of one stream.

    `reads`: our reads on the wire, oldest first, filled by the sending side. `responses`: the peer's reads to answer.
    `read_limit`: IRD, how many of those we hold. `peer_terminate`: the peer's last word, once it has come.
    send_indication: an empty Send that comes first is the ready-to-receive indication. Choice: it is number 1 of its
    queue, uses up no receive and is not delivered (RFC 6581 5 does not say).
    """

    def __init__(
        self, pair: QueuePair, access: MemoryAccess, *, read_limit: int, send_indication: bool = False
    ) -> None:
        self.pair = pair
        self.access = access
        self.read_limit = read_limit
        self.reads: deque[OutstandingRead] = deque()
        self.responses: deque[PendingResponse] = deque()
        self.peer_terminate: terminate.Terminate | None = None
        self.refuse_reads = False
        self.segments = 0
        self._send_indication = send_indication
        self._send_msn = 1
        self._read_msn = 1
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
        if opcode not in _TAGGED:
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
        _copy(payload, targets)

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

    # ---- untagged: Send family, Read Request, Terminate

    def _handle_untagged(self, ulpdu: memoryview, hold: bool) -> bool:
        header = ddp.parse_untagged(ulpdu)
        if header.version != ddp.VERSION:
            raise self._fault(Cause.UNTAGGED_VERSION, f"DDP version {header.version}, only 1 is spoken here", ulpdu)
        opcode = self._opcode_of(header.rsvdulp, ulpdu)
        if opcode in _TAGGED:
            raise self._fault(
                Cause.OPCODE_ON_WRONG_QUEUE,
                f"{opcode.name} in an untagged segment; it is a tagged message",
                ulpdu,
            )
        if header.qn not in _SERVED_QUEUES:
            raise self._fault(Cause.INVALID_QN, f"{opcode.name} on queue number {header.qn}; 0, 1 and 2 exist", ulpdu)
        if header.qn != _QUEUE_OF[opcode]:
            raise self._fault(
                Cause.OPCODE_ON_WRONG_QUEUE,
                f"{opcode.name} on queue number {header.qn}; its queue is {_QUEUE_OF[opcode].value}",
                ulpdu,
            )
        if opcode is Opcode.TERMINATE:
            self._take_terminate(ulpdu)
            return True
        if opcode is Opcode.READ_REQUEST:
            self._queue_response(header, ulpdu)
            return True
        return self._place_send(header, opcode, ulpdu, hold)

    def _place_send(self, header: ddp.UntaggedHeader, opcode: Opcode, ulpdu: memoryview, hold: bool) -> bool:
        if header.msn != self._send_msn:
            raise self._fault(Cause.INVALID_MSN, f"Send with MSN {header.msn}, expected {self._send_msn}", ulpdu)
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
            raise self._fault(Cause.INVALID_MO, f"Send at message offset {header.mo}, expected {expected}", ulpdu)
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

    def _queue_response(self, header: ddp.UntaggedHeader, ulpdu: memoryview) -> None:
        if header.msn != self._read_msn:
            raise self._fault(
                Cause.INVALID_MSN, f"Read Request with MSN {header.msn}, expected {self._read_msn}", ulpdu
            )
        if len(self.responses) >= self.read_limit:
            raise self._fault(
                Cause.TOO_MANY_READS,
                f"Read Request beyond the inbound read limit of {self.read_limit} in progress",
                ulpdu,
            )
        if header.mo:
            raise self._fault(Cause.INVALID_MO, f"Read Request at message offset {header.mo}, expected 0", ulpdu)
        body = ulpdu[ddp.UNTAGGED_HEADER :]
        if len(body) > rdmap.READ_REQUEST_LENGTH or (len(body) == rdmap.READ_REQUEST_LENGTH and not header.last):
            raise self._fault(
                Cause.READ_REQUEST_TOO_LONG,
                f"Read Request with a body of {len(body)} octets"
                f"{'' if header.last else ' and more to come'}, it has {rdmap.READ_REQUEST_LENGTH}",
                ulpdu,
            )
        if len(body) < rdmap.READ_REQUEST_LENGTH:
            raise self._fault(
                Cause.READ_REQUEST_TOO_SHORT,
                f"Read Request with a body of {len(body)} octets, it has {rdmap.READ_REQUEST_LENGTH}",
                ulpdu,
            )
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
        if self.refuse_reads:
            raise self._fault(Cause.LOCAL_ERROR, "Read Request after this side's FIN: it can't be answered", ulpdu)
        self._read_msn = self._read_msn + 1 & _MSN_MASK
        self.responses.append(PendingResponse(read, bytes(ulpdu)))

    def _take_terminate(self, ulpdu: memoryview) -> None:
        """Read leniently: whatever it says, the stream is over (RFC 5040 4.8)."""
        self.peer_terminate = terminate.Terminate.parse_leniently(ulpdu[ddp.UNTAGGED_HEADER :])

    # ---- faults

    def _opcode_of(self, control: int, ulpdu: memoryview) -> Opcode:
        version, opcode = rdmap.version_of(control), rdmap.opcode_of(control)
        if version != rdmap.VERSION:
            raise self._fault(Cause.RDMAP_VERSION, f"RDMAP version {version}, only 1 is spoken here", ulpdu)
        if opcode not in _QUEUE_OF and opcode not in _TAGGED:
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

    def _local_fault(self, request: ReceiveRequest, denied: AccessDenied) -> ProtocolFault:
        text = f"{self.pair.name} {request.type.name.lower()}: {denied.text}"
        request.fail(status_for_denial(denied.denial), f"{text} [{status_for_denial(denied.denial).name}, R-WR-15]")
        return ProtocolFault(Cause.LOCAL_ERROR, text)


def _copy(data: memoryview, targets: list[memoryview]) -> None:
    position = 0
    for target in targets:
        target[:] = data[position : position + target.nbytes]
        position += target.nbytes
