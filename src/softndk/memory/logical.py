"""Logical addresses: page numbers of the adapter's own space, handed out by build_lam (NdkBuildLAM).

A logical page holds octets of one mapped buffer; octets of a page outside that buffer do not exist.
"""

from collections.abc import Sequence
from typing import Final

from softndk.errors import InvalidParameter
from softndk.flags import PAGE_SIZE
from softndk.memory.buffers import ByteRange

__all__ = ["LogicalSpace"]

FIRST_PAGE: Final = 0x10_0000
"""Page number of the first mapping. Far from 0, so that a forgotten address is not a valid one."""


class LogicalSpace:
    """Page number to mapped octets. Page numbers are never used again (64 bits last)."""

    def __init__(self) -> None:
        self._pages: dict[
            int, tuple[ByteRange, int]
        ] = {}  # page -> range, its offset of the page's octet 0 (may be < 0)
        self._next = FIRST_PAGE

    def map(self, memory: ByteRange, fbo: int) -> list[int]:
        """Map a range that starts `fbo` octets into its first page; returns page-aligned logical addresses."""
        count = (fbo + memory.length + PAGE_SIZE - 1) // PAGE_SIZE
        first = self._next
        self._next += count + 1  # a hole between mappings: running off one never lands in the next
        for number in range(count):
            self._pages[first + number] = (memory, number * PAGE_SIZE - fbo)
        return [(first + number) * PAGE_SIZE for number in range(count)]

    def unmap(self, pages: Sequence[int]) -> None:
        for address in pages:
            self._pages.pop(address // PAGE_SIZE, None)

    def slices(self, address: int, length: int) -> list[memoryview] | None:
        """Views of the octets at a logical address, or None if any of them does not exist."""
        found: list[memoryview] = []
        while length:
            page, offset = divmod(address, PAGE_SIZE)
            mapped = self._pages.get(page)
            if mapped is None:
                return None
            memory, start = mapped
            take = min(length, PAGE_SIZE - offset)
            begin = start + offset
            if begin < 0 or begin + take > memory.length:
                return None
            found += memory.slices(begin, take)
            address += take
            length -= take
        return found

    def gather(self, pages: Sequence[int], fbo: int, length: int) -> ByteRange:
        """The octets that a fast register names: `length` from `fbo` octets into the first page.

        Raises: InvalidParameter: a page that is not page-aligned or not mapped, or octets outside the mapped buffer.
        """
        parts: list[memoryview] = []
        missing = length
        for number, page in enumerate(pages):
            if page % PAGE_SIZE:
                raise InvalidParameter(f"page {number} = {page:#x} is not a multiple of {PAGE_SIZE} [R-FREG-2]")
            offset = fbo if number == 0 else 0
            take = min(missing, PAGE_SIZE - offset)
            if take <= 0:
                break
            found = self.slices(page + offset, take)
            if found is None:
                raise InvalidParameter(
                    f"page {number} = {page:#x}, octets {offset} to {offset + take}: not mapped by build_lam [R-FREG-2]"
                )
            parts += found
            missing -= take
        if missing > 0:
            raise InvalidParameter(f"{len(pages)} pages from fbo {fbo} do not hold {length} octets [R-FREG-3]")
        return ByteRange(parts)
