"""A peer that sends almost-right messages: right by itself, wrong where a record asks for it.

It follows the protocol with its own numbers (MSN, MO, reads to answer), so that one wrong thing stands in an otherwise
right stream, and whatever comes behind it is what a peer would send that does not know of its mistake.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from fuzz.judge import Memory
from fuzz.octets import atomic_request_body, fpdu, read_request_body, tagged, untagged
from fuzz.records import Record

__all__ = ["MESSAGES", "SPOIL", "SPOILS", "Peer"]

# Values of `op` in a record.
WRITE: Final = 0
SEND: Final = 1
READ: Final = 2
RESPONSE: Final = 3
TERMINATE: Final = 4
ULPDU: Final = 5
OCTETS: Final = 6
AGAIN: Final = 7
SPOIL: Final = 8
IMMEDIATE: Final = 32
ATOMIC: Final = 33
ATOMIC_RESPONSE: Final = 34
RFC7306: Final = (IMMEDIATE, ATOMIC, ATOMIC, ATOMIC_RESPONSE)
MESSAGES: Final = (WRITE, WRITE, SEND, SEND, SEND, READ, READ, RESPONSE, TERMINATE, ULPDU, OCTETS, AGAIN, *RFC7306)

SPOILS: Final = 22
"""How many kinds of wrong there are: `flag` of a SPOIL record, modulo this."""
(
    FLIP_BIT,
    DDP_VERSION,
    RDMAP_VERSION,
    OPCODE,
    LAST,
    MODEL,
    MSN,
    OFFSET,
    QUEUE,
    STAG_BIT,
    STAG_OTHER,
    TO_STEP,
    TO_TOP,
    CUT,
    LONGER,
    LENGTH_FIELD,
    CRC,
    BEHIND_CRC,
    PAD,
    MARKER,
    DOUBLE,
    DROP,
) = range(SPOILS)

_TERMINATES: Final = (
    "11000000",
    "02060000",
    "1100c0000016c140deadbe010000000000001000",
    "0100e000002e4141000000000000000100000001000000000011220100000000000020000000100" + "0badbad020000000000000000",
    "02020000",
    "1103030000",
    "ffffffff",
    "00",
)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


@dataclass(slots=True)
class Peer:
    """`named`: tokens to pick from; `memories`: what is behind them; `sinks`: reads that it has been asked for, as
    [STag, octets, answered]; `atomics`: identifiers of atomics that it has been asked for. `out`: octets made and not
    delivered yet.
    """

    named: list[int]
    memories: dict[int, Memory]
    crc: bool
    markers: bool
    sinks: deque[list[int]] = field(default_factory=deque)
    atomics: deque[int] = field(default_factory=deque)
    out: bytearray = field(default_factory=bytearray)
    position: int = 0
    send_msn: int = 1
    send_offset: int = 0
    send_opcode: int = 3
    read_msn: int = 1
    atomic_msn: int = 1
    _spoils: list[Record] = field(default_factory=list)
    _previous: bytes = b""

    def take(self) -> bytes:
        """The octets to deliver."""
        octets = bytes(self.out)
        self.out.clear()
        return octets

    def do(self, record: Record) -> None:
        """Carry out a record whose `op` is one of MESSAGES, or SPOIL, which waits for the next of these."""
        op = record.op
        if op == SPOIL:
            if len(self._spoils) < 4:
                self._spoils.append(record)
        elif op == OCTETS:
            self._raw((record.y.to_bytes(4, "big") + record.z.to_bytes(8, "big"))[: 1 + record.flag % 12])
        elif op == AGAIN:
            self._raw(self._previous)
        else:
            makers = (self._write, self._send, self._read, self._response, self._terminate, self._ulpdu)
            extensions = (self._immediate, self._atomic, self._atomic_response)
            self._frame((extensions[op - IMMEDIATE] if op >= IMMEDIATE else makers[op])(record))

    def indication(self, kind: str) -> None:
        """The zero-length Write, Read or Send with which the initiator shows that it is ready."""
        if kind == "read":
            self._frame(untagged(1, 1, 1, 0, read_request_body(9, 0, 0, 1, 0)))
            self.read_msn += 1
        elif kind == "send":
            self._frame(untagged(3, 0, 1, 0))
            self.send_msn += 1
        else:
            self._frame(tagged(0, 1, 0))

    # ---- messages

    def _token(self, record: Record) -> int:
        which = record.flag & 0x3F
        if which < len(self.named):
            return self.named[which]
        return record.y if which & 1 else self.named[0] ^ 1 << which % 32

    def _place(self, stag: int, length: int, where: int) -> int:
        memory = self.memories.get(stag)
        if memory is None or not memory.length:
            return where
        if where & 0xC000:  # at the end, or at the beginning; exactly, or a little beside it
            edge = memory.base + (memory.length - length if where & 0x8000 else 0)
            return edge + (0, 0, 0, 0, 1, -1, 2, -2)[where & 7]
        return memory.base + where % max(1, memory.length - length + 1)

    def _payload(self, record: Record) -> bytes:
        size = record.z >> 8 & 0xFFFF
        size = size % 6000 if record.flag & 0x40 else size % 65
        first = record.z & 0xFF
        return (bytes((first + index) % 256 for index in range(min(size, 256))) * (size // 256 + 1))[:size]

    def _write(self, record: Record) -> bytearray:
        payload = self._payload(record)
        stag = self._token(record)
        return tagged(0, stag, self._place(stag, len(payload), record.x), payload, last=not record.flag & 0x80)

    def _send(self, record: Record) -> bytearray:
        payload = self._payload(record)
        last = not record.flag & 0x80
        if not self.send_offset:
            self.send_opcode = 3 + record.x % 4
        word = self._token(record) if self.send_opcode in (4, 6) else 0
        ulpdu = untagged(self.send_opcode, 0, self.send_msn, self.send_offset, payload, last=last, word=word)
        self.send_offset += len(payload)
        if last:
            self.send_msn = (self.send_msn + 1) % (1 << 32)
            self.send_offset = 0
        return ulpdu

    def _read(self, record: Record) -> bytearray:
        stag = self._token(record)
        size = record.z >> 8 & 0xFFFF
        size = record.y if record.flag & 0x80 else size % 1025 if record.flag & 0x40 else size % 65
        body = read_request_body(0x5500 | record.z & 0xFF, record.z, size, stag, self._place(stag, size, record.x))
        ulpdu = untagged(1, 1, self.read_msn, 0, body)
        self.read_msn = (self.read_msn + 1) % (1 << 32)
        return ulpdu

    def _response(self, record: Record) -> bytearray:
        if not self.sinks:
            return tagged(2, record.y, record.z, b"r" * (record.x % 5))
        stag, length, answered = sink = self.sinks[0]
        left = length - answered
        size = left if record.flag & 3 else min(left, record.x % 65)
        payload = bytes((answered + index * 3) % 256 for index in range(size))
        last = size == left
        sink[2] += size
        if last:
            self.sinks.popleft()
        return tagged(2, stag, answered, payload, last=last)

    def _immediate(self, record: Record) -> bytearray:
        ulpdu = untagged(8 + record.x % 2, 0, self.send_msn, self.send_offset, record.z.to_bytes(8, "big"))
        self.send_msn = (self.send_msn + 1) % (1 << 32)
        self.send_offset = 0
        return ulpdu

    def _atomic(self, record: Record) -> bytearray:
        stag = self._token(record)
        to = self._place(stag, 8, record.x & ~7 if record.x < 0x4000 else record.x)
        operands = (record.z, record.z >> record.y % 64, record.z ^ record.y, 0 if record.flag & 0x40 else record.y)
        body = atomic_request_body(
            record.y & 0xF if record.flag & 0x80 else record.y & 2, record.y, stag, to, *operands
        )
        ulpdu = untagged(10, 1, self.read_msn, 0, body)
        self.read_msn = (self.read_msn + 1) % (1 << 32)
        return ulpdu

    def _atomic_response(self, record: Record) -> bytearray:
        identifier = self.atomics.popleft() if self.atomics else record.y
        body = identifier.to_bytes(4, "big") + record.z.to_bytes(8, "big")
        ulpdu = untagged(11, 3, self.atomic_msn, 0, body)
        self.atomic_msn = (self.atomic_msn + 1) % (1 << 32)
        return ulpdu

    def _terminate(self, record: Record) -> bytearray:
        if record.flag & 0x80:
            body = record.z.to_bytes(8, "big")[: record.x % 9]
        else:
            body = bytes.fromhex(_TERMINATES[record.flag % len(_TERMINATES)])
        if self.sinks and len(body) == 52:
            body = body[:24] + self.sinks[record.x % len(self.sinks)][0].to_bytes(4, "big") + body[28:]
        return untagged(7, 2, 1, 0, body)

    @staticmethod
    def _ulpdu(record: Record) -> bytearray:
        octets = record.x.to_bytes(2, "big") + record.y.to_bytes(4, "big") + record.z.to_bytes(8, "big")
        return bytearray((octets * 5)[: record.flag % 71])

    # ---- wrong things

    def _frame(self, ulpdu: bytearray) -> None:
        spoils, self._spoils = self._spoils, []
        errors = {"length_error": 0, "crc_error": 0, "pad_octet": 0, "pointer_error": 0}
        for spoil in spoils:
            self._spoil(spoil, ulpdu, errors)
        kinds = {spoil.flag % SPOILS for spoil in spoils}
        for _ in range(2 if DOUBLE in kinds else 0 if DROP in kinds else 1):
            octets = fpdu(ulpdu, position=self.position, crc=self.crc, markers=self.markers, **errors)
            for spoil in spoils:
                if spoil.flag % SPOILS == BEHIND_CRC:
                    octets[spoil.x // 8 % len(octets)] ^= 1 << spoil.x % 8
            self._raw(bytes(octets))
            self._previous = bytes(octets)

    def _spoil(self, spoil: Record, ulpdu: bytearray, errors: dict[str, int]) -> None:
        kind, x = spoil.flag % SPOILS, spoil.x
        is_tagged = bool(ulpdu) and bool(ulpdu[0] & 0x80)
        step = _signed(x, 16) or _signed(spoil.y, 32)
        if kind == CUT:
            del ulpdu[x % (len(ulpdu) + 1) :]
        elif kind == LONGER:
            ulpdu += bytes([x & 0xFF]) * (x % 61)
        elif kind == LENGTH_FIELD:
            errors["length_error"] = step
        elif kind == CRC:
            errors["crc_error"] = 1 << x % 32
        elif kind == PAD:
            errors["pad_octet"] = x & 0xFF
        elif kind == MARKER:
            errors["pointer_error"] = x
        elif len(ulpdu) < (14 if is_tagged else 18):
            return
        elif kind == FLIP_BIT:
            ulpdu[x // 8 % len(ulpdu)] ^= 1 << x % 8
        elif kind == DDP_VERSION:
            ulpdu[0] = ulpdu[0] & 0xFC | x & 3
        elif kind == RDMAP_VERSION:
            ulpdu[1] = ulpdu[1] & 0x3F | (x & 3) << 6
        elif kind == OPCODE:
            ulpdu[1] = ulpdu[1] & 0xF0 | x & 15
        elif kind == LAST:
            ulpdu[0] ^= 0x40
        elif kind == MODEL:
            ulpdu[0] ^= 0x80
        elif kind == STAG_BIT:
            _add(ulpdu, 2, 4, exclusive=1 << x % 32)
        elif kind == STAG_OTHER:
            _put(ulpdu, 2, 4, self.named[x % len(self.named)])
        elif is_tagged and kind == TO_STEP:
            _add(ulpdu, 6, 8, step)
        elif is_tagged and kind == TO_TOP:
            _put(ulpdu, 6, 8, -1 - x)
        elif not is_tagged:
            self._spoil_untagged(kind, spoil, step, ulpdu)

    def _spoil_untagged(self, kind: int, spoil: Record, step: int, ulpdu: bytearray) -> None:
        if kind == MSN:
            _add(ulpdu, 10, 4, step)
        elif kind == OFFSET:
            _add(ulpdu, 14, 4, step)
        elif kind == QUEUE:
            _put(ulpdu, 6, 4, spoil.x % 6 if spoil.x < 4096 else spoil.y)
        elif kind in (TO_STEP, TO_TOP) and len(ulpdu) >= 46:  # of a Read Request: the source's
            if kind == TO_STEP:
                _add(ulpdu, 38, 8, step)
            else:
                _put(ulpdu, 38, 8, -1 - spoil.x)

    def _raw(self, octets: bytes) -> None:
        self.out += octets
        self.position += len(octets)


def _put(ulpdu: bytearray, at: int, width: int, value: int) -> None:
    ulpdu[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "big")


def _add(ulpdu: bytearray, at: int, width: int, step: int = 0, *, exclusive: int = 0) -> None:
    value = int.from_bytes(ulpdu[at : at + width], "big")
    _put(ulpdu, at, width, value + step ^ exclusive)
