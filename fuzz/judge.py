"""What a receiver owes to a stream of octets: the rules of RFC 5044, 5041, 5040 and 7306 as a second, slow receiver.

It is told what the program does (posts, pauses, time) and given the same chunks as the core, and says what must then be
in memory, which receives and reads are complete, and with which Terminate the stream ends, octet for octet. It shares no
line with `softndk`: a disagreement is a defect of one of the two.
"""

import contextlib
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from fuzz.octets import Damage, Divider

__all__ = ["Atomic", "Ending", "Judge", "Memory", "Read", "Receive", "Taken"]

TOP: Final = 1 << 64
ONES: Final = TOP - 1
_QUEUE: Final = {1: 1, 3: 0, 4: 0, 5: 0, 6: 0, 7: 2, 8: 0, 9: 0, 10: 1, 11: 3}

Taken = tuple[str, int, int | None, bytes | None]
"""A receive that is complete: context, octets in its memory, token taken away, Immediate Data."""
STALL_S: Final = 30.0
HOLD_S: Final = 5.0


@dataclass(slots=True, eq=False)
class Memory:
    """A token: what it names, and who may do what with it. `place`: where its octets lie in the arena."""

    name: str
    stag: int
    base: int = 0
    place: int = 0
    length: int = 0
    remote_read: bool = False
    remote_write: bool = False
    remote_atomic: bool = False
    remote: bool = True
    associated: bool = True
    valid: bool = True
    takeable: bool = False
    over: "Memory | None" = None
    twin: "Memory | None" = None


@dataclass(slots=True)
class Receive:
    """A posted receive: `length` octets of `memory` from `at`."""

    context: str
    memory: Memory
    at: int
    length: int


@dataclass(slots=True)
class Read:
    """A read of ours. `sink_stag` is known once its request has been seen on the wire; `memory` None: no request."""

    context: str | None
    memory: Memory | None
    at: int
    length: int
    sink_stag: int = 0
    received: int = 0


@dataclass(slots=True)
class Atomic:
    """An atomic of ours; `identifier`: what its request had."""

    context: str
    memory: Memory
    at: int
    identifier: int = 0


@dataclass(slots=True)
class Response:
    """A read of the peer that waits for its answer."""

    sink_stag: int
    sink_to: int
    size: int
    memory: Memory | None
    to: int
    ulpdu: bytes
    sent: int = 0


@dataclass(slots=True)
class AtomicResponse:
    """An atomic of the peer that waits for its turn."""

    operation: int
    identifier: int
    memory: Memory
    to: int
    operands: tuple[int, int, int, int]
    ulpdu: bytes

    def outcome(self, old: int) -> int:
        """What is in memory behind it (RFC 7306 5.1)."""
        data, mask, compare, compare_mask = self.operands
        if self.operation == 2:
            if (old ^ compare) & compare_mask:
                return old
            return (old & ~mask & ONES) | (data & mask)
        total = 0
        carry = 0
        for bit in range(64):  # a full adder; a bit of the mask lets no carry out
            sum_of_bits = (old >> bit & 1) + (data >> bit & 1) + carry
            total |= (sum_of_bits & 1) << bit
            carry = 0 if mask >> bit & 1 else sum_of_bits >> 1
        return total


@dataclass(frozen=True, slots=True)
class Ending:
    """How the stream ends. `codes`: the triples that may be sent (several where the standard leaves it open); empty:
    no Terminate. `header`: what it must give back. `victim`: the request that must fail with `statuses`.
    """

    what: str
    codes: frozenset[tuple[int, int, int]] = frozenset()
    header: bytes = b""
    read_header: bytes = b""
    segment: int | None = None
    victim: str | None = None
    statuses: frozenset[str] = frozenset()


