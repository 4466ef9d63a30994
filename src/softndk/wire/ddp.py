"""DDP segment headers (RFC 5041 section 4).

Responsible for: the two header layouts and their control octet. Must not know: RDMAP opcodes (the octet and
the word that DDP carries for its user are opaque here), sequence numbers' rules, buffers. The version is a
field like the others: the reader judges it.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from softndk.wire import WireError

CONTROL_TAGGED: Final = 0x80
CONTROL_LAST: Final = 0x40
CONTROL_VERSION: Final = 0x03
VERSION: Final = 1

TAGGED_HEADER: Final = 14
UNTAGGED_HEADER: Final = 18

_TAGGED: Final = struct.Struct(">BBIQ")
_UNTAGGED: Final = struct.Struct(">BBIIII")


class QueueNumber(IntEnum):
    """QN of an untagged segment, as RDMAP assigns them (RFC 5040 section 4, RFC 7306)."""

    SEND = 0
    READ_REQUEST = 1
    TERMINATE = 2
    ATOMIC_RESPONSE = 3


class TaggedHeader(NamedTuple):
    """Header of a tagged segment: `stag` 32 bits, `to` 64 bits; `rsvdulp` is the octet DDP carries for its user."""

    last: bool
    rsvdulp: int
    stag: int
    to: int
    version: int = VERSION

    def emit(self) -> bytes:
        """Return the 14 octets. Raises: struct.error: a value does not fit its field."""
        control = CONTROL_TAGGED | (CONTROL_LAST if self.last else 0) | self.version
        return _TAGGED.pack(control, self.rsvdulp, self.stag, self.to)


class UntaggedHeader(NamedTuple):
    """Header of an untagged segment; `rsvdulp` (8 bits) and `rsvdulp_word` (32 bits) are carried for DDP's
    user.

    In RDMAP the word is the Invalidate STag of the opcodes that have one. `qn`, `msn` and `mo` are 32 bits
    each.
    """

    last: bool
    rsvdulp: int
    rsvdulp_word: int
    qn: int
    msn: int
    mo: int
    version: int = VERSION

    def emit(self) -> bytes:
        """Return the 18 octets. Raises: struct.error: a value does not fit its field."""
        control = (CONTROL_LAST if self.last else 0) | self.version
        return _UNTAGGED.pack(control, self.rsvdulp, self.rsvdulp_word, self.qn, self.msn, self.mo)


def is_tagged(first_octet: int) -> bool:
    """Tell the DDP model from the first octet of a ULPDU."""
    return first_octet & CONTROL_TAGGED != 0


def parse_tagged(ulpdu: bytes | bytearray | memoryview) -> TaggedHeader:
    """Read the first 14 octets of `ulpdu` as a tagged header; its T bit is not looked at, reserved bits are
    ignored.

    Raises: WireError: fewer than 14 octets.
    """
    try:
        control, rsvdulp, stag, to = _TAGGED.unpack_from(ulpdu)
    except struct.error:
        raise _too_short(ulpdu, TAGGED_HEADER) from None
    return TaggedHeader(control & CONTROL_LAST != 0, rsvdulp, stag, to, control & CONTROL_VERSION)


def parse_untagged(ulpdu: bytes | bytearray | memoryview) -> UntaggedHeader:
    """Read the first 18 octets of `ulpdu` as an untagged header; its T bit is not looked at, reserved bits
    are ignored.

    Raises: WireError: fewer than 18 octets.
    """
    try:
        control, rsvdulp, word, qn, msn, mo = _UNTAGGED.unpack_from(ulpdu)
    except struct.error:
        raise _too_short(ulpdu, UNTAGGED_HEADER) from None
    return UntaggedHeader(control & CONTROL_LAST != 0, rsvdulp, word, qn, msn, mo, control & CONTROL_VERSION)


def _too_short(ulpdu: bytes | bytearray | memoryview, needed: int) -> WireError:
    return WireError(f"ULPDU of {len(ulpdu)} octets cannot hold a DDP header of {needed}")
