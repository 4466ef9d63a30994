"""One side of iWARP that says what it is told to, right or wrong: the steps of scenarios, as methods.

Every method marked as a step is also a step of a scenario file, with the same name and the same fields. What a step
leaves out is right: the next MSN, a good CRC, the versions in use. Nothing that is asked for is refused because a
standard forbids it.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any, Final, TypedDict, TypeVar

from typing_extensions import Unpack

from softndk.iwarp.framing import Framer
from softndk.peer import frames
from softndk.peer.fields import (
    U2,
    U4,
    U8,
    U14,
    U16,
    U32,
    U64,
    Captures,
    Count,
    Flag,
    Octets,
    OctetString,
    OneOf,
    Pieces,
    Seconds,
    Where,
)
from softndk.peer.frames import FRAME_NAMES, Seen
from softndk.peer.link import Ended, Link, OutOfTime
from softndk.wire import WireError, ddp, mpa, rdmap
from softndk.wire.crc32c import CRC_LENGTH, CRC_OCTETS, crc32c
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.mpa import FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode, ReadRequest
from softndk.wire.terminate import Terminate

__all__ = ["Peer", "Role", "Segment", "Startup"]

SEGMENT_OCTETS: Final = 1436
"""Payload octets of one segment, unless a step says otherwise: what fits a TCP segment of 1,460 octets."""
NUDGE_S: Final = 0.3
NUDGES: Final = 3
_HEAD: Final = struct.Struct(">16sBBH")
_ATOMIC: Final = struct.Struct(">IIIQQQQQ")
_ULPDU_HEAD: Final = 46
"""How much of each sent ULPDU is kept, to compare with what a Terminate returns."""
_SINK: Final = 0x00112201


class Role(Enum):
    """Which side of the start-up the player is."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


class Startup(TypedDict, total=False):
    """Fields of a start-up frame. What is left out is right for the role and for what the other side has said."""

    key: Octets
    revision: U8
    markers: Flag
    crc: Flag
    reject: Flag
    enhanced: Flag
    ird: U14
    ord: U14
    peer_to_peer: Flag
    rtr_send: Flag
    rtr_write: Flag
    rtr_read: Flag
    private_data: Octets
    pd_length: U16
    reserved: U4
    split: Pieces
    cut: Count


class Segment(TypedDict, total=False):
    """Fields of DDP segments and of the FPDUs around them, each to be right or wrong.

    segment: payload octets per segment. length: what ULPDU_Length says. pad: instead of the zeros. cut: only so many
    octets of each FPDU are sent. split: the octets go in pieces, each in a TCP segment of its own.
    """

    opcode: U4
    ddp_version: U2
    ddp_reserved: U4
    rdmap_version: U2
    rdmap_reserved: U2
    last: Flag
    tagged: Flag
    msn: U32
    mo: U32
    qn: U32
    segment: Count
    bad_crc: Flag
    length: U16
    pad: Octets
    cut: Count
    split: Pieces


_Method = TypeVar("_Method", bound=Callable[..., Any])


def step(method: _Method) -> _Method:
    """The method is also a step of scenario files."""
    method.is_step = True  # type: ignore[attr-defined]
    return method


