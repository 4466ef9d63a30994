"""Logical addresses (NdkBuildLAM): pages, the offset of the first octet, and what fast registers make of them."""

import pytest

from softndk.errors import InvalidParameter
from softndk.flags import PAGE_SIZE
from softndk.memory.buffers import Mdl
from softndk.memory.logical import LogicalSpace

CONTENT = bytes(index % 251 for index in range(3 * PAGE_SIZE))


def mapped(space: LogicalSpace, fbo: int, length: int, *, split: int | None = None) -> list[int]:
    """Pages of the first `length` octets of CONTENT, in one buffer or two, from `fbo` octets into the first page."""
    parts = [bytearray(CONTENT[:length])] if split is None else [CONTENT[:split], CONTENT[split:length]]
    return space.map(Mdl(parts, address=fbo).byte_range(length), fbo)


@pytest.mark.rules("R-LAM-3")
@pytest.mark.parametrize(
    ("fbo", "length", "count"),
    [
        (0, 1, 1),
        (0, PAGE_SIZE, 1),
        (0, PAGE_SIZE + 1, 2),
        (1, PAGE_SIZE, 2),
        (PAGE_SIZE - 1, 1, 1),
        (PAGE_SIZE - 1, 2, 2),
        (100, 2 * PAGE_SIZE - 100, 2),
        (100, 2 * PAGE_SIZE - 99, 3),
    ],
)
def test_as_many_pages_as_the_range_spans(fbo: int, length: int, count: int) -> None:
    """R-LAM-3, -4."""
    pages = mapped(LogicalSpace(), fbo, length)
    assert len(pages) == len(set(pages)) == count
    assert all(page % PAGE_SIZE == 0 and page > 0 for page in pages)


@pytest.mark.parametrize("fbo", [0, 1, 100, PAGE_SIZE - 1])
@pytest.mark.parametrize("split", [None, 10, PAGE_SIZE, PAGE_SIZE + 5])
def test_octets_by_page_and_offset(fbo: int, split: int | None) -> None:
    space = LogicalSpace()
    length = 2 * PAGE_SIZE
    pages = mapped(space, fbo, length, split=split)
    for offset in (0, 1, 9, 10, 11, PAGE_SIZE - fbo - 1, PAGE_SIZE - fbo, PAGE_SIZE, length - 2, length - 1):
        page, inside = divmod(fbo + offset, PAGE_SIZE)
        found = space.slices(pages[page] + inside, 1)
        assert found is not None
        assert b"".join(found) == CONTENT[offset : offset + 1]


def test_across_a_page_boundary() -> None:
    """Pages of one mapping happen to be neighbours; a longer access inside it is legal."""
    space = LogicalSpace()
    pages = mapped(space, 0, 2 * PAGE_SIZE)
    found = space.slices(pages[0] + PAGE_SIZE - 2, 4)
    assert found is not None
    assert b"".join(found) == CONTENT[PAGE_SIZE - 2 : PAGE_SIZE + 2]
    assert space.slices(pages[0], 0) == []


@pytest.mark.parametrize(("fbo", "length"), [(100, 50), (0, 10), (4000, 200)])
def test_page_octets_outside_the_buffer_do_not_exist(fbo: int, length: int) -> None:
    space = LogicalSpace()
    pages = mapped(space, fbo, length)
    if fbo:
        assert space.slices(pages[0], 1) is None
        assert space.slices(pages[0] + fbo - 1, 2) is None
    last, inside = divmod(fbo + length, PAGE_SIZE)
    assert space.slices(pages[last] + inside, 1) is None
    assert space.slices(pages[last] + inside - 1, 2) is None


def test_running_off_a_mapping_never_lands_in_the_next() -> None:
    space = LogicalSpace()
    first = mapped(space, 0, PAGE_SIZE)
    mapped(space, 0, PAGE_SIZE)
    assert space.slices(first[0], PAGE_SIZE + 1) is None


