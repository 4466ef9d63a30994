"""FPDUs of a stream: vectors in both directions, faults, and whose memory is whose."""

import pickle

import pytest

from softndk.iwarp.framing import Deframer, Framer, FramingFault, FramingReason
from softndk.wire.rdmap import Opcode
from tests.vectors.fpdu_model import crc32c_bitwise, fpdu, stream
from tests.vectors.iwarp_vectors import MARKED_FPDUS, UNMARKED_FPDUS, Frame, ulpdu_of

BOTH = [pytest.param(False, id="plain"), pytest.param(True, id="markers")]


def expected_ulpdu(vector: Frame) -> bytes:
    """The ULPDU put together from a vector's fields."""
    expected = vector.expected
    opcode = 0x40 | Opcode[expected["opcode"]]
    if "tagged" in expected:
        fields = expected["tagged"]
        header = bytes([0xC1 if fields["last"] else 0x81, opcode])
        header += fields["stag"].to_bytes(4, "big") + fields["to"].to_bytes(8, "big")
    else:
        fields = expected["untagged"]
        header = bytes([0x41 if fields["last"] else 0x01, opcode])
        for name in ("rsvdulp_word", "qn", "msn", "mo"):
            header += fields[name].to_bytes(4, "big")
    return header + bytes.fromhex(expected["payload"])


def at_position(framer: Framer, position: int) -> None:
    """Move a framer to a stream offset (a multiple of 4, below 512) with marker 0 in front."""
    framer.frame(bytes(position - 4 - 6 - 2), [])
    assert framer.position == position


def drain(deframer: Deframer) -> list[bytes]:
    ulpdus = []
    while (ulpdu := deframer.next_ulpdu()) is not None:
        ulpdus.append(bytes(ulpdu))
    return ulpdus


def next_of(deframer: Deframer) -> bytes:
    ulpdu = deframer.next_ulpdu()
    assert ulpdu is not None
    return bytes(ulpdu)


def spoilt(octets: bytes, at: int) -> bytes:
    changed = bytearray(octets)
    changed[at] ^= 0x01
    return bytes(changed)


class TestVectors:
    @pytest.mark.parametrize("vector", UNMARKED_FPDUS, ids=str)
    def test_framed(self, vector: Frame) -> None:
        ulpdu = expected_ulpdu(vector)
        assert Framer(crc=True, markers=False).frame(ulpdu[:14], [memoryview(ulpdu)[14:]]) == vector.octets

    @pytest.mark.parametrize("vector", UNMARKED_FPDUS, ids=str)
    def test_deframed(self, vector: Frame) -> None:
        assert ulpdu_of(vector) == expected_ulpdu(vector)
        deframer = Deframer(crc=True, markers=False)
        deframer.feed(memoryview(vector.octets))
        assert drain(deframer) == [expected_ulpdu(vector)]
        assert deframer.offset == len(vector.octets)

    @pytest.mark.parametrize("vector", MARKED_FPDUS, ids=str)
    def test_framed_with_markers(self, vector: Frame) -> None:
        framer = Framer(crc=True, markers=True)
        if vector.expected["stream_offset"]:
            at_position(framer, vector.expected["stream_offset"])
        assert framer.frame(expected_ulpdu(vector), []) == vector.octets

    @pytest.mark.parametrize("vector", MARKED_FPDUS, ids=str)
    def test_deframed_with_markers(self, vector: Frame) -> None:
        offset = vector.expected["stream_offset"]
        before = b""
        if offset:
            before = fpdu(bytes(offset - 12), position=0, crc=True, markers=True)
        assert len(before) == offset
        deframer = Deframer(crc=True, markers=True)
        deframer.feed(memoryview(before + vector.octets))
        assert drain(deframer)[-1] == expected_ulpdu(vector)

    def test_there_are_vectors_with_markers(self) -> None:
        assert [vector.expected["stream_offset"] for vector in MARKED_FPDUS] == [0, 492]

    def test_all_vectors_in_one_stream(self) -> None:
        deframer = Deframer(crc=True, markers=False)
        deframer.feed(memoryview(b"".join(vector.octets for vector in UNMARKED_FPDUS)))
        assert drain(deframer) == [expected_ulpdu(vector) for vector in UNMARKED_FPDUS]


