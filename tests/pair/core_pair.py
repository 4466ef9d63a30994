"""Two protocol cores joined by an in-memory wire under a virtual clock.

Responsible for: carrying octets, FINs and resets between two `Connection` cores exactly as the drivers do, in chunks of
any size, with a hook for each direction that can alter what is carried; for a core's surroundings (data path, PD, QP,
queues, memory).
Must not know: sockets, threads, real time, NDK objects, and what any of the octets mean beyond where an FPDU ends.
"""

import errno
import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from softndk.config import IwarpConfig
from softndk.datapath import open_datapath
from softndk.flags import LocalToken, OperationType
from softndk.iwarp.connection import Connection
from softndk.iwarp.events import Event, Finish
from softndk.iwarp.framing import Deframer, Framer
from softndk.iwarp.negotiation import Initiator, Rtr
from softndk.iwarp.qp_state import State
from softndk.iwarp.stream import Stream, StreamParameters
from softndk.memory.access import MemoryAccess
from softndk.memory.buffers import Mdl
from softndk.memory.regions import Region
from softndk.memory.sge import Sge
from softndk.memory.tokens import ProtectionDomain, Right, TokenTable
from softndk.queues.completion import CompletionRing
from softndk.queues.pair import QueuePair
from softndk.queues.work import AtomicWork, ImmediateWork, LocalRequest, ReadWork, ReceiveRequest, SendWork, WriteWork
from softndk.results import Result
from softndk.status import Status
from softndk.wire.mpa import frame_length

__all__ = ["ALL_RIGHTS", "CorePair", "Side", "Wire", "split"]

ALL_RIGHTS = Right.LOCAL_WRITE | Right.REMOTE_READ | Right.REMOTE_WRITE
PEER_TO_PEER = frozenset({Rtr.WRITE, Rtr.READ})
START: Final = 1000.0
"""The time at which every scenario begins."""


