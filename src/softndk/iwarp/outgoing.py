"""Octets that are ready for the peer, in the pieces they were made in: start-up frames first, then FPDUs."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from typing_extensions import Buffer

__all__ = ["Outgoing"]


class Outgoing:
    """A queue of octets; its truth is whether any are left."""

    def __init__(self) -> None:
        self._parts: deque[memoryview] = deque()
        self._startup_left = 0  # octets of start-up frames at the head

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._parts)

    @property
    def octets(self) -> int:
        return sum(part.nbytes for part in self._parts)

    def first(self, count: int) -> list[memoryview]:
        """At most `count` pieces from the head."""
        return list(islice(self._parts, count))

    def add_startup(self, octets: bytes | bytearray) -> None:
        """Octets that do not belong to the stream of FPDUs."""
        self._startup_left += len(octets)
        self.add(octets)

    def add(self, frame: Buffer) -> None:
        self._parts.append(memoryview(frame))

    def extend(self, frames: Iterable[Buffer]) -> None:
        self._parts.extend(map(memoryview, frames))

    def taken(self, count: int) -> int:
        """The socket has taken the first `count` octets. Returns how many of them were of the stream of FPDUs."""
        startup = min(count, self._startup_left)
        self._startup_left -= startup
        left = count
        while left:
            head = self._parts[0]
            if left < head.nbytes:
                self._parts[0] = head[left:]
                break
            left -= head.nbytes
            self._parts.popleft()
        return count - startup

    def clear(self) -> None:
        """Nothing of it is to be sent any more."""
        self._parts.clear()
        self._startup_left = 0
