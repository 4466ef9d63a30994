"""Framing: a stream of FPDUs, whole or damaged, with and without CRC and markers, divided into chunks at will.

Checked against the independent divider: the same ULPDUs, the same fault at the same offset, and after each chunk as many
octets held as are left over. The stream's good FPDUs also come out of the code's own framer octet for octet.
"""

from collections.abc import Sequence
from typing import Final

from fuzz.octets import Damage, Divider, fpdu
from fuzz.peer import OCTETS as RAW
from fuzz.peer import SPOIL, SPOILS, ULPDU, WRITE, Peer
from fuzz.records import Record, head_of, join, records_of
from softndk.iwarp.framing import Deframer, Framer, FramingFault, FramingReason

__all__ = ["OPERATIONS", "check", "seeds"]

DELIVER: Final = 9
LONG: Final = 10
LEAVE: Final = 11
OPERATIONS: Final = (WRITE, ULPDU, ULPDU, RAW, LONG, LONG, *[SPOIL] * 3, *[DELIVER] * 3, LEAVE)
_REASONS: Final = {FramingReason.BAD_CRC: "crc", FramingReason.MARKER: "marker"}


def check(data: bytes) -> None:
    """Run one input. Raises: AssertionError, or whatever escapes from the code under test."""
    head = head_of(data)
    run = _Run(crc=not head[0] & 1, markers=bool(head[0] & 2), reader_crc=not head[0] & 4)
    for record in records_of(data):
        run.do(record)
    run.deliver(head[1])


class _Run:
    def __init__(self, *, crc: bool, markers: bool, reader_crc: bool) -> None:
        self.peer = Peer([0x1234_5678], {}, crc, markers)
        self.deframer = Deframer(crc=reader_crc, markers=markers)
        self.framer = Framer(crc=crc, markers=markers)
        self.due = Divider(reader_crc, markers)
        self.damage: str | None = None
        self.fed = 0
        self.leave = False
        """ULPDUs are left untaken for one delivery."""

    def do(self, record: Record) -> None:
        if record.op in (WRITE, ULPDU, RAW, SPOIL):
            self.peer.do(record)
        elif record.op == LONG:
            self.long(record)
        elif record.op == DELIVER:
            self.deliver(record.x)
        elif record.op == LEAVE:
            self.leave = True

    def long(self, record: Record) -> None:
        """A ULPDU of any length there is; what the code makes of it must be what the standard says."""
        length = record.x if record.flag & 1 else record.x % 1600
        ulpdu = record.z.to_bytes(8, "big") * (length // 8 + 1)
        ulpdu = ulpdu[:length]
        if self.peer.markers and length > 64768:
            try:
                self.framer.frame(ulpdu, [])
            except ValueError:
                return
            raise AssertionError("FPDUPTR of a marker would overflow")
        position = self.peer.position
        made = fpdu(ulpdu, position=position, crc=self.peer.crc, markers=self.peer.markers)
        if position % 4 == 0:  # where FPDUs begin
            framer = Framer(crc=self.peer.crc, markers=self.peer.markers)
            framer._position = position
            half = record.y % (length + 1)
            assert framer.frame(ulpdu[:half], [memoryview(ulpdu)[half:]]) == made, "the framer makes other octets"
        self.peer.out += made
        self.peer.position += len(made)

    def deliver(self, chunk: int) -> None:
        octets = self.peer.take()
        size = max(chunk % 700 or len(octets), len(octets) // 300, 1)
        for at in range(0, len(octets), size):
            self.give(octets[at : at + size])

    def give(self, piece: bytes) -> None:
        lent = bytearray(piece)
        self.deframer.feed(memoryview(lent))
        self.fed += len(piece)
        if self.damage is None:
            self.due.feed(piece)
        if self.leave:  # nobody takes anything: it must be there later
            self.leave = False
            self.deframer.detach()
            lent[:] = bytes(len(lent))
            return
        while self.take_one():
            pass
        self.deframer.detach()
        lent[:] = bytes(len(lent))
        if self.damage is None:
            assert self.deframer.offset == self.due.offset, "octets given out"
            assert self.deframer.buffered == len(self.due.held), "octets held"
            assert self.deframer.offset + self.deframer.buffered == self.fed, "octets lost"
            assert self.deframer.inside_fpdu == bool(self.due.held), "inside an FPDU"
        else:
            assert self.deframer.buffered == 0, "octets kept after a fault"

    def take_one(self) -> bool:
        if self.damage is not None:
            assert self.deframer.next_ulpdu() is None, "a ULPDU after a fault"
            return False
        due: bytes | None = None
        try:
            due = self.due.next()
        except Damage as damage:
            self.damage = damage.kind
        try:
            found = self.deframer.next_ulpdu()
        except FramingFault as fault:
            assert self.damage == _REASONS[fault.reason], f"{fault}, due: {self.damage}"
            assert fault.offset == self.due.offset, f"{fault}, due at {self.due.offset}"
            assert str(fault)
            return False
        assert self.damage is None, f"no fault, due: {self.damage} at {self.due.offset}"
        assert (None if found is None else bytes(found)) == due, "another ULPDU"
        return found is not None


def seeds() -> Sequence[bytes]:
    """Every combination of CRC and markers; FPDUs around the places of markers; each wrong thing."""
    found = []
    for modes in range(8):
        plain = [Record(LONG, 0, length, 9, 0x0102030405060708) for length in (0, 1, 30, 468, 474, 500, 508, 1454)]
        found.append(join([modes, 7], plain))
        found.append(join([modes], [plain[3], Record(DELIVER, 0, 511), plain[4], Record(LEAVE), *plain[:3]]))
        for kind in range(SPOILS):
            found.append(join([modes], [plain[2], Record(SPOIL, kind, 4), Record(WRITE, 0, 8, 0, 30 << 8)]))
    found.append(join([0, 100], [Record(LONG, 1, 65535), Record(LONG, 1, 64768)]))
    found.append(join([2, 100], [Record(LONG, 1, 64769), Record(LONG, 1, 64768)]))
    return found
