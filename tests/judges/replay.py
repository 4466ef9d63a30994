"""Replays a recorded conversation into one core, which takes the place of one of the two recorded ends.

The other end's octets are given to it as they were recorded, in the recorded pieces or in any others. What the replaced
end did is done again by the core's verbs: Sends, Writes and Reads are posted where they were first seen. Everything that
the core tells and places is written down in order, and so is what it sends.

The recorded tokens are the kernel's, not ours, so memory is a stand-in (`Memory`), sinks get the recorded tokens, and the
offsets of Read Responses are made relative to the private sinks that this NIC uses (their CRC is made anew). Nothing else
is changed. Knows packets from tshark and the layout of FPDUs without markers.
"""

import itertools
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from softndk.config import IwarpConfig
from softndk.iwarp import events
from softndk.iwarp.negotiation import Rtr
from softndk.memory.access import MemoryAccess
from softndk.memory.tokens import Right
from softndk.queues.work import InitiatorRequest, ReadWork, ReceiveRequest
from softndk.results import Result
from softndk.status import Status
from softndk.wire.crc32c import crc32c
from softndk.wire.mpa import StartupFrame, frame_length
from tests.pair.core_pair import Side
from tests.tshark_judge import HEURISTICS_FIRST, Operation, judge, tshark

__all__ = ["Fpdu", "Recording", "Replay", "Told", "random_sizes", "recordings", "split_fpdus", "told_by_tshark"]

NOW: Final = 1000.0
WRITE, READ_REQUEST, READ_RESPONSE, SEND, SEND_INVALIDATE, TERMINATE = 0, 1, 2, 3, 4, 7
Told = tuple[object, ...]
"""One thing that an end is told: its name, then numbers."""


@dataclass(frozen=True, slots=True)
class Fpdu:
    """One FPDU of a direction: where it lies in the stream behind the start-up frame, and its ULPDU."""

    start: int
    end: int
    ulpdu: bytes

    @property
    def opcode(self) -> int:
        return self.ulpdu[1] & 15

    @property
    def is_tagged(self) -> bool:
        return bool(self.ulpdu[0] & 0x80)

    @property
    def is_last(self) -> bool:
        return bool(self.ulpdu[0] & 0x40)

    @property
    def payload(self) -> bytes:
        return self.ulpdu[14 if self.is_tagged else 18 :]

    @property
    def stag(self) -> int:
        return int.from_bytes(self.ulpdu[2:6], "big")

    @property
    def to(self) -> int:
        return int.from_bytes(self.ulpdu[6:14], "big")

    @property
    def read(self) -> tuple[int, int, int, int, int]:
        """Sink STag and TO, size, source STag and TO."""
        fields = struct.unpack(">IQIIQ", self.payload)
        return fields[0], fields[1], fields[2], fields[3], fields[4]


@dataclass
class End:
    """One direction of a recorded connection."""

    port: int
    octets: bytearray = field(default_factory=bytearray)

    @property
    def startup(self) -> bytes:
        return bytes(self.octets[: frame_length(self.octets)])

    @cached_property
    def fpdus(self) -> list[Fpdu]:
        return split_fpdus(self.octets)


def split_fpdus(octets: bytes | bytearray) -> list[Fpdu]:
    """The FPDUs behind a start-up frame, by their length fields."""
    begin = at = frame_length(octets)
    found = []
    while at < len(octets):
        length = int.from_bytes(octets[at : at + 2], "big")
        end = at + 2 + length + -(2 + length) % 4 + 4
        found.append(Fpdu(at - begin, end - begin, bytes(octets[at + 2 : at + 2 + length])))
        at = end
    assert at == len(octets)
    return found


@dataclass
class Recording:
    """One connection. `packets`: (is from the initiator, octets) in order; None instead of octets is a FIN."""

    path: Path
    number: int
    initiator: End
    responder: End
    packets: list[tuple[bool, bytes | None]]

    def __str__(self) -> str:
        return f"{self.path.stem} connection {self.number}"

    def end(self, initiator: bool) -> End:
        return self.initiator if initiator else self.responder