class Peer:
    """The player's side of one connection. role: who begins. link: the connection.

    All methods raise `Ended` when the other side has ended the stream, and `OutOfTime` at the scenario's time limit;
    a scenario lets both through, the player makes the reaction of them.
    """

    def __init__(self, link: Link, role: Role) -> None:
        self.link = link
        self.role = role
        self.variables: dict[str, int] = {}
        self.sent: deque[bytes] = deque(maxlen=4096)
        """The beginnings of the ULPDUs that were sent."""
        self.starting = False
        """Inside `start`."""
        self.offended = False
        """Something has been sent, or ended, since the last time that the other side was waited for."""
        self.received_before = 0
        """Frames that had come and been looked at when the other side was waited for last."""
        self._msn: dict[int, int] = {}
        self._mo: dict[int, int] = {}
        self._framer: Framer | None = None
        self._aligned = True
        self._terminated = False
        self._together: bytearray | None = None
        self._reads: deque[Seen] = deque(maxlen=1024)

    # ---- start-up

    @step
    def start(self, **fields: Unpack[Startup]) -> None:
        """Do the whole start-up, right but for the fields given.

        The initiator sends its Request and waits for the Reply; if both want peer-to-peer, the ready-to-receive
        indication follows. The responder waits for the Request, replies, and waits for the first FPDU, as it must.
        """
        self.starting = True
        if self.role is Role.INITIATOR:
            self._initiate(fields)
        else:
            self._await(lambda: self.link.theirs is not None, None, "MPA Request")
            self._drop("mpa_request")
            self._learn()
            self.mpa_reply(**fields)
            self.ready()
        self.starting = False

    def _initiate(self, fields: Startup) -> None:
        self.mpa_request(**fields)
        self._await(lambda: self.link.theirs is not None, None, "MPA Reply")
        self._drop("mpa_reply")
        self._learn()
        theirs = self.link.theirs
        assert theirs is not None
        if theirs.reject:
            raise Ended
        if theirs.enhanced is not None and theirs.enhanced.peer_to_peer and fields.get("peer_to_peer"):
            if theirs.enhanced.rtr_write:
                self.write()
            else:
                self.sync()

    @step
    def mpa_request(self, **fields: Unpack[Startup]) -> None:
        """Send an MPA Request."""
        self._startup(FrameKind.REQUEST, fields)

    @step
    def mpa_reply(self, **fields: Unpack[Startup]) -> None:
        """Send an MPA Reply, by default one that suits the Request: its revision, read limits that both can hold, a
        zero-length RDMA Write as indication if there is a choice.
        """
        self._startup(FrameKind.REPLY, fields)

    @step
    def ready(self) -> None:
        """Wait, as responder, for the initiator's first FPDU; an indication is answered if need be, and forgotten."""
        self._await(lambda: bool(self.link.inbox), None, "first FPDU")
        first = self.link.inbox[0]
        said = self.link.theirs.enhanced if self.link.theirs is not None else None
        if first.frame == "read_request" and first.details.get("size") == 0:
            self.read_response(payload=b"")
        elif said is not None and said.peer_to_peer and first.frame in ("write", "send") and not first.payload:
            self.link.inbox.popleft()

    def _learn(self) -> None:
        theirs = self.link.theirs
        enhanced = theirs.enhanced if theirs is not None else None
        self.variables["ird"] = enhanced.ird if enhanced is not None else 1
        self.variables["ord"] = enhanced.ord if enhanced is not None else 1

    def _startup(self, kind: FrameKind, fields: Startup) -> None:
        theirs = self.link.theirs
        said = theirs.enhanced if theirs is not None else None
        reply = kind is FrameKind.REPLY
        revision = fields.get("revision", theirs.revision if reply and theirs is not None else 2)
        enhanced = fields.get("enhanced", said is not None if reply else revision >= 2)
        ird, wanted = (max(said.ord, 1), min(said.ird, 16)) if reply and said is not None else (16, 16)
        p2p = reply and said is not None and said.peer_to_peer
        by_write = p2p and said is not None and (said.rtr_write or not said.rtr_read)
        limits = mpa.Enhanced(
            ird=fields.get("ird", min(ird, 0x3FFF)),
            ord=fields.get("ord", wanted),
            peer_to_peer=fields.get("peer_to_peer", p2p),
            rtr_send=fields.get("rtr_send", False),
            rtr_write=fields.get("rtr_write", by_write or (not reply and fields.get("peer_to_peer", False))),
            rtr_read=fields.get("rtr_read", p2p and not by_write),
        )
        crc, markers = fields.get("crc", True), fields.get("markers", False)
        body = (limits.emit() if enhanced else b"") + fields.get("private_data", b"")
        flags = (
            (mpa.FLAG_MARKERS if markers else 0)
            | (mpa.FLAG_CRC if crc else 0)
            | (mpa.FLAG_REJECT if fields.get("reject") else 0)
            | (mpa.FLAG_ENHANCED if enhanced else 0)
            | fields.get("reserved", 0)
        )
        key = fields.get("key", kind.value).ljust(16, b"\0")[:16]
        octets = _HEAD.pack(key, flags, revision, fields.get("pd_length", min(len(body), 0xFFFF))) + body
        try:
            frame = StartupFrame.parse(octets)
            valid = frame.kind is kind
            seen = frames.startup(frame, sent=True, seconds=self.link.seconds)
        except WireError as error:
            valid = False
            name = "mpa_reply" if reply else "mpa_request"
            title = name.replace("_", " ").replace("mpa", "MPA")
            seen = frames.bare(name, title, f"MALFORMED: {error}", sent=True, seconds=self.link.seconds)
        if "cut" in fields:
            octets = octets[: fields["cut"]]
        self.link.tell(seen)
        self._emit(octets, fields.get("split"))
        self.link.we_said(markers=markers, crc=crc, valid=valid)

    # ---- messages

    @step
    def send(
        self,
        payload: Octets = b"",
        *,
        solicited: Flag = False,
        invalidate: U32 | None = None,
        **fields: Unpack[Segment],
    ) -> None:
        """Send a Send, with Solicited Event or Invalidate if asked for."""
        if invalidate is None:
            opcode = Opcode.SEND_SE if solicited else Opcode.SEND
        else:
            opcode = Opcode.SEND_SE_INVALIDATE if solicited else Opcode.SEND_INVALIDATE
        self._untagged(opcode, QueueNumber.SEND, payload, fields, word=invalidate or 0)

    @step
    def send_invalidate(self, stag: U32, payload: Octets = b"", **fields: Unpack[Segment]) -> None:
        """Send a Send with Invalidate of `stag`."""
        self.send(payload, invalidate=stag, **fields)

    @step
    def write(self, stag: U32 = 1, to: U64 = 0, payload: Octets = b"", **fields: Unpack[Segment]) -> None:
        """Send an RDMA Write."""
        self._tagged(Opcode.WRITE, stag, to, payload, fields)

    @step
    def read_request(
        self,
        source_stag: U32 = 1,
        source_to: U64 = 0,
        size: U32 = 0,
        *,
        sink_stag: U32 = _SINK,
        sink_to: U64 = 0x2000,
        body: Octets | None = None,
        **fields: Unpack[Segment],
    ) -> None:
        """Send an RDMA Read Request. body: instead of its 28 octets."""
        octets = ReadRequest(sink_stag, sink_to, size, source_stag, source_to).emit() if body is None else body
        self._untagged(Opcode.READ_REQUEST, QueueNumber.READ_REQUEST, octets, fields)

    @step
    def read_response(
        self,
        payload: Octets | None = None,
        *,
        stag: U32 | None = None,
        to: U64 | None = None,
        **fields: Unpack[Segment],
    ) -> None:
        """Send an RDMA Read Response, by default the right one to the oldest Read Request of the other side that has
        not been answered: its sink, and as many octets as it asks for.
        """
        for seen in self.link.inbox:
            self._collect_read(seen)
        asked = self._reads.popleft() if self._reads else None
        if asked is not None:
            if asked in self.link.inbox:
                self.link.inbox.remove(asked)
            stag = asked.number("sink_stag") if stag is None else stag
            to = asked.number("sink_to") if to is None else to
            if payload is None:
                payload = OctetString().convert(min(asked.number("size"), 1 << 24))
        self._tagged(Opcode.READ_RESPONSE, stag or 0, to or 0, payload or b"", fields)

    @step
    def terminate(
        self, layer: U4 = 0, type: U4 = 0, code: U8 = 0, *, body: Octets | None = None, **fields: Unpack[Segment]
    ) -> None:
        """Send a Terminate. body: instead of the one that says layer, type and code."""
        octets = Terminate(layer, type, code).emit() if body is None else body
        self._untagged(Opcode.TERMINATE, QueueNumber.TERMINATE, octets, fields)
        self._terminated = True

    @step
    def immediate(self, data: Octets = b"immediat", *, solicited: Flag = False, **fields: Unpack[Segment]) -> None:
        """Send Immediate Data (RFC 7306)."""
        self._untagged(Opcode.IMMEDIATE_SE if solicited else Opcode.IMMEDIATE, QueueNumber.SEND, data, fields)

    @step
    def atomic_request(
        self,
        operation: Annotated[str, OneOf(("fetch_add", "cmp_swap"))] = "fetch_add",
        stag: U32 = 1,
        to: U64 = 0,
        *,
        data: U64 = 0,
        mask: U64 = 0,
        compare: U64 = 0,
        compare_mask: U64 = 0xFFFFFFFFFFFFFFFF,
        request_id: U32 = 1,
        **fields: Unpack[Segment],
    ) -> None:
        """Send an Atomic Request (RFC 7306). data, mask: what is added or put there."""
        code = 0 if operation == "fetch_add" else 2
        body = _ATOMIC.pack(code, request_id, stag, to, data, mask, compare, compare_mask)
        self._untagged(Opcode.ATOMIC_REQUEST, QueueNumber.READ_REQUEST, body, fields)

    @step
    def fpdu(self, ulpdu: Octets, **fields: Unpack[Segment]) -> None:
        """Send any octets as a ULPDU, in an FPDU that is right but for the fields given."""
        self._fpdu(ulpdu, fields)
        self._aligned = False  # a receiver may take what follows for the rest of it

    @step
    def raw(self, octets: Octets, *, split: Pieces | None = None) -> None:
        """Send any octets, without an FPDU around them."""
        self._aligned = False
        head = octets[:16].hex(" ") + (" ..." if len(octets) > 16 else "")
        self.link.tell(
            frames.bare("raw", "octets", f"{len(octets)}: {head}", sent=True, seconds=self.link.seconds)
        )  # fmt: skip
        self._emit(octets, split)

    # ---- the stream

    @step
    def fin(self) -> None:
        """Send FIN; the other side can still be heard."""
        self._alive()
        self.offended = True
        self.link.finish()

    @step
    def reset(self) -> None:
        """Reset TCP: the end, with nothing more to be seen."""
        self.link.reset()

    @step
    def pause(self, seconds: Seconds) -> None:
        """Do nothing for so long but listen."""
        end = time.monotonic() + seconds
        while (left := min(end, self.link.deadline) - time.monotonic()) > 0:
            self.link.read(left)
            self._alive()

    @contextmanager
    def together(self, split: int | Sequence[int] | None = None) -> Iterator[None]:
        """What is sent inside the `with` goes in one piece, or in the pieces that `split` says, at its end."""
        self._together = bytearray()
        try:
            yield
            octets = bytes(self._together)
        finally:
            self._together = None
        self._emit(octets, split)

    # ---- listening

    @step
    def expect(
        self,
        frame: Annotated[str, OneOf((*FRAME_NAMES, "any"))],
        *,
        where: Where | None = None,
        payload: Octets | None = None,
        capture: Captures | None = None,
        within: Seconds | None = None,
    ) -> Seen:
        """Wait for a frame of the other side; others that come before it are passed over.

        where: fields and their values. payload: exactly these octets. capture: variables to set from its fields or from
        numbers in its payload. within: seconds to wait; the scenario's time limit holds anyway.
        """
        wanted = f"{frame} {dict(where)}" if where else frame
        found: list[Seen] = []

        def there() -> bool:
            while self.link.inbox:
                seen = self.link.inbox.popleft()
                self._collect_read(seen)
                if frame in (seen.frame, "any") and _fits(seen, where, payload):
                    found.append(seen)
                    return True
            return False

        self._await(there, within, wanted)
        seen = found[0]
        for name, source in (capture or {}).items():
            self.variables[name] = seen.number(source)
        if seen.frame in ("mpa_request", "mpa_reply"):
            self._learn()
        return seen

    @step
    def sync(self) -> None:
        """Make sure that the other side has dealt with everything so far: a zero-length RDMA Read, and its answer.

        With a side that has no room for reads (IRD 0) only a zero-length RDMA Write is sent.
        """
        if self.variables.get("ird", 1) == 0:
            self.write()
            return
        # how long the answer is, is for others to judge: siw can be wrong there
        sink = _SINK + (self._msn.get(QueueNumber.READ_REQUEST, 1) << 8 & 0xFFFF00)
        self.read_request(size=0, sink_stag=sink)
        self.expect("read_response", where={"stag": sink})

    def wait_for_end(self) -> None:
        """Until the other side has ended the stream. Raises: OutOfTime."""
        self._await(lambda: self.link.ended, None, "reaction")

    def _await(self, condition: Callable[[], bool], seconds: float | None, doing: str) -> None:
        """Take in what comes until the condition holds. An initiator that hears nothing sends a harmless zero-length
        Write now and then: siw can leave the first FPDU unread until more comes.
        """
        self.offended = False
        self.received_before = self.link.received - len(self.link.inbox)
        begin = time.monotonic()
        end = min(self.link.deadline, begin + seconds) if seconds is not None else self.link.deadline
        nudged = 0
        while not condition():
            if self.link.ended:
                raise Ended
            now = time.monotonic()
            if now >= end:
                raise OutOfTime(f"{doing} within {end - begin:.1f} s")
            if not self.link.read(min(end - now, NUDGE_S)) and nudged < NUDGES and self._may_nudge():
                nudged += 1
                self._fpdu(TaggedHeader(True, rdmap.control(Opcode.WRITE), 1, 0).emit(), {}, note="nudge")

    def _may_nudge(self) -> bool:
        link = self.link
        return (
            self.role is Role.INITIATOR
            and link.started
            and self._aligned
            and not (link.fin_sent or self._terminated)
            and not (link.theirs is not None and link.theirs.reject)
        )

    def _drop(self, frame: str) -> None:
        """The start-up frame has been looked at."""
        if self.link.inbox and self.link.inbox[0].frame == frame:
            self.link.inbox.popleft()

    def _collect_read(self, seen: Seen) -> None:
        if seen.frame == "read_request" and seen not in self._reads:
            self._reads.append(seen)

    # ---- octets

    def _untagged(self, opcode: Opcode, queue: QueueNumber, payload: bytes, fields: Segment, word: int = 0) -> None:
        qn = fields.get("qn", int(queue))
        msn = fields.get("msn", self._msn.get(qn, 1))
        base = fields.get("mo", self._mo.get(qn, 0))
        last = fields.get("last", True)
        for offset, piece, at_end in _segments(payload, fields):
            self._octet_pair(
                UntaggedHeader(
                    at_end and last,
                    _rdmap_control(opcode, fields),
                    word,
                    qn,
                    msn,
                    base + offset & 0xFFFFFFFF,
                    fields.get("ddp_version", ddp.VERSION),
                ).emit(),
                piece,
                fields,
            )  # fmt: skip
        self._mo[qn] = 0 if last else base + len(payload)
        if last and "msn" not in fields:
            self._msn[qn] = msn + 1 & 0xFFFFFFFF

    def _tagged(self, opcode: Opcode, stag: int, to: int, payload: bytes, fields: Segment) -> None:
        last = fields.get("last", True)
        for offset, piece, at_end in _segments(payload, fields):
            self._octet_pair(
                TaggedHeader(
                    at_end and last,
                    _rdmap_control(opcode, fields),
                    stag,
                    to + offset & 0xFFFFFFFFFFFFFFFF,
                    fields.get("ddp_version", ddp.VERSION),
                ).emit(),
                piece,
                fields,
            )  # fmt: skip

    def _octet_pair(self, header: bytes, payload: bytes, fields: Segment) -> None:
        """Header and payload, with the bits of the first octet that the codecs do not write."""
        control = header[0] | fields.get("ddp_reserved", 0) << 2
        if "tagged" in fields:
            control = control & ~ddp.CONTROL_TAGGED | (ddp.CONTROL_TAGGED if fields["tagged"] else 0)
        self._fpdu(bytes([control]) + header[1:] + payload, fields)

    def _fpdu(self, ulpdu: bytes, fields: Segment, note: str = "") -> None:
        theirs = self.link.theirs
        if self._framer is None:
            self._framer = Framer(crc=self.link.crc, markers=theirs is not None and theirs.markers)
        lead = 4 if theirs is not None and theirs.markers and self._framer.position % mpa.MARKER_INTERVAL == 0 else 0
        octets = self._framer.frame(ulpdu, [])
        notes = [note] if note else []
        if "pad" in fields:
            at = len(octets) - CRC_LENGTH - mpa.pad_length(len(ulpdu))
            octets[at:-CRC_LENGTH] = fields["pad"]
            notes.append(f"pad {fields['pad'].hex()}")
        if "length" in fields:
            octets[lead : lead + 2] = fields["length"].to_bytes(2, "big")
            notes.append(f"ULPDU_Length {fields['length']} for {len(ulpdu)}")
            self._aligned = False
        if ("pad" in fields or "length" in fields) and self.link.crc:
            CRC_OCTETS.pack_into(octets, len(octets) - CRC_LENGTH, crc32c(memoryview(octets)[:-CRC_LENGTH]))
        if fields.get("bad_crc"):
            octets[-1] ^= 0xFF
            notes.append("BAD CRC")
        if "cut" in fields and fields["cut"] < len(octets):
            notes.append(f"cut off after {fields['cut']} of {len(octets)} octets")
            del octets[fields["cut"] :]
            self._aligned = False
        self.sent.append(ulpdu[:_ULPDU_HEAD])
        self.link.sent_fpdus += 1
        self.link.tell(frames.segment(ulpdu, sent=True, seconds=self.link.seconds, note=", ".join(notes)))
        self._emit(bytes(octets), fields.get("split"))

    def _emit(self, octets: bytes, split: int | Sequence[int] | None) -> None:
        if self._together is not None:
            self._together += octets
            return
        self._alive()
        self.offended = True
        self.link.send(_pieces(octets, split))

    def _alive(self) -> None:
        self.link.read(0)
        if self.link.ended:
            raise Ended


