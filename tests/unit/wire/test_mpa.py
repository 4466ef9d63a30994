"""Start-up frames to the octet, and the sizes of FPDUs."""

from typing import Any

import pytest

from softndk.wire import WireError
from softndk.wire.mpa import (
    MAX_PRIVATE_DATA,
    MAX_PRIVATE_DATA_ENHANCED,
    NO_NEGOTIATION,
    Enhanced,
    FrameKind,
    StartupFrame,
    fpdu_length,
    frame_length,
    mulpdu,
    pad_length,
)
from tests.vectors.iwarp_vectors import STARTUP_FRAMES, UNMARKED_FPDUS, Frame

REQUEST = b"MPA ID Req Frame"
REPLY = b"MPA ID Rep Frame"


def frame_of(expected: dict[str, Any]) -> StartupFrame:
    return StartupFrame(
        kind={"request": FrameKind.REQUEST, "reply": FrameKind.REPLY}[expected["kind"]],
        markers=expected["markers"],
        crc=expected["crc"],
        reject=expected["reject"],
        revision=expected["revision"],
        enhanced=Enhanced(**expected["enhanced"]) if expected["enhanced"] else None,
        private_data=bytes.fromhex(expected["private_data"]),
    )


def plain(**changes: Any) -> StartupFrame:
    fields: dict[str, Any] = {
        "kind": FrameKind.REQUEST,
        "markers": False,
        "crc": False,
        "reject": False,
        "revision": 2,
        "enhanced": None,
        "private_data": b"",
    }
    return StartupFrame(**(fields | changes))


class TestStartupFrame:
    @pytest.mark.parametrize("vector", STARTUP_FRAMES, ids=str)
    def test_vector_is_emitted(self, vector: Frame) -> None:
        assert frame_of(vector.expected).emit() == vector.octets

    @pytest.mark.parametrize("vector", STARTUP_FRAMES, ids=str)
    def test_vector_is_parsed(self, vector: Frame) -> None:
        assert StartupFrame.parse(vector.octets) == frame_of(vector.expected)
        assert frame_length(vector.octets[:20]) == len(vector.octets)

    @pytest.mark.parametrize(
        ("changes", "flags"),
        [
            ({"markers": True}, 0x80),
            ({"crc": True}, 0x40),
            ({"reject": True}, 0x20),
            ({"enhanced": Enhanced(ird=0, ord=0)}, 0x10),
        ],
    )
    def test_each_flag_has_its_bit(self, changes: dict[str, Any], flags: int) -> None:
        frame = plain(**changes)
        assert frame.emit()[16] == flags
        assert StartupFrame.parse(frame.emit()) == frame

    @pytest.mark.parametrize(
        ("enhanced", "octets"),
        [
            (Enhanced(ird=0, ord=0), "00000000"),
            (Enhanced(ird=NO_NEGOTIATION, ord=1), "3fff0001"),
            (Enhanced(ird=1, ord=NO_NEGOTIATION), "00013fff"),
            (Enhanced(ird=0, ord=0, peer_to_peer=True), "80000000"),
            (Enhanced(ird=0, ord=0, rtr_send=True), "40000000"),
            (Enhanced(ird=0, ord=0, rtr_write=True), "00008000"),
            (Enhanced(ird=0, ord=0, rtr_read=True), "00004000"),
        ],
    )
    def test_enhanced_data(self, enhanced: Enhanced, octets: str) -> None:
        assert enhanced.emit() == bytes.fromhex(octets)
        assert Enhanced.parse(bytes.fromhex(octets)) == enhanced

    def test_reserved_flag_bits_are_sent_as_zero_and_not_checked(self) -> None:
        octets = bytearray(plain().emit())
        assert octets[16] & 0x0F == 0
        octets[16] |= 0x0F
        assert StartupFrame.parse(octets) == plain()

    @pytest.mark.parametrize("revision", [0, 1])
    def test_before_revision_2_the_s_bit_is_reserved(self, revision: int) -> None:
        octets = REQUEST + bytes([0x10, revision, 0, 2]) + b"hi"
        assert StartupFrame.parse(octets) == plain(revision=revision, private_data=b"hi")

    def test_a_revision_from_the_future_is_readable(self) -> None:
        assert StartupFrame.parse(REPLY + bytes([0, 9, 0, 0])).revision == 9

    def test_private_data_up_to_the_limits(self) -> None:
        for frame in (
            plain(private_data=bytes(MAX_PRIVATE_DATA)),
            plain(private_data=bytes(MAX_PRIVATE_DATA_ENHANCED), enhanced=Enhanced(ird=1, ord=1)),
        ):
            assert len(frame.emit()) == 532
            assert StartupFrame.parse(frame.emit()) == frame
        assert (MAX_PRIVATE_DATA, MAX_PRIVATE_DATA_ENHANCED) == (512, 508)

    @pytest.mark.parametrize(
        "octets",
        [
            pytest.param(b"", id="nothing"),
            pytest.param((REQUEST + bytes([0, 1, 0, 0]))[:19], id="header cut off"),
            pytest.param(b"MPA ID Rex Frame" + bytes([0, 1, 0, 0]), id="other key"),
            pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="another protocol"),
            pytest.param(REQUEST + bytes([0, 1, 2, 1]) + bytes(513), id="PD_Length 513"),
            pytest.param(REQUEST + bytes([0x10, 2, 0, 0]), id="S without its data"),
            pytest.param(REPLY + bytes([0x10, 2, 0, 3]) + bytes(3), id="S with 3 octets"),
            pytest.param(REPLY + bytes([0, 1, 0, 2]) + b"a", id="private data cut off"),
            pytest.param(REPLY + bytes([0, 1, 0, 2]) + b"abc", id="something behind"),
        ],
    )
    def test_malformed(self, octets: bytes) -> None:
        with pytest.raises(WireError):
            StartupFrame.parse(octets)

    @pytest.mark.parametrize(
        "changes",
        [
            {"private_data": bytes(513)},
            {"private_data": bytes(509), "enhanced": Enhanced(ird=1, ord=1)},
            {"revision": 1, "enhanced": Enhanced(ird=1, ord=1)},
            {"revision": 256},
        ],
        ids=str,
    )
    def test_what_has_no_encoding_cannot_be_made(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"octets|revision"):
            plain(**changes)

    @pytest.mark.parametrize(("ird", "ord_"), [(0x4000, 0), (0, 0x4000), (-1, 0), (0, -1)])
    def test_limits_have_14_bits(self, ird: int, ord_: int) -> None:
        with pytest.raises(ValueError, match="14-bit"):
            Enhanced(ird=ird, ord=ord_)

    def test_enhanced_data_is_four_octets(self) -> None:
        with pytest.raises(WireError, match="3 octets"):
            Enhanced.parse(bytes(3))