class Side:
    """One end: a core with its data path, PD, QP, two CQs and one registered region.

    `memory` are the region's octets, numbered from `base`; `local_token` and `stag` are its tokens. `events` is what
    the core has told, `fired` what the CQs' arms have caused, as (ring name, status). `now` is the time at which a post
    is made; who drives the side keeps it.
    With `seed` the tokens are the same in every run.
    """

    def __init__(
        self,
        name: str,
        *,
        active: bool,
        config: IwarpConfig | None = None,
        private_data: bytes = b"",
        ird: int = 16,
        ord_limit: int = 16,
        rtr_offer: frozenset[Rtr] = PEER_TO_PEER,
        depth: int = 64,
        cq_depth: int = 1024,
        base: int = 0x10000,
        size: int = 1 << 16,
        rights: Right = ALL_RIGHTS,
        seed: int | None = None,
    ) -> None:
        self.name = name
        self.now = START
        self.config = config or IwarpConfig()
        self.events: list[Event] = []
        self.fired: list[tuple[str, Status]] = []
        self.closed = False
        self.datapath = open_datapath(None)
        if seed is not None:
            self.datapath.tokens = TokenTable(random.Random(seed).randrange)
        self.pd = ProtectionDomain(f"pd_{name}")
        self.receive_ring = self._ring("receive", cq_depth)
        self.initiator_ring = self._ring("initiator", cq_depth)
        self.pair = QueuePair(
            f"qp_{name}", name, self.receive_ring, self.initiator_ring, receive_depth=depth, initiator_depth=depth
        )
        self.access = MemoryAccess(self.datapath.tokens, self.datapath.logical, self.pd, self.pair)
        initiator = None
        if active:
            initiator = Initiator(
                private_data,
                ird=ird,
                ord=ord_limit,
                revision=self.config.mpa_revision,
                crc=self.config.crc,
                markers=self.config.markers,
                rtr_offer=rtr_offer if self.config.peer_to_peer else frozenset(),
            )
        self.limits = (ird, ord_limit)
        self.core = Connection(name, self.config, initiator=initiator, limits=self.limits)
        self.base = base
        self.memory = bytearray(size)
        self.region = self.register(self.memory, base, rights)
        assert self.region.local is not None
        assert self.region.remote is not None
        self.local_token = LocalToken(self.region.local.stag)
        self.stag = self.region.remote.stag
        if active:
            self.bind_queues()

    def _ring(self, name: str, depth: int) -> CompletionRing:
        return CompletionRing(depth, lambda status: self.fired.append((name, status)), lambda: None)

    def bind_queues(self) -> None:
        self.core.bind(self.pair, self.open_stream)

    def open_stream(self, parameters: StreamParameters) -> Stream:
        return self.datapath.open_stream(self.pair, self.access, parameters)

    def register(
        self, buffer: bytearray, base: int, rights: Right, *, pd: ProtectionDomain | None = None, name: str = "mr"
    ) -> Region:
        region = Region(self.datapath.tokens, pd or self.pd, f"{name}_{self.name}")
        mdl = Mdl(buffer, address=base)
        region.register(mdl.address, mdl.byte_range(mdl.length), rights)
        return region

    def is_in(self, state: State) -> bool:
        """Whether the core is in that state."""
        return self.core.state is state

    def sge(self, offset: int, length: int) -> Sge:
        """An SGE over the region, which may lie outside it."""
        return Sge(self.base + offset, length, self.local_token)

    # ---- posts; `context` comes back in the result

    def receive(self, offset: int, length: int, context: object = None) -> ReceiveRequest:
        request = ReceiveRequest([self.sge(offset, length)], context)
        self.pair.post_receive(request)
        self.core.kick(self.now)
        return request

    def send(
        self,
        data: bytes | Sequence[Sge],
        context: object = None,
        *,
        flags: int = 0,
        invalidate: int | None = None,
        deferred: bool = False,
    ) -> SendWork:
        sgl, inline = ((), data) if isinstance(data, bytes) else (data, None)
        request = SendWork(flags, context, sgl, inline, invalidate)
        self.pair.post_initiator(request, deferred=deferred)
        return request

    def write(
        self,
        data: bytes | Sequence[Sge],
        address: int,
        stag: int,
        context: object = None,
        *,
        flags: int = 0,
        deferred: bool = False,
    ) -> WriteWork:
        sgl, inline = ((), data) if isinstance(data, bytes) else (data, None)
        request = WriteWork(flags, context, sgl, inline, address, stag)
        self.pair.post_initiator(request, deferred=deferred)
        return request

    def read(
        self,
        sgl: Sequence[Sge],
        address: int,
        stag: int,
        context: object = None,
        *,
        flags: int = 0,
        on_success: Callable[[], None] | None = None,
        deferred: bool = False,
    ) -> ReadWork:
        request = ReadWork(flags, context, sgl, address, stag, on_success)
        self.pair.post_initiator(request, deferred=deferred)
        return request

    def immediate(self, data: bytes, context: object = None, *, flags: int = 0) -> ImmediateWork:
        request = ImmediateWork(flags, context, data)
        self.pair.post_initiator(request, deferred=False)
        return request

    def fetch_add(
        self,
        sgl: Sequence[Sge],
        address: int,
        stag: int,
        add: int,
        context: object = None,
        *,
        mask: int = 0,
        flags: int = 0,
    ) -> AtomicWork:
        request = AtomicWork(OperationType.FETCH_ADD, flags, context, sgl, address, stag, data=add, mask=mask)
        self.pair.post_initiator(request, deferred=False)
        return request

    def compare_swap(
        self,
        sgl: Sequence[Sge],
        address: int,
        stag: int,
        compare: int,
        swap: int,
        context: object = None,
        *,
        compare_mask: int = (1 << 64) - 1,
        swap_mask: int = (1 << 64) - 1,
        flags: int = 0,
    ) -> AtomicWork:
        request = AtomicWork(
            OperationType.COMPARE_SWAP,
            flags,
            context,
            sgl,
            address,
            stag,
            data=swap,
            mask=swap_mask,
            compare=compare,
            compare_mask=compare_mask,
        )
        self.pair.post_initiator(request, deferred=False)
        return request

    def local(
        self,
        execute: Callable[[], None],
        context: object = None,
        *,
        kind: OperationType = OperationType.INVALIDATE,
        flags: int = 0,
        waits_for_reads: bool = False,
        deferred: bool = False,
    ) -> LocalRequest:
        request = LocalRequest(kind, flags, context, execute, waits_for_reads=waits_for_reads)
        self.pair.post_initiator(request, deferred=deferred)
        return request

    # ---- results

    def initiator_results(self) -> list[Result]:
        return self.initiator_ring.take(None)

    def receive_results(self) -> list[Result]:
        return self.receive_ring.take(None)

    def finished(self) -> tuple[list[tuple[object, Status]], list[tuple[object, Status]]]:
        """(context, status) of what has completed since the last look: initiator queue, receive queue."""
        return (
            [(result.request_context, result.status) for result in self.initiator_results()],
            [(result.request_context, result.status) for result in self.receive_results()],
        )

    def take_events(self) -> list[Event]:
        """What the core has told since the last look."""
        self.collect()
        taken, self.events = self.events, []
        return taken

    def collect(self) -> None:
        self.events += self.core.take_events()


