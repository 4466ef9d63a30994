"""Cutting a stream: against the slow model of RFC 5044 section 4 that writes markers group by group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softndk.trace.units import UnitCutter
from tests.vectors.fpdu_model import fpdu
from tests.vectors.iwarp_vectors import STARTUP_FRAMES, Frame, named

LENGTHS = st.lists(st.one_of(st.integers(0, 1600), st.sampled_from([486, 490, 494, 498, 502, 506, 1010])), max_size=12)


def started(*, marked: bool) -> UnitCutter:
    cutter = UnitCutter()
    cutter.started = True
    cutter.marked = marked
    return cutter


@given(LENGTHS, st.booleans())
def test_fpdus_are_cut_and_freed_of_markers(lengths: list[int], marked: bool) -> None:
    cutter = started(marked=marked)
    position = 0
    for length in lengths:
        ulpdu = bytes(index % 251 + 1 for index in range(length))
        unit = fpdu(ulpdu, position=position, crc=True, markers=marked)
        following = fpdu(b"next", position=position + len(unit), crc=True, markers=marked)
        assert cutter.wanted(unit + following) == len(unit)
        bare = fpdu(ulpdu, position=0, crc=True, markers=False)
        assert bytes(cutter.unmarked(memoryview(unit)))[: len(bare) - 4] == bare[:-4]
        assert cutter.position == position
        cutter.passed(len(unit))
        position += len(unit)


@given(st.integers(0, 700), st.integers(0, 127), st.booleans())
def test_a_beginning_asks_for_more_and_never_for_too_much(length: int, place: int, marked: bool) -> None:
    cutter = started(marked=marked)
    cutter.position = 4 * place
    unit = fpdu(bytes(length), position=4 * place, crc=True, markers=marked)
    head = 0
    while head < len(unit):
        wanted = cutter.wanted(unit[:head])
        assert head < wanted <= len(unit)
        head = wanted
    assert cutter.wanted(unit) == len(unit)


@pytest.mark.parametrize("frame", STARTUP_FRAMES, ids=str)
def test_startup_frames(frame: Frame) -> None:
    cutter = UnitCutter()
    for size in range(20):
        assert cutter.wanted(frame.octets[:size]) == 20
    assert cutter.wanted(frame.octets[:20]) == len(frame.octets)
    assert cutter.wanted(frame.octets + b"behind") == len(frame.octets)
    cutter.passed(len(frame.octets))
    assert (cutter.started, cutter.position) == (True, 0)


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1",
        b"MPA ID Bad Frame\0\0\0\0",
        b"MPA ID Req Frame\x40\x01\x02\x01",
        b"MPA ID Req Frame\x50\x02\x00\x03abc",
    ],
    ids=["another protocol", "a wrong key", "513 octets of private data", "S without room for its octets"],
)
def test_what_is_not_mpa_is_cut_anywhere(octets: bytes) -> None:
    cutter = UnitCutter()
    assert cutter.wanted(octets) == len(octets)
    assert cutter.lost
    cutter.passed(len(octets))
    assert cutter.wanted(b"x") == 1


def test_terminates_are_recognised() -> None:
    cutter = started(marked=False)
    assert cutter.is_terminate(memoryview(named("Terminate for it: DDP").octets))
    assert not cutter.is_terminate(memoryview(named("Send, 8 octets").octets))
    assert not cutter.is_terminate(memoryview(named("RDMA Write, STag 0x00abcd01").octets))
    marked = started(marked=True)
    body = bytes.fromhex("4147000000000000000200000001000000002002 0000")
    assert marked.is_terminate(memoryview(fpdu(body, position=0, crc=True, markers=True)))
