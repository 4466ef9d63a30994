"""Start-up: a Request to the passive side, a Reply to the active side, right or almost right, and what follows it.

The expected outcome is worked out here from RFC 5044 7.1 and RFC 6581, from the octets alone: accepted with these terms,
rejected, or the TCP connection closed, with or without a Terminate. Both sides' own frames are read and judged too.
"""

import struct
from collections.abc import Sequence
from typing import Final

from fuzz.lab import Adapter, End, Neighbour
from fuzz.octets import REPLY_KEY, REQUEST_KEY, Divider, fpdu, read_request_body, startup_frame, tagged, untagged
from fuzz.records import Record, head_of, join, records_of
from softndk.config import IwarpConfig
from softndk.errors import Aborted, NdkError, Refused
from softndk.iwarp.connection import Connection
from softndk.iwarp.events import Established, Finish, ReplyReceived, RequestReceived, StartupFailed
from softndk.iwarp.negotiation import Initiator, Rtr
from softndk.iwarp.qp_state import State

__all__ = ["OPERATIONS", "check", "seeds"]

FRAME: Final = 0
RAW: Final = 1
FLIP: Final = 2
DELIVER: Final = 3
ANSWER: Final = 4
FPDU: Final = 5
TIME: Final = 6
FIN: Final = 7
OPERATIONS: Final = (*[FRAME] * 3, RAW, *[FLIP] * 3, DELIVER, DELIVER, *[ANSWER] * 3, *[FPDU] * 3, TIME, FIN)

_LIMITS: Final = (16, 0, 1, 2, 0x3FFE)
_OFFERS: Final = (
    frozenset({Rtr.WRITE, Rtr.READ}),
    frozenset({Rtr.WRITE}),
    frozenset({Rtr.READ}),
    frozenset[Rtr](),
)
_RTR_BITS: Final = {Rtr.WRITE: 0x8000, Rtr.READ: 0x4000}
EARLY_LIMIT: Final = 128 * 1024


def check(data: bytes) -> None:
    """Run one input. Raises: AssertionError, or whatever escapes from the code under test."""
    run = _Run(head_of(data))
    for record in records_of(data):
        run.do(record)
    run.finish()


class _Frame:
    """A start-up frame as the standard reads it. `problem`: why it is refused, or None."""

    def __init__(self, octets: bytes, key: bytes) -> None:
        self.problem: str | None = None
        self.length: int | None = None
        if not (REQUEST_KEY.startswith(octets[:16]) or REPLY_KEY.startswith(octets[:16])):
            self.problem = "key"
            return
        if len(octets) < 20:
            return
        self.flags, self.revision, length = struct.unpack_from(">BBH", octets, 16)
        self.enhanced = bool(self.flags & 0x10) and self.revision >= 2
        if octets[:16] != key:
            both = key == REPLY_KEY and octets[:16] == REQUEST_KEY
            self.problem = "two initiators" if both else "key"
        elif length > 512 or (self.enhanced and length < 4):
            self.problem = "length"
        elif not 1 <= self.revision <= 2:
            self.problem = "revision"
        if self.problem is not None or len(octets) < 20 + length:
            return
        self.length = 20 + length
        body = octets[20 : self.length]
        self.ird_word, self.ord_word = struct.unpack_from(">HH", body) if self.enhanced else (0, 0)
        self.private_data = body[4:] if self.enhanced else body
        self.peer_to_peer = bool(self.ird_word & 0x8000)
        self.ird, self.ord = self.ird_word & 0x3FFF, self.ord_word & 0x3FFF

    @property
    def options(self) -> frozenset[Rtr]:
        """Ready-to-receive indications that it names; without peer-to-peer they mean nothing."""
        if not self.enhanced or not self.peer_to_peer:
            return frozenset()
        named = {option for option, bit in _RTR_BITS.items() if self.ord_word & bit}
        return frozenset(named | ({Rtr.SEND} if self.ird_word & 0x4000 else set()))