def _rdmap_control(opcode: Opcode, fields: Segment) -> int:
    version = fields.get("rdmap_version", rdmap.VERSION)
    return version << 6 | fields.get("rdmap_reserved", 0) << 4 | fields.get("opcode", int(opcode))


def _segments(payload: bytes, fields: Segment) -> Iterator[tuple[int, bytes, bool]]:
    """Offset, octets, and whether it is the last one; one segment for an empty payload."""
    size = min(fields.get("segment", SEGMENT_OCTETS), mpa.MAX_MULPDU - ddp.UNTAGGED_HEADER)
    for offset in range(0, max(1, len(payload)), size):
        yield offset, payload[offset : offset + size], offset + size >= len(payload)


def _pieces(octets: bytes, split: int | Sequence[int] | None) -> Iterator[bytes]:
    if split is None:
        yield octets
        return
    place = 0
    if not isinstance(split, int):
        for size in split:
            if place < len(octets):
                yield octets[place : place + size]
            place += size
        split = max(1, len(octets) - place)
    while place < len(octets):
        yield octets[place : place + split]
        place += split


def _fits(seen: Seen, where: Mapping[str, object] | None, payload: bytes | None) -> bool:
    if payload is not None and seen.payload != payload:
        return False
    for name, wanted in (where or {}).items():
        found = len(seen.payload) if name == "length" else seen.details.get(name)
        if found != wanted:
            return False
    return True
