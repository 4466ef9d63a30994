"""RFC 7306's arithmetic, bit by bit: what is left in memory behind a FetchAdd or a CmpSwap.

Numbers are of 64 bits. Must not know who asks, nor where the number lies.
"""

import sys

__all__ = ["WIDTH", "compare_swap", "fetch_add", "number_in", "octets_of"]

WIDTH = 8


def fetch_add(old: int, add: int, mask: int) -> int:
    """Each 1 in `mask` is the top bit of a field, and so is bit 63; fields are added apart, and wrap."""
    new = lowest = 0
    for bit in range(64):
        if mask >> bit & 1 or bit == 63:
            size = 1 << (bit + 1 - lowest)
            new |= ((old >> lowest) + (add >> lowest)) % size << lowest
            lowest = bit + 1
    return new


def compare_swap(old: int, compare: int, swap: int, compare_mask: int, swap_mask: int) -> int:
    """The bits of `swap_mask` are replaced if all bits of `compare_mask` are those of `compare`."""
    if old & compare_mask != compare & compare_mask:
        return old
    return sum((swap if swap_mask >> bit & 1 else old) & 1 << bit for bit in range(64))


def number_in(octets: bytes) -> int:
    """As it stands in memory: in the machine's own order (RFC 7306 5)."""
    return int.from_bytes(octets, sys.byteorder)


def octets_of(number: int) -> bytes:
    return number.to_bytes(WIDTH, sys.byteorder)
