"""MPA: the start-up frames (RFC 5044 section 7.1, RFC 6581) and the arithmetic of FPDUs (RFC 5044 section 4).

Responsible for: the layout of Request and Reply, sizes, pads, marker positions' constants.
Must not know: who may send which frame when (`iwarp.negotiation`), nor the position in a stream
    (`iwarp.framing`).

Every defined bit of a start-up frame is kept as it was received, also where the standard tells the receiver
to ignore it (R in a Request; B, C and D without A); reserved bits are dropped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

from typing_extensions import Buffer

from softndk.wire import WireError
from softndk.wire.crc32c import CRC_LENGTH

REQUEST_KEY: Final = b"MPA ID Req Frame"
REPLY_KEY: Final = b"MPA ID Rep Frame"

FLAG_MARKERS: Final = 0x80
FLAG_CRC: Final = 0x40
FLAG_REJECT: Final = 0x20
FLAG_ENHANCED: Final = 0x10

REVISION_CONSORTIUM: Final = 0
REVISION_RFC5044: Final = 1
REVISION_RFC6581: Final = 2

STARTUP_HEADER: Final = 20
"""Octets of a start-up frame before its private data; they tell how long the frame is."""
ENHANCED_LENGTH: Final = 4
MAX_PRIVATE_DATA: Final = 512
MAX_PRIVATE_DATA_ENHANCED: Final = MAX_PRIVATE_DATA - ENHANCED_LENGTH
NO_NEGOTIATION: Final = 0x3FFF
"""In an IRD or ORD field: this quantity is not negotiated automatically (RFC 6581 section 9)."""

MAX_ULPDU: Final = 0xFFFF
"""Largest value of the ULPDU_Length field."""
MIN_MULPDU: Final = 128
MAX_MULPDU: Final = 64768
"""Largest MULPDU of RFC 5044; up to here a marker's 16-bit FPDUPTR cannot overflow."""
LENGTH_FIELD: Final = 2
MARKER_LENGTH: Final = 4
MARKER_INTERVAL: Final = 512
"""Stream octets from the start of one marker to the start of the next, the marker itself included."""
MARKER: Final = struct.Struct(">HH")
"""A marker: 16 reserved bits, FPDUPTR."""

_HEAD: Final = struct.Struct(">16sBBH")
_ENHANCED: Final = struct.Struct(">HH")

_HIGH_BIT: Final = 0x8000
_SECOND_BIT: Final = 0x4000


class FrameKind(Enum):
    """The two start-up frames; the value is the key that opens the frame."""

    REQUEST = REQUEST_KEY
    REPLY = REPLY_KEY


