"""Reads capture files: every start-up frame and FPDU of every iWARP stream in them, with its CRC checked.

Puts files, TCP reassembly, cutting and PDU fields together. Understands captures of softndk and of others: packets may
be lost, repeated, swapped or cut short, and a capture may begin in the middle of a stream. Everything in a file is
untrusted: memory is bounded by what the file holds, never by a length that it announces.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Final

from softndk.trace.fields import Detail, Fields, is_plausible, segment_fields, startup_fields
from softndk.trace.packets import ACK, FIN, LINK_TYPES, RST, SYN, Address, Segment, parse_segment
from softndk.trace.pcapng import TraceError, read_packets
from softndk.trace.reassembly import Assembler, Chunk, Origin
from softndk.trace.units import UnitCutter
from softndk.wire import WireError
from softndk.wire.crc32c import CRC_LENGTH, CRC_OCTETS, crc32c
from softndk.wire.mpa import (
    LENGTH_FIELD,
    REQUEST_KEY,
    STARTUP_HEADER,
    FrameKind,
    StartupFrame,
    frame_length,
    may_begin_startup,
)

__all__ = ["Direction", "Frame", "TraceError", "read_frames"]

_FPDU_HEAD: Final = 4
"""Length field and control octets: what a place must show to be looked at as the beginning of an FPDU."""


class Direction(Enum):
    """Who sent a frame. The initiator is who sent the MPA request or, if that was not captured, the SYN."""

    INITIATOR = "initiator"
    RESPONDER = "responder"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Frame:
    """One start-up frame, one FPDU, or one thing that happened to an iWARP stream.

    `number`: the packet that its last octet came in, counted from 1. `stream`: the connection, counted from 0.
    `kind`: "MPA request", "MPA reply", the RDMAP messages ("RDMA Write", "Send with Invalidate", ...), "unknown opcode
    12", "malformed FPDU", "malformed start-up frame"; and of the stream "FIN", "reset", "gap", "unfinished frame".
    `details`: fields by name; STags and offsets are numbers, octets hexadecimal text.
    `crc_ok`: None where there is no CRC, where it is switched off, or where that cannot be told.
    `payload`: what follows the DDP header.
    """

    number: int
    time_ns: int
    stream: int
    source: Address
    destination: Address
    direction: Direction
    kind: str
    summary: str
    details: Mapping[str, Detail]
    crc_ok: bool | None
    payload: bytes = field(repr=False)

    @property
    def time(self) -> float:
        """Seconds since 1970."""
        return self.time_ns / 1e9

    @property
    def payload_length(self) -> int:
        """Octets behind the DDP header."""
        return len(self.payload)

    def as_dict(self) -> dict[str, object]:
        """All of it but the payload, in types that JSON knows."""
        return {
            "number": self.number,
            "time_ns": self.time_ns,
            "stream": self.stream,
            "source": list(self.source),
            "destination": list(self.destination),
            "direction": self.direction.value,
            "kind": self.kind,
            "summary": self.summary,
            "details": dict(self.details),
            "crc_ok": self.crc_ok,
            "payload_length": self.payload_length,
        }


def read_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Give the frames of a pcapng or pcap file, in the order in which their last octets came.

    TCP streams that are not iWARP are passed over.

    Raises: OSError: the file cannot be read. TraceError: it is not a capture, is damaged or ends inside a packet (every
        frame before that place has been given), or all its packets are of link types that are not understood.
    """
    streams: dict[frozenset[Address], _Stream] = {}
    numbers = count()
    strange: set[int] = set()
    understood = False
    damage: TraceError | None = None
    with open(path, "rb") as file:
        try:
            for packet in read_packets(file):
                if packet.link_type not in LINK_TYPES:
                    strange.add(packet.link_type)
                    continue
                understood = True
                segment = parse_segment(packet.link_type, packet.data)
                if segment is None:
                    continue
                key = frozenset((segment.source, segment.destination))
                stream = streams.get(key)
                if stream is None or stream.is_succeeded_by(segment):
                    if stream is not None:
                        yield from stream.give_up()
                    stream = streams[key] = _Stream(numbers)
                yield from stream.segment(segment, Origin(packet.number, packet.time_ns))
        except TraceError as error:
            damage = error
    for stream in streams.values():
        yield from stream.give_up()
    if damage is not None:
        raise damage
    if strange and not understood:
        raise TraceError(f"no packet can be read: link type {min(strange)} is not understood")


