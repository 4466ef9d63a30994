"""The reference data path: framing, inbound and outbound in Python. It is the executable specification."""

from collections.abc import Sequence

from typing_extensions import Buffer

from softndk.iwarp.faults import Cause, ProtocolFault
from softndk.iwarp.framing import Deframer, Framer, FramingFault, FramingReason
from softndk.iwarp.inbound import Inbound, is_terminate
from softndk.iwarp.outbound import Outbound
from softndk.iwarp.stream import StreamParameters
from softndk.memory.access import MemoryAccess
from softndk.memory.logical import LogicalSpace
from softndk.memory.tokens import TokenTable
from softndk.queues.pair import QueuePair
from softndk.queues.work import AtomicWork, ReadWork
from softndk.wire import ddp
from softndk.wire.terminate import Terminate

__all__ = ["ReferenceDataPath", "ReferenceStream"]

_FRAMING_CAUSE = {FramingReason.BAD_CRC: Cause.BAD_CRC, FramingReason.MARKER: Cause.MARKER_MISMATCH}


class ReferenceStream:
    """See iwarp.stream.Stream."""

    def __init__(self, pair: QueuePair, access: MemoryAccess, tokens: TokenTable, parameters: StreamParameters) -> None:
        self.held = False
        self._pair = pair
        self._deframer = Deframer(crc=parameters.crc, markers=parameters.receive_markers)
        self._inbound = Inbound(
            pair,
            access,
            read_limit=parameters.inbound_read_limit,
            send_indication=parameters.send_indication,
            rfc7306=parameters.rfc7306,
        )
        self._outbound = Outbound(
            pair,
            self._inbound,
            Framer(crc=parameters.crc, markers=parameters.send_markers),
            mulpdu=parameters.mulpdu,
            draw_sink=tokens.draw_private,
        )
        self._outbound.fenced = parameters.fenced
        self._held_ulpdu = memoryview(b"")
        self._fault: ProtocolFault | None = None  # met behind frames that had to be given out first

    @property
    def refuse_reads(self) -> bool:
        return self._inbound.refuse_reads

    @refuse_reads.setter
    def refuse_reads(self, value: bool) -> None:
        self._inbound.refuse_reads = value

    def consume(self, data: memoryview, *, hold: bool) -> None:
        self._deframer.feed(data)
        try:
            if not self.held:
                self._run(hold)
        finally:
            self._deframer.detach()

    def resume(self, *, hold: bool) -> None:
        if not self.held:
            return
        self.held = False
        try:
            if self._offer(self._held_ulpdu, hold):
                self._run(hold)
        finally:
            self._deframer.detach()

    def seek_terminate(self, data: memoryview) -> Terminate | None:
        self._deframer.feed(data)
        try:
            while (ulpdu := self._deframer.next_ulpdu()) is not None:
                if is_terminate(ulpdu):
                    return self._settled(Terminate.parse_leniently(ulpdu[ddp.UNTAGGED_HEADER :]))
        except FramingFault:
            pass
        finally:
            self._deframer.detach()
        return None

    def produce(self, limit: int) -> Sequence[Buffer]:
        if self._fault is not None:
            raise self._fault
        frames: list[Buffer] = []
        size = 0
        while size < limit:
            try:
                frame = self._outbound.next_frame()
            except ProtocolFault as fault:
                if not frames:
                    raise
                self._fault = fault
                break
            if frame is None:
                break
            frames.append(frame)
            size += len(frame)
        return frames

    def transmitted(self, count: int) -> None:
        self._outbound.transmitted(count)

    def ready_indication(self, *, read: bool) -> Buffer:
        return self._outbound.ready_indication(read=read)

    def nudge(self) -> Buffer | None:
        return self._outbound.ready_indication(read=False) if self._outbound.idle else None

    def terminate(self, message: Terminate) -> Buffer:
        return self._outbound.terminate(message)

    def stop(self) -> None:
        self._outbound.stop()

    def read_of(self, sink_stag: int) -> ReadWork | None:
        for read in self._inbound.reads:
            if read.sink_stag == sink_stag:
                return read.request
        return None

    def atomic_of(self, msn: int) -> AtomicWork | None:
        for atomic in self._inbound.atomics:
            if atomic.identifier == msn:
                return atomic.request
        return None

    @property
    def peer_terminate(self) -> Terminate | None:
        message = self._inbound.peer_terminate
        return None if message is None else self._settled(message)

    @property
    def inside_fpdu(self) -> bool:
        return self._deframer.inside_fpdu

    @property
    def inside_message(self) -> bool:
        return self._inbound.inside_message

    @property
    def quiet(self) -> bool:
        return self._fault is None and self._pair.idle and self._outbound.idle and self._outbound.all_taken

    @property
    def frames_in(self) -> int:
        return self._inbound.segments

    @property
    def frames_out(self) -> int:
        return self._outbound.frames

    def _settled(self, message: Terminate) -> Terminate:
        return message.settled(started=self.frames_out > 0)

    def _run(self, hold: bool) -> None:
        while self._inbound.peer_terminate is None:
            try:
                ulpdu = self._deframer.next_ulpdu()
            except FramingFault as fault:
                raise ProtocolFault(_FRAMING_CAUSE[fault.reason], f"{self._pair.name}: {fault}") from None
            if ulpdu is None or not self._offer(ulpdu, hold):
                return

    def _offer(self, ulpdu: memoryview, hold: bool) -> bool:
        self._outbound.fenced = False  # a valid FPDU has come, even if its message has to wait
        taken = self._inbound.handle(ulpdu, hold=hold)
        if not taken:
            self.held = True
            self._held_ulpdu = memoryview(bytes(ulpdu))
        return taken


class ReferenceDataPath:
    """See datapath.abc.DataPath."""

    name = "python"

    def __init__(self) -> None:
        self.tokens = TokenTable()
        self.logical = LogicalSpace()

    def open_stream(self, pair: QueuePair, access: MemoryAccess, parameters: StreamParameters) -> ReferenceStream:
        return ReferenceStream(pair, access, self.tokens, parameters)