class TestFramer:
    @pytest.mark.parametrize("length", [*range(12), 495, 496, 497, 500, 504, 508, 512, 1016, 1020, 2000])
    @pytest.mark.parametrize("crc", [True, False])
    @pytest.mark.parametrize("markers", BOTH)
    def test_as_the_model_writes_it(self, length: int, crc: bool, markers: bool) -> None:
        ulpdus = [bytes([number]) * length for number in range(1, 4)]
        framer = Framer(crc=crc, markers=markers)
        out = b"".join(framer.frame(ulpdu, []) for ulpdu in ulpdus)
        assert out == stream(ulpdus, crc=crc, markers=markers)
        assert framer.position == len(out)

    def test_without_crc_its_octets_are_zero(self) -> None:
        assert Framer(crc=False, markers=False).frame(b"header", [])[-4:] == bytes(4)

    def test_a_marker_between_pad_and_crc_is_covered(self) -> None:
        # Marker 0, then 508 octets up to the end of the pad: the next marker is due before the CRC.
        ulpdu = bytes(range(250)) * 2 + bytes(5)
        out = Framer(crc=True, markers=True).frame(ulpdu, [])
        assert len(out) == 4 + 2 + 505 + 1 + 4 + 4
        assert out[512:516] == bytes.fromhex("0000 01fc")
        assert out == fpdu(ulpdu, position=0, crc=True, markers=True)

    def test_a_marker_due_at_the_end_goes_with_the_next_fpdu(self) -> None:
        framer = Framer(crc=True, markers=True)
        first = framer.frame(bytes(512 - 4 - 2 - 4), [])
        assert len(first) == 512
        assert framer.frame(b"next", [])[:6] == bytes.fromhex("00000000 0004")

    def test_gathers_pieces_and_copies_them(self) -> None:
        memory = bytearray(b"ABCDEFGH")
        view = memoryview(memory)
        out = Framer(crc=True, markers=False).frame(b"head", [view[:3], view[3:3], view[3:]])
        memory[:] = bytes(8)
        assert out == fpdu(b"headABCDEFGH", position=0, crc=True, markers=False)

    @pytest.mark.parametrize(("markers", "limit"), [(False, 65535), (True, 64768)])
    def test_longest_ulpdu(self, markers: bool, limit: int) -> None:
        framer = Framer(crc=True, markers=markers)
        deframer = Deframer(crc=True, markers=markers)
        payload = memoryview(bytes(range(256)) * 256)
        deframer.feed(memoryview(framer.frame(b"", [payload[:limit]])))
        assert drain(deframer) == [bytes(payload[:limit])]
        position = framer.position
        with pytest.raises(ValueError, match=str(limit)):
            framer.frame(b"x", [payload[:limit]])
        assert framer.position == position