class Wire:
    """One direction. Octets lie in `octets` between being sent and being delivered.

    capacity: octets that fit in; None: any number. rewrite: gets every whole ULPDU and says which are delivered in its
    place (with new CRCs and markers). alter: gets the octets as they are sent and returns those that arrive.
    `carried`: all octets delivered so far.
    """

    def __init__(self) -> None:
        self.capacity: int | None = None
        self.rewrite: Callable[[bytes], Iterable[bytes]] | None = None
        self.alter: Callable[[bytes], bytes] | None = None
        self.octets = bytearray()
        self.carried = bytearray()
        self.fin = False
        self.fin_delivered = False
        self.reset = False
        self._startup: bytearray | None = bytearray()
        self._deframer: Deframer | None = None
        self._framer: Framer | None = None

    @property
    def room(self) -> int | None:
        return None if self.capacity is None else max(self.capacity - len(self.octets), 0)

    def put(self, octets: bytes, *, crc: bool, markers: bool) -> None:
        """Take octets from a core; crc and markers as settled for this direction."""
        if self.alter is not None:
            octets = self.alter(octets)
        if self.rewrite is None:
            self.octets += octets
            return
        if self._startup is not None:
            self._startup += octets
            if len(self._startup) < 20 or len(self._startup) < frame_length(self._startup):
                return
            length = frame_length(self._startup)
            octets = bytes(self._startup[length:])
            self.octets += self._startup[:length]
            self._startup = None
        if self._deframer is None:
            self._deframer = Deframer(crc=crc, markers=markers)
            self._framer = Framer(crc=crc, markers=markers)
        assert self._framer is not None
        self._deframer.feed(memoryview(octets))
        while (ulpdu := self._deframer.next_ulpdu()) is not None:
            for other in self.rewrite(bytes(ulpdu)):
                self.octets += self._framer.frame(other, [])
        self._deframer.detach()

    def take(self, limit: int) -> bytes:
        piece = bytes(self.octets[:limit])
        del self.octets[:limit]
        self.carried += piece
        return piece

    def ulpdus(self, *, crc: bool = True, markers: bool = False) -> list[bytes]:
        """The ULPDUs among the octets delivered so far, behind the start-up frame."""
        octets = bytes(self.carried)
        return split(octets[frame_length(octets) :], crc=crc, markers=markers)


