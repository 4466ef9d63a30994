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
from typing import Annotated, Any, Final, TypeVar

from typing_extensions import Unpack

from softndk.iwarp.framing import Framer
from softndk.peer import frames
from softndk.peer.fields import (
    U4,
    U8,
    U32,
    U64,
    Captures,
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
from softndk.peer.octets import Segment, Startup, make_fpdu, make_startup, pieces, tagged_ulpdus, untagged_ulpdus
from softndk.wire import WireError, rdmap
from softndk.wire.ddp import QueueNumber, TaggedHeader
from softndk.wire.mpa import FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode, ReadRequest
from softndk.wire.terminate import Terminate

__all__ = ["Peer", "Role"]

NUDGE_S: Final = 0.3
NUDGES: Final = 3
_ATOMIC: Final = struct.Struct(">IIIQQQQQ")
_ULPDU_HEAD: Final = 46
"""How much of each sent ULPDU is kept, to compare with what a Terminate returns."""
_SINK: Final = 0x00112201


class Role(Enum):
    """Which side of the start-up the player is."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


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
        self.steps_done = 0
        """Steps of a scenario's file, for its limit."""
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
            self._need(FrameKind.REQUEST)
            self._drop("mpa_request")
            self._learn()
            self.mpa_reply(**fields)
            self.ready()
        self.starting = False

    def _initiate(self, fields: Startup) -> None:
        self.mpa_request(**fields)
        self._await(lambda: self.link.theirs is not None, None, "MPA Reply")
        self._need(FrameKind.REPLY)
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

    def _need(self, kind: FrameKind) -> None:
        """Their start-up frame is of that kind, or the stream is over: an echo service sends our own Request back."""
        theirs = self.link.theirs
        assert theirs is not None
        if theirs.kind is not kind:
            self.link.garbage = f"an MPA {theirs.kind.name.title()} where a {kind.name.title()} is due"
            raise Ended

    def _learn(self) -> None:
        theirs = self.link.theirs
        enhanced = theirs.enhanced if theirs is not None else None
        self.variables["ird"] = enhanced.ird if enhanced is not None else 1
        self.variables["ord"] = enhanced.ord if enhanced is not None else 1

    def _startup(self, kind: FrameKind, fields: Startup) -> None:
        octets = make_startup(kind, fields, self.link.theirs)
        try:
            frame = StartupFrame.parse(octets)
            valid = frame.kind is kind
            seen = frames.startup(frame, sent=True, seconds=self.link.seconds)
        except WireError as error:
            valid = False
            name = "mpa_reply" if kind is FrameKind.REPLY else "mpa_request"
            title = name.replace("_", " ").replace("mpa", "MPA")
            seen = frames.bare(name, title, f"MALFORMED: {error}", sent=True, seconds=self.link.seconds)
        if "cut" in fields:
            octets = octets[: fields["cut"]]
        self.link.tell(seen)
        self._emit(octets, fields.get("split"))
        self.link.we_said(markers=fields.get("markers", False), crc=fields.get("crc", True), valid=valid)

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
        mo = fields.get("mo", self._mo.get(qn, 0))
        for ulpdu in untagged_ulpdus(opcode, word, qn, msn, mo, payload, fields):
            self._fpdu(ulpdu, fields)
        last = fields.get("last", True)
        self._mo[qn] = 0 if last else mo + len(payload)
        if last and "msn" not in fields:
            self._msn[qn] = msn + 1 & 0xFFFFFFFF

    def _tagged(self, opcode: Opcode, stag: int, to: int, payload: bytes, fields: Segment) -> None:
        for ulpdu in tagged_ulpdus(opcode, stag, to, payload, fields):
            self._fpdu(ulpdu, fields)

    def _fpdu(self, ulpdu: bytes, fields: Segment, note: str = "") -> None:
        link = self.link
        if self._framer is None:
            self._framer = Framer(crc=link.crc, markers=link.theirs is not None and link.theirs.markers)
        made = make_fpdu(
            self._framer, ulpdu, fields, crc=link.crc, markers=link.theirs is not None and link.theirs.markers
        )
        self._aligned &= made.aligned
        self.sent.append(ulpdu[:_ULPDU_HEAD])
        link.sent_fpdus += 1
        text = ", ".join([note, *made.notes] if note else made.notes)
        link.tell(frames.segment(ulpdu, sent=True, seconds=link.seconds, note=text))
        self._emit(made.octets, fields.get("split"))

    def _emit(self, octets: bytes, split: int | Sequence[int] | None) -> None:
        if self._together is not None:
            self._together += octets
            return
        self._alive()
        self.offended = True
        self.link.send(pieces(octets, split))

    def _alive(self) -> None:
        self.link.read(0)
        if self.link.ended:
            raise Ended


def _fits(seen: Seen, where: Mapping[str, object] | None, payload: bytes | None) -> bool:
    if payload is not None and seen.payload != payload:
        return False
    for name, wanted in (where or {}).items():
        found = len(seen.payload) if name == "length" else seen.details.get(name)
        if found != wanted:
            return False
    return True
