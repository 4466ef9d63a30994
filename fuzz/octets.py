"""MPA, DDP and RDMAP octets, written from RFC 5044, 5041, 5040 and 6581 and nothing else.

Makes and takes apart what travels, right or wrong on purpose. Uses nothing of `softndk`: it is what the code under test
is compared with. The checksum comes from the crc32c package.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from crc32c import crc32c

__all__ = [
    "REPLY_KEY",
    "REQUEST_KEY",
    "Damage",
    "Divider",
    "atomic_request_body",
    "fpdu",
    "read_request_body",
    "startup_frame",
    "tagged",
    "untagged",
]

REQUEST_KEY: Final = b"MPA ID Req Frame"
REPLY_KEY: Final = b"MPA ID Rep Frame"


def startup_frame(key: bytes, flags: int, revision: int, body: bytes, length: int | None = None) -> bytes:
    """A Request or Reply; `length`: what PD_Length says instead of the truth."""
    return key + struct.pack(">BBH", flags, revision, (len(body) if length is None else length) & 0xFFFF) + body


def tagged(opcode: int, stag: int, to: int, payload: bytes = b"", *, last: bool = True) -> bytearray:
    """A tagged segment (RFC 5041 4.2)."""
    head = struct.pack(">BBIQ", 0xC1 if last else 0x81, 0x40 | opcode, stag & 0xFFFFFFFF, to & (1 << 64) - 1)
    return bytearray(head + payload)


def untagged(
    opcode: int, queue: int, msn: int, offset: int, payload: bytes = b"", *, last: bool = True, word: int = 0
) -> bytearray:
    """An untagged segment (RFC 5041 4.3); `word` is the one that RDMAP uses for the Invalidate STag."""
    first = 0x41 if last else 0x01
    head = struct.pack(">BBIIII", first, 0x40 | opcode, word & 0xFFFFFFFF, queue, msn & 0xFFFFFFFF, offset & 0xFFFFFFFF)
    return bytearray(head + payload)


def read_request_body(sink_stag: int, sink_to: int, size: int, source_stag: int, source_to: int) -> bytes:
    """RFC 5040 4.4."""
    top = (1 << 64) - 1
    return struct.pack(
        ">IQIIQ", sink_stag & 0xFFFFFFFF, sink_to & top, size & 0xFFFFFFFF, source_stag & 0xFFFFFFFF, source_to & top
    )


def atomic_request_body(operation: int, identifier: int, stag: int, to: int, *operands: int) -> bytes:
    """RFC 7306 5.2.1; operands: add or swap, its mask, compare, its mask."""
    return struct.pack(
        ">IIIQQQQQ", operation & 0xFFFFFFFF, identifier & 0xFFFFFFFF, stag & 0xFFFFFFFF, to & (1 << 64) - 1, *operands
    )


def fpdu(
    ulpdu: bytes | bytearray,
    *,
    position: int,
    crc: bool,
    markers: bool,
    length_error: int = 0,
    pad_octet: int = 0,
    pointer_error: int = 0,
    crc_error: int = 0,
) -> bytearray:
    """One FPDU that begins at stream offset `position` (RFC 5044 4), its leading marker included.

    The errors are put in before the checksum is computed, so that it covers them, except `crc_error`, which is added
    to it (exclusive or).
    """
    content = (len(ulpdu) + length_error & 0xFFFF).to_bytes(2, "big") + ulpdu
    content += bytes([pad_octet]) * (-len(content) % 4)
    out = bytearray()
    begin: int | None = None
    at = 0
    while True:
        if markers and (position + len(out)) % 512 == 0:
            pointer = 0 if begin is None else len(out) - begin
            out += b"\0\0" + (pointer ^ pointer_error).to_bytes(2, "big")
        if begin is None:
            begin = len(out)
        if at == len(content):
            break
        room = 512 - (position + len(out)) % 512 if markers else len(content)
        out += content[at : at + room]
        at += room
        if at >= len(content):
            at = len(content)
    checksum = crc32c(bytes(out)) if crc else 0
    return out + (checksum ^ crc_error).to_bytes(4, "little")


class Damage(Exception):
    """The stream cannot be divided: `kind` is "crc" or "marker"; `offset`: where the bad FPDU begins."""

    def __init__(self, kind: str, offset: int) -> None:
        super().__init__(kind, offset)
        self.kind = kind
        self.offset = offset


@dataclass(slots=True)
class Divider:
    """Takes a stream apart. `held`: octets of an FPDU that is not whole; `offset`: octets before them."""

    crc: bool
    markers: bool
    offset: int = 0
    held: bytearray = field(default_factory=bytearray)

    def feed(self, octets: bytes | bytearray) -> None:
        self.held += octets

    def __iter__(self) -> Iterator[bytes]:
        while (ulpdu := self.next()) is not None:
            yield ulpdu

    def next(self) -> bytes | None:
        """The next whole ULPDU. Raises Damage, and goes no further then."""
        content = bytearray()
        pointers: list[tuple[int, int]] = []
        begin: int | None = None
        at = 0
        wanted = 2
        while True:
            if len(content) >= 2:
                ulpdu_length = content[0] << 8 | content[1]
                wanted = 2 + ulpdu_length + -(2 + ulpdu_length) % 4 + 4
                if len(content) >= wanted:
                    break
            if at >= len(self.held):
                return None
            room = len(self.held)
            if self.markers:
                if (self.offset + at) % 512 == 0:
                    if at + 4 > len(self.held):
                        return None
                    pointers.append((at, self.held[at + 2] << 8 | self.held[at + 3]))
                    at += 4
                room = 512 - (self.offset + at) % 512
            if begin is None:
                begin = at
            piece = self.held[at : at + min(room, wanted - len(content))]
            content += piece
            at += len(piece)
            if not piece:
                return None
        if self.crc and crc32c(bytes(self.held[: at - 4])) != int.from_bytes(self.held[at - 4 : at], "little"):
            raise Damage("crc", self.offset)
        assert begin is not None
        if any(pointer != max(0, place - begin) for place, pointer in pointers):
            raise Damage("marker", self.offset)
        del self.held[:at]
        self.offset += at
        return bytes(content[2 : 2 + (content[0] << 8 | content[1])])