@dataclass(slots=True)
class Judge:
    """The receiver. `arena` is its own copy of the memory under test."""

    arena: bytearray
    tokens: dict[int, Memory]
    divider: Divider
    read_limit: int
    hold: bool
    shared: bool
    rfc7306: bool
    send_indication: bool
    """An empty Send that comes first says that the peer is ready; it is no message."""
    now: float
    ending: Ending | None = None
    receives: deque[Receive] = field(default_factory=deque)
    reads: deque[Read] = field(default_factory=deque)
    atomics: deque[Atomic] = field(default_factory=deque)
    responses: deque[Response | AtomicResponse] = field(default_factory=deque)
    taken: list[Taken] = field(default_factory=list)
    solicited: int = 0
    """How many of these asked for an event."""
    done: set[str] = field(default_factory=set)
    """Reads and atomics that are answered in full."""
    frames: int = 0
    waiting: bytes | None = None
    """A message that has found no receive."""
    held_since: float | None = None
    stalled_since: float | None = None
    refuse_reads: bool = False
    _send_msn: int = 1
    _read_msn: int = 1
    _atomic_msn: int = 1
    _terminates: int = 0
    _message: Receive | None = None
    _opcode: int = 3
    _offset: int = 0

    # ---- what happens to it

    def feed(self, octets: bytes) -> None:
        """The peer's next octets."""
        if self.ending is not None:
            return
        self.divider.feed(octets)
        before = self.frames
        self._run()
        self._clock(before)

    def post(self, receive: Receive) -> None:
        """The program posts a receive."""
        self.receives.append(receive)
        if self.waiting is not None and self.ending is None:
            before = self.frames
            waiting, self.waiting, self.held_since = self.waiting, None, None
            self._segment(waiting)
            self._run()
            self._clock(before)

    def tell_time(self, now: float) -> None:
        """Time passes up to `now`, without octets."""
        if self.ending is None:
            hold, stall = self.held_since, self.stalled_since
            if hold is not None and now >= hold + HOLD_S and not self.shared:
                assert self.waiting is not None
                self.hold = False
                self._segment(self.waiting)
                self.hold = True
            elif stall is not None and now >= stall + STALL_S:
                self.ending = Ending("an unfinished FPDU for too long")
        self.now = now

    def end_of_stream(self) -> bool:
        """The peer's FIN. True: it stands between two messages, the stream goes on in the other direction."""
        if self.ending is None and (self.divider.held or self.inside_message):
            self.ending = Ending("FIN inside a message")
        return self.ending is None

    def lose(self, octets: bytes | bytearray) -> None:
        """TCP is lost. Of what has come behind a message that waits, a Terminate still counts, and nothing else."""
        if self.waiting is None or self.ending is not None:
            return
        self.divider.feed(octets)
        with contextlib.suppress(Damage):
            for ulpdu in self.divider:
                if len(ulpdu) >= 18 and not ulpdu[0] & 0x80 and ulpdu[1] & 15 == 7 and ulpdu[6:10] == b"\0\0\0\2":
                    self.ending = Ending("the peer's Terminate")
                    return

    @property
    def has_begun(self) -> bool:
        """The peer has sent an FPDU that shows that it is ready: any that can be read but a Terminate (RFC 6581 5)."""
        return self.waiting is not None or self.frames > self._terminates

    @property
    def inside_message(self) -> bool:
        return self._message is not None or bool(self.reads and self.reads[0].received)

    def _clock(self, before: int) -> None:
        if self.ending is not None:
            return
        if self.waiting is not None:
            self.stalled_since = None
            if self.held_since is None:
                self.held_since = self.now
            return
        if self.frames != before or not self.divider.held:
            self.stalled_since = None
        if self.divider.held and self.stalled_since is None:
            self.stalled_since = self.now

    def _run(self) -> None:
        try:
            while self.ending is None and self.waiting is None:
                ulpdu = self.divider.next()
                if ulpdu is None:
                    return
                self._segment(ulpdu)
        except Damage as damage:
            self.ending = Ending(f"bad {damage.kind}", frozenset({(2, 0, 2 if damage.kind == "crc" else 3)}))

    # ---- endings

    def _end(
        self,
        what: str,
        ulpdu: bytes,
        *codes: tuple[int, int, int],
        read: bytes = b"",
        victim: str | None = None,
        statuses: frozenset[str] = frozenset(),
    ) -> None:
        size = 14 if ulpdu[0] & 0x80 else 18
        self.ending = Ending(what, frozenset(codes), ulpdu[:size], read, len(ulpdu), victim, statuses)

    def _end_bare(self, what: str, code: tuple[int, int, int], victim: str | None = None, *statuses: str) -> None:
        self.ending = Ending(what, frozenset({code}), victim=victim, statuses=frozenset(statuses))

    # ---- segments, in the order of checks of the sheet

    def _segment(self, ulpdu: bytes) -> None:
        if len(ulpdu) < 2 or len(ulpdu) < (14 if ulpdu[0] & 0x80 else 18):
            self._end_bare("shorter than its header", (1, 0, 0))
            return
        self.frames += 1
        is_tagged = bool(ulpdu[0] & 0x80)
        opcode = ulpdu[1] & 15
        if ulpdu[0] & 3 != 1:
            self._end("DDP version", ulpdu, (1, 1, 4) if is_tagged else (1, 2, 6))
        elif ulpdu[1] >> 6 != 1:
            self._end("RDMAP version", ulpdu, (0, 2, 5))
        elif opcode > (11 if self.rfc7306 else 7):
            self._end("unknown opcode", ulpdu, (0, 2, 6))
        elif is_tagged != (opcode in (0, 2)):
            self._end("T bit of another model", ulpdu, (0, 2, 6))
        elif opcode == 0:
            self._write(ulpdu)
        elif opcode == 2:
            self._response(ulpdu)
        else:
            self._untagged(opcode, ulpdu)

    def _untagged(self, opcode: int, ulpdu: bytes) -> None:
        queue = int.from_bytes(ulpdu[6:10], "big")
        if queue > (3 if self.rfc7306 else 2):
            self._end("queue that does not exist", ulpdu, (1, 2, 1))
        elif queue != _QUEUE[opcode]:
            self._end("queue of another opcode", ulpdu, (0, 2, 6))
        elif opcode == 7:
            self._terminates = 1
            self.ending = Ending("the peer's Terminate")
        elif opcode in (1, 10):
            self._request(opcode, ulpdu)
        elif opcode == 11:
            self._atomic_response(ulpdu)
        else:
            self._send(opcode, ulpdu)

    def _write(self, ulpdu: bytes) -> None:
        payload = ulpdu[14:]
        if not payload:
            return
        stag, to = int.from_bytes(ulpdu[2:6], "big"), int.from_bytes(ulpdu[6:14], "big")
        memory = self.tokens.get(stag)
        if memory is None or not memory.remote or not memory.valid:
            self._end("Write, STag", ulpdu, (1, 1, 0))
        elif not memory.associated:
            self._end("Write, association", ulpdu, (1, 1, 2))
        elif not memory.remote_write:
            self._end("Write, right", ulpdu, (0, 1, 2))
        elif to + len(payload) > TOP:
            self._end("Write, wrap", ulpdu, (1, 1, 3))
        elif to < memory.base or to + len(payload) > memory.base + memory.length:
            self._end("Write, bounds", ulpdu, (1, 1, 1))
        else:
            at = memory.place + to - memory.base
            self.arena[at : at + len(payload)] = payload

    def _send(self, opcode: int, ulpdu: bytes) -> None:
        msn, offset = int.from_bytes(ulpdu[10:14], "big"), int.from_bytes(ulpdu[14:18], "big")
        payload = ulpdu[18:]
        if msn != self._send_msn:
            self._end("Send, MSN", ulpdu, (1, 2, 3))
            return
        if (
            self.send_indication
            and self.frames == 1
            and opcode == 3
            and len(ulpdu) == 18
            and ulpdu[0] & 0x40
            and not offset
        ):
            self._send_msn += 1
            return
        receive = self._message
        if receive is None:
            if not self.receives:
                if self.hold or self.shared:
                    self.frames -= 1
                    self.waiting = ulpdu
                else:
                    self._end("Send, no receive", ulpdu, (1, 2, 2))
                return
            receive = self.receives[0]
            self._offset = 0
        elif opcode != self._opcode:
            self._end("Send, opcode changes", ulpdu, (0, 2, 6))
            return
        if offset != self._offset:
            self._end("Send, MO", ulpdu, (1, 2, 4))
            return
        if opcode in (8, 9):
            self._immediate(receive, opcode, ulpdu)
            return
        end = offset + len(payload)
        if end > receive.length:
            overflow = frozenset({"BUFFER_OVERFLOW"})
            self._end("Send, too long", ulpdu, (1, 2, 5), victim=receive.context, statuses=overflow)
            return
        if payload and not receive.memory.valid:
            self._end_bare("Send, receive without memory", (0, 0, 0), receive.context, "ACCESS_VIOLATION")
            return
        at = receive.memory.place + receive.at + offset
        self.arena[at : at + len(payload)] = payload
        if not ulpdu[0] & 0x40:
            self._message, self._opcode, self._offset = receive, opcode, end
            return
        token: int | None = None
        if opcode in (4, 6):
            token = int.from_bytes(ulpdu[2:6], "big")
            if not self._take_away(token, receive, ulpdu):
                return
        self._message = None
        self._send_msn = (self._send_msn + 1) % (1 << 32)
        self.receives.popleft()
        self.taken.append((receive.context, end, token, None))
        self.solicited += opcode in (5, 6)

    def _take_away(self, stag: int, receive: Receive, ulpdu: bytes) -> bool:
        memory = self.tokens.get(stag)
        refused = frozenset({"INVALID_DEVICE_REQUEST"})
        if memory is None or not memory.remote or not memory.valid:
            self._end("invalidate, STag", ulpdu, (0, 2, 9), victim=receive.context, statuses=refused)
        elif not memory.associated:
            self._end("invalidate, association", ulpdu, (0, 1, 9), victim=receive.context, statuses=refused)
        elif not memory.takeable or any(
            other.valid and other.over is not None and memory in (other.over, other.over.twin)
            for other in self.tokens.values()
        ):
            self._end("invalidate, kind", ulpdu, (0, 2, 9), victim=receive.context, statuses=refused)
        else:
            memory.valid = False
            if memory.twin is not None:
                memory.twin.valid = False
            return True
        return False

    def _immediate(self, receive: Receive, opcode: int, ulpdu: bytes) -> None:
        if len(ulpdu) != 26 or not ulpdu[0] & 0x40:
            self._end("Immediate Data, length", ulpdu, (0, 2, 7))
            return
        self._send_msn = (self._send_msn + 1) % (1 << 32)
        self.receives.popleft()
        self.taken.append((receive.context, 0, None, ulpdu[18:]))
        self.solicited += opcode == 9

    def _request(self, opcode: int, ulpdu: bytes) -> None:
        msn, offset = int.from_bytes(ulpdu[10:14], "big"), int.from_bytes(ulpdu[14:18], "big")
        body = ulpdu[18:]
        last = bool(ulpdu[0] & 0x40)
        wanted = 28 if opcode == 1 else 52
        if msn != self._read_msn:
            self._end("request, MSN", ulpdu, (1, 2, 3))
        elif len(self.responses) >= self.read_limit:
            self._end("request, too many", ulpdu, (1, 2, 2))
        elif offset:
            self._end("request, MO", ulpdu, (1, 2, 4))
        elif len(body) > wanted or (len(body) == wanted and not last):
            self._end("request, long", ulpdu, (1, 2, 5))
        elif len(body) < wanted:
            self._end("request, short", ulpdu, (0, 2, 7))
        elif opcode == 10:
            self._atomic_request(body, ulpdu)
        else:
            size, to = int.from_bytes(body[12:16], "big"), int.from_bytes(body[20:28], "big")
            memory = self.tokens.get(int.from_bytes(body[16:20], "big"))
            code = self._source_problem(memory, to, size)
            if code is not None:
                self._end("Read Request, source", ulpdu, (0, 1, code), read=body)
            elif self.refuse_reads:
                self._end_bare("Read Request that can't be answered", (0, 0, 0))
            else:
                self._read_msn = (self._read_msn + 1) % (1 << 32)
                sink = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:12], "big")
                self.responses.append(Response(*sink, size, memory, to, ulpdu))

    def _atomic_request(self, body: bytes, ulpdu: bytes) -> None:
        operation, to = body[3] & 15, int.from_bytes(body[12:20], "big")
        memory = self.tokens.get(int.from_bytes(body[8:12], "big"))
        if operation not in (0, 2):
            self._end("atomic that does not exist", ulpdu, (0, 2, 6))
        elif memory is None or not memory.remote or not memory.valid:
            self._end("atomic, STag", ulpdu, (0, 1, 0))
        elif not memory.associated:
            self._end("atomic, association", ulpdu, (0, 1, 3))
        elif not memory.remote_atomic:
            self._end("atomic, right", ulpdu, (0, 1, 2))
        elif to + 8 > TOP:
            self._end("atomic, wrap", ulpdu, (0, 1, 4))
        elif to < memory.base or to + 8 > memory.base + memory.length:
            self._end("atomic, bounds", ulpdu, (0, 1, 1))
        elif to % 8:
            self._end("atomic, alignment", ulpdu, (0, 2, 7))
        elif self.refuse_reads:
            self._end_bare("atomic that can't be answered", (0, 0, 0))
        else:
            self._read_msn = (self._read_msn + 1) % (1 << 32)
            words = [int.from_bytes(body[at : at + 8], "big") for at in range(20, 52, 8)]
            operands = words[0], words[1], words[2], words[3]
            identifier = int.from_bytes(body[4:8], "big")
            self.responses.append(AtomicResponse(operation, identifier, memory, to, operands, ulpdu))

    def _atomic_response(self, ulpdu: bytes) -> None:
        msn, offset = int.from_bytes(ulpdu[10:14], "big"), int.from_bytes(ulpdu[14:18], "big")
        body = ulpdu[18:]
        if msn != self._atomic_msn:
            self._end("Atomic Response, MSN", ulpdu, (1, 2, 3))
        elif not self.atomics:
            self._end("Atomic Response, none expected", ulpdu, (0, 2, 6))
        elif offset:
            self._end("Atomic Response, MO", ulpdu, (1, 2, 4))
        elif len(body) > 12 or (len(body) == 12 and not ulpdu[0] & 0x40):
            self._end("Atomic Response, long", ulpdu, (1, 2, 5))
        elif len(body) < 12:
            self._end("Atomic Response, short", ulpdu, (0, 2, 7))
        elif int.from_bytes(body[:4], "big") != self.atomics[0].identifier:
            self._end("Atomic Response to another", ulpdu, (0, 2, 6))
        else:
            atomic = self.atomics[0]
            if not atomic.memory.valid:
                self._end_bare("atomic without memory", (0, 0, 0), atomic.context, "ACCESS_VIOLATION")
                return
            self._atomic_msn = (self._atomic_msn + 1) % (1 << 32)
            self.atomics.popleft()
            at = atomic.memory.place + atomic.at
            self.arena[at : at + 8] = _in_memory(int.from_bytes(body[4:], "big"))
            self.done.add(atomic.context)

    @staticmethod
    def _source_problem(memory: Memory | None, to: int, size: int) -> int | None:
        if not size:
            return None
        if memory is None or not memory.remote or not memory.valid:
            return 0
        if not memory.associated:
            return 3
        if not memory.remote_read:
            return 2
        if to + size > TOP:
            return 4
        if to < memory.base or to + size > memory.base + memory.length:
            return 1
        return None

    def _response(self, ulpdu: bytes) -> None:
        stag, to = int.from_bytes(ulpdu[2:6], "big"), int.from_bytes(ulpdu[6:14], "big")
        payload = ulpdu[14:]
        last = bool(ulpdu[0] & 0x40)
        if not self.reads:
            self._end("Read Response, none expected", ulpdu, (0, 2, 6))
            return
        read = self.reads[0]
        broken = frozenset({"INTERNAL_ERROR"})
        if payload and stag != read.sink_stag:
            self._end("Read Response, STag", ulpdu, (1, 1, 0), victim=read.context, statuses=broken)
            return
        wrong_place = payload and to != read.received
        end = read.received + len(payload)
        if wrong_place or end > read.length or (last and end != read.length):
            self._end("Read Response, bounds", ulpdu, (1, 1, 1), victim=read.context, statuses=broken)
            return
        if payload:
            assert read.memory is not None
            if not read.memory.valid:
                gone = frozenset({"ACCESS_VIOLATION"})
                self._end("Read Response, sink gone", ulpdu, (1, 1, 0), victim=read.context, statuses=gone)
                return
            at = read.memory.place + read.at + read.received
            self.arena[at : at + len(payload)] = payload
            read.received = end
        if last:
            self.reads.popleft()
            if read.context is not None:
                self.done.add(read.context)

    # ---- what leaves

    def answered(self, ulpdu: bytes) -> None:
        """The core has sent this Read Response segment: it must be the next octets of the oldest read, from memory.

        Raises AssertionError: it is not.
        """
        assert self.responses, "a Read Response that nobody asked for"
        response = self.responses[0]
        assert isinstance(response, Response), "a Read Response out of turn"
        to, payload = int.from_bytes(ulpdu[6:14], "big"), ulpdu[14:]
        assert int.from_bytes(ulpdu[2:6], "big") == response.sink_stag, "Read Response to another STag"
        assert to == (response.sink_to + response.sent) % TOP, "Read Response at another offset"
        if payload:
            memory = response.memory
            assert memory is not None, "octets from a source that does not exist"
            assert memory.valid, "octets from a source that was taken away"
            at = memory.place + response.to - memory.base + response.sent
            assert response.sent + len(payload) <= response.size, "more octets than were asked for"
            assert payload == self.arena[at : at + len(payload)], "other octets than are in memory"
            response.sent += len(payload)
        if ulpdu[0] & 0x40:
            assert response.sent == response.size, "a Read Response that ends too early"
            self.responses.popleft()

    def atomic_answered(self, ulpdu: bytes) -> None:
        """The core has carried out an atomic and sent this response. Raises AssertionError: not as it should."""
        assert self.responses, "an Atomic Response that nobody asked for"
        response = self.responses.popleft()
        assert isinstance(response, AtomicResponse), "an Atomic Response out of turn"
        assert response.memory.valid, "an atomic in memory that was taken away"
        at = response.memory.place + response.to - response.memory.base
        old = int.from_bytes(self.arena[at : at + 8], sys.byteorder)
        self.arena[at : at + 8] = _in_memory(response.outcome(old))
        body = response.identifier.to_bytes(4, "big") + old.to_bytes(8, "big")
        assert ulpdu[18:] == body, f"Atomic Response {ulpdu[18:].hex()}, due {body.hex()}"

    def source_gone(self) -> None:
        """What is due when the core is asked for octets: the source of a waiting read may have been taken away."""
        for response in self.responses:
            memory = response.memory
            if isinstance(response, AtomicResponse):
                if not response.memory.valid and self.ending is None:
                    self._end("atomic's memory taken away", response.ulpdu, (0, 1, 0))
            elif response.size and (memory is None or not memory.valid) and self.ending is None:
                left = bytearray(response.ulpdu[18:])
                left[4:12] = ((response.sink_to + response.sent) % TOP).to_bytes(8, "big")
                left[12:16] = (response.size - response.sent).to_bytes(4, "big")
                left[20:28] = (response.to + response.sent).to_bytes(8, "big")
                self._end("read source taken away", response.ulpdu, (0, 1, 0), read=bytes(left))


def _in_memory(value: int) -> bytes:
    """RFC 7306 5: a 64-bit value in the target's own order."""
    return value.to_bytes(8, sys.byteorder)
