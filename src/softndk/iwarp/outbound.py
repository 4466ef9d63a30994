"""What leaves: segmentation, the responder, fences and order of one stream (RFC 5041 5, RFC 5040 5.5, RFC 7306 7).

Frames are made when the driver asks for them, one message after the other, never interleaved. A send or write is
finished when the transport has taken its last octet (R-COMP-7); a read or an atomic when its response is in.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from softndk.errors import NdkError
from softndk.flags import OperationType
from softndk.iwarp import atomics
from softndk.iwarp.atomics import OutstandingAtomic, PendingAtomic
from softndk.iwarp.faults import Cause, ProtocolFault, atomic_cause, read_source_cause, status_for_denial
from softndk.iwarp.framing import Framer
from softndk.iwarp.inbound import Inbound, OutstandingRead, PendingResponse
from softndk.iwarp.payload import gather
from softndk.memory.access import AccessDenied
from softndk.memory.tokens import Right
from softndk.queues.pair import QueuePair
from softndk.queues.work import (
    AtomicWork,
    FetchWork,
    ImmediateWork,
    InitiatorRequest,
    LocalRequest,
    ReadWork,
    SendWork,
    WriteWork,
)
from softndk.wire import ddp, rdmap, terminate
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.rdmap import Opcode

__all__ = ["Outbound"]

_MSN_MASK: Final = 0xFFFFFFFF
_SEND_OPCODE: Final = {  # (invalidate, solicited)
    (False, False): Opcode.SEND,
    (True, False): Opcode.SEND_INVALIDATE,
    (False, True): Opcode.SEND_SE,
    (True, True): Opcode.SEND_SE_INVALIDATE,
}
_ATOMIC_OPERATION: Final = {
    OperationType.FETCH_ADD: rdmap.AtomicOperation.FETCH_ADD,
    OperationType.COMPARE_SWAP: rdmap.AtomicOperation.COMPARE_SWAP,
}


class Outbound:
    """Sending side of one stream.

    mulpdu: largest ULPDU. draw_sink: gives a private sink token for each read. `fenced`: nothing may be sent yet (the
    passive side before the first FPDU has come, RFC 5044 7.1.3).
    """

    def __init__(
        self, pair: QueuePair, inbound: Inbound, framer: Framer, *, mulpdu: int, draw_sink: Callable[[], int]
    ) -> None:
        self.pair = pair
        self.fenced = False
        self.frames = 0
        self._inbound = inbound
        self._access = inbound.access
        self._framer = framer
        self._draw_sink = draw_sink
        self._untagged_room = mulpdu - ddp.UNTAGGED_HEADER
        self._tagged_room = mulpdu - ddp.TAGGED_HEADER
        self._send_msn = 1
        self._request_msn = 1
        self._atomic_response_msn = 1
        self._message: Iterator[bytearray] | None = None
        self._responses_first = True
        self._made = 0  # octets of all frames made
        self._taken = 0  # octets of them that the transport has taken
        self._in_transit: deque[tuple[int, InitiatorRequest]] = deque()
        self._terminated = False

    @property
    def idle(self) -> bool:
        """Nothing is left to make into frames."""
        return self._message is None and not self._inbound.responses

    @property
    def all_taken(self) -> bool:
        return self._made == self._taken

    def next_frame(self) -> bytearray | None:
        """The next FPDU, or None: nothing may be sent now.

        Raises: ProtocolFault: an own request cannot be carried out; it has its failing status then.
        """
        if self._terminated:
            return None
        while True:
            if self._message is not None:
                frame = next(self._message, None)
                if frame is not None:
                    return frame
                self._message = None
            if not self._begin_message():
                return None

    def transmitted(self, count: int) -> None:
        """The transport has taken `count` more octets: finishes the requests that are out."""
        self._taken += count
        while self._in_transit and self._in_transit[0][0] <= self._taken:
            self.pair.finish(self._in_transit.popleft()[1])

    def ready_indication(self, *, read: bool) -> bytearray:
        """The zero-length RDMA Write or Read Request that tells the peer we are ready (RFC 6581 5)."""
        if not read:
            return self._frame(TaggedHeader(True, rdmap.control(Opcode.WRITE), 1, 0).emit(), [])
        return self._read_request(None)

    def terminate(self, message: terminate.Terminate) -> bytearray:
        """The last frame of the stream; nothing is made after it."""
        header = UntaggedHeader(True, rdmap.control(Opcode.TERMINATE), 0, QueueNumber.TERMINATE, 1, 0).emit()
        frame = self._frame(header, [memoryview(message.emit())])
        self.stop()
        return frame

    def stop(self) -> None:
        """Make nothing more."""
        self._terminated = True
        self._message = None
        self._in_transit.clear()

    # ---- messages

    def _begin_message(self) -> bool:
        responses = self._inbound.responses
        request = self.pair.startable()
        if self.fenced and not isinstance(request, LocalRequest):
            return False
        if responses and (self._responses_first or request is None):
            self._responses_first = False
            self._message = self._answer(responses[0])
            return True
        self._responses_first = True
        if request is None:
            return False
        self.pair.start(request)
        if isinstance(request, LocalRequest):
            self._execute(request)
        elif isinstance(request, SendWork):
            self._message = self._send(request)
        elif isinstance(request, WriteWork):
            self._message = self._write(request)
        elif isinstance(request, ImmediateWork):
            self._message = iter((self._immediate(request),))
        else:
            assert isinstance(request, FetchWork)
            self._check_sink(request)
            self._message = iter((self._fetch(request),))
        return True

    def _execute(self, request: LocalRequest) -> None:
        try:
            request.execute()
        except NdkError as error:
            request.fail(error.status, str(error))
            raise ProtocolFault(Cause.LOCAL_ERROR, f"{self.pair.name}: {error}") from None
        self.pair.finish(request)

    def _send(self, request: SendWork) -> Iterator[bytearray]:
        invalidates = request.invalidate_stag is not None
        control = rdmap.control(_SEND_OPCODE[invalidates, request.solicited])
        msn = self._send_msn
        self._send_msn = msn + 1 & _MSN_MASK
        offset = 0
        while True:
            size = min(self._untagged_room, request.length - offset)
            last = offset + size == request.length
            header = UntaggedHeader(last, control, request.invalidate_stag or 0, QueueNumber.SEND, msn, offset)
            frame = self._frame(header.emit(), self._payload(request, offset, size))
            if last:
                self._in_transit.append((self._made, request))
            yield frame
            offset += size
            if last:
                return

    def _immediate(self, request: ImmediateWork) -> bytearray:
        opcode = Opcode.IMMEDIATE_SE if request.solicited else Opcode.IMMEDIATE
        header = UntaggedHeader(True, rdmap.control(opcode), 0, QueueNumber.SEND, self._send_msn, 0)
        self._send_msn = self._send_msn + 1 & _MSN_MASK
        frame = self._frame(header.emit(), [memoryview(request.data)])
        self._in_transit.append((self._made, request))
        return frame

    def _write(self, request: WriteWork) -> Iterator[bytearray]:
        control = rdmap.control(Opcode.WRITE)
        offset = 0
        while True:
            size = min(self._tagged_room, request.length - offset)
            last = offset + size == request.length
            to = request.remote_address + offset & 0xFFFFFFFFFFFFFFFF
            frame = self._frame(
                TaggedHeader(last, control, request.remote_stag, to).emit(), self._payload(request, offset, size)
            )
            if last:
                self._in_transit.append((self._made, request))
            yield frame
            offset += size
            if last:
                return

    def _fetch(self, request: FetchWork) -> bytearray:
        if isinstance(request, AtomicWork):
            return self._atomic_request(request)
        assert isinstance(request, ReadWork)
        return self._read_request(request)

    def _read_request(self, request: ReadWork | None) -> bytearray:
        read = OutstandingRead(request, self._draw_sink())
        self._inbound.reads.append(read)
        if request is None:
            self.pair.reads_outstanding += 1
            body = rdmap.ReadRequest(read.sink_stag, 0, 0, 1, 0)
        else:
            body = rdmap.ReadRequest(read.sink_stag, 0, request.length, request.remote_stag, request.remote_address)
        return self._ask(Opcode.READ_REQUEST, body.emit())

    def _atomic_request(self, request: AtomicWork) -> bytearray:
        atomic = OutstandingAtomic(request, self._request_msn)
        self._inbound.atomics.append(atomic)
        body = rdmap.AtomicRequest(
            _ATOMIC_OPERATION[request.type],
            atomic.identifier,
            request.remote_stag,
            request.remote_address,
            request.data,
            request.mask,
            request.compare,
            request.compare_mask,
        )
        return self._ask(Opcode.ATOMIC_REQUEST, body.emit())

    def _ask(self, opcode: Opcode, body: bytes) -> bytearray:
        """The next message of the queue that reads and atomics share."""
        header = UntaggedHeader(True, rdmap.control(opcode), 0, QueueNumber.READ_REQUEST, self._request_msn, 0)
        self._request_msn = self._request_msn + 1 & _MSN_MASK
        return self._frame(header.emit(), [memoryview(body)])

    def _answer(self, first: PendingResponse | PendingAtomic) -> Iterator[bytearray]:
        if isinstance(first, PendingAtomic):
            return iter((self._atomic_response(first),))
        return self._response(first)

    def _response(self, response: PendingResponse) -> Iterator[bytearray]:
        """Answer one read; the source is looked up again for each segment, since it may be gone by then."""
        read = response.read
        control = rdmap.control(Opcode.READ_RESPONSE)
        while True:
            size = min(self._tagged_room, read.size - response.sent)
            last = response.sent + size == read.size
            payload: list[memoryview] = []
            if size:
                try:
                    payload = self._access.remote(
                        read.source_stag, read.source_to + response.sent, size, Right.REMOTE_READ
                    )
                except AccessDenied as denied:
                    raise self._source_gone(response, denied) from None
            to = read.sink_to + response.sent & 0xFFFFFFFFFFFFFFFF
            frame = self._frame(TaggedHeader(last, control, read.sink_stag, to).emit(), payload)
            response.sent += size
            if last:
                self._inbound.responses.popleft()
            yield frame
            if last:
                return

    def _atomic_response(self, pending: PendingAtomic) -> bytearray:
        """Carry out one atomic, and answer it in the same step: every request before it has been answered."""
        try:
            original = atomics.execute(self._access, pending.request)
        except AccessDenied as denied:
            raise ProtocolFault(
                atomic_cause(denied.denial), f"Atomic Request: {denied.text}", pending.ulpdu, len(pending.ulpdu)
            ) from None
        self._inbound.responses.popleft()
        header = UntaggedHeader(
            True, rdmap.control(Opcode.ATOMIC_RESPONSE), 0, QueueNumber.ATOMIC_RESPONSE, self._atomic_response_msn, 0
        )
        self._atomic_response_msn = self._atomic_response_msn + 1 & _MSN_MASK
        body = rdmap.AtomicResponse(pending.request.identifier, original).emit()
        return self._frame(header.emit(), [memoryview(body)])

    @staticmethod
    def _source_gone(response: PendingResponse, denied: AccessDenied) -> ProtocolFault:
        read = response.read
        left = rdmap.ReadRequest(
            read.sink_stag,
            read.sink_to + response.sent & 0xFFFFFFFFFFFFFFFF,
            read.size - response.sent,
            read.source_stag,
            read.source_to + response.sent,
        )
        cause = Cause.READ_SOURCE_GONE if response.sent else read_source_cause(denied.denial)
        return ProtocolFault(
            cause,
            f"Read Request for {read.size} octets, {response.sent} sent: {denied.text}",
            response.ulpdu,
            len(response.ulpdu),
            left.emit(),
        )

    def _payload(self, request: SendWork | WriteWork, offset: int, size: int) -> list[memoryview]:
        if not size:
            return []
        if request.inline is not None:
            return [memoryview(request.inline)[offset : offset + size]]
        try:
            return gather(self._access, request.sgl, offset, size)
        except AccessDenied as denied:
            raise self._local_fault(request, denied) from None

    def _check_sink(self, request: FetchWork) -> None:
        """Nothing is asked of the peer that could not be placed here (R-WR-15)."""
        try:
            for sge in request.sgl:
                if sge.length:
                    self._access.local(sge.token, sge.address, sge.length, write=True)
        except AccessDenied as denied:
            raise self._local_fault(request, denied) from None

    def _local_fault(self, request: SendWork | WriteWork | FetchWork, denied: AccessDenied) -> ProtocolFault:
        status = status_for_denial(denied.denial)
        text = f"{self.pair.name} {request.type.name.lower()}: {denied.text}"
        request.fail(status, f"{text} [{status.name}, R-WR-15]")
        return ProtocolFault(Cause.LOCAL_ERROR, text)

    def _frame(self, header: bytes, payload: list[memoryview]) -> bytearray:
        frame = self._framer.frame(header, payload)
        self._made += len(frame)
        self.frames += 1
        return frame
