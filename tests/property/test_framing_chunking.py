"""The same stream in any chunks gives the same ULPDUs and the same fault, whatever is damaged."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softndk.iwarp.framing import Deframer, Framer, FramingFault
from tests.vectors.fpdu_model import stream

ULPDUS = st.lists(
    st.binary(max_size=80) | st.integers(0, 1600).map(lambda length: bytes(range(256)) * 7 + bytes(length)),
    max_size=6,
)
CHUNKS = st.lists(st.integers(1, 700) | st.integers(1, 8), max_size=60)


class Outcome(NamedTuple):
    """What came out of a stream; `fault` is its text."""

    ulpdus: list[bytes]
    fault: str | None
    offset: int
    buffered: int
    inside: bool


def chunked(octets: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut `octets` into chunks of these sizes, what remains being the last chunk."""
    chunks = []
    at = 0
    for size in sizes:
        chunks.append(octets[at : at + size])
        at += size
    return [chunk for chunk in [*chunks, octets[at:]] if chunk]


def deframe(chunks: Sequence[bytes], *, crc: bool, markers: bool, at_once: int | None = None) -> Outcome:
    """Feed chunk after chunk through memory that is overwritten afterwards.

    `at_once` limits how many ULPDUs are taken after each chunk, as a reader does that holds the stream back.
    """
    deframer = Deframer(crc=crc, markers=markers)
    ulpdus: list[bytes] = []
    fault: str | None = None

    def take(limit: int | None) -> None:
        nonlocal fault
        taken: list[memoryview] = []
        try:
            while (limit is None or len(taken) < limit) and (ulpdu := deframer.next_ulpdu()) is not None:
                taken.append(ulpdu)
        except FramingFault as error:
            assert fault is None
            fault = str(error)
        ulpdus.extend(bytes(ulpdu) for ulpdu in taken)

    for chunk in chunks:
        memory = bytearray(chunk)
        deframer.feed(memoryview(memory))
        take(at_once)
        deframer.detach()
        memory[:] = b"\xee" * len(memory)
    take(None)
    return Outcome(ulpdus, fault, deframer.offset, deframer.buffered, deframer.inside_fpdu)


@given(ULPDUS, st.booleans(), st.booleans())
def test_framer_writes_what_the_model_writes(ulpdus: list[bytes], crc: bool, markers: bool) -> None:
    framer = Framer(crc=crc, markers=markers)
    out = b""
    for ulpdu in ulpdus:
        half = len(ulpdu) // 2
        view = memoryview(ulpdu)[half:]
        out += framer.frame(ulpdu[:half], [view[:3], view[3:]])
    assert out == stream(ulpdus, crc=crc, markers=markers)


@given(ULPDUS, st.booleans(), st.booleans(), CHUNKS, st.none() | st.integers(1, 2))
def test_whole_stream(ulpdus: list[bytes], crc: bool, markers: bool, sizes: list[int], at_once: int | None) -> None:
    octets = stream(ulpdus, crc=crc, markers=markers)
    outcome = deframe(chunked(octets, sizes), crc=crc, markers=markers, at_once=at_once)
    assert outcome == Outcome(ulpdus, None, len(octets), 0, False)


@given(ULPDUS, st.booleans(), st.booleans(), CHUNKS, st.data())
def test_cut_off_stream(ulpdus: list[bytes], crc: bool, markers: bool, sizes: list[int], data: st.DataObject) -> None:
    octets = stream(ulpdus, crc=crc, markers=markers)
    ends = [len(stream(ulpdus[:count], crc=crc, markers=markers)) for count in range(len(ulpdus) + 1)]
    end = data.draw(st.integers(0, len(octets)))
    whole = sum(1 for known in ends[1:] if known <= end)
    outcome = deframe(chunked(octets[:end], sizes), crc=crc, markers=markers)
    assert outcome == Outcome(ulpdus[:whole], None, ends[whole], end - ends[whole], end != ends[whole])


@given(
    ULPDUS.filter(bool),
    st.booleans(),
    st.booleans(),
    CHUNKS,
    st.integers(1, 255),
    st.none() | st.integers(1, 2),
    st.data(),
)
def test_damaged_stream(
    ulpdus: list[bytes],
    crc: bool,
    markers: bool,
    sizes: list[int],
    change: int,
    at_once: int | None,
    data: st.DataObject,
) -> None:
    octets = bytearray(stream(ulpdus, crc=crc, markers=markers))
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] ^= change
    reference = deframe([bytes(octets)], crc=crc, markers=markers)
    outcome = deframe(chunked(bytes(octets), sizes), crc=crc, markers=markers, at_once=at_once)
    assert outcome == reference
    if crc:
        undamaged = [
            number for number in range(len(ulpdus)) if len(stream(ulpdus[: number + 1], crc=crc, markers=markers)) <= at
        ]
        assert outcome.ulpdus == ulpdus[: len(undamaged)]
        assert outcome.fault is not None or outcome.inside  # the damaged length may announce more than came


@given(st.binary(max_size=3000), st.booleans(), st.booleans(), CHUNKS, st.none() | st.integers(1, 2))
def test_any_octets(octets: bytes, crc: bool, markers: bool, sizes: list[int], at_once: int | None) -> None:
    reference = deframe([octets], crc=crc, markers=markers)
    outcome = deframe(chunked(octets, sizes), crc=crc, markers=markers, at_once=at_once)
    assert outcome == reference
    if reference.fault is None:
        assert reference.offset + reference.buffered == len(octets)


@pytest.mark.parametrize("markers", [False, True])
def test_octet_by_octet_through_a_long_fpdu(markers: bool) -> None:
    ulpdus = [bytes(range(251)) * 250, b"last"]
    octets = stream(ulpdus, crc=True, markers=markers)
    outcome = deframe([octets[at : at + 1] for at in range(len(octets))], crc=True, markers=markers)
    assert outcome.ulpdus == ulpdus
