"""Emit then parse is identity; any octets are either read or refused with the one documented error."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softndk.wire import WireError
from softndk.wire.crc32c import CRC_OCTETS, RESIDUE, crc32c
from softndk.wire.ddp import TaggedHeader, UntaggedHeader, parse_tagged, parse_untagged
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame, fpdu_length, frame_length, mulpdu, pad_length
from softndk.wire.rdmap import AtomicRequest, AtomicResponse, ReadRequest
from softndk.wire.terminate import Terminate, describe
from tests.vectors.fpdu_model import crc32c_bitwise

U8 = st.integers(0, 0xFF)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
U14 = st.integers(0, 0x3FFF)
FLAG = st.booleans()

enhanced = st.builds(Enhanced, ird=U14, ord=U14, peer_to_peer=FLAG, rtr_send=FLAG, rtr_write=FLAG, rtr_read=FLAG)


def startup_frames_with(
    revision: st.SearchStrategy[int], data: st.SearchStrategy[Enhanced | None], limit: int
) -> st.SearchStrategy[StartupFrame]:
    return st.builds(
        StartupFrame,
        kind=st.sampled_from(FrameKind),
        markers=FLAG,
        crc=FLAG,
        reject=FLAG,
        revision=revision,
        enhanced=data,
        private_data=st.binary(max_size=limit),
    )


startup_frames = startup_frames_with(U8, st.none(), 512) | startup_frames_with(st.integers(2, 0xFF), enhanced, 508)
tagged_headers = st.builds(TaggedHeader, last=FLAG, rsvdulp=U8, stag=U32, to=U64, version=st.integers(0, 3))
untagged_headers = st.builds(
    UntaggedHeader,
    last=FLAG,
    rsvdulp=U8,
    rsvdulp_word=U32,
    qn=U32,
    msn=U32,
    mo=U32,
    version=st.integers(0, 3),
)
read_requests = st.builds(ReadRequest, sink_stag=U32, sink_to=U64, size=U32, source_stag=U32, source_to=U64)


@st.composite
def terminates(draw: st.DrawFn) -> Terminate:
    """Messages that the lenient reader does not take for the Linux driver's: with a standard flag set."""
    tagged = draw(tagged_headers).emit()
    untagged = draw(untagged_headers).emit()
    ddp_header, read_header = draw(
        st.sampled_from([(b"", b""), (tagged, b""), (untagged, b""), (untagged, draw(read_requests).emit())])
    )
    length = draw(st.none() | U16 if ddp_header else U16)
    nibble = st.integers(0, 15)
    return Terminate(draw(nibble), draw(nibble), draw(U8), length, ddp_header, read_header)


@given(startup_frames)
def test_startup_frame(frame: StartupFrame) -> None:
    octets = frame.emit()
    assert StartupFrame.parse(octets) == frame
    assert frame_length(octets[:20]) == len(octets) <= 532


@given(startup_frames, st.integers(0, 531))
def test_startup_frame_cut_off(frame: StartupFrame, end: int) -> None:
    octets = frame.emit()
    with pytest.raises(WireError):
        StartupFrame.parse(octets[: min(end, len(octets) - 1)])


@given(tagged_headers, st.binary(max_size=20))
def test_tagged_header(header: TaggedHeader, payload: bytes) -> None:
    assert parse_tagged(header.emit() + payload) == header


@given(untagged_headers, st.binary(max_size=20))
def test_untagged_header(header: UntaggedHeader, payload: bytes) -> None:
    assert parse_untagged(header.emit() + payload) == header


@given(read_requests)
def test_read_request(request: ReadRequest) -> None:
    assert ReadRequest.parse(request.emit()) == request


@given(st.builds(AtomicRequest, st.integers(0, 15), U32, U32, U64, U64, U64, U64, U64))
def test_atomic_request(request: AtomicRequest) -> None:
    body = request.emit()
    assert len(body) == 52
    assert AtomicRequest.parse(body) == request


@given(st.builds(AtomicResponse, U32, U64))
def test_atomic_response(response: AtomicResponse) -> None:
    body = response.emit()
    assert len(body) == 12
    assert AtomicResponse.parse(body) == response


@given(terminates())
def test_terminate(message: Terminate) -> None:
    body = message.emit()
    parsed = Terminate.parse(body)
    assert parsed == message
    assert not parsed.scrambled
    assert 4 <= len(body) <= 52


@given(terminates())
def test_terminate_in_the_linux_drivers_order(message: Terminate) -> None:
    body = bytearray(message.emit())
    body[0] = body[0] >> 4 | (body[0] & 15) << 4
    body[2] = sum(low for low, high in ((1, 0x80), (2, 0x40), (4, 0x20)) if body[2] & high)
    parsed = Terminate.parse(body)
    assert parsed == message
    assert parsed.scrambled


KEYED = st.builds(
    lambda key, head, rest: key + head + rest,
    st.sampled_from([kind.value for kind in FrameKind]),
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=600),
)


@given(st.binary(max_size=600) | KEYED)
def test_any_octets_as_a_startup_frame(octets: bytes) -> None:
    try:
        frame = StartupFrame.parse(octets)
    except WireError:
        return
    flags_without_reserved = octets[16] & (0xF0 if octets[17] >= 2 else 0xE0)
    assert frame.emit() == octets[:16] + bytes([flags_without_reserved]) + octets[17:]


@given(st.binary(max_size=80))
def test_any_octets_as_anything_else(octets: bytes) -> None:
    for parse in (
        parse_tagged,
        parse_untagged,
        ReadRequest.parse,
        AtomicRequest.parse,
        AtomicResponse.parse,
        Terminate.parse,
        Enhanced.parse,
    ):
        with suppress(WireError):
            parse(octets)


@given(st.binary(min_size=4, max_size=60))
def test_a_terminate_that_was_read_can_be_written(body: bytes) -> None:
    try:
        message = Terminate.parse(body)
    except WireError:
        return
    again = Terminate.parse(message.emit())
    assert again == message or again.scrambled  # without flags a rare triple looks exchanged


@given(st.integers(), st.integers(), st.integers())
def test_any_numbers_have_a_description(layer: int, etype: int, code: int) -> None:
    assert describe(layer, etype, code)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_checksum(data: bytes, cut: int) -> None:
    value = crc32c(data)
    assert value == crc32c_bitwise(data)
    assert crc32c(data[cut:], crc32c(data[:cut])) == value
    assert crc32c(data + CRC_OCTETS.pack(value)) == RESIDUE


@given(st.integers(0, 65535))
def test_fpdu_length(length: int) -> None:
    assert 0 <= pad_length(length) <= 3
    assert fpdu_length(length) % 4 == 0
    assert fpdu_length(length) == 2 + length + pad_length(length) + 4


@given(st.integers(150, 64000))
def test_mulpdu_with_markers_fits_one_segment_at_any_position(emss: int) -> None:
    worst_markers = -(-emss // 512)
    assert fpdu_length(mulpdu(emss, markers=True)) + 4 * worst_markers <= emss