class TestSizes:
    @pytest.mark.parametrize(
        ("ulpdu", "pad", "fpdu"),
        [
            (14, 0, 20),  # zero-length Write
            (18, 0, 24),  # zero-length Send
            (22, 0, 28),
            (23, 3, 32),
            (24, 2, 32),
            (25, 1, 32),
            (26, 0, 32),
            (46, 0, 52),  # Read Request
            (70, 0, 76),  # the longest Terminate
            (0, 2, 8),
            (65535, 3, 65544),
        ],
    )
    def test_pad_and_fpdu_length(self, ulpdu: int, pad: int, fpdu: int) -> None:
        assert pad_length(ulpdu) == pad
        assert fpdu_length(ulpdu) == fpdu

    @pytest.mark.parametrize("vector", UNMARKED_FPDUS, ids=str)
    def test_fpdu_length_of_the_vectors(self, vector: Frame) -> None:
        assert fpdu_length(int.from_bytes(vector.octets[:2], "big")) == len(vector.octets)

    @pytest.mark.parametrize(
        ("emss", "markers", "expected"),
        [
            (1460, False, 1454),
            (1448, False, 1442),
            (1460, True, 1442),  # 3 markers
            (1448, True, 1430),
            (512, True, 502),  # 1 marker
            (513, True, 498),  # 2 markers, one octet that fits no group
            (1463, False, 1454),
            (9000 - 52, False, 8942),
            (128, False, 128),  # the lower bound
            (0, False, 128),
            (64774, False, 64766),
            (65483, False, 64768),  # loopback: the upper bound
            (65483, True, 64768),
        ],
    )
    def test_mulpdu(self, emss: int, markers: bool, expected: int) -> None:
        assert mulpdu(emss, markers) == expected

    @pytest.mark.parametrize("emss", range(1400, 1470))
    def test_an_fpdu_of_mulpdu_fits_the_segment(self, emss: int) -> None:
        assert fpdu_length(mulpdu(emss)) <= emss
        assert fpdu_length(mulpdu(emss)) > emss - 4