class _Stream:
    """One TCP connection. It stays known after its end, so that repeated packets open no new one."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._index: int | None = None
        self._sides: dict[Address, _Side] = {}
        self._over = False
        self.startup: dict[FrameKind, StartupFrame] = {}
        self.initiator: Address | None = None

    @property
    def index(self) -> int:
        """Counts the streams that have shown a frame."""
        if self._index is None:
            self._index = next(self._numbers)
        return self._index

    @property
    def is_iwarp(self) -> bool:
        return any(side.is_iwarp for side in self._sides.values())

    @property
    def crc(self) -> bool | None:
        """CRC is on if either start-up frame asks for it (RFC 5044 7.1); None: not all of that was seen."""
        if any(frame.crc for frame in self.startup.values()):
            return True
        return False if len(self.startup) == len(FrameKind) else None

    def has_sent(self, side: "_Side") -> bool:
        """Whether that side has sent FPDUs that the other's Terminate can be about: they were seen, or the capture begins
        behind the start-up.
        """
        return side.has_sent or not self.startup

    def is_succeeded_by(self, segment: Segment) -> bool:
        """Whether this segment opens the next connection of the same two ports."""
        side = self._sides.get(segment.source)
        return bool(segment.flags & SYN) and side is not None and not side.assembler.synchronize(segment.sequence)

    def side(self, source: Address, destination: Address) -> "_Side":
        side = self._sides.get(source)
        if side is None:
            side = self._sides[source] = _Side(self, source, destination)
        return side

    def segment(self, segment: Segment, origin: Origin) -> list[Frame]:
        if self._over:
            return []
        side = self.side(segment.source, segment.destination)
        sequence = segment.sequence
        if segment.flags & SYN:
            side.assembler.synchronize(sequence)
            sequence = sequence + 1 & 0xFFFFFFFF
            if self.initiator is None:
                self.initiator = segment.destination if segment.flags & ACK else segment.source
        frames: list[Frame] = []
        for chunk in side.assembler.add(sequence, segment.payload, origin):
            frames += side.take(chunk)
        if segment.flags & FIN:
            side.assembler.finish(sequence + segment.length & 0xFFFFFFFF, origin)
        frames += side.end_at_fin()
        if segment.flags & RST:
            frames += self.give_up()
            if self.is_iwarp:
                frames.append(side.event(origin, "reset", "the connection was reset"))
        if len(self._sides) == 2 and all(each.ended for each in self._sides.values()):
            self._over = True
        return frames

    def give_up(self) -> list[Frame]:
        """Nothing more comes: give what can still be read."""
        self._over = True
        return [frame for side in list(self._sides.values()) for frame in side.give_up()]


class _Side:
    """One direction of a stream. `searching`: octets are known, but not where an FPDU begins."""

    def __init__(self, stream: _Stream, source: Address, destination: Address) -> None:
        self.assembler = Assembler()
        self.is_iwarp = False
        self.has_sent = False
        """An FPDU was seen."""
        self.ended = False
        self._stream = stream
        self._source = source
        self._destination = destination
        self._cutter = UnitCutter()
        self._held = bytearray()
        self._last = Origin(0, 0)
        self._searching = False
        self._starts: deque[int] = deque()
        """While searching: where in `_held` segments began."""
        self._skipped = 0

    # ---- octets ----

    def take(self, chunk: Chunk) -> list[Frame]:
        """Take the next octets, or octets behind missing ones; give the frames that they complete."""
        if self._cutter.lost or self.ended:
            return []
        self._last = chunk.origin
        if chunk.missing:
            self._lose(chunk.missing)
        elif not (self._cutter.started or self._held or self.assembler.from_start):
            # The first octets that were captured, not the stream's first.
            self._searching = self._cutter.started = True
        if self._cutter.lost:
            return []
        if self._searching:
            self._starts.append(len(self._held))
        self._held += chunk.data
        frames = self._resume() if self._searching else []
        return frames if self._searching else frames + self._units()

    def _lose(self, missing: int) -> None:
        """Octets are not in the capture; what is held can't be completed."""
        lost = len(self._held) + missing
        self._held.clear()
        self._starts.clear()
        self._skipped += lost
        self._cutter.position += lost
        self._searching = self._cutter.started = True

    def _units(self) -> list[Frame]:
        """Cut complete units off what is held."""
        frames: list[Frame] = []
        held, cutter = self._held, self._cutter
        place = 0
        while place < len(held):
            length = cutter.wanted(held[place : place + STARTUP_HEADER + _FPDU_HEAD])
            if cutter.lost:
                frames += self._refused(bytes(held[place:]))
                place = len(held)
                break
            if length > len(held) - place:
                break
            unit = memoryview(bytes(held[place : place + length]))
            frames.append(self._fpdu(unit) if cutter.started else self._startup(unit))
            cutter.passed(length)
            place += length
        del held[:place]
        return frames

    def _resume(self) -> list[Frame]:
        """Look for an FPDU (in a stream that is not known yet, also a start-up frame) at the segments' beginnings."""
        held, starts = self._held, self._starts
        place = 0
        found: bool | None = False
        while starts and not found:
            self._cutter.position += starts[0] - place
            place = starts[0]
            found = self._judge(place)
            if found is None:
                break
            starts.popleft()
        if found is False:
            self._cutter.position += len(held) - place
            place = len(held)
        if place:
            del held[:place]
            self._skipped += place
            self._starts = deque(start - place for start in starts)
        return self._found() if found else []

    def _judge(self, place: int) -> bool | None:
        """Whether a unit begins at this place of what is held; None: more octets are needed to tell."""
        cutter = self._cutter
        head = self._held[place : place + STARTUP_HEADER]
        if not self.is_iwarp and may_begin_startup(head):
            if len(head) < len(REQUEST_KEY):
                return None
            cutter.started = False
            cutter.position = 0
            return True
        lead = cutter.lead
        if len(head) < lead + _FPDU_HEAD:
            return None
        if not is_plausible(head[lead:]):
            return False
        length = cutter.wanted(head)
        if length > len(self._held) - place:
            return None
        unit = memoryview(bytes(self._held[place : place + length]))
        if self._stream.crc is False or _crc_matches(unit):
            return True
        # Without the start-up frames: a sender without CRC commonly leaves zeros in its place.
        return self._stream.crc is None and not any(unit[-CRC_LENGTH:])

    def _found(self) -> list[Frame]:
        """What is held begins with a unit."""
        self._searching = False
        self._starts.clear()
        skipped, self._skipped = self._skipped, 0
        if not self._cutter.started:
            return []
        self.is_iwarp = True
        if skipped:
            text = f"{skipped} octets before this are missing or cannot be read"
        else:
            text = "the capture begins in the middle of the stream"
        return [self.event(self._last, "gap", text, {"missing": skipped})]

    # ---- frames ----

    def _startup(self, unit: memoryview) -> Frame:
        frame = StartupFrame.parse(unit)
        self.is_iwarp = True
        self._stream.startup[frame.kind] = frame
        # M asks for markers in the direction that this frame's sender receives.
        self._stream.side(self._destination, self._source)._cutter.marked = frame.markers
        self._stream.initiator = self._source if frame.kind is FrameKind.REQUEST else self._destination
        return self._frame(self._last, startup_fields(frame), None)

    def _refused(self, octets: bytes) -> list[Frame]:
        """The stream does not begin with a start-up frame; if it has the key, it was meant as one."""
        if len(octets) < len(REQUEST_KEY) or not may_begin_startup(octets):
            return []
        self.is_iwarp = True
        try:
            frame_length(octets)
        except WireError as error:
            return [self.event(self._last, "malformed start-up frame", str(error), {"octets": octets[:64].hex()})]
        return []

    def _fpdu(self, unit: memoryview) -> Frame:
        fpdu = self._cutter.unmarked(unit)
        ulpdu = fpdu[LENGTH_FIELD : LENGTH_FIELD + (fpdu[0] << 8 | fpdu[1])]
        self.has_sent = True
        receiver = self._stream.side(self._destination, self._source)
        used = self._stream.crc
        crc_ok = None if used is False else _crc_matches(unit)
        if used is None and not crc_ok:
            crc_ok = None
        return self._frame(self._last, segment_fields(ulpdu, started=self._stream.has_sent(receiver)), crc_ok)

    def _frame(self, origin: Origin, fields: Fields, crc_ok: bool | None) -> Frame:
        initiator = self._stream.initiator
        if initiator is None:
            direction = Direction.UNKNOWN
        else:
            direction = Direction.INITIATOR if initiator == self._source else Direction.RESPONDER
        return Frame(
            origin.number,
            origin.time_ns,
            self._stream.index,
            self._source,
            self._destination,
            direction,
            fields.kind,
            fields.summary,
            fields.details,
            crc_ok,
            bytes(fields.payload),
        )

    def event(self, origin: Origin, kind: str, text: str, details: dict[str, Detail] | None = None) -> Frame:
        """A frame for something that is not a PDU."""
        return self._frame(origin, Fields(kind, text, details or {}, memoryview(b"")), None)

    # ---- the end ----

    def end_at_fin(self) -> list[Frame]:
        """The FIN, if all before it has been seen."""
        origin = self.assembler.fin
        if origin is None or self.ended:
            return []
        frames = self._unfinished()
        self.ended = True
        if self._stream.is_iwarp:
            frames.append(self.event(origin, "FIN", "no more will be sent"))
        return frames

    def give_up(self) -> list[Frame]:
        """Nothing more comes: read behind every hole, show what is left over."""
        frames: list[Frame] = []
        while chunks := self.assembler.give_up():
            for chunk in chunks:
                frames += self.take(chunk)
        if not self.ended:
            frames += self.end_at_fin()
        if not self.ended:
            frames += self._unfinished()
            self.ended = True
        return frames

    def _unfinished(self) -> list[Frame]:
        held = bytes(self._held)
        self._held.clear()
        if not self.is_iwarp:
            return []
        if self._searching:
            lost = self._skipped + len(held)
            text = f"{lost} octets at the end are missing or cannot be read"
            return [self.event(self._last, "gap", text, {"missing": lost})] if lost else []
        if not held:
            return []
        wanted = self._cutter.wanted(held)
        details: dict[str, Detail] = {"octets": held[:64].hex(), "seen": len(held), "wanted": wanted}
        return [self.event(self._last, "unfinished frame", f"{len(held)} of {wanted} octets", details)]


def _crc_matches(unit: memoryview) -> bool:
    """Whether the CRC at the end of a whole FPDU, its markers included, is right (RFC 5044 4.4)."""
    covered = len(unit) - CRC_LENGTH
    return bool(crc32c(unit[:covered]) == CRC_OCTETS.unpack(unit[covered:])[0])