def recordings(path: Path) -> list[Recording]:
    """Every connection of a capture; what TCP sent again is left out."""
    wanted = ("tcp.stream", "tcp.srcport", "tcp.seq", "tcp.flags.fin", "tcp.payload")
    names = itertools.chain.from_iterable(("-e", name) for name in wanted)
    found: dict[int, Recording] = {}
    expected: dict[tuple[int, int], int] = {}
    for line in tshark(path, "-T", "fields", *names).splitlines():
        stream, port, sequence, fin, payload = line.split("\t")
        octets = bytes.fromhex(payload)
        if not octets and fin != "1":
            continue
        key = int(stream), int(port)
        recording = found.get(key[0])
        if recording is None:
            recording = found[key[0]] = Recording(path, key[0], End(key[1]), End(0), [])
        is_initiator = key[1] == recording.initiator.port
        if int(sequence) < expected.get(key, 1):
            continue
        assert int(sequence) == expected.get(key, 1), f"{path.name}: a packet is missing"
        expected[key] = int(sequence) + len(octets) + (fin == "1")
        end = recording.end(is_initiator)
        end.port = key[1]
        end.octets += octets
        if octets:
            recording.packets.append((is_initiator, octets))
        if fin == "1":
            recording.packets.append((is_initiator, None))
    return list(found.values())


def told_by_tshark(recording: Recording, *, by_initiator: bool) -> list[Told]:
    """What the other end must be told of this direction, from tshark's list of segments."""
    sender = str(recording.number), str(recording.end(by_initiator).port)
    return list(_messages(operation for operation, sent_by in _operations(recording.path) if sent_by == sender))


@cache
def _operations(path: Path) -> list[tuple[Operation, tuple[str, str]]]:
    """tshark's list, each with the stream's number and the port of its sender."""
    senders = {}
    for line in tshark(
        path, "-T", "fields", "-e", "frame.number", "-e", "tcp.stream", "-e", "tcp.srcport"
    ).splitlines():
        number, stream, port = line.split("\t")
        senders[int(number)] = stream, port
    return [(operation, senders[operation.packet]) for operation in judge(path, *HEURISTICS_FIRST).operations]


def _messages(operations: Iterable[Operation]) -> Iterator[Told]:
    length = 0
    for operation in operations:
        if operation.name.startswith("MPA"):
            continue
        number = {name: int(value, 0) for name, value in operation.fields.items() if _is_number(value)}
        tagged = "iwarp_ddp.stag" in number
        payload = number["iwarp_mpa.ulpdulength"] - (14 if tagged else 18)
        last = operation.fields["iwarp_ddp.last_flag"] in ("1", "True")
        if operation.name == "RDMA Write":
            if payload:
                yield "Write", number["iwarp_ddp.stag"], number["iwarp_ddp.tagged_offset"], payload
            continue
        length += payload
        if not last:
            continue
        if operation.name == "RDMA Read Request":
            yield "Read", number["iwarp_rdma.srcstag"], number["iwarp_rdma.srcto"], number["iwarp_rdma.rdmardsz"]
        elif operation.name == "RDMA Read Response":
            yield "Read done", length
        elif operation.name == "Terminate":
            first = number["iwarp_rdma.term_layer"], number["iwarp_rdma.term_etype_ddp"]
            yield "Terminate", *first, number["iwarp_rdma.term_errcode_ddp_tagged"]
        elif operation.name == "Send with Invalidate":
            yield "invalidate", number["iwarp_rdma.inval_stag"]
            yield "Send", length
        else:
            assert operation.name == "Send", operation.name
            yield "Send", length
        length = 0


def _is_number(value: str) -> bool:
    try:
        int(value, 0)
    except ValueError:
        return False
    return True


class Memory(MemoryAccess):
    """Whatever the recorded peer names is there: its Writes are kept, its Reads get what was recorded."""

    def __init__(self, side: Side, told: list[Told]) -> None:
        super().__init__(side.datapath.tokens, side.datapath.logical, side.pd, side.pair)
        self.told = told
        self.written: list[bytearray] = []
        self.sources: list[tuple[int, int, bytes]] = []
        self.listening = False

    def remote(self, stag: int, to: int, length: int, right: Right) -> list[memoryview]:
        if right is Right.REMOTE_WRITE:
            self.told.append(("Write", stag, to, length))
            self.written.append(bytearray(length))
            return [memoryview(self.written[-1])]
        if self.listening:
            self.told.append(("Read", stag, to, length))
        base, octets = next(
            (base, octets)
            for token, base, octets in reversed(self.sources)
            if token == stag and base <= to and to + length <= base + len(octets)
        )
        return [memoryview(octets)[to - base : to - base + length]]

    def invalidate(self, stag: int) -> None:
        self.told.append(("invalidate", stag))


