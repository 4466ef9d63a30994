"""TCP octets in order, whatever the network and the capture did to them."""

import random

from hypothesis import given
from hypothesis import strategies as st

from softndk.trace import reassembly
from softndk.trace.reassembly import Assembler, Chunk, Origin


def add(assembler: Assembler, sequence: int, data: bytes, number: int = 1) -> list[tuple[bytes, int]]:
    """Give a segment; data and missing octets of each chunk that comes back."""
    return [
        (bytes(chunk.data), chunk.missing)
        for chunk in assembler.add(sequence % 2**32, memoryview(data), Origin(number, number))
    ]


def joined(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


@given(
    st.binary(min_size=1, max_size=200),
    st.lists(st.tuples(st.integers(0, 199), st.integers(1, 60)), max_size=40),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32),
)
def test_any_order_any_overlap(stream: bytes, pieces: list[tuple[int, int]], first: int, seed: int) -> None:
    """Pieces of the stream, repeated and overlapping, then all of it: every octet comes once and in order."""
    cover = [(place, 23) for place in range(0, len(stream), 23)]
    random.Random(seed).shuffle(cover)
    assembler = Assembler()
    assembler.synchronize((first - 1) % 2**32)
    chunks: list[Chunk] = []
    for number, (place, size) in enumerate([*pieces, *cover]):
        data = memoryview(stream[place : place + size])
        chunks += assembler.add((first + place) % 2**32, data, Origin(number, 0))
    assert joined(chunks) == stream
    assert not any(chunk.missing for chunk in chunks)
    assert assembler.give_up() == []


def test_without_a_syn_the_first_segment_is_the_beginning() -> None:
    assembler = Assembler()
    assert add(assembler, 2**32 - 3, b"abc") == [(b"abc", 0)]
    assert not assembler.from_start
    assert add(assembler, 0, b"def") == [(b"def", 0)]


def test_a_hole_is_given_up_with_its_size() -> None:
    assembler = Assembler()
    assembler.synchronize(99)
    assert assembler.from_start
    assert add(assembler, 100, b"abc") == [(b"abc", 0)]
    assert add(assembler, 110, b"klm", 2) == []
    assert add(assembler, 120, b"uvw", 3) == []
    assert [(bytes(each.data), each.missing, each.origin.number) for each in assembler.give_up()] == [(b"klm", 7, 2)]
    assert [(bytes(each.data), each.missing, each.origin.number) for each in assembler.give_up()] == [(b"uvw", 7, 3)]
    assert assembler.give_up() == []
    assert add(assembler, 105, b"late") == []


def test_what_waits_is_bounded() -> None:
    assembler = Assembler()
    add(assembler, 0, b"a")
    size = reassembly.MAX_WAITING_OCTETS // 4
    for index in range(4):
        assert add(assembler, 10 + index * size, bytes(size)) == []
    given_up = add(assembler, 10 + 4 * size, b"x")
    assert sum(len(data) for data, _ in given_up) == 4 * size + 1
    assert [missing for _, missing in given_up] == [9, 0, 0, 0, 0]

    assembler = Assembler()
    add(assembler, 0, b"a")
    for index in range(reassembly.MAX_WAITING_SEGMENTS):
        assert add(assembler, 10 + 2 * index, b"b") == []
    assert add(assembler, 10 + 2 * reassembly.MAX_WAITING_SEGMENTS, b"b") == [(b"b", 9)]


def test_a_fin_counts_when_all_before_it_has_come() -> None:
    assembler = Assembler()
    assembler.synchronize(99)
    assembler.finish(106, Origin(4, 0))
    assert assembler.fin is None
    add(assembler, 103, b"def", 3)
    assert assembler.fin is None
    add(assembler, 100, b"abc", 5)
    assert assembler.fin == Origin(4, 0)


def test_syns() -> None:
    assembler = Assembler()
    assert assembler.synchronize(2**32 - 1)
    assert assembler.synchronize(2**32 - 1), "repeated"
    assert not assembler.synchronize(5), "another connection of the same ports"
    assert add(assembler, 0, b"abc") == [(b"abc", 0)]


def test_keepalives_and_empty_segments() -> None:
    assembler = Assembler()
    assembler.synchronize(99)
    add(assembler, 100, b"abc")
    assert add(assembler, 102, b"\0") == []
    assert add(assembler, 103, b"") == []
    assert add(assembler, 103, b"d") == [(b"d", 0)]
