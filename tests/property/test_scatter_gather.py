"""Scatter and gather over any SGEs and any parts of memory do what a flat copy does."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from softndk.flags import PAGE_SIZE, LocalToken
from softndk.iwarp.payload import gather, scatter
from softndk.memory.access import MemoryAccess
from softndk.memory.buffers import Mdl
from softndk.memory.logical import LogicalSpace
from softndk.memory.regions import Region
from softndk.memory.sge import Sge
from softndk.memory.tokens import ProtectionDomain, Right, Scope, TokenTable

BASE = 0x5000


@dataclass
class Memory:
    """Registered or mapped memory over `parts`, and an access to it; `token` is the one that SGEs carry."""

    parts: list[bytearray]
    access: MemoryAccess
    token: LocalToken
    pages: list[int] | None
    fbo: int

    def flat(self) -> bytes:
        return b"".join(self.parts)

    def sges(self, offset: int, length: int) -> list[Sge]:
        """One SGE; for logical addresses one for each page, as LogicalAddressMapping.sges makes them."""
        if self.pages is None:
            return [Sge(BASE + offset, length, self.token)]
        found = []
        at = self.fbo + offset
        while length:
            take = min(length, PAGE_SIZE - at % PAGE_SIZE)
            found.append(Sge(self.pages[at // PAGE_SIZE] + at % PAGE_SIZE, take, self.token))
            at += take
            length -= take
        return found


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    """Some parts of any sizes, registered as a region or mapped as logical pages."""
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any))
    parts = [bytearray((index * 7 + at) % 256 for at in range(size)) for index, size in enumerate(sizes)]
    table, logical, pd = TokenTable(), LogicalSpace(), ProtectionDomain("pd")
    access = MemoryAccess(table, logical, pd, object())
    mdl = Mdl(parts, address=BASE)
    if draw(st.booleans()):
        region = Region(table, pd, "mr")
        region.register(BASE, mdl.byte_range(mdl.length), Right.LOCAL_WRITE)
        assert region.local is not None
        return Memory(parts, access, LocalToken(region.local.stag), None, 0)
    fbo = draw(st.sampled_from([0, 1, PAGE_SIZE - 1, PAGE_SIZE - 10]))
    token = table.create(Scope.PRIVILEGED, pd, "pd").stag
    return Memory(parts, access, LocalToken(token), logical.map(mdl.byte_range(mdl.length), fbo), fbo)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Memory, list[int], tuple[Sge, ...], int, int]:
    """Memory; the flat positions that an SGL names, in order and without overlap; the SGL; a part of the message."""
    memory = draw(memories())
    total = len(memory.flat())
    cuts = sorted(draw(st.lists(st.integers(0, total), min_size=2, max_size=8)))
    extents = list(zip(cuts[::2], cuts[1::2], strict=False))
    extents = draw(st.permutations(extents))
    positions = [position for start, end in extents for position in range(start, end)]
    sgl = tuple(sge for start, end in extents for sge in memory.sges(start, end - start))
    offset = draw(st.integers(0, len(positions)))
    length = draw(st.integers(0, len(positions) - offset))
    return memory, positions, sgl, offset, length


@given(cases())
def test_gather(case: tuple[Memory, list[int], tuple[Sge, ...], int, int]) -> None:
    memory, positions, sgl, offset, length = case
    flat = memory.flat()
    found = b"".join(gather(memory.access, sgl, offset, length))
    assert found == bytes(flat[position] for position in positions[offset : offset + length])


@given(cases())
def test_scatter(case: tuple[Memory, list[int], tuple[Sge, ...], int, int]) -> None:
    memory, positions, sgl, offset, length = case
    expected = bytearray(memory.flat())
    data = bytes(255 - index % 200 for index in range(length))
    for index, position in enumerate(positions[offset : offset + length]):
        expected[position] = data[index]
    scatter(memory.access, sgl, offset, memoryview(data))
    assert memory.flat() == expected


@given(cases(), st.lists(st.integers(1, 9), max_size=40))
def test_a_message_in_any_pieces(case: tuple[Memory, list[int], tuple[Sge, ...], int, int], sizes: list[int]) -> None:
    memory, positions, sgl, _, _ = case
    data = bytes(255 - index % 200 for index in range(len(positions)))
    offset = 0
    for size in [*sizes, len(data)]:
        scatter(memory.access, sgl, offset, memoryview(data)[offset : offset + size])
        offset = min(offset + size, len(data))
    assert b"".join(gather(memory.access, sgl, 0, len(data))) == data
