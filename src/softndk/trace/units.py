"""Where one direction of an iWARP stream can be cut: behind its start-up frame and behind each FPDU.

Needs lengths and the marker positions only; checks nothing and keeps no octets.
"""

from typing_extensions import Buffer

from softndk.wire import WireError
from softndk.wire.ddp import is_tagged
from softndk.wire.mpa import (
    FLAG_MARKERS,
    LENGTH_FIELD,
    MARKER_INTERVAL,
    MARKER_LENGTH,
    REQUEST_KEY,
    STARTUP_HEADER,
    fpdu_length,
    frame_length,
    may_begin_startup,
)
from softndk.wire.rdmap import Opcode, opcode_of

__all__ = ["UnitCutter", "asks_for_markers"]


def asks_for_markers(startup_frame: Buffer) -> bool:
    """Whether the sender of this whole start-up frame wants markers in what it receives."""
    return bool(memoryview(startup_frame)[len(REQUEST_KEY)] & FLAG_MARKERS)


class UnitCutter:
    """Follows one direction of one stream from its first octet, unit after unit (RFC 5044 4 and 7.1.1).

    `started`: the start-up frame is behind us. `marked`: FPDUs carry markers; whoever reads the other direction's
    start-up frame sets it before the first FPDU. `lost`: this is not MPA; cut it anywhere.
    `position`: stream offset behind the start-up frame, from which markers are counted.
    """

    __slots__ = ("lost", "marked", "position", "started")

    def __init__(self) -> None:
        self.started = False
        self.marked = False
        self.lost = False
        self.position = 0

    def wanted(self, head: Buffer) -> int:
        """How long the unit that begins with `head` is, as far as `head` tells.

        At most `len(head)`: that is its length. More: that many octets must be there before more can be said.
        """
        view = memoryview(head)
        if self.lost:
            return max(1, len(view))
        return self._wanted_fpdu(view) if self.started else self._wanted_startup(view)

    def _wanted_startup(self, head: memoryview) -> int:
        if may_begin_startup(head):
            if len(head) < STARTUP_HEADER:
                return STARTUP_HEADER
            try:
                return frame_length(head)
            except WireError:
                pass
        self.lost = True
        return max(1, len(head))

    def _wanted_fpdu(self, head: memoryview) -> int:
        place = self.lead
        if len(head) < place + LENGTH_FIELD:
            return place + LENGTH_FIELD
        length = fpdu_length(head[place] << 8 | head[place + 1])
        if not self.marked:
            return length
        # No marker stands behind the last octet: one that is due there opens the next FPDU.
        ahead = -self.position % MARKER_INTERVAL
        if length <= ahead:
            return length
        return length + MARKER_LENGTH * (1 + (length - ahead - 1) // (MARKER_INTERVAL - MARKER_LENGTH))

    @property
    def lead(self) -> int:
        """Octets of the marker that the next FPDU begins with: 4 or 0."""
        return MARKER_LENGTH if self.marked and self.position % MARKER_INTERVAL == 0 else 0

    def unmarked(self, unit: memoryview) -> memoryview:
        """The FPDU that begins here, without its markers; call before `passed`."""
        if not self.marked:
            return unit
        ahead = -self.position % MARKER_INTERVAL
        parts = [unit[:ahead]]
        for marker in range(ahead, len(unit), MARKER_INTERVAL):
            parts.append(unit[marker + MARKER_LENGTH : marker + MARKER_INTERVAL])
        return memoryview(b"".join(parts))

    def is_terminate(self, unit: memoryview) -> bool:
        """Whether the whole FPDU `unit` is an RDMAP Terminate; call before `passed`."""
        control = self.lead + LENGTH_FIELD
        return (
            self.started
            and len(unit) >= control + 2
            and not is_tagged(unit[control])
            and opcode_of(unit[control + 1]) == Opcode.TERMINATE
        )

    def passed(self, length: int) -> None:
        """A unit of that length is behind us."""
        if self.started:
            self.position += length
        else:
            self.started = not self.lost
