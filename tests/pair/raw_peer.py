"""One core against octets made by hand, and the parts they are made of.

Responsible for: a start-up that succeeds, FPDUs around given ULPDUs, and keeping what the core answers.
Must not know: what the octets mean, nor what the core should do about them.
"""

import struct
from typing import Final

from softndk.iwarp.events import Finish
from softndk.iwarp.framing import Framer
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame, frame_length
from softndk.wire.rdmap import Opcode, ReadRequest, control
from tests.pair.core_pair import Side, split

__all__ = ["WRITE_READY", "RawPeer", "atomic_request", "atomic_response", "read_request", "tagged", "untagged"]

WRITE_READY: Final = Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_write=True)
"""Asks for a zero-length RDMA Write as ready-to-receive indication."""


_QUEUES: Final = {
    Opcode.READ_REQUEST: QueueNumber.READ_REQUEST,
    Opcode.ATOMIC_REQUEST: QueueNumber.READ_REQUEST,
    Opcode.TERMINATE: QueueNumber.TERMINATE,
    Opcode.ATOMIC_RESPONSE: QueueNumber.ATOMIC_RESPONSE,
}


class RawPeer:
    """A peer made by hand for one passive side: sends any octets, keeps all that come back.

    markers: ask the side for markers. enhanced: the Request's enhanced data; None for revision 1. The defaults settle a
    zero-length RDMA Write as ready-to-receive indication.
    """

    def __init__(
        self,
        side: Side,
        *,
        crc: bool = True,
        markers: bool = False,
        revision: int = 2,
        enhanced: Enhanced | None = WRITE_READY,
        mss: int = 1460,
    ) -> None:
        self.side = side
        self.received = bytearray()
        self.closed: Finish = Finish.KEEP
        side.core.connected(self.now, mss)
        request = StartupFrame(FrameKind.REQUEST, markers, crc, False, revision, enhanced, b"")
        self.send_octets(request.emit())
        side.bind_queues()
        side.core.accept(b"", *side.limits, self.now)
        self.pump()
        reply_length = frame_length(self.received)
        self.reply = StartupFrame.parse(self.received[:reply_length])
        del self.received[:reply_length]
        self.crc = crc or self.reply.crc
        self.markers = markers
        self._framer = Framer(crc=self.crc, markers=self.reply.markers)

    @property
    def now(self) -> float:
        """The time, which is the side's."""
        return self.side.now

    @now.setter
    def now(self, now: float) -> None:
        self.side.now = now

    def establish(self) -> None:
        """The zero-length RDMA Write that says that this end is ready."""
        self.send(tagged(Opcode.WRITE, 1, 0))
        self.side.take_events()

    def frame(self, ulpdu: bytes) -> bytes:
        """A ULPDU as the next FPDU of this direction."""
        return bytes(self._framer.frame(ulpdu, []))

    def send(self, *ulpdus: bytes) -> None:
        """All of them in one delivery."""
        self.send_octets(b"".join(self.frame(ulpdu) for ulpdu in ulpdus))

    def send_octets(self, octets: bytes) -> None:
        self.side.core.receive_data(memoryview(octets), self.now)
        self.pump()

    def send_fin(self) -> None:
        self.side.core.receive_eof(self.now)
        self.pump()

    def pump(self, limit: int | None = None) -> None:
        """Take what the side has ready, at most `limit` octets of it."""
        core = self.side.core
        while parts := core.data_to_send(self.now):
            octets = b"".join(parts)
            if limit is not None:
                octets = octets[:limit]
                limit -= len(octets)
            if not octets:
                break
            assert self.closed is Finish.KEEP, "octets after the end"
            self.received += octets
            core.data_sent(len(octets), self.now)
        if core.finish() is not Finish.KEEP:
            self.closed = core.finish()
        self.side.collect()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.side.core.handle_timeout(self.now)
        self.pump()

    def take(self) -> list[bytes]:
        """The ULPDUs that the side has sent; whole FPDUs only may have come."""
        return split(bytes(self.received), crc=self.crc, markers=self.markers)


def tagged(opcode: int, stag: int, to: int, payload: bytes = b"", *, last: bool = True, version: int = 1) -> bytes:
    """A tagged segment."""
    return TaggedHeader(last, control(opcode), stag, to, version).emit() + payload


def untagged(
    opcode: int,
    msn: int,
    payload: bytes = b"",
    *,
    qn: int | None = None,
    mo: int = 0,
    stag: int = 0,
    last: bool = True,
    version: int = 1,
) -> bytes:
    """An untagged segment; its queue is the opcode's unless given."""
    if qn is None:
        qn = _QUEUES.get(Opcode(opcode), QueueNumber.SEND)
    return UntaggedHeader(last, control(opcode), stag, qn, msn, mo, version).emit() + payload


def read_request(msn: int, size: int, source_stag: int, source_to: int, *, sink_stag: int = 0x112201) -> bytes:
    """A Read Request into a sink at offset 0x2000."""
    body = ReadRequest(sink_stag, 0x2000, size, source_stag, source_to).emit()
    return untagged(Opcode.READ_REQUEST, msn, body)


def atomic_request(
    msn: int,
    stag: int,
    to: int,
    data: int = 1,
    mask: int = 0,
    compare: int = 0,
    compare_mask: int = (1 << 64) - 1,
    *,
    operation: int = 0,
    identifier: int = 0xCAFE,
) -> bytes:
    """An Atomic Request; the operation is FetchAdd (0) or CmpSwap (2)."""
    body = struct.pack(">IIIQQQQQ", operation, identifier, stag, to, data, mask, compare, compare_mask)
    return untagged(Opcode.ATOMIC_REQUEST, msn, body)


def atomic_response(msn: int, identifier: int, original: int) -> bytes:
    """An Atomic Response."""
    return untagged(Opcode.ATOMIC_RESPONSE, msn, struct.pack(">IQ", identifier, original))