class _Run:
    def __init__(self, head: bytes) -> None:
        modes = head[0]
        self.active = bool(modes & 1)
        self.crc, self.markers = not modes & 2, bool(modes & 4)
        self.revision = 1 if modes & 8 else 2
        self.offer = _OFFERS[head[1] % len(_OFFERS)] if not modes & 16 else frozenset[Rtr]()
        self.ird, self.ord = _LIMITS[head[2] % len(_LIMITS)], _LIMITS[head[3] % len(_LIMITS)]
        self.limits = (_LIMITS[head[4] % len(_LIMITS)], _LIMITS[head[5] % len(_LIMITS)])
        """What the passive side's program accepts with."""
        self.falls_back = bool(modes & 32) and self.active and self.revision == 2
        config = IwarpConfig(
            crc=self.crc, markers=self.markers, mpa_revision=self.revision, fallback_revision_1=self.falls_back
        )
        self.adapter = Adapter()
        self.end = End(self.adapter, "starter", config, active=self.active, limits=(self.ird, self.ord), shared=False)
        if self.active:
            initiator = Initiator(
                b"p" * (head[6] % 4),
                ird=self.ird,
                ord=self.ord,
                revision=self.revision,
                crc=self.crc,
                markers=self.markers,
                rtr_offer=self.offer,
            )
            self.end.core = Connection("starter", config, initiator=initiator, limits=(self.ird, self.ord))
            self.end.core.start_timer(self.end.now)
            self.end.bind()
        self.neighbour = Neighbour(self.adapter)
        self.arena = bytearray(self.adapter.arena)
        self.key = REPLY_KEY if self.active else REQUEST_KEY
        self.out = bytearray()
        self.got = bytearray()
        """Octets delivered before the answer: start-up frame, and what is behind it."""
        self.answered: str | None = None
        self.outcome: str | None = None
        """What the octets so far must have led to: "frame", "failed"."""
        self.fin = False
        self.over = False
        self.connect()

    def connect(self) -> None:
        """TCP comes up, perhaps for the second time."""
        self.end.sent.clear()
        self.fin = False
        self.end.core.connected(self.end.now, 1460)
        self.pump()
        if self.active:
            self.own_request()

    # ---- steps

    def do(self, record: Record) -> None:
        op = record.op
        if op == FRAME:
            self.out += self.frame(record)
        elif op == RAW:
            self.out += (record.y.to_bytes(4, "big") + record.z.to_bytes(8, "big"))[: record.flag % 13]
        elif op == FLIP and self.out:
            self.out[record.x // 8 % len(self.out)] ^= 1 << record.x % 8
        elif op == DELIVER:
            self.deliver(record.x)
        elif op == ANSWER:
            self.deliver(0)
            self.answer(record)
        elif op == FPDU:
            self.fpdu(record)
        elif op == TIME:
            self.pass_time((1.0, 6.0, 11.0, 31.0)[record.flag % 4])
        elif op == FIN:
            self.deliver(0)
            self.send_fin()

    def frame(self, record: Record) -> bytes:
        """A frame that is right unless its numbers say otherwise: `x` flags and revision, `y` IRD and ORD words."""
        flags = record.x & 0xFF if record.flag & 1 else 0x50 | record.x & 0xA0
        revision = record.x >> 8 & 0xFF if record.flag & 2 else 1 + (record.x >> 8 & 1 ^ 1)
        body = bytes(record.z >> 8 & 0xFF for _ in range(record.z % 530 if record.flag & 4 else record.z % 9))
        if flags & 0x10 and revision >= 2:
            body = record.y.to_bytes(4, "big") + body
        length = record.z >> 16 & 0xFFFF if record.flag & 8 else None
        other = REQUEST_KEY if self.active else REPLY_KEY
        return startup_frame(other if record.flag & 16 else self.key, flags, revision, body, length)

    def deliver(self, chunk: int) -> None:
        octets = bytes(self.out)
        self.out.clear()
        size = chunk % 40 or max(1, len(octets))
        for at in range(0, len(octets), size):
            if not self.end.core.wants_read() or self.fin:
                return
            self.give(octets[at : at + size])

    def give(self, piece: bytes) -> None:
        before = len(self.end.events)
        waiting = self.answered is None and not self.over
        if waiting:
            self.got += piece
        self.end.give(piece)
        if waiting:
            self.judge(before)
        self.pump()
        early = len(self.end.core._startup.early)
        assert early <= EARLY_LIMIT + 65536, f"{early} octets are kept before the program has answered"

    def judge(self, before: int) -> None:
        """Compare what the frame has led to with what it should."""
        frame = _Frame(bytes(self.got), self.key)
        events = self.end.events[before:]
        core = self.end.core
        if self.outcome == "frame":
            if self.active:
                assert not events, "an event of octets behind the Reply"
            else:
                self.failed(events, Aborted)
            return
        if frame.problem is not None:
            self.failed(events, Aborted)
        elif frame.length is None:
            assert not events, f"an event of part of a frame: {events}"
            assert core.state is (State.REQUESTING if self.active else State.AWAITING), core.state
        elif self.active:
            self.judge_reply(frame, events)
        elif len(self.got) > frame.length:
            self.failed(events, Aborted)
        else:
            self.outcome = "frame"
            (event,) = events
            assert isinstance(event, RequestReceived), event
            assert event.private_data == frame.private_data, "private data of the Request"
            due = (min(self.ird, frame.ord), min(self.ord, frame.ird)) if frame.enhanced else (self.ird, self.ord)
            assert (event.inbound_read_limit, event.outbound_read_limit) == due, "limits of the Request"

    def judge_reply(self, frame: _Frame, events: Sequence[object]) -> None:
        asked = self.revision == 2
        if frame.flags & 0x20:
            (event,) = events
            assert isinstance(event, StartupFailed), event
            assert isinstance(event.error, Refused), event.error
            assert event.error.private_data == frame.private_data, "private data of the rejection"
            self.over = True
            return
        if asked != frame.enhanced:
            self.failed(events, Aborted)
            return
        common = self.offer & frame.options
        no_slot = common == {Rtr.READ} and not frame.ird
        if asked and frame.ord != 0x3FFF and frame.ord > self.ird:
            self.failed(events, Aborted, (2, 0, 6), frame)
        elif asked and self.offer and (not common or no_slot):
            self.failed(events, Aborted, (2, 0, 7), frame)
        else:
            self.outcome = "frame"
            (event,) = events
            assert isinstance(event, ReplyReceived), event
            assert event.private_data == frame.private_data, "private data of the Reply"
            assert event.outbound_read_limit <= (frame.ird if asked else self.ord), "ORD above the peer's IRD"
            if asked and frame.ord != 0x3FFF:
                assert event.inbound_read_limit >= frame.ord, "IRD below the peer's ORD"

    def failed(
        self,
        events: Sequence[object],
        kind: type[NdkError],
        triple: tuple[int, int, int] | None = None,
        frame: _Frame | None = None,
    ) -> None:
        """The start-up must have failed now; with this Terminate, or without one."""
        self.over = True
        self.outcome = "failed"
        (event,) = events
        assert isinstance(event, StartupFailed), event
        assert isinstance(event.error, kind), f"{event.error!r}"
        sent = self.end.take_all()
        if triple is None:
            assert not sent, f"sent after a start-up that failed: {sent.hex()}"
            return
        assert frame is not None
        divider = Divider(self.crc or bool(frame.flags & 0x40), bool(frame.flags & 0x80))
        divider.feed(sent)
        (ulpdu,) = list(divider)
        body = bytes([triple[0] << 4 | triple[1], triple[2], 0, 0])
        assert ulpdu == bytes(untagged(7, 2, 1, 0, body)), f"Terminate {ulpdu.hex()}"
        assert not divider.held, "octets behind the Terminate"

    def answer(self, record: Record) -> None:
        """The program's turn: accept, complete or reject."""
        if self.outcome != "frame" or self.answered is not None or self.over:
            return
        core = self.end.core
        frame = _Frame(bytes(self.got), self.key)
        before = len(self.end.events)
        data = b"a" * (record.x % (509 if record.flag & 4 else 9))
        refuse = bool(record.flag & 1)
        self.answered = "reject" if refuse else "accept"
        if refuse:
            core.reject(data, self.end.now)
            self.over = True
        elif self.active:
            core.complete(self.end.now)
        else:
            self.end.bind()
            core.accept(data, *self.limits, self.end.now)
        self.end.collect()
        sent = self.end.take_all()
        events = self.end.events[before:]
        if not self.active:
            self.own_reply(sent, frame, data, refuse)
        if refuse:
            assert not events, f"events of a rejection: {events}"
            return
        if self.active:
            assert isinstance(events[0], Established), events
            self.own_indication(sent, frame)
        elif not frame.peer_to_peer:
            assert isinstance(events[0], Established), events
        else:
            assert not events, "connected before the indication"
        if not self.active:
            negotiated = core.negotiated
            assert negotiated is not None
            assert negotiated.crc == (self.crc or bool(frame.flags & 0x40)), "CRC by either side"
            assert negotiated.send_markers == bool(frame.flags & 0x80), "markers for the peer"

    def own_request(self) -> None:
        sent = bytes(self.end.sent)
        frame = _Frame(sent, REQUEST_KEY)
        assert frame.problem is None, frame.problem
        assert frame.length == len(sent), "octets behind the Request"
        assert frame.enhanced == (self.revision == 2), "enhanced"
        assert bool(frame.flags & 0x40) == self.crc, "C"
        assert bool(frame.flags & 0x80) == self.markers, "M"
        assert not frame.flags & 0x2F, "R and reserved bits"
        if frame.enhanced:
            assert (frame.ird, frame.ord) == (self.ird, self.ord), "limits"
            assert frame.options == self.offer, "indications"

    def own_reply(self, sent: bytes, request: _Frame, data: bytes, refuse: bool) -> None:
        reply = _Frame(sent, REPLY_KEY)
        assert reply.problem is None, reply.problem
        assert reply.length == len(sent), "octets behind the Reply before the first FPDU"
        assert reply.private_data == data, "private data"
        assert bool(reply.flags & 0x20) == refuse, "R"
        assert bool(reply.flags & 0x80) == self.markers, "M"
        assert reply.revision == request.revision, "revision"
        assert reply.enhanced == request.enhanced, "enhanced as the Request"
        assert bool(reply.flags & 0x40) or not self.crc, "C"
        if request.enhanced and not refuse:
            assert reply.peer_to_peer == request.peer_to_peer, "A"
            ird, ord_limit = self.limits
            if request.ird != 0x3FFF:
                assert reply.ord <= min(ord_limit, request.ird), "ORD above what the peer holds"
            else:
                assert reply.ord == 0x3FFF, "ORD that was not to be negotiated"
            if request.ord != 0x3FFF:
                read_alone = request.options and Rtr.READ in reply.options
                assert reply.ird <= max(min(ird, request.ord), 1 if read_alone else 0), "IRD above both wishes"
            else:
                assert reply.ird == 0x3FFF, "IRD that was not to be negotiated"
            if request.peer_to_peer:
                assert reply.options, "no indication is allowed"
                wanted = request.options or {Rtr.WRITE}
                assert reply.options <= wanted, "an indication that was not offered"

    def own_indication(self, sent: bytes, reply: _Frame) -> None:
        divider = Divider(self.crc or bool(reply.flags & 0x40), bool(reply.flags & 0x80))
        divider.feed(sent)
        ulpdus = list(divider)
        assert not divider.held, "part of a frame"
        if not self.offer or self.revision == 1:
            # An answer to a read that came right behind the Reply is no surprise, nor is the end of it.
            assert all(ulpdu[1] & 15 in (2, 7) for ulpdu in ulpdus), "FPDUs that nobody asked for"
            return
        if not ulpdus:
            assert self.end.core.is_over, "connected without an indication"
            return  # the peer's Terminate had come already
        first = ulpdus[0]
        allowed = self.offer & reply.options
        if first[1] & 15 == 0:
            assert Rtr.WRITE in allowed, "a Write as indication"
            assert len(first) == 14, "a Write of length zero"
        else:
            assert first[1] & 15 == 1, "an indication"
            assert Rtr.READ in allowed, "a Read as indication"
            assert first[30:34] == bytes(4), "a Read of length zero"

    def fpdu(self, record: Record) -> None:
        """What comes behind the start-up: an FPDU, often before its time."""
        frame = _Frame(bytes(self.got) or bytes(self.out), self.key)
        crc = self.crc or (frame.length is not None and bool(frame.flags & 0x40))
        kinds = (
            tagged(0, 1, 0),
            untagged(3, 0, 1, 0, b""),
            untagged(1, 1, 1, 0, read_request_body(9, 0, 0, 1, 0)),
            untagged(7, 2, 1, 0, bytes(4)),
            untagged(3, 0, 1, 0, b"too early"),
        )
        ulpdu = kinds[record.flag % len(kinds)]
        error = record.x & 0xFF if record.flag & 0x80 else 0
        self.out += fpdu(ulpdu, position=0, crc=crc, markers=self.markers, crc_error=error)

    def send_fin(self) -> None:
        if self.fin or not self.end.core.wants_read():
            return
        self.fin = True
        before = len(self.end.events)
        self.end.core.receive_eof(self.end.now)
        self.end.collect()
        if self.falls_back and not self.got and not self.over:
            assert self.end.core.finish() is Finish.RECONNECT, "revision 1 is not tried"
            assert len(self.end.events) == before, "an event before the second attempt"
            self.falls_back = False
            self.revision = 1
            self.connect()
            return
        assert self.end.core.finish() is not Finish.RECONNECT, "a third attempt"
        if self.answered is None and not self.over:
            refused = self.active and self.outcome is None
            self.failed(self.end.events[before:], Refused if refused else Aborted)
        self.pump()

    def pass_time(self, seconds: float) -> None:
        before = len(self.end.events)
        waiting = self.answered is None and not self.over and self.outcome is None
        self.end.now += seconds
        due = self.end.core.next_timeout()
        self.end.core.handle_timeout(self.end.now)
        self.end.collect()
        if waiting and due is not None and due <= self.end.now:
            self.over = True
            (event,) = self.end.events[before:]
            assert isinstance(event, StartupFailed), event
        elif waiting:
            assert len(self.end.events) == before, "an event of nothing"
        self.pump()

    def pump(self) -> None:
        before = len(self.end.sent)
        self.end.take_all()
        if self.answered is None and not self.over and before:
            assert len(self.end.sent) == before, "something is sent before the answer"

    # ---- the end

    def finish(self) -> None:
        self.deliver(0)
        self.neighbour.check(self.arena)
        self.end.run_down(self.end_it)
        core = self.end.core
        assert core.state in (State.CLOSED, State.ERROR, State.TERMINATE), f"state {core.state} at the end"
        kinds = [type(event) for event in self.end.events]
        for kind in set(kinds):
            assert kinds.count(kind) == 1, f"events: {kinds}"
        if StartupFailed in kinds:
            assert Established not in kinds, f"events: {kinds}"
            assert kinds[-1] is StartupFailed, f"events: {kinds}"
        assert self.adapter.arena == self.arena or core.traffic[0] > 1, "memory changed by a start-up"
        self.neighbour.check(self.arena)

    def end_it(self) -> None:
        core = self.end.core
        if core.finish() is Finish.SHUTDOWN and not self.fin:
            self.fin = True
            core.receive_eof(self.end.now)
        elif core.finish() is Finish.RECONNECT:
            self.connect()
        else:
            core.close(self.end.now)
        self.end.collect()


def seeds() -> Sequence[bytes]:
    """Both roles, both revisions, every indication; an answer, an FPDU behind it; some wrong ones."""
    good = 0x80108010 | 0xC000
    found = []
    for modes in (0, 1, 2, 3, 4, 5, 9):
        for offer in range(len(_OFFERS)):
            for words in (good, 0x00100010, 0x80008000, 0xC0100010, 0xBFFFBFFF, 0x80104010):
                frame = Record(FRAME, 0, 0, words, 4)
                found.append(join([modes, offer], [frame, Record(ANSWER), Record(FPDU, 0), Record(FPDU, 4)]))
    for modes in (0, 1):
        frame = Record(FRAME, 0, 0, good, 4)
        found.append(join([modes, 0, 1, 1], [frame, Record(ANSWER, 1, 20), Record(FIN)]))
        found.append(join([modes], [frame, Record(DELIVER, 0, 3), Record(FPDU), Record(DELIVER), Record(ANSWER)]))
        found.append(join([modes], [Record(FRAME, 0, 0x20, good, 3), Record(TIME, 2)]))
        found.append(join([modes], [Record(FRAME, 8, 0, good, 513 << 16), Record(TIME)]))
        found.append(join([modes], [Record(FRAME, 16, 0, good, 3)]))
        found.append(join([modes], [Record(FRAME, 2, 3 << 8, good, 3), Record(FIN)]))
        found.append(join([modes], [frame, Record(FLIP, 0, 150)]))
        found.append(join([modes | 8], [Record(FRAME, 1, 0x0140, 0, 8), Record(ANSWER), Record(FPDU, 1)]))
    fin = Record(FIN)
    found += [join([33], [fin, Record(FRAME, 3, 0x0140, 0, 4), Record(ANSWER)]), join([33], [fin, fin])]
    return found