@dataclass(frozen=True, slots=True)
class Enhanced:
    """The four octets that RFC 6581 puts in front of the private data.

    `ird` and `ord` are 0 to 0x3fff, where 0x3fff is `NO_NEGOTIATION`. The flags are A (`peer_to_peer`), B
    (`rtr_send`), C (`rtr_write`) and D (`rtr_read`): what may serve, or serves, as ready-to-receive
    indication.
    """

    ird: int
    ord: int
    peer_to_peer: bool = False
    rtr_send: bool = False
    rtr_write: bool = False
    rtr_read: bool = False

    def __post_init__(self) -> None:
        for name, value in (("IRD", self.ird), ("ORD", self.ord)):
            if not 0 <= value <= NO_NEGOTIATION:
                raise ValueError(f"{name} {value} does not fit its 14-bit field")

    def emit(self) -> bytes:
        """Return the four octets."""
        first = self.ird | (_HIGH_BIT if self.peer_to_peer else 0) | (_SECOND_BIT if self.rtr_send else 0)
        second = self.ord | (_HIGH_BIT if self.rtr_write else 0) | (_SECOND_BIT if self.rtr_read else 0)
        return _ENHANCED.pack(first, second)

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read exactly four octets. Raises: WireError: any other number of octets."""
        if len(data) != ENHANCED_LENGTH:
            raise WireError(f"enhanced start-up data of {len(data)} octets instead of {ENHANCED_LENGTH}")
        first, second = _ENHANCED.unpack(data)
        return cls(
            ird=first & NO_NEGOTIATION,
            ord=second & NO_NEGOTIATION,
            peer_to_peer=bool(first & _HIGH_BIT),
            rtr_send=bool(first & _SECOND_BIT),
            rtr_write=bool(second & _HIGH_BIT),
            rtr_read=bool(second & _SECOND_BIT),
        )


@dataclass(frozen=True, slots=True)
class StartupFrame:
    """An MPA Request or Reply frame.

    `private_data` is the upper layer's, without the four enhanced octets; at most 512 octets, 508 with
    `enhanced`. `enhanced` not None is the S flag, which exists from revision 2 on. `markers` and `crc` are
    what the frame's sender wants (M and C), `reject` is R.
    """

    kind: FrameKind
    markers: bool
    crc: bool
    reject: bool
    revision: int
    enhanced: Enhanced | None
    private_data: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.revision <= 0xFF:
            raise ValueError(f"MPA revision {self.revision} does not fit one octet")
        if self.enhanced is not None and self.revision < REVISION_RFC6581:
            raise ValueError(f"MPA revision {self.revision} has no enhanced start-up data")
        limit = MAX_PRIVATE_DATA if self.enhanced is None else MAX_PRIVATE_DATA_ENHANCED
        if len(self.private_data) > limit:
            raise ValueError(f"private data of {len(self.private_data)} octets, limit {limit}")

    def emit(self) -> bytes:
        """Return the frame's octets."""
        flags = (
            (FLAG_MARKERS if self.markers else 0)
            | (FLAG_CRC if self.crc else 0)
            | (FLAG_REJECT if self.reject else 0)
            | (FLAG_ENHANCED if self.enhanced is not None else 0)
        )
        body = self.private_data if self.enhanced is None else self.enhanced.emit() + self.private_data
        return _HEAD.pack(self.kind.value, flags, self.revision, len(body)) + body

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read one whole frame and nothing behind it.

        Raises: WireError: as `frame_length`, or `data` is shorter or longer than the frame says it is.
        """
        length = frame_length(data)
        if len(data) != length:
            raise WireError(f"start-up frame of {length} octets in {len(data)} octets of data")
        key, flags, revision, _ = _HEAD.unpack_from(data)
        body = bytes(data[STARTUP_HEADER:])
        enhanced = None
        if _is_enhanced(flags, revision):
            enhanced, body = Enhanced.parse(body[:ENHANCED_LENGTH]), body[ENHANCED_LENGTH:]
        return cls(
            kind=FrameKind(key),
            markers=bool(flags & FLAG_MARKERS),
            crc=bool(flags & FLAG_CRC),
            reject=bool(flags & FLAG_REJECT),
            revision=revision,
            enhanced=enhanced,
            private_data=body,
        )


def _is_enhanced(flags: int, revision: int) -> bool:
    """S is a reserved bit, not to be checked, before revision 2."""
    return bool(flags & FLAG_ENHANCED) and revision >= REVISION_RFC6581


def may_begin_startup(head: Buffer) -> bool:
    """Whether these octets are the beginning of a start-up frame, as far as they go."""
    key = bytes(memoryview(head)[: len(REQUEST_KEY)])
    return REQUEST_KEY.startswith(key) or REPLY_KEY.startswith(key)


def frame_length(head: bytes | bytearray | memoryview) -> int:
    """Return the octets of the whole start-up frame that begins with `head`, its first 20 octets or more.

    Raises: WireError: fewer than 20 octets, a key that is neither Request nor Reply, PD_Length above 512, or
        S set with less than four octets to follow (RFC 5044 section 7.1, RFC 6581 section 6).
    """
    if len(head) < STARTUP_HEADER:
        raise WireError(f"start-up frame cut off after {len(head)} octets, its header has {STARTUP_HEADER}")
    length: int
    key, flags, revision, length = _HEAD.unpack_from(head)
    if key not in (REQUEST_KEY, REPLY_KEY):
        raise WireError(f"not an MPA start-up frame: it begins with {key!r}")
    if length > MAX_PRIVATE_DATA:
        raise WireError(f"PD_Length {length} in a start-up frame, limit {MAX_PRIVATE_DATA}")
    if _is_enhanced(flags, revision) and length < ENHANCED_LENGTH:
        raise WireError(f"PD_Length {length} in a start-up frame with S set, which needs {ENHANCED_LENGTH}")
    return STARTUP_HEADER + length


def pad_length(ulpdu_length: int) -> int:
    """Return how many zero octets (0 to 3) follow a ULPDU of that length."""
    return -(LENGTH_FIELD + ulpdu_length) % 4


def fpdu_length(ulpdu_length: int) -> int:
    """Return the octets of an FPDU: length field, ULPDU, pad and CRC, without markers."""
    return LENGTH_FIELD + ulpdu_length + pad_length(ulpdu_length) + CRC_LENGTH


def mulpdu(emss: int, markers: bool = False) -> int:
    """Return the largest ULPDU whose FPDU fits a TCP segment of `emss` octets, held within 128 and 64768.

    Rule: RFC 5044 section 4.5.
    """
    marker_octets = MARKER_LENGTH * -(-emss // MARKER_INTERVAL) if markers else 0
    return min(max(emss - (LENGTH_FIELD + CRC_LENGTH + marker_octets + emss % 4), MIN_MULPDU), MAX_MULPDU)