def test_unmapping() -> None:
    space = LogicalSpace()
    first, second = mapped(space, 0, PAGE_SIZE), mapped(space, 0, PAGE_SIZE)
    space.unmap(first)
    space.unmap(first)
    assert space.slices(first[0], 1) is None
    assert space.slices(second[0], 1) is not None


def test_pages_are_never_used_again() -> None:
    space = LogicalSpace()
    seen: set[int] = set()
    for _ in range(50):
        pages = mapped(space, 0, PAGE_SIZE)
        assert not seen & set(pages)
        seen |= set(pages)
        space.unmap(pages)


class TestGather:
    """R-FREG-2 to -4."""

    @pytest.mark.parametrize(
        ("fbo", "length"), [(0, 1), (0, 2 * PAGE_SIZE), (1000, 3000), (1000, 5000), (4095, 4098), (0, PAGE_SIZE)]
    )
    def test_the_octets_of_a_fast_register(self, fbo: int, length: int) -> None:
        space = LogicalSpace()
        pages = mapped(space, fbo, length)
        memory = space.gather(pages, fbo, length)
        assert memory.length == length
        assert b"".join(memory.slices(0, length)) == CONTENT[:length]

    def test_pages_in_any_order_and_from_several_mappings(self) -> None:
        space = LogicalSpace()
        one = space.map(Mdl(bytearray(b"1" * PAGE_SIZE), address=0).byte_range(PAGE_SIZE), 0)
        two = space.map(Mdl(bytearray(b"2" * 2 * PAGE_SIZE), address=0).byte_range(2 * PAGE_SIZE), 0)
        memory = space.gather([two[1], one[0], two[0]], 4090, PAGE_SIZE + 12)
        assert b"".join(memory.slices(0, memory.length)) == b"2" * 6 + b"1" * PAGE_SIZE + b"2" * 6

    def test_an_fbo_of_its_own(self) -> None:
        """It may start later in the first page than the mapping does."""
        space = LogicalSpace()
        pages = mapped(space, 100, 1000)
        memory = space.gather(pages, 150, 20)
        assert b"".join(memory.slices(0, 20)) == CONTENT[50:70]

    def test_octets_outside_the_mapped_buffer(self) -> None:
        space = LogicalSpace()
        pages = mapped(space, 100, 1000)
        for fbo, length in ((99, 1), (100, 1001), (1100, 1)):
            with pytest.raises(InvalidParameter, match="R-FREG-2"):
                space.gather(pages, fbo, length)

    def test_too_few_pages(self) -> None:
        space = LogicalSpace()
        pages = mapped(space, 0, 2 * PAGE_SIZE)
        with pytest.raises(InvalidParameter, match="R-FREG-3"):
            space.gather(pages[:1], 1, PAGE_SIZE)

    def test_more_pages_than_needed(self) -> None:
        space = LogicalSpace()
        pages = mapped(space, 0, 3 * PAGE_SIZE)
        assert space.gather(pages, 0, 10).length == 10

    @pytest.mark.rules("R-FREG-2")
    @pytest.mark.parametrize("page", [1, 0x1000, 0x100000001])
    def test_pages_not_from_build_lam(self, page: int) -> None:
        with pytest.raises(InvalidParameter, match="R-FREG-2"):
            LogicalSpace().gather([page], 0, 1)

    def test_a_page_that_is_not_aligned(self) -> None:
        space = LogicalSpace()
        pages = mapped(space, 0, PAGE_SIZE)
        with pytest.raises(InvalidParameter, match="multiple"):
            space.gather([pages[0] + 8], 0, 1)

    def test_it_outlives_the_mapping(self) -> None:
        """What a fast register has taken stays until it is invalidated, whatever happens to the mapping."""
        space = LogicalSpace()
        pages = mapped(space, 0, 10)
        memory = space.gather(pages, 0, 10)
        space.unmap(pages)
        assert b"".join(memory.slices(0, 10)) == CONTENT[:10]