class TestDeframer:
    @pytest.mark.parametrize("markers", BOTH)
    @pytest.mark.parametrize("step", [1, 2, 3, 5, 511, 512, 513])
    def test_any_step_through_a_stream(self, markers: bool, step: int) -> None:
        ulpdus = [bytes([length & 0xFF]) * length for length in (18, 0, 1, 508, 2, 1442, 3, 4, 65)]
        octets = stream(ulpdus, crc=True, markers=markers)
        deframer = Deframer(crc=True, markers=markers)
        received = []
        for at in range(0, len(octets), step):
            deframer.feed(memoryview(octets)[at : at + step])
            received += drain(deframer)
            deframer.detach()
        assert received == ulpdus
        assert (deframer.offset, deframer.buffered, deframer.inside_fpdu) == (len(octets), 0, False)

    def test_an_empty_ulpdu_is_something(self) -> None:
        deframer = Deframer(crc=True, markers=False)
        deframer.feed(memoryview(stream([b""], crc=True, markers=False)))
        ulpdu = deframer.next_ulpdu()
        assert ulpdu is not None
        assert len(ulpdu) == 0

    def test_pad_octets_are_not_checked_but_covered(self) -> None:
        octets = bytearray(stream([b"x"], crc=False, markers=False))
        octets[3] = 0x77
        lenient, strict = Deframer(crc=False, markers=False), Deframer(crc=True, markers=False)
        lenient.feed(memoryview(octets))
        assert drain(lenient) == [b"x"]
        strict.feed(memoryview(spoilt(stream([b"x"], crc=True, markers=False), 3)))
        with pytest.raises(FramingFault):
            strict.next_ulpdu()

    def test_whole_fpdus_are_slices_of_the_lent_memory(self) -> None:
        chunk = memoryview(stream([b"first", b"second"] * 50, crc=True, markers=False))
        deframer = Deframer(crc=True, markers=False)
        deframer.feed(chunk)
        views = []
        while (ulpdu := deframer.next_ulpdu()) is not None:
            views.append(ulpdu)
        assert len(views) == 100
        assert all(view.obj is chunk.obj for view in views)

    def test_ulpdus_stay_valid_until_detach(self) -> None:
        ulpdus = [b"carried over", b"second", b"third", b"fourth"]
        octets = memoryview(stream(ulpdus, crc=True, markers=False))
        deframer = Deframer(crc=True, markers=False)
        deframer.feed(octets[:7])
        assert deframer.next_ulpdu() is None
        deframer.detach()
        deframer.feed(octets[7:-1])
        views = [deframer.next_ulpdu() for _ in range(3)]
        assert [bytes(view) for view in views if view is not None] == ulpdus[:3]

    @pytest.mark.parametrize("markers", BOTH)
    def test_lent_memory_is_free_after_detach(self, markers: bool) -> None:
        ulpdus = [b"one", b"two" * 300, b"three", b"four"]
        octets = stream(ulpdus, crc=True, markers=markers)
        memory = bytearray(octets[:-30])
        deframer = Deframer(crc=True, markers=markers)
        deframer.feed(memoryview(memory))
        assert next_of(deframer) == b"one"
        deframer.detach()
        memory.clear()  # possible only if nobody holds a view of it any more
        deframer.feed(memoryview(octets)[-30:])
        assert drain(deframer) == ulpdus[1:]

    def test_feeding_again_keeps_what_nobody_took(self) -> None:
        ulpdus = [b"one", b"two", b"three"]
        octets = memoryview(stream(ulpdus, crc=True, markers=False))
        deframer = Deframer(crc=True, markers=False)
        deframer.feed(octets[:20])
        deframer.feed(octets[20:])
        assert deframer.buffered == len(octets)
        assert drain(deframer) == ulpdus

    def test_untaken_fpdus_outlive_many_chunks(self) -> None:
        ulpdus = [bytes([number]) * number for number in range(40)]
        octets = memoryview(stream(ulpdus, crc=True, markers=False))
        deframer = Deframer(crc=True, markers=False)
        received = []
        for at in range(0, len(octets), 50):
            deframer.feed(octets[at : at + 50])
            if (ulpdu := deframer.next_ulpdu()) is not None:
                received.append(bytes(ulpdu))
            deframer.detach()
        assert len(received) < len(ulpdus)
        received += drain(deframer)
        assert received == ulpdus

    @pytest.mark.parametrize("markers", BOTH)
    def test_inside_an_fpdu_and_buffered(self, markers: bool) -> None:
        octets = memoryview(stream([b"whole", b"part"], crc=True, markers=markers))
        first = len(fpdu(b"whole", position=0, crc=True, markers=markers))
        for end in range(len(octets) + 1):
            for chunk in (octets[:end], None):
                deframer = Deframer(crc=True, markers=markers)
                if chunk is not None:
                    deframer.feed(chunk)
                else:
                    for at in range(end):
                        deframer.feed(octets[at : at + 1])
                        deframer.detach()
                assert deframer.buffered == end
                assert deframer.inside_fpdu == (0 < end < first)
                drain(deframer)
                assert deframer.inside_fpdu == (end not in (0, first, len(octets)))
                assert deframer.buffered == end - deframer.offset


