"""Inbound: an established connection, with memory, windows, receives and reads of its own, gets a stream of octets.

An input's records are the peer's messages, wrong things in them, deliveries, and what the program does meanwhile. The
judge is given the same and says what must be so. Checked: memory (every octet of the arena), completions, events, the
Terminate octet for octet, the octets that are held, what the core sends, the neighbour, and that there is an end.
"""

import errno
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from fuzz import peer as peers
from fuzz.judge import Atomic, Ending, Judge, Read, Receive, Taken
from fuzz.lab import Adapter, End, Neighbour
from fuzz.octets import Divider
from fuzz.peer import IMMEDIATE, MESSAGES, SPOIL, SPOILS, Peer
from fuzz.records import Record, head_of, join, records_of
from softndk.config import IwarpConfig
from softndk.flags import OperationType
from softndk.iwarp.events import Aborted, Disconnected, Established, Finish, PeerDisconnected, StartupFailed
from softndk.iwarp.qp_state import State
from softndk.queues.work import AtomicWork, ImmediateWork, ReadWork, ReceiveRequest, SendWork, WriteWork
from softndk.status import Status

__all__ = ["OPERATIONS", "check", "seeds"]

DELIVER: Final = 9
POST_RECEIVE: Final = 10
POST_READ: Final = 11
POST_SEND: Final = 12
POST_WRITE: Final = 13
TIME: Final = 14
NEIGHBOUR: Final = 15
DISCONNECT: Final = 16
POST_ATOMIC: Final = 17
POST_IMMEDIATE: Final = 18
DEREGISTER: Final = 19
CLOSE: Final = 20
_KINDS: Final = {
    POST_READ: "read",
    POST_SEND: "send",
    POST_WRITE: "write",
    POST_ATOMIC: "atomic",
    POST_IMMEDIATE: "immediate",
}

OPERATIONS: Final = (
    *MESSAGES,
    *[SPOIL] * 6,
    *[DELIVER] * 4,
    *(
        POST_RECEIVE,
        POST_RECEIVE,
        POST_READ,
        POST_READ,
        POST_SEND,
        POST_WRITE,
        POST_ATOMIC,
        POST_IMMEDIATE,
        TIME,
        NEIGHBOUR,
        DISCONNECT,
        DEREGISTER,
        CLOSE,
    ),
)

MAX_CHUNKS: Final = 128
"""Of one delivery: long messages octet by octet take long and show nothing that short ones do not."""
LEFT_OPEN: Final = "an end whose moment is the core's own matter"
LOOSE_ENDS: Final = frozenset({(0, 0, 0), (0, 1, 0)})
"""Own memory that has gone when a request starts; a read's source that has gone before the answer."""
MAX_HELD: Final = 2 + 65535 + 3 + 4 + 4 * 130
"""Octets of one FPDU with markers: more is never kept."""
_GONE: Final = ("readable", "writable", "sink", "inbox", "top")
"""Regions that the program may deregister on the way."""
_LIMITS: Final = (16, 0, 1, 2, 3, 64)
_FPDUS: Final = (None, 128, 256, 1000)


def check(data: bytes) -> None:
    """Run one input. Raises: AssertionError, or whatever escapes from the code under test."""
    run = _Run(head_of(data))
    for record in records_of(data):
        run.do(record)
    run.finish()


