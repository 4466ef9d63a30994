"""The octets of start-up frames, segments and FPDUs, with any field as it is asked for. No state, no connection.

What a caller leaves out is right. What it gives is taken, whatever a standard says about it.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypedDict

from softndk.iwarp.framing import Framer
from softndk.peer.fields import U2, U4, U8, U14, U16, U32, Count, Flag, Octets, Pieces
from softndk.wire import ddp, mpa, rdmap
from softndk.wire.crc32c import CRC_LENGTH, CRC_OCTETS, crc32c
from softndk.wire.ddp import TaggedHeader, UntaggedHeader
from softndk.wire.mpa import FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode

__all__ = ["Fpdu", "Segment", "Startup", "make_fpdu", "make_startup", "pieces", "tagged_ulpdus", "untagged_ulpdus"]

SEGMENT_OCTETS: Final = 1436
"""Payload octets of one segment, unless a step says otherwise: what fits a TCP segment of 1,460 octets."""
READS: Final = 16
"""IRD and ORD, where the other side leaves a choice."""
_HEAD: Final = struct.Struct(">16sBBH")


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


def make_startup(kind: FrameKind, fields: Startup, theirs: StartupFrame | None) -> bytes:
    """A Request, or a Reply that suits the Request `theirs`, but for the fields given."""
    limits = _limits(theirs.enhanced if theirs is not None else None, kind, fields)
    said = theirs if kind is FrameKind.REPLY else None
    revision = fields.get("revision", said.revision if said is not None else 2)
    enhanced = fields.get("enhanced", said.enhanced is not None if said is not None else revision >= 2)
    body = (limits.emit() if enhanced else b"") + fields.get("private_data", b"")
    flags = (
        (mpa.FLAG_MARKERS if fields.get("markers") else 0)
        | (mpa.FLAG_CRC if fields.get("crc", True) else 0)
        | (mpa.FLAG_REJECT if fields.get("reject") else 0)
        | (mpa.FLAG_ENHANCED if enhanced else 0)
        | fields.get("reserved", 0)
    )
    key = fields.get("key", kind.value).ljust(16, b"\0")[:16]
    return _HEAD.pack(key, flags, revision, fields.get("pd_length", min(len(body), 0xFFFF))) + body


def _limits(said: mpa.Enhanced | None, kind: FrameKind, fields: Startup) -> mpa.Enhanced:
    """The enhanced data (RFC 6581 9): a Reply holds what the Request wants, and chooses its Write as indication."""
    if kind is FrameKind.REPLY and said is not None:
        p2p = said.peer_to_peer
        by_write = p2p and (said.rtr_write or not said.rtr_read)
        ird, ord_ = max(said.ord, 1), min(said.ird, READS)
    else:
        p2p = False
        by_write = fields.get("peer_to_peer", False)
        ird = ord_ = READS
    return mpa.Enhanced(
        ird=fields.get("ird", ird),
        ord=fields.get("ord", ord_),
        peer_to_peer=fields.get("peer_to_peer", p2p),
        rtr_send=fields.get("rtr_send", False),
        rtr_write=fields.get("rtr_write", by_write),
        rtr_read=fields.get("rtr_read", p2p and not by_write),
    )


def untagged_ulpdus(
    opcode: Opcode, word: int, qn: int, msn: int, mo: int, payload: bytes, fields: Segment
) -> Iterator[bytes]:
    """The ULPDUs of an untagged message, or of that part of it that begins at `mo`."""
    for offset, piece, last in _segments(payload, fields):
        header = UntaggedHeader(
            last,
            _rdmap_control(opcode, fields),
            word,
            qn,
            msn,
            mo + offset & 0xFFFFFFFF,
            fields.get("ddp_version", ddp.VERSION),
        )
        yield _with_bits(header.emit(), fields) + piece


def tagged_ulpdus(opcode: Opcode, stag: int, to: int, payload: bytes, fields: Segment) -> Iterator[bytes]:
    """The ULPDUs of a tagged message."""
    for offset, piece, last in _segments(payload, fields):
        header = TaggedHeader(
            last,
            _rdmap_control(opcode, fields),
            stag,
            to + offset & 0xFFFFFFFFFFFFFFFF,
            fields.get("ddp_version", ddp.VERSION),
        )
        yield _with_bits(header.emit(), fields) + piece


def _segments(payload: bytes, fields: Segment) -> Iterator[tuple[int, bytes, bool]]:
    """Offset, octets, and L; one segment for an empty payload."""
    size = min(fields.get("segment", SEGMENT_OCTETS), mpa.MAX_MULPDU - ddp.UNTAGGED_HEADER)
    for offset in range(0, max(1, len(payload)), size):
        at_end = offset + size >= len(payload)
        yield offset, payload[offset : offset + size], at_end and fields.get("last", True)


def _rdmap_control(opcode: Opcode, fields: Segment) -> int:
    version = fields.get("rdmap_version", rdmap.VERSION)
    return version << 6 | fields.get("rdmap_reserved", 0) << 4 | fields.get("opcode", int(opcode))


def _with_bits(header: bytes, fields: Segment) -> bytes:
    """The header, with the bits of its first octet that the codecs do not write."""
    control = header[0] | fields.get("ddp_reserved", 0) << 2
    if "tagged" in fields:
        control = control & ~ddp.CONTROL_TAGGED | (ddp.CONTROL_TAGGED if fields["tagged"] else 0)
    return bytes([control]) + header[1:]


class Fpdu(NamedTuple):
    """notes: what is wrong with it, for a person. aligned: a receiver finds the beginning of the next one behind it."""

    octets: bytes
    notes: list[str]
    aligned: bool


def make_fpdu(framer: Framer, ulpdu: bytes, fields: Segment, *, crc: bool, markers: bool) -> Fpdu:
    """The next FPDU of a direction, right but for the fields given. crc, markers: as the framer puts them in."""
    lead = mpa.MARKER_LENGTH if markers and framer.position % mpa.MARKER_INTERVAL == 0 else 0
    octets = framer.frame(ulpdu, [])
    notes: list[str] = []
    aligned = True
    if "pad" in fields:
        octets[len(octets) - CRC_LENGTH - mpa.pad_length(len(ulpdu)) : -CRC_LENGTH] = fields["pad"]
        notes.append(f"pad {fields['pad'].hex()}")
    if "length" in fields:
        octets[lead : lead + mpa.LENGTH_FIELD] = fields["length"].to_bytes(mpa.LENGTH_FIELD, "big")
        notes.append(f"ULPDU_Length {fields['length']} for {len(ulpdu)}")
        aligned = False
    if notes and crc:
        CRC_OCTETS.pack_into(octets, len(octets) - CRC_LENGTH, crc32c(memoryview(octets)[:-CRC_LENGTH]))
    if fields.get("bad_crc"):
        octets[-1] ^= 0xFF
        notes.append("BAD CRC")
    if "cut" in fields and fields["cut"] < len(octets):
        notes.append(f"cut off after {fields['cut']} of {len(octets)} octets")
        del octets[fields["cut"] :]
        aligned = False
    return Fpdu(bytes(octets), notes, aligned)


def pieces(octets: bytes, split: int | Sequence[int] | None) -> Iterator[bytes]:
    """All octets: in one piece, in pieces of `split`, or in pieces of these sizes and the rest."""
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
