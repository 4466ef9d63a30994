"""TCP octets back in order, one direction at a time: repeated, swapped and lost segments.

Knows sequence numbers only. What is kept is bounded by named limits.
"""

from heapq import heappop, heappush
from typing import Final, NamedTuple

__all__ = ["Assembler", "Chunk", "Origin"]

MAX_WAITING_OCTETS: Final = 4 << 20
MAX_WAITING_SEGMENTS: Final = 4096
"""What is kept behind a hole. A sender rarely has more in flight; beyond it, the hole is taken to be a loss."""

_HALF: Final = 1 << 31
_MODULUS: Final = 1 << 32


class Origin(NamedTuple):
    """The packet that octets came in."""

    number: int
    time_ns: int


class Chunk(NamedTuple):
    """Octets of the stream, in order. `missing`: so many before them are not in the capture."""

    data: memoryview
    origin: Origin
    missing: int = 0


class Assembler:
    """One direction of one TCP connection. `from_start`: the stream's first octet is known, its SYN was captured."""

    __slots__ = ("_fin", "_first", "_next", "_waiting", "_waiting_octets", "from_start")

    def __init__(self) -> None:
        self.from_start = False
        self._first: int | None = None
        """Sequence number of stream offset 0: the first octet, or the first that was captured."""
        self._next = 0
        """Stream offset of the octet that is to come; not modulo anything."""
        self._waiting: list[tuple[int, int, memoryview, Origin]] = []
        self._waiting_octets = 0
        self._fin: tuple[int, Origin] | None = None

    def synchronize(self, sequence: int) -> bool:
        """A SYN with this sequence number was captured. False: it opens another connection than the known one."""
        first = (sequence + 1) % _MODULUS
        if self._first is None:
            self._first = first
            self.from_start = True
        return self._first == first

    def add(self, sequence: int, data: memoryview, origin: Origin) -> list[Chunk]:
        """Take one segment, keeping `data`; give what is in order now, often nothing or one chunk."""
        if not data:
            return []
        place = self._offset(sequence)
        if place > self._next:
            heappush(self._waiting, (place, origin.number, data, origin))
            self._waiting_octets += len(data)
            if self._waiting_octets > MAX_WAITING_OCTETS or len(self._waiting) > MAX_WAITING_SEGMENTS:
                return self.give_up()
            return []
        fresh = data[self._next - place :]
        if not fresh:
            return []
        self._next += len(fresh)
        return [Chunk(fresh, origin), *self._continued()]

    def finish(self, sequence: int, origin: Origin) -> None:
        """A FIN was captured; `sequence` is its own, that of the octet behind the last one."""
        if self._fin is None:
            self._fin = (self._offset(sequence), origin)

    @property
    def fin(self) -> Origin | None:
        """The packet of the FIN, once every octet before it was given."""
        return self._fin[1] if self._fin is not None and self._next >= self._fin[0] else None

    def give_up(self) -> list[Chunk]:
        """Take the hole for a loss: give what waits behind it, up to the next hole. Empty: nothing waits."""
        if not self._waiting:
            return []
        missing = self._waiting[0][0] - self._next
        self._next += missing
        first, *others = self._continued()
        return [first._replace(missing=missing), *others]

    def _offset(self, sequence: int) -> int:
        """Stream offset of a sequence number: the one that is nearest to what is expected."""
        if self._first is None:
            self._first = sequence
        ahead = (sequence - self._first - self._next) % _MODULUS
        return self._next + (ahead if ahead < _HALF else ahead - _MODULUS)

    def _continued(self) -> list[Chunk]:
        chunks = []
        while self._waiting and self._waiting[0][0] <= self._next:
            place, _, data, origin = heappop(self._waiting)
            self._waiting_octets -= len(data)
            fresh = data[self._next - place :]
            if fresh:
                self._next += len(fresh)
                chunks.append(Chunk(fresh, origin))
        return chunks