class _Run:
    """One input being run."""

    def __init__(self, head: bytes) -> None:
        modes = head[0]
        self.crc = not modes & 1
        markers, wants_markers = bool(modes & 2), bool(modes & 4)
        self.hold, shared, active = bool(modes & 8), bool(modes & 16), bool(modes & 32)
        ird, ord_limit = _LIMITS[head[1] % len(_LIMITS)], _LIMITS[head[2] % len(_LIMITS)]
        config = IwarpConfig(
            crc=self.crc,
            markers=markers,
            max_fpdu=_FPDUS[head[3] % len(_FPDUS)],
            receive_wait_s=5.0 if self.hold else 0.0,
            rfc7306=not head[6] & 1,
        )
        self.adapter = Adapter()
        self.end = End(self.adapter, "victim", config, active=active, limits=(ird, ord_limit), shared=shared)
        self.neighbour = Neighbour(self.adapter)
        self.adapter.add_windows(self.end.pair, self.neighbour.end.pair)
        indication = ("write", "read", "write" if active else "send", "write")[modes >> 6]
        if not (ord_limit if active else ird):
            indication = "write"  # there must be room for a read
        self.end.establish(peer_wants_markers=wants_markers, peer_wants_crc=self.crc, indication=indication)
        self.judge = Judge(
            bytearray(self.adapter.arena),
            self.adapter.tokens,
            Divider(self.crc, markers),
            ird,
            self.hold,
            shared,
            config.rfc7306,
            indication == "send",
            self.end.now,
        )
        self.peer = Peer(self.adapter.named, self.adapter.tokens, self.crc, markers)
        self.output = Divider(self.crc, wants_markers)
        self.ord_limit = ord_limit
        self.receives: list[str] = []
        self.requests: deque[tuple[str, str, int]] = deque()
        """Own requests not seen on the wire yet: context, kind, octets."""
        self.posted: list[tuple[str, str]] = []
        self.whole: set[str] = set()
        """Own sends and writes of which the last octet has been sent."""
        self.new_reads: deque[Read] = deque()
        self.results: Counter[str] = Counter()
        if active and indication == "read":
            self.new_reads.append(Read(None, None, 0, 0))
            self.requests.append(("", "read", 0))
        self.new_atomics: deque[Atomic] = deque()
        self.seen_receives: list[Taken] = []
        self.failed: dict[str, str] = {}
        self.finished: list[str] = []
        self.terminate: bytes | None = None
        self.delivered = self.end.core.traffic[2]
        self.told_solicited = 0
        self.disconnecting = False
        self.peer_fin = False
        self.lost = False
        self.unread = False
        """The peer has not taken what was to be said in time: no Terminate is fine too."""
        self.loose = False
        """The end is left to the core: which of several things comes first is a matter of its time."""
        self.used: set[str] = set()
        """Memory that own requests name: if it is taken away, they fail when they start."""
        self.end.events.clear()
        if not active:
            self.peer.indication(indication)
        self.late = bool(head[6] & 2) and not active
        """The passive side is not ready yet: the indication comes when the records begin to deliver."""
        if not self.late:
            self.deliver(0, pump=True)
        self.pump()  # what the active side has to say first is on its way before anything can come back
        self.end.collect()
        self.end.events.clear()
        for _ in range(head[4] % 8):
            self.post_receive(Record(POST_RECEIVE, 0, 0, 0, 64))
        self.ending = head[5]

    # ---- steps

    def do(self, record: Record) -> None:
        op = record.op
        if op <= SPOIL or IMMEDIATE <= op < IMMEDIATE + 3:
            self.peer.do(record)
        elif op == DELIVER:
            self.deliver(record.x, pump=not record.flag & 1)
        elif op == POST_RECEIVE:
            self.post_receive(record)
        elif op in _KINDS:
            self.post(op, record)
        elif op == TIME:
            self.pass_time((1.0, 6.0, 31.0, 0.0)[record.flag % 4])
        elif op == NEIGHBOUR:
            self.neighbour.check(self.judge.arena)
        elif op == DISCONNECT:
            self.disconnect()
        elif op == DEREGISTER:
            self.adapter.deregister(_GONE[record.flag % len(_GONE)])
        elif op == CLOSE:
            self.close(record)

    def deliver(self, chunk: int, *, pump: bool) -> None:
        """Bring what the peer has made: in chunks of that size, or at once. What the core does not want stays away."""
        octets = self.peer.take()
        size = max(chunk % 600 or len(octets), len(octets) // MAX_CHUNKS)
        at = 0
        while at < len(octets) and self.end.core.wants_read():
            piece = octets[at : at + size]
            at += len(piece)
            self.judge.feed(piece)
            self.end.give(piece)
            self.delivered += len(piece)
            if pump:
                self.pump()
            self.compare()
        self.peer.out += octets[at:]  # still in TCP

    def pump(self) -> None:
        """Take everything that the core has to send, and look at it."""
        before = self.end.core.is_over
        if not before and self.judge.ending is None:
            self.judge.source_gone()
            if self.requests and not all(self.adapter.memories[f"{name}, local"].valid for name in self.used):
                self.loose = True
        self.output.feed(self.end.take_all())
        for ulpdu in self.output:
            self.look_at(ulpdu)

    def look_at(self, ulpdu: bytes) -> None:
        """One ULPDU that the core has sent."""
        assert self.terminate is None, "something behind the Terminate"
        opcode = ulpdu[1] & 15
        assert not self.late or self.judge.has_begun or opcode == 7, "something before the peer's first FPDU"
        assert ulpdu[0] & 0x3F == 1, "version or reserved bits of DDP"
        assert ulpdu[1] & 0xF0 == 0x40, "version or reserved bits of RDMAP"
        if opcode == 7:
            self.terminate = ulpdu
        elif opcode == 2:
            self.judge.answered(ulpdu)
        elif opcode == 0 and len(ulpdu) == 14 and ulpdu[2:14] == b"\0\0\0\1" + bytes(8):
            return  # the indication, or a nudge
        elif opcode == 1:
            read = self.new_reads.popleft()
            assert self.requests.popleft()[0] == (read.context or ""), "a request out of turn"
            assert int.from_bytes(ulpdu[30:34], "big") == read.length, "size of a Read Request"
            read.sink_stag = int.from_bytes(ulpdu[18:22], "big")
            self.judge.reads.append(read)
            self.check_read_limit()
            self.peer.sinks.append([read.sink_stag, read.length, 0])
        elif opcode == 10:
            atomic = self.new_atomics.popleft()
            assert self.requests.popleft()[0] == atomic.context, "a request out of turn"
            atomic.identifier = int.from_bytes(ulpdu[22:26], "big")
            self.judge.atomics.append(atomic)
            self.check_read_limit()
            self.peer.atomics.append(atomic.identifier)
        elif opcode == 11:
            self.judge.atomic_answered(ulpdu)
        else:
            context, kind, length = self.requests[0]
            due = {0: "write", 8: "immediate", 9: "immediate"}.get(opcode, "send")
            assert kind == due, "a request out of turn"
            left = length - (len(ulpdu) - (14 if ulpdu[0] & 0x80 else 18))
            self.requests[0] = (context, kind, left)
            if ulpdu[0] & 0x40:
                assert left == 0, "octets of a message"
                self.requests.popleft()
                self.whole.add(context)

    def check_read_limit(self) -> None:
        assert len(self.judge.reads) + len(self.judge.atomics) <= self.ord_limit, "more reads and atomics than ORD"

    def post_receive(self, record: Record) -> None:
        if len(self.receives) > 40:
            return
        name = "fast" if record.flag & 1 else "inbox"
        memory = self.adapter.memories[f"{name}, local"]
        length = record.z % 257 if record.z < 1 << 32 else 0
        offset = record.x % (memory.length - length + 1) if length <= memory.length else 0
        length = min(length, memory.length)
        context = f"receive{len(self.receives)}"
        self.receives.append(context)
        if self.judge.ending is None:
            self.judge.post(Receive(context, memory, offset, length))
        parts = [self.adapter.sge(name, offset, length)]
        if record.flag & 2 and length > 1:
            half = length // 2
            parts = [self.adapter.sge(name, offset, half), self.adapter.sge(name, offset + half, length - half)]
        self.end.post(ReceiveRequest(parts, context))
        self.pump()
        self.compare()

    def post(self, op: int, record: Record) -> None:
        if len(self.posted) > 40 or (op in (POST_READ, POST_ATOMIC) and not self.ord_limit):  # NdkRead refuses it then
            return
        if op in (POST_ATOMIC, POST_IMMEDIATE) and not self.judge.rfc7306:
            return
        kind = _KINDS[op]
        context = f"{kind}{len(self.posted)}"
        length = 8 if op in (POST_ATOMIC, POST_IMMEDIATE) else record.z % 257
        name = "fast" if record.flag & 1 else "sink"
        memory = self.adapter.memories[f"{name}, local"]
        offset = record.x % (memory.length - length + 1) if length <= memory.length else 0
        length = min(length, memory.length)
        sge = [self.adapter.sge(name, offset, length)]
        self.posted.append((context, kind))
        if kind == "read":
            self.end.pair.post_initiator(ReadWork(0, context, sge, record.y, 0x7700), deferred=False)
            if self.judge.ending is None:
                self.new_reads.append(Read(context, memory, offset, length))
        elif kind == "atomic":
            which = OperationType.COMPARE_SWAP if record.flag & 2 else OperationType.FETCH_ADD
            work = AtomicWork(which, 0, context, sge, record.y & ~7, 0x7700, data=record.z, mask=record.z >> 7)
            self.end.pair.post_initiator(work, deferred=False)
            if self.judge.ending is None:
                self.new_atomics.append(Atomic(context, memory, offset))
        elif kind == "immediate":
            self.end.pair.post_initiator(ImmediateWork(0, context, record.z.to_bytes(8, "big")), deferred=False)
        elif kind == "send":
            self.end.pair.post_initiator(SendWork(0, context, sge, None), deferred=False)
        else:
            self.end.pair.post_initiator(WriteWork(0, context, sge, None, record.y, 0x7700), deferred=False)
        if length and kind != "immediate":
            self.used.add(name)
        if self.judge.ending is None:
            self.requests.append((context, kind, length))
        if not record.flag & 0x80:
            self.pump()
        self.compare()

    def pass_time(self, seconds: float) -> None:
        self.end.now += seconds
        self.judge.tell_time(self.end.now)
        if self.end.core.is_over and self.terminate is None:
            self.unread = True
        if (self.disconnecting and seconds > 10) or (self.late and not self.judge.has_begun):
            self.loose = True
        self.end.core.handle_timeout(self.end.now)
        self.end.collect()
        self.pump()
        self.compare()

    def disconnect(self) -> None:
        if self.end.core.state not in (State.RTS, State.PEER_CLOSED):
            return
        self.disconnecting = True
        self.end.core.disconnect(self.end.now)
        self.pump()
        self.loose = True
        self.compare()

    def close(self, record: Record) -> None:
        """The program closes the connector, or something on its side ends the connection."""
        if self.end.core.is_over:
            return
        self.loose = True
        if record.flag & 1:
            self.end.core.abort("the program's fault", self.end.now)
        else:
            self.end.core.close(self.end.now)
        self.pump()
        self.compare()

    # ---- what must be so

    def compare(self) -> None:
        core, judge = self.end.core, self.judge
        self.end.collect()
        self.take_results()
        judge.refuse_reads = core.finish() is Finish.SHUTDOWN and not core.is_over
        assert self.adapter.arena == judge.arena, _difference(self.adapter.arena, judge.arena)
        assert self.seen_receives == judge.taken, f"receives: {self.seen_receives}, due: {judge.taken}"
        self.compare_fetches()
        assert core.traffic[2] == self.delivered, f"{core.traffic[2]} octets received, {self.delivered} were sent"
        if self.loose and core.is_over and judge.ending is None:
            judge.ending = Ending(LEFT_OPEN)
        what = "nothing" if judge.ending is None else judge.ending.what
        assert core.is_over == (judge.ending is not None), f"state {core.state} after {what}"
        if judge.ending is None:
            assert core.traffic[0] == judge.frames, f"{core.traffic[0]} FPDUs taken in, {judge.frames} were sent"
            assert core.holding_back == (judge.waiting is not None), "a message waits, or not"
            assert not self.failed, f"failed without a reason: {self.failed}"
        self.check_octets()

    def compare_fetches(self) -> None:
        """Reads and atomics complete in their turn, when all that was posted before them has been carried out; or at the
        end, with what they had come to (R-FLUSH-7).
        """
        due = []
        for context, _ in self.posted:
            if context not in self.judge.done and context not in self.whole and not self.end.core.is_over:
                break
            if context in self.judge.done:
                due.append(context)
        fetches = [context for context in self.finished if context.startswith(("read", "atomic"))]
        assert fetches == due, f"reads and atomics: {fetches}, due: {due}"

    def check_octets(self) -> None:
        """Octets in are octets accounted for, and what is held is bounded."""
        deframer = self.end.stream._deframer  # type: ignore[union-attr]
        assert deframer.buffered <= MAX_HELD + 65536, f"{deframer.buffered} octets are held"
        if self.judge.ending is None:
            held = len(self.judge.divider.held)
            assert deframer.buffered == held, f"{deframer.buffered} octets held, {held} are left over"
            assert deframer.offset == self.judge.divider.offset, "octets taken in"
            if self.judge.waiting is None:
                assert deframer.inside_fpdu == bool(held), "inside an FPDU"

    def take_results(self) -> None:
        failures = 0
        for result in self.adapter.receives_of("victim"):
            context = str(result.request_context)
            self.results[context] += 1
            if result.status is Status.SUCCESS:
                token = None if result.invalidated_token is None else int(result.invalidated_token)
                self.seen_receives.append((context, result.bytes_transferred, token, result.immediate_data))
            else:
                self.failed[context] = result.status.name
                failures += 1
        for result in self.adapter.requests_of("victim"):
            context = str(result.request_context)
            self.results[context] += 1
            if result.status is Status.SUCCESS:
                self.finished.append(context)
            else:
                self.failed[context] = result.status.name
        for context, count in self.results.items():
            assert count == 1, f"{context} has completed {count} times"
        # A CQ armed for solicited completions tells of these and of failures, and of nothing else (R-ARM-3).
        due = bool(self.judge.solicited > self.told_solicited or failures)
        assert self.adapter.told_solicited() == due, f"solicited: due {due}"
        self.told_solicited = self.judge.solicited

    # ---- the end

    def finish(self) -> None:
        """Deliver the rest, end the connection in one of several ways, and look at what is left."""
        self.deliver(self.ending >> 3, pump=True)
        way = self.ending % 4
        core = self.end.core
        if way == 1 and core.wants_read():
            goes_on = self.judge.end_of_stream()
            core.receive_eof(self.end.now)
            self.end.collect()
            self.peer_fin = True
            if self.late and not self.judge.has_begun:
                self.loose = True  # closed instead of saying that it is ready
            if goes_on and not self.loose and not core.is_over:
                assert core.state is State.PEER_CLOSED, f"state {core.state} behind a FIN between messages"
        elif way == 2:
            rest = bytearray(self.peer.take())
            self.judge.lose(rest)
            core.receive_rest(memoryview(rest), self.end.now)
            core.connection_lost(OSError(errno.ECONNRESET, "reset"), self.end.now)
            self.lost = True
        self.pump()
        self.neighbour.check(self.judge.arena)
        self.end.run_down(self.end_it)
        self.pump()
        self.take_results()
        self.final()
        self.neighbour.check(self.judge.arena)

    def end_it(self) -> None:
        """Nothing is due any more: the peer or the program ends it."""
        core = self.end.core
        if core.finish() is Finish.SHUTDOWN and not self.peer_fin:
            self.peer_fin = True
            core.receive_eof(self.end.now)
        elif core.state in (State.RTS, State.PEER_CLOSED) and self.ending & 4:
            core.disconnect(self.end.now)
        else:
            core.close(self.end.now)
        self.end.collect()

    def final(self) -> None:
        core, judge, ending = self.end.core, self.judge, self.judge.ending
        assert core.state in (State.CLOSED, State.ERROR, State.TERMINATE), f"state {core.state} at the end"
        assert not self.output.held, "the last frame is cut off"
        assert self.adapter.arena == judge.arena, _difference(self.adapter.arena, judge.arena)
        self.check_results()
        self.check_events()
        if self.terminate is not None:
            assert not self.lost or ending is not None, "a Terminate after a reset"
            self.check_terminate(self.terminate)
        elif ending is not None and ending.codes and not (self.lost or self.unread or self.loose):
            raise AssertionError(f"no Terminate after {ending.what}")

    def check_results(self) -> None:
        """Every request has completed once, in order, and those whose status is known have it."""
        judge, ending = self.judge, self.judge.ending
        if StartupFailed in map(type, self.end.events):
            return  # what was posted outlives a start-up that failed
        if self.end.shared is None:
            missing = [context for context in self.receives if not self.results[context]]
            assert not missing, f"receives that never completed: {missing}"
        missing = [context for context, _ in self.posted if not self.results[context]]
        assert not missing, f"requests that never completed: {missing}"
        done = [context for context, _ in self.posted if context in self.finished]
        assert self.finished == done, f"requests completed as {self.finished}"
        for context in self.finished:
            known = context in self.whole or context in judge.done
            assert known or self.loose, f"{context} succeeded, but it was not carried out"
        allowed = {"CANCELLED"}
        for context, status in self.failed.items():
            if ending is not None and context == ending.victim:
                assert status in ending.statuses, f"{context}: {status} after {ending.what}"
            elif ending is not None and ending.what == "the peer's Terminate":
                assert status in {"CANCELLED", "ACCESS_VIOLATION", "REMOTE_RESOURCES"}, f"{context}: {status}"
            else:
                assert status in allowed or self.loose, f"{context}: {status}"
        if ending is not None and ending.victim is not None and not self.loose:
            assert ending.victim in self.failed, f"{ending.victim} did not fail after {ending.what}"

    def check_events(self) -> None:
        kinds = [type(event) for event in self.end.events]
        assert kinds.count(PeerDisconnected) <= 1, f"events: {kinds}"
        if self.late:
            was_up = kinds[:1] == [Established]
            assert self.loose or was_up == self.judge.has_begun, f"events: {kinds}"
            kinds = kinds[was_up:]
        ends = [kind for kind in kinds if kind in (Aborted, Disconnected, StartupFailed)]
        assert len(ends) <= 1, f"events: {kinds}"
        assert len(ends) == len(kinds) - kinds.count(PeerDisconnected), f"events: {kinds}"
        assert StartupFailed not in kinds or (self.late and not was_up), f"events: {kinds}"
        if self.judge.ending is not None and not self.loose:
            due = Aborted if not self.late or was_up else StartupFailed
            assert ends == [due], f"events after {self.judge.ending.what}: {kinds}"

    def check_terminate(self, ulpdu: bytes) -> None:
        """Well-formed (RFC 5040 4.8), and what the judge expects."""
        ending = self.judge.ending
        assert ulpdu[0] == 0x41, "Terminate, DDP control"
        assert ulpdu[2:18] == bytes(4) + b"\0\0\0\2\0\0\0\1" + bytes(4), "Terminate, DDP header"
        body = ulpdu[18:]
        triple = (body[0] >> 4, body[0] & 15, body[1])
        if self.loose and (ending is None or ending.what == LEFT_OPEN or triple == (0, 0, 0)):
            assert triple in LOOSE_ENDS, f"Terminate {triple} without a reason"
            return
        assert ending is not None, f"Terminate {triple} without a reason"
        assert triple in ending.codes, f"Terminate {triple} after {ending.what}, due: {set(ending.codes)}"
        flags = 0
        rest = b""
        if ending.header:
            assert ending.segment is not None
            flags = 0xC0 | (0x20 if ending.read_header else 0)
            rest = ending.segment.to_bytes(2, "big") + ending.header + ending.read_header
        assert body[2:] == bytes([flags, 0]) + rest, f"Terminate after {ending.what}: {body.hex()}, due: {rest.hex()}"


def _difference(got: bytearray, due: bytearray) -> str:
    places = [at for at in range(len(got)) if got[at] != due[at]]
    return f"{len(places)} octets of memory differ, first at {places[0]}: {got[places[0]]:#x}, due {due[places[0]]:#x}"


def seeds() -> Sequence[bytes]:
    """A right conversation of each kind, and one of each wrong thing in each kind of message."""
    fourteen = 14 << 8
    readable, top, fast, window = 1, 4, 9, 11  # places among the adapter's named tokens
    messages = {
        "write": Record(peers.WRITE, 0, 8, 0, fourteen),
        "write through a window": Record(peers.WRITE, window, 8, 0, fourteen),
        "send": Record(peers.SEND, 0, 0, 0, fourteen),
        "long send": Record(peers.SEND, 0x40, 0, 0, 100 << 8),
        "send and invalidate": Record(peers.SEND, fast, 1, 0, fourteen),
        "read": Record(peers.READ, 0, 8, 0, fourteen),
        "response": Record(peers.RESPONSE, 1),
        "terminate": Record(peers.TERMINATE, 2),
        "immediate": Record(peers.IMMEDIATE, 0, 1, 0, 77),
        "fetch and add": Record(peers.ATOMIC, 0, 8, 0, 77),
        "compare and swap": Record(peers.ATOMIC, 0x40, 8, 2, 77),
        "atomic response": Record(peers.ATOMIC_RESPONSE, 0, 0, 0, 77),
    }
    found = []
    for message in messages.values():
        begin = [Record(POST_READ, 0, 0, 7, 40), Record(POST_ATOMIC, 0, 16, 8, 3), Record(DELIVER)]
        found.append(join([0, 0, 0, 0, 4], [*begin, message, Record(DELIVER, 0, 5), message]))
        found.append(join([2, 0, 0, 0, 4], [*begin, *[message] * 12]))
        for kind in range(SPOILS):
            found.append(join([2 * (kind == peers.MARKER), 0, 0, 0, 4], [*begin, Record(SPOIL, kind, 1), message]))
    for token in range(12):
        for edge in (0x8000, 0x8004, 0x4000, 0x4005):
            found.append(join([0], [Record(op, token, edge, 0, fourteen) for op in (peers.WRITE, peers.READ)]))
            found.append(join([0], [Record(peers.READ, token, edge, 0, fourteen)]))
            found.append(join([0], [Record(peers.ATOMIC, token, edge, 0, 5)]))
    for octets in (63, 64, 65):  # a receive of 64 octets: just short of it, full, too long; at once and in halves
        whole = Record(peers.SEND, 0x40, 0, 0, octets << 8)
        rest = Record(peers.SEND, 0x40, 0, 0, octets - 14 << 8)
        found.append(join([0, 0, 0, 0, 3], [whole, whole]))
        found.append(join([0, 0, 0, 0, 3], [Record(peers.SEND, 0x80, 0, 0, fourteen), rest, whole]))
    halves = [Record(peers.SEND, 0x80, 0, 0, fourteen), Record(peers.SEND, 0, 0, 0, fourteen)]
    for modes in (8, 16):  # a Terminate that lies behind a message which waits, when TCP is lost
        for kind in (peers.PAD, peers.CRC, peers.CUT, peers.QUEUE, peers.DDP_VERSION):
            behind = [messages["send"], messages["write"], Record(SPOIL, kind, 19), messages["terminate"]]
            found.append(join([modes, 0, 0, 0, 0, 2], [messages["send"], Record(DELIVER), *behind]))
    for modes in (0, 8, 16, 24, 32, 4):
        late = Record(POST_RECEIVE, 0, 0, 0, 64)
        found.append(join([modes], [*halves, Record(DELIVER, 0, 7), late, Record(NEIGHBOUR)]))
        found.append(join([modes, 0, 0, 0, 2, 5], [*halves, Record(DELIVER), Record(DISCONNECT)]))
        found.append(join([modes, 0, 0, 0, 2, 1], [*halves[:1], Record(POST_SEND, 0, 0, 0, 30)]))
    for way in range(256, 512, 32):
        found.append(join([way & 0xFF], [messages["read"], Record(DELIVER), Record(CLOSE, way >> 5 & 1)]))
    unread = Record(DELIVER, 1)
    posts = [Record(POST_SEND, 0, 0, 0, 30), Record(POST_READ, 0, 0, 7, 40)]
    for first in (
        [],
        [Record(TIME, 1)],
        [Record(peers.TERMINATE, 2)],
        [Record(SPOIL, peers.CRC, 1)],
        [Record(TIME, 2)],
    ):
        found.append(join([0, 0, 0, 0, 2, 0, 2], [*posts, *first, messages["send"], Record(DELIVER, 0, 9), *posts]))
    for gone, message in ((0, Record(peers.READ, readable, 0, 0, fourteen)), (4, Record(peers.ATOMIC, top, 0, 0, 5))):
        found.append(join([0], [message, unread, Record(DEREGISTER, gone), Record(DELIVER)]))
    for post in (POST_READ, POST_ATOMIC, POST_SEND):
        found.append(join([0], [Record(post, 0, 0, 8, 40), Record(DEREGISTER, 2), Record(peers.RESPONSE, 1)]))
    found.append(join([0, 0, 0, 0, 2], [Record(DEREGISTER, 3), messages["send"]]))
    found.append(join([0, 2], [messages["read"]] * 3))
    for token in (fast, window):  # taken away: before a read of it is answered, and for whoever uses it later
        take = Record(peers.SEND, token, 1, 0, fourteen)
        for use in (peers.WRITE, peers.READ, peers.ATOMIC, peers.SEND):
            found.append(join([0, 0, 0, 0, 4], [take, Record(use, token, 1, 0, fourteen)]))
        found.append(join([0, 0, 0, 0, 4], [Record(peers.READ, token, 0, 0, fourteen), unread, take]))
    found.append(join([0], [Record(peers.OCTETS, 7, 0, 0x00FF4143), Record(DELIVER), Record(TIME, 2)]))
    return found