class TestFaults:
    GOOD = b"good" * 10
    AFTER = b"after"

    def damaged(self, markers: bool, at: int) -> tuple[Deframer, int]:
        """A good FPDU, a damaged one, another good one; and where the damaged one starts."""
        ulpdus = [self.GOOD, b"damaged" * 100, self.AFTER]
        start = len(stream(ulpdus[:1], crc=True, markers=markers))
        deframer = Deframer(crc=True, markers=markers)
        deframer.feed(memoryview(spoilt(stream(ulpdus, crc=True, markers=markers), start + at)))
        return deframer, start

    @pytest.mark.parametrize("markers", BOTH)
    @pytest.mark.parametrize("at", [1, 2, 200, 600, 701, 703])
    def test_bad_crc(self, markers: bool, at: int) -> None:
        deframer, start = self.damaged(markers, at)
        assert next_of(deframer) == self.GOOD
        with pytest.raises(FramingFault) as caught:
            deframer.next_ulpdu()
        fault = caught.value
        assert (fault.reason, fault.offset) == (FramingReason.BAD_CRC, start)
        assert fault.received != fault.computed
        for part in (
            f"offset {start}",
            f"{fault.received:#010x} received",
            f"{fault.computed:#010x} computed",
        ):
            assert part in str(fault)

    def test_both_crcs_are_told(self) -> None:
        octets = bytes.fromhex("001a4143000000000000000000000001000000004142434445464748 334d7289")
        deframer = Deframer(crc=True, markers=False)
        deframer.feed(memoryview(octets))
        with pytest.raises(FramingFault, match=r"0x89724d33 received, 0x88724d33 computed"):
            deframer.next_ulpdu()

    @pytest.mark.parametrize("markers", BOTH)
    def test_nothing_after_a_fault(self, markers: bool) -> None:
        deframer, start = self.damaged(markers, 100)
        deframer.next_ulpdu()
        with pytest.raises(FramingFault):
            deframer.next_ulpdu()
        assert deframer.next_ulpdu() is None
        deframer.feed(memoryview(stream([self.AFTER], crc=True, markers=markers)))
        deframer.detach()
        assert deframer.next_ulpdu() is None
        assert (deframer.offset, deframer.buffered, deframer.inside_fpdu) == (start, 0, False)

    def test_crc_is_not_looked_at_when_off(self) -> None:
        deframer = Deframer(crc=False, markers=False)
        octets = stream([self.GOOD], crc=False, markers=False)
        deframer.feed(memoryview(octets[:-4] + b"\xde\xad\xbe\xef"))
        assert drain(deframer) == [self.GOOD]

    @pytest.mark.parametrize(("at", "expected"), [(2, 0), (3, 0), (514, 508), (515, 508), (1026, 1020)])
    def test_wrong_marker_without_crc(self, at: int, expected: int) -> None:
        octets = stream([bytes(1200)], crc=False, markers=True)
        deframer = Deframer(crc=False, markers=True)
        deframer.feed(memoryview(spoilt(octets, at)))
        with pytest.raises(FramingFault) as caught:
            deframer.next_ulpdu()
        fault = caught.value
        wrong = expected ^ (0x100 if at % 2 == 0 else 1)
        assert (fault.reason, fault.offset) == (FramingReason.MARKER, 0)
        assert (fault.received, fault.computed) == (wrong, expected)
        assert str(wrong) in str(fault)
        assert str(expected) in str(fault)
        assert deframer.next_ulpdu() is None

    def test_wrong_marker_under_a_good_crc(self) -> None:
        body = bytes.fromhex("00000004 0004") + b"ABCD" + bytes(2)
        deframer = Deframer(crc=True, markers=True)
        deframer.feed(memoryview(body + fpdu_crc(body)))
        with pytest.raises(FramingFault) as caught:
            deframer.next_ulpdu()
        assert caught.value.reason is FramingReason.MARKER

    def test_damaged_marker_is_a_crc_error_first(self) -> None:
        octets = stream([bytes(1200)], crc=True, markers=True)
        deframer = Deframer(crc=True, markers=True)
        deframer.feed(memoryview(spoilt(octets, 515)))
        with pytest.raises(FramingFault) as caught:
            deframer.next_ulpdu()
        assert caught.value.reason is FramingReason.BAD_CRC

    def test_reserved_half_of_a_marker_is_ignored(self) -> None:
        deframer = Deframer(crc=False, markers=True)
        deframer.feed(memoryview(spoilt(stream([b"x"], crc=False, markers=True), 1)))
        assert drain(deframer) == [b"x"]

    def test_fault_survives_pickling(self) -> None:
        fault = FramingFault(FramingReason.BAD_CRC, 20, 1, 2)
        assert str(pickle.loads(pickle.dumps(fault))) == str(fault)


def fpdu_crc(covered: bytes) -> bytes:
    """The CRC octets for hand-made FPDUs."""
    return crc32c_bitwise(covered).to_bytes(4, "little")
