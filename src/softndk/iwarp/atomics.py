"""Atomics (RFC 7306 5): the arithmetic, and carrying out a peer's request.

What is atomic is decided by whoever calls: one call at a time per adapter (its lock) makes atomics whole towards each other.
Knows nothing of queues, of segments and of order.
"""

import sys
from typing import Final

from softndk.iwarp.payload import copy
from softndk.memory.access import MemoryAccess
from softndk.memory.tokens import Right
from softndk.queues.work import AtomicWork
from softndk.wire import rdmap

__all__ = [
    "WIDTH",
    "OutstandingAtomic",
    "PendingAtomic",
    "compare_swap",
    "execute",
    "fetch_add",
    "stored",
    "target",
]

WIDTH: Final = 8
"""Octets that an atomic changes; its address is a multiple of it."""

_ONES: Final = (1 << 64) - 1


class OutstandingAtomic:
    """One of our atomics on the wire. `identifier`: what its response must carry; it is the request's MSN too."""

    __slots__ = ("identifier", "request")

    def __init__(self, request: AtomicWork, identifier: int) -> None:
        self.request = request
        self.identifier = identifier


class PendingAtomic:
    """An atomic of the peer that waits for its turn; it is carried out when it is answered.

    `ulpdu`: the request's segment, for a Terminate.
    """

    __slots__ = ("request", "ulpdu")

    def __init__(self, request: rdmap.AtomicRequest, ulpdu: bytes) -> None:
        self.request = request
        self.ulpdu = ulpdu


def fetch_add(old: int, add: int, mask: int) -> int:
    """The sum of two 64-bit numbers, field by field: a 1 in `mask` marks a field's top bit, whose carry is dropped.

    Mask 0: one field of 64 bits.
    """
    tops = mask | 1 << 63
    # without their top bits no two fields can carry into the next one; the top bits are added without carry
    return ((old & ~tops) + (add & ~tops)) ^ ((old ^ add) & tops)


def compare_swap(old: int, swap: int, swap_mask: int, compare: int, compare_mask: int) -> int:
    """What is left where `old` was: the bits of `swap_mask` replaced if those of `compare_mask` are equal."""
    if (compare ^ old) & compare_mask:
        return old
    return old & ~swap_mask & _ONES | swap & swap_mask


def stored(value: int) -> bytes:
    """A 64-bit value as it stands in memory: in this machine's order (RFC 7306 5)."""
    return value.to_bytes(WIDTH, sys.byteorder)


def target(access: MemoryAccess, request: rdmap.AtomicRequest) -> list[memoryview]:
    """The octets that the peer wants to change. Raises AccessDenied."""
    return access.remote(request.stag, request.to, WIDTH, Right.REMOTE_ATOMIC)


def execute(access: MemoryAccess, request: rdmap.AtomicRequest) -> int:
    """Carry out a checked request, once, and return the original value.

    Raises: AccessDenied: the token has died since the request came; the memory is unchanged.
    """
    place = target(access, request)
    old = int.from_bytes(b"".join(place), sys.byteorder)
    if request.operation == rdmap.AtomicOperation.FETCH_ADD:
        new = fetch_add(old, request.data, request.mask)
    else:
        new = compare_swap(old, request.data, request.mask, request.compare, request.compare_mask)
    if new != old:
        copy(memoryview(stored(new)), place)
    return old