class Replay:
    """A core in the place of one recorded end. `told`: what it was told, in order; `sent`: all its octets.

    split: gives the size of the next piece in which the other end's octets come.
    """

    def __init__(self, recording: Recording, *, as_initiator: bool, split: Callable[[], int] | None = None) -> None:
        self.recording = recording
        self.as_initiator = as_initiator
        self.told: list[Told] = []
        self.sent = bytearray()
        self.received: list[bytes] = []
        self.read: list[bytes] = []
        self.ends: list[events.Event] = []
        self._split = split
        self._mine = recording.end(as_initiator)
        self._theirs = recording.end(not as_initiator)
        self._my_startup = StartupFrame.parse(self._mine.startup)
        self._their_fpdus = self._theirs.fpdus
        self._messages = sum(fpdu.opcode in (SEND, SEND_INVALIDATE) for fpdu in self._their_fpdus)
        self._largest = max((len(fpdu.ulpdu) for fpdu in self._their_fpdus), default=0)
        self.side = self._make_side()
        self.memory = self.side.access = Memory(self.side, self.told)
        sinks = iter([fpdu.read[0] for fpdu in self._mine.fpdus if fpdu.opcode == READ_REQUEST])
        self.side.datapath.tokens.draw_private = sinks.__next__  # type: ignore[method-assign]
        self._watch()

    # ---- the core and its surroundings

    def _make_side(self) -> Side:
        mine = self._my_startup
        assert mine.enhanced is not None
        ulpdus = [len(fpdu.ulpdu) for fpdu in self._mine.fpdus]
        config = IwarpConfig(
            crc=mine.crc, peer_to_peer=mine.enhanced.peer_to_peer, max_fpdu=max(128, *ulpdus), nudge_s=0
        )
        ird, ord_limit = mine.enhanced.ird, mine.enhanced.ord
        return Side(
            "replay",
            active=self.as_initiator,
            config=config,
            private_data=mine.private_data,
            ird=ird,
            ord_limit=ord_limit,
            rtr_offer=frozenset({Rtr.WRITE, Rtr.READ}),
            depth=1024,
            cq_depth=8192,
            size=max(1, self._messages * self._largest) + sum(self._read_sizes()),
        )

    def _read_sizes(self) -> list[int]:
        return [fpdu.read[2] for fpdu in self._mine.fpdus if fpdu.opcode == READ_REQUEST]

    def _watch(self) -> None:
        """Write down completions in the order in which they happen."""
        pair = self.side.pair
        complete, finish = pair.complete_receive, pair.finish

        def on_receive(request: ReceiveRequest, length: int, **kinds: Any) -> None:
            self.told.append(("Send", length))
            (sge,) = request.sgl
            at = sge.address - self.side.base
            self.received.append(bytes(self.side.memory[at : at + length]))
            complete(request, length, **kinds)

        def on_finish(request: InitiatorRequest) -> None:
            if isinstance(request, ReadWork):
                self.told.append(("Read done", request.length))
                (sge,) = request.sgl
                at = sge.address - self.side.base
                self.read.append(bytes(self.side.memory[at : at + request.length]))
            finish(request)

        pair.complete_receive = on_receive  # type: ignore[method-assign]
        pair.finish = on_finish  # type: ignore[method-assign]

    # ---- the conversation

    def run(self) -> None:
        side, core = self.side, self.side.core
        for number in range(self._messages):
            side.receive(number * self._largest, self._largest)
        core.connected(NOW, 1460)
        self._pump()
        verbs = self._verbs()
        theirs = self._their_octets()
        mine_seen = -len(self._mine.startup)
        theirs_seen = 0
        for is_mine, packets in itertools.groupby(
            self.recording.packets, lambda packet: packet[0] is self.as_initiator
        ):
            octets, fin = _joined(packets)
            if is_mine:
                mine_seen += octets
                while verbs and verbs[0][0] < mine_seen:
                    verbs.pop(0)[1]()
                self._pump()
                if fin and core.is_up:
                    core.disconnect(NOW)
                    self._pump()
                continue
            self._show_sources(theirs_seen, theirs_seen + octets)
            self._give(theirs[theirs_seen : theirs_seen + octets])
            theirs_seen += octets
            if fin:
                core.receive_eof(NOW)
                self._pump()
        assert not verbs

    def _verbs(self) -> list[tuple[int, Callable[[], object]]]:
        """What the recorded end did: where its octets begin, and how it is done here."""
        found: list[tuple[int, Callable[[], object]]] = []
        open_message: list[Fpdu] = []
        sinks = iter(itertools.accumulate(self._read_sizes(), initial=self._messages * self._largest))
        first = True
        for fpdu in self._mine.fpdus:
            indication = first and self.as_initiator and not fpdu.payload and fpdu.opcode == WRITE
            first = False
            if indication or fpdu.opcode in (READ_RESPONSE, TERMINATE):
                continue
            open_message.append(fpdu)
            if fpdu.is_last:
                found.append((open_message[0].start, self._verb(open_message, sinks)))
                open_message = []
        return found

    def _verb(self, message: list[Fpdu], sinks: Iterator[int]) -> Callable[[], object]:
        side, head = self.side, message[0]
        payload = b"".join(fpdu.payload for fpdu in message)
        if head.opcode == READ_REQUEST:
            _, _, size, stag, to = head.read
            sge = side.sge(next(sinks), size)
            return lambda: side.read([sge], to, stag)
        if head.opcode == WRITE:
            return lambda: side.write(payload, head.to, head.stag)
        invalidate = head.stag if head.opcode == SEND_INVALIDATE else None
        return lambda: side.send(payload, invalidate=invalidate)

    def _their_octets(self) -> bytes:
        """Start-up frame and FPDUs, with Read Responses that address private sinks."""
        octets = bytearray(self._theirs.octets)
        begin = len(self._theirs.startup)
        sinks = [fpdu.read[:3] for fpdu in self._mine.fpdus if fpdu.opcode == READ_REQUEST]
        uses_crc = any(StartupFrame.parse(end.startup).crc for end in (self._mine, self._theirs))
        for fpdu in self._their_fpdus:
            if fpdu.opcode != READ_RESPONSE:
                continue
            stag, to, size = sinks[0]
            assert fpdu.stag == stag
            at = begin + fpdu.start
            octets[at + 8 : at + 16] = (fpdu.to - to).to_bytes(8, "big")
            if uses_crc:
                end = begin + fpdu.end
                octets[end - 4 : end] = crc32c(octets[at : end - 4]).to_bytes(4, "little")
            if fpdu.to - to + len(fpdu.payload) == size:
                sinks.pop(0)
        return bytes(octets)

    def _show_sources(self, begin: int, end: int) -> None:
        """Put what the recorded end answered into the memory that the Reads of these octets ask for."""
        startup = len(self._theirs.startup)
        answers = [fpdu for fpdu in self._mine.fpdus if fpdu.opcode == READ_RESPONSE]
        for fpdu in self._their_fpdus:
            if fpdu.opcode != READ_REQUEST:
                continue
            _, _, size, stag, to = fpdu.read
            octets = b""
            while len(octets) < size:
                octets += answers.pop(0).payload
            if begin < startup + fpdu.end <= end:
                self.memory.sources.append((stag, to, octets))

    def _give(self, octets: bytes) -> None:
        core = self.side.core
        at = 0
        while at < len(octets):
            size = len(octets) if self._split is None else self._split()
            piece = bytearray(octets[at : at + size])
            at += size
            self.memory.listening = True
            core.receive_data(memoryview(piece), NOW)
            self.memory.listening = False
            piece[:] = bytes(len(piece))
            self._pump()

    def _pump(self) -> None:
        side, core = self.side, self.side.core
        side.collect()
        for event in side.take_events():
            if isinstance(event, events.RequestReceived):
                side.bind_queues()
                core.accept(self._my_startup.private_data, *side.limits, NOW)
            elif isinstance(event, events.ReplyReceived):
                core.complete(NOW)
            elif not isinstance(event, events.Established):
                self.ends.append(event)
                self._note(event)
        while parts := core.data_to_send(NOW):
            octets = b"".join(parts)
            self.sent += octets
            core.data_sent(len(octets), NOW)
        side.collect()

    def _note(self, event: events.Event) -> None:
        if isinstance(event, events.Aborted) and event.error.fault is not None and event.error.fault.received:
            fault = event.error.fault
            self.told.append(("Terminate", fault.layer, fault.etype, fault.code))

    def failures(self) -> list[Result]:
        """Completions that are no success, cancelled ones apart."""
        results = [*self.side.initiator_results(), *self.side.receive_results()]
        return [result for result in results if result.status not in (Status.SUCCESS, Status.CANCELLED)]


def _joined(packets: Iterable[tuple[bool, bytes | None]]) -> tuple[int, bool]:
    """How many octets these packets have, and whether there is a FIN among them."""
    sizes = [None if octets is None else len(octets) for _, octets in packets]
    return sum(size for size in sizes if size is not None), None in sizes


def random_sizes(seed: int) -> Callable[[], int]:
    rng = random.Random(seed)
    return lambda: rng.choice((1, 2, 3, 19, 20, 100, 1444, rng.randrange(1, 5000)))
