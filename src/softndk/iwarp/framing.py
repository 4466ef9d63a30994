"""FPDUs of one direction of a stream: ULPDUs to octets (`Framer`) and octets to ULPDUs (`Deframer`).

Responsible for: length field, pad, CRC and markers (RFC 5044 section 4), for any division of the stream into
    chunks.
Must not know: what a ULPDU contains, and who is told about a fault. Lengths too small for a DDP header are
therefore no fault here: the CRC comes first, the header is judged by whoever reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NoReturn

from softndk.wire.crc32c import CRC_LENGTH, CRC_OCTETS, RESIDUE, crc32c
from softndk.wire.mpa import (
    LENGTH_FIELD,
    MARKER,
    MARKER_INTERVAL,
    MARKER_LENGTH,
    MAX_MULPDU,
    MAX_ULPDU,
    fpdu_length,
    pad_length,
)

_NOTHING: Final = memoryview(b"")
_PAD_AND_CRC: Final = tuple(bytes(pad + CRC_LENGTH) for pad in range(4))
_DATA_BETWEEN_MARKERS: Final = MARKER_INTERVAL - MARKER_LENGTH


class FramingReason(Enum):
    """Why a stream can no longer be divided into FPDUs."""

    BAD_CRC = "bad CRC"
    MARKER = "marker mismatch"


class FramingFault(Exception):
    """The stream is damaged: nothing behind `offset` can be used any more (RFC 5044 section 8).

    `offset` is the stream octet at which the faulty FPDU starts, counted from the first octet after the
    start-up frame of this direction. `received` and `computed` are the two CRCs, or the two FPDUPTRs of the
    marker.
    """

    def __init__(self, reason: FramingReason, offset: int, received: int, computed: int) -> None:
        super().__init__(reason, offset, received, computed)
        self.reason = reason
        self.offset = offset
        self.received = received
        self.computed = computed

    def __str__(self) -> str:
        at = f"FPDU at stream offset {self.offset}"
        if self.reason is FramingReason.BAD_CRC:
            return f"{at}: CRC {self.received:#010x} received, {self.computed:#010x} computed"
        return f"{at}: marker says {self.received} octets since its start, counted {self.computed}"


def _markers_within(offset: int, content: int) -> int:
    """Return how many markers an FPDU at stream `offset` has whose other octets number `content`.

    A marker due at its first octet is its own, one due directly behind its last octet is the next FPDU's.
    """
    before_first = -offset % MARKER_INTERVAL
    return max(0, -(-(content - before_first) // _DATA_BETWEEN_MARKERS))


def _pointer(offset: int, at: int) -> int:
    """Return FPDUPTR of the marker `at` octets behind the start of an FPDU that starts at stream `offset`.

    Counted from the ULPDU_Length field, which stands behind the marker if the FPDU begins with one.
    """
    leading = MARKER_LENGTH if offset % MARKER_INTERVAL == 0 else 0
    return max(0, at - leading)


class Framer:
    """Makes the FPDUs of one outgoing direction.

    Args: crc: put in a checksum, else zeros. markers: the peer asked for markers.
    """

    __slots__ = ("_crc", "_markers", "_position")

    def __init__(self, *, crc: bool, markers: bool) -> None:
        self._crc = crc
        self._markers = markers
        self._position = 0

    @property
    def position(self) -> int:
        """Stream octets made so far, markers included."""
        return self._position

    def frame(self, header: bytes, payload: Sequence[memoryview]) -> bytearray:
        """Return one FPDU with the ULPDU `header` + `payload`, as it must follow the octets made before.

        Args: payload: pieces of contiguous unsigned bytes in order, together perhaps empty; they are copied
            before the checksum is computed, so what is sent agrees with it even if the owner writes to them
            meanwhile.
        Raises: ValueError: the ULPDU is longer than 65535 octets, or than 64768 with markers.
        """
        length = len(header) + sum(map(len, payload))
        limit = MAX_MULPDU if self._markers else MAX_ULPDU
        if length > limit:
            raise ValueError(f"ULPDU of {length} octets, limit {limit}")
        fpdu = bytearray().join(
            (length.to_bytes(LENGTH_FIELD, "big"), header, *payload, _PAD_AND_CRC[pad_length(length)])
        )
        if self._markers:
            fpdu = self._with_markers(fpdu)
        if self._crc:
            covered = len(fpdu) - CRC_LENGTH
            CRC_OCTETS.pack_into(fpdu, covered, crc32c(memoryview(fpdu)[:covered]))
        self._position += len(fpdu)
        return fpdu

    def _with_markers(self, fpdu: bytearray) -> bytearray:
        marked = bytearray()
        content = memoryview(fpdu)
        taken = -self._position % MARKER_INTERVAL
        marked += content[:taken]
        while taken < len(content):
            marked += MARKER.pack(0, _pointer(self._position, len(marked)))
            marked += content[taken : taken + _DATA_BETWEEN_MARKERS]
            taken += _DATA_BETWEEN_MARKERS
        return marked


class Deframer:
    """Divides one incoming direction into ULPDUs.

    Use: `feed` a chunk, take ULPDUs with `next_ulpdu` until it returns None, use them, `detach`.

    Args: crc: check the checksum of every FPDU. markers: we asked the peer for markers.
    """

    # Octets come from two places, in this order: `_carry`, which is ours, holds what earlier chunks left
    # over; `_lent` is the caller's chunk. Only an FPDU that began in an earlier chunk is ever assembled in
    # `_carry`; all others are sliced out of `_lent` without a copy.
    __slots__ = ("_carry", "_carry_at", "_crc", "_failed", "_lent", "_lent_at", "_markers", "_offset")

    def __init__(self, *, crc: bool, markers: bool) -> None:
        self._crc = crc
        self._markers = markers
        self._carry = bytearray()
        self._carry_at = 0
        self._lent = _NOTHING
        self._lent_at = 0
        self._offset = 0
        self._failed = False

    @property
    def offset(self) -> int:
        """Stream octets of the FPDUs given out, with markers; after a fault: where the faulty one starts."""
        return self._offset

    @property
    def buffered(self) -> int:
        """Octets fed but not given out."""
        return len(self._carry) - self._carry_at + len(self._lent) - self._lent_at

    @property
    def inside_fpdu(self) -> bool:
        """Whether the octets not given out begin with an FPDU (or its marker) that is incomplete."""
        if self._carry_at < len(self._carry):
            return not self._complete_carry()
        return 0 < self.buffered < self._wire_length(self._lent, self._lent_at)

    def feed(self, data: memoryview) -> None:
        """Lend the next octets of the stream: contiguous unsigned bytes, unchanged until `detach`.

        What an earlier `feed` lent and nobody took is copied first, as by `detach`. Ignored after a fault.
        """
        if self._failed:
            return
        if self._lent_at < len(self._lent):
            self._carry_over()
        self._lent = data
        self._lent_at = 0

    def next_ulpdu(self) -> memoryview | None:
        """Return the next whole and checked ULPDU, None if there is none yet.

        The view (perhaps of length 0) has no length field, pad, CRC and markers, and may be used until
        `detach`.
        Raises: FramingFault: CRC or marker wrong, once; from then on None is returned and nothing is kept.
        Rule: RFC 5044 sections 4.3, 4.4 and 6.
        """
        carried = self._carry_at < len(self._carry)
        if carried:
            if not self._complete_carry():
                return None
            view, start = memoryview(self._carry), self._carry_at
        else:
            view, start = self._lent, self._lent_at
        size = self._wire_length(view, start)
        end = start + size
        if end > len(view):
            return None
        if self._crc and crc32c(view[start:end]) != RESIDUE:
            covered = end - CRC_LENGTH
            self._fail(FramingReason.BAD_CRC, CRC_OCTETS.unpack_from(view, covered)[0], crc32c(view[start:covered]))
        if self._markers:
            content = self._without_markers(view[start:end])
            ulpdu = content[LENGTH_FIELD : LENGTH_FIELD + (content[0] << 8 | content[1])]
        else:
            first = start + LENGTH_FIELD
            ulpdu = view[first : first + (view[start] << 8 | view[start + 1])]
        self._offset += size
        if carried:
            self._carry_at = end
        else:
            self._lent_at = end
        return ulpdu

    def detach(self) -> None:
        """Give back the lent memory; what was not taken of it is copied.

        Views given out must not be used any more. Cost: at most one incomplete FPDU plus the FPDUs that
        nobody took.
        """
        self._carry_over()
        self._lent = _NOTHING
        self._lent_at = 0

    def _wire_length(self, view: memoryview | bytearray, start: int) -> int:
        """Return the octets, markers included, of the FPDU at `start` of `view`.

        If its length field is not there yet: the octets up to and including that field.
        """
        if not self._markers:
            if len(view) - start < LENGTH_FIELD:
                return LENGTH_FIELD
            return fpdu_length(view[start] << 8 | view[start + 1])
        if self._offset % MARKER_INTERVAL == 0:
            start += MARKER_LENGTH
        if len(view) - start < LENGTH_FIELD:
            return LENGTH_FIELD + (MARKER_LENGTH if self._offset % MARKER_INTERVAL == 0 else 0)
        content = fpdu_length(view[start] << 8 | view[start + 1])
        return content + MARKER_LENGTH * _markers_within(self._offset, content)

    def _complete_carry(self) -> bool:
        """Move octets from the lent chunk until the carry begins with a whole FPDU; False if there are too few."""
        while True:
            missing = self._carry_at + self._wire_length(self._carry, self._carry_at) - len(self._carry)
            if missing <= 0:
                return True
            more = self._lent[self._lent_at : self._lent_at + missing]
            if not more:
                return False
            self._append_to_carry(more)
            self._lent_at += len(more)

    def _carry_over(self) -> None:
        rest = self._lent[self._lent_at :]
        if rest or self._carry_at == len(self._carry):
            self._append_to_carry(rest)
        self._lent_at = len(self._lent)

    def _append_to_carry(self, octets: memoryview) -> None:
        # Views of ULPDUs that lie before `_carry_at` forbid resizing the bytearray, so it is replaced.
        if self._carry_at:
            self._carry = self._carry[self._carry_at :]
            self._carry_at = 0
        self._carry += octets

    def _without_markers(self, fpdu: memoryview) -> memoryview:
        first = -self._offset % MARKER_INTERVAL
        pieces = [fpdu[:first]]
        for at in range(first, len(fpdu), MARKER_INTERVAL):
            _, pointer = MARKER.unpack_from(fpdu, at)
            expected = _pointer(self._offset, at)
            if pointer != expected:
                self._fail(FramingReason.MARKER, pointer, expected)
            pieces.append(fpdu[at + MARKER_LENGTH : at + MARKER_INTERVAL])
        return memoryview(b"".join(pieces))

    def _fail(self, reason: FramingReason, received: int, computed: int) -> NoReturn:
        self._failed = True
        self._carry = bytearray()
        self._carry_at = 0
        self._lent = _NOTHING
        self._lent_at = 0
        raise FramingFault(reason, self._offset, received, computed)