class CorePair:
    """Two sides and the wire between them: `a` is active, `b` passive.

    chunk: how many octets the next delivery may have; None: everything there is.
    """

    def __init__(self, a: Side, b: Side, *, mss: int = 1460, chunk: Callable[[], int] | None = None) -> None:
        self.a = a
        self.b = b
        self.mss = mss
        self.chunk = chunk
        self.now = START
        self.a_to_b = Wire()
        self.b_to_a = Wire()

    @property
    def now(self) -> float:
        """The time, which is the same on both sides."""
        return self.a.now

    @now.setter
    def now(self, now: float) -> None:
        self.a.now = self.b.now = now

    # ---- scenarios

    def open(self) -> None:
        """TCP comes up on both ends; runs until the Request is offered."""
        self.a.core.start_timer(self.now)
        self.a.core.connected(self.now, self.mss)
        self.b.core.connected(self.now, self.mss)
        self.drive()

    def accept(self, private_data: bytes = b"") -> None:
        self.b.bind_queues()
        self.b.core.accept(private_data, *self.b.limits, self.now)
        self.drive()

    def complete(self) -> None:
        self.a.core.complete(self.now)
        self.drive()

    def connect(self) -> None:
        """From nothing to an established connection; the events of the way are dropped."""
        self.open()
        self.accept()
        self.complete()
        assert self.a.core.is_up
        assert self.b.core.is_up
        self.a.take_events()
        self.b.take_events()

    # ---- running

    def drive(self, limit: int = 100_000) -> None:
        """Carry everything until both ends are quiet. A run that does not end within `limit` rounds is an error."""
        for _ in range(limit):
            moved = self.transmit(self.a) | self.transmit(self.b)
            moved |= self.deliver(self.a) | self.deliver(self.b)
            if not moved:
                return
        raise AssertionError(f"not quiet after {limit} rounds")

    def advance(self, seconds: float) -> None:
        """Let time pass; every time limit on the way expires at its moment."""
        end = self.now + seconds
        while True:
            due = [at for side in (self.a, self.b) if (at := side.core.next_timeout()) is not None and at <= end]
            if not due:
                break
            self.now = max(self.now, min(due))
            self.tick()
        self.now = end

    def tick(self) -> None:
        """Tell both ends what time it is, then run until quiet."""
        for side in (self.a, self.b):
            side.core.handle_timeout(self.now)
            side.collect()
        self.drive()

    def transmit(self, side: Side) -> bool:
        """Take what one core has ready, as far as the wire has room, and do as its `finish` says."""
        if side.closed:
            return False
        wire = self.from_side(side)
        moved = False
        while parts := side.core.data_to_send(self.now):
            octets = b"".join(parts)[: wire.room]
            if not octets:
                break
            assert not wire.fin, f"{side.name} sends after its FIN"
            settled = side.core.negotiated
            wire.put(
                octets,
                crc=settled is None or settled.crc,
                markers=settled is not None and settled.send_markers,
            )
            side.core.data_sent(len(octets), self.now)
            moved = True
        finish = side.core.finish()
        if finish is Finish.RESET:
            side.closed = wire.reset = moved = True
            wire.octets.clear()
        elif finish is Finish.CLOSE:
            side.closed = wire.fin = moved = True
        elif finish is Finish.SHUTDOWN and not wire.fin:
            wire.fin = moved = True
        side.collect()
        return moved

    def deliver(self, side: Side) -> bool:
        """Give one core what has arrived for it: at most one chunk, or the end."""
        wire = self.to_side(side)
        if side.closed:
            moved = bool(wire.octets)
            wire.octets.clear()
            return moved
        if wire.reset:
            side.closed = True
            side.core.connection_lost(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)), self.now)
        elif wire.octets and side.core.wants_read():
            octets = bytearray(wire.take(self.chunk() if self.chunk else len(wire.octets)))
            side.core.receive_data(memoryview(octets), self.now)
            octets[:] = bytes(len(octets))  # borrowed for the call only: whoever keeps a view of it will notice
        elif wire.fin and not wire.octets and not wire.fin_delivered and side.core.wants_read():
            wire.fin_delivered = True
            side.core.receive_eof(self.now)
        else:
            return False
        side.collect()
        return True

    def from_side(self, side: Side) -> Wire:
        return self.a_to_b if side is self.a else self.b_to_a

    def to_side(self, side: Side) -> Wire:
        return self.b_to_a if side is self.a else self.a_to_b


def split(octets: bytes, *, crc: bool, markers: bool) -> list[bytes]:
    """The ULPDUs of a direction from its first FPDU on; an incomplete one at the end is an error."""
    deframer = Deframer(crc=crc, markers=markers)
    deframer.feed(memoryview(octets))
    found = []
    while (ulpdu := deframer.next_ulpdu()) is not None:
        found.append(bytes(ulpdu))
    assert not deframer.buffered, f"{deframer.buffered} octets of an incomplete FPDU"
    return found
