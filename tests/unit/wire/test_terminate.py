"""Terminate bodies to the octet, the words for every code, and the Linux driver's way of writing them."""

import re

import pytest

from softndk.wire import WireError
from softndk.wire.terminate import CODES, MAX_BODY, Layer, Terminate, describe, is_defined
from tests.vectors.iwarp_vectors import UNMARKED_FPDUS, Frame, ulpdu_of

VECTORS = [vector for vector in UNMARKED_FPDUS if "terminate" in vector.expected]

TAGGED_HEADER = bytes.fromhex("c140deadbe010000000000001000")
SEND_HEADER = bytes.fromhex("414499999901000000000000000100000000")
READ_HEADER = bytes.fromhex("414100000000000000010000000100000000")
READ_BODY = bytes(range(28))

# Layer, type, code and the standard's words for them.
MEANINGS = [
    (0, 0, 0x00, "local catastrophic"),
    (0, 0, 0x55, "local catastrophic"),
    (0, 1, 0x00, "invalid STag"),
    (0, 1, 0x01, "base or bounds violation"),
    (0, 1, 0x02, "access rights violation"),
    (0, 1, 0x03, "STag not associated with this stream"),
    (0, 1, 0x04, "TO wrap"),
    (0, 1, 0x09, "STag cannot be invalidated"),
    (0, 1, 0xFF, "unspecified"),
    (0, 2, 0x05, "invalid RDMAP version"),
    (0, 2, 0x06, "unexpected opcode"),
    (0, 2, 0x07, "catastrophic error, this stream"),
    (0, 2, 0x08, "catastrophic error, global"),
    (0, 2, 0x09, "STag cannot be invalidated"),
    (0, 2, 0xFF, "unspecified"),
    (1, 0, 0x00, "local catastrophic"),
    (1, 1, 0x00, "invalid STag"),
    (1, 1, 0x01, "base or bounds violation"),
    (1, 1, 0x02, "STag not associated with this stream"),
    (1, 1, 0x03, "TO wrap"),
    (1, 1, 0x04, "invalid DDP version"),
    (1, 2, 0x01, "invalid QN"),
    (1, 2, 0x02, "no buffer available"),
    (1, 2, 0x03, "range not valid"),
    (1, 2, 0x04, "invalid MO"),
    (1, 2, 0x05, "message too long"),
    (1, 2, 0x06, "invalid DDP version"),
    (2, 0, 0x01, "closed, reset or lost"),
    (2, 0, 0x02, "CRC"),
    (2, 0, 0x03, "marker"),
    (2, 0, 0x04, "malformed start-up frame"),
    (2, 0, 0x05, "local catastrophic"),
    (2, 0, 0x06, "insufficient IRD"),
    (2, 0, 0x07, "no matching ready-to-receive option"),
]


class TestBody:
    @pytest.mark.parametrize("vector", VECTORS, ids=str)
    def test_vector(self, vector: Frame) -> None:
        fields = dict(vector.expected["terminate"])
        for name in ("ddp_header", "read_header"):
            fields[name] = bytes.fromhex(fields[name])
        message = Terminate(**fields)
        body = ulpdu_of(vector)[18:]
        assert message.emit() == body
        assert Terminate.parse(memoryview(body)) == message
        assert not Terminate.parse(body).scrambled

    def test_vectors_exist(self) -> None:
        assert len(VECTORS) == 4

    @pytest.mark.parametrize(
        ("message", "length"),
        [
            (Terminate(2, 0, 2), 4),
            (Terminate(1, 1, 0, 22, TAGGED_HEADER), 20),
            (Terminate(0, 2, 9, 18, SEND_HEADER), 24),
            (Terminate(0, 1, 0, 46, READ_HEADER, READ_BODY), 52),
        ],
    )
    def test_the_four_sizes(self, message: Terminate, length: int) -> None:
        assert len(message.emit()) == length <= MAX_BODY
        assert Terminate.parse(message.emit()) == message

    def test_length_field_is_there_but_void_with_d_alone(self) -> None:
        body = bytes.fromhex("1100 40 00 ffff") + TAGGED_HEADER
        message = Terminate.parse(body)
        assert message == Terminate(1, 1, 0, None, TAGGED_HEADER)
        assert message.emit() == bytes.fromhex("1100 40 00 0000") + TAGGED_HEADER

    def test_segment_length_without_a_header(self) -> None:
        assert Terminate.parse(bytes.fromhex("1100 80 00 0016")) == Terminate(1, 1, 0, 22)

    def test_reserved_bits_and_octets_behind_are_ignored(self) -> None:
        assert Terminate.parse(bytes.fromhex("1100 df ff 0016") + TAGGED_HEADER + b"more") == Terminate(
            1, 1, 0, 22, TAGGED_HEADER
        )

    def test_numbers_without_a_meaning_are_kept(self) -> None:
        message = Terminate.parse(bytes.fromhex("fe dc 00 00"))
        assert (message.layer, message.etype, message.code) == (15, 14, 0xDC)

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param("", id="empty"),
            pytest.param("200200", id="three octets"),
            pytest.param("11008000", id="length missing"),
            pytest.param("1100800000", id="length cut off"),
            pytest.param("1100c0000016", id="header missing"),
            pytest.param("1100c0000016" + TAGGED_HEADER.hex()[:-2], id="tagged header cut off"),
            pytest.param("0209c0000012" + SEND_HEADER.hex()[:-2], id="untagged header cut off"),
            pytest.param("0100e000002e" + READ_HEADER.hex(), id="read header missing"),
            pytest.param("0100e000002e" + READ_HEADER.hex() + READ_BODY.hex()[:-2], id="read header cut off"),
            pytest.param("0100e0000016" + TAGGED_HEADER.hex() + READ_BODY.hex(), id="read of a tagged segment"),
            pytest.param("01002000" + READ_BODY.hex(), id="read header alone"),
        ],
    )
    def test_malformed(self, body: str) -> None:
        with pytest.raises(WireError, match="Terminate"):
            Terminate.parse(bytes.fromhex(body))

    @pytest.mark.parametrize(
        ("layer", "etype", "code", "length", "ddp", "read"),
        [
            (16, 0, 0, None, b"", b""),
            (0, 16, 0, None, b"", b""),
            (0, 0, 256, None, b"", b""),
            (0, 0, -1, None, b"", b""),
            (1, 1, 0, 65536, b"", b""),
            (1, 1, 0, 1, TAGGED_HEADER[:-1], b""),
            (1, 1, 0, 1, SEND_HEADER[:14], b""),
            (0, 1, 0, 1, b"", READ_BODY),
            (0, 1, 0, 1, TAGGED_HEADER, READ_BODY),
            (0, 1, 0, 1, READ_HEADER, READ_BODY[:-1]),
        ],
    )
    def test_what_has_no_encoding_cannot_be_made(
        self, layer: int, etype: int, code: int, length: int | None, ddp: bytes, read: bytes
    ) -> None:
        with pytest.raises(ValueError, match=r"fit|follows"):
            Terminate(layer, etype, code, length, ddp, read)


class TestLinuxDriver:
    """It exchanges layer and type and uses the low flag bits."""

    def test_crc_error_without_headers(self) -> None:
        message = Terminate.parse(bytes.fromhex("02020000"))
        assert message == Terminate(2, 0, 2)
        assert message.scrambled

    def test_tagged_segment(self) -> None:
        message = Terminate.parse(bytes.fromhex("11000300 0008") + TAGGED_HEADER)
        assert message == Terminate(1, 1, 0, 8, TAGGED_HEADER)
        assert message.scrambled

    def test_read_request(self) -> None:
        message = Terminate.parse(bytes.fromhex("10000700 001c") + READ_HEADER + READ_BODY)
        assert message == Terminate(0, 1, 0, 28, READ_HEADER, READ_BODY)
        assert message.scrambled

    def test_untagged_buffer_error_is_told_by_its_flags(self) -> None:
        message = Terminate.parse(bytes.fromhex("21020300 0008") + SEND_HEADER)
        assert message == Terminate(1, 2, 2, 8, SEND_HEADER)
        assert message.scrambled

    def test_standard_flags_win_over_low_bits(self) -> None:
        message = Terminate.parse(bytes.fromhex("1100c300 0016") + TAGGED_HEADER)
        assert message == Terminate(1, 1, 0, 22, TAGGED_HEADER)
        assert not message.scrambled

    @pytest.mark.parametrize("body", ["01010000", "00000000", "20020000"])
    def test_without_flags_a_triple_that_has_a_meaning_stays(self, body: str) -> None:
        message = Terminate.parse(bytes.fromhex(body))
        assert message.emit() == bytes.fromhex(body)
        assert not message.scrambled

    def test_without_flags_and_without_a_meaning_either_way_it_stays(self) -> None:
        message = Terminate.parse(bytes.fromhex("34050000"))
        assert (message.layer, message.etype, message.scrambled) == (3, 4, False)

    @pytest.mark.parametrize(
        ("body", "started", "meant"),
        [
            ("20060000", False, (2, 0, 6)),
            ("20060000", True, (0, 2, 6)),
            ("02060000", False, (2, 0, 6)),
            ("02060000", True, (0, 2, 6)),
            ("02070000", False, (2, 0, 7)),
            ("20050000", True, (0, 2, 5)),
            ("20040000", True, (2, 0, 4)),  # 0/2/4 is no code
            ("02040000", True, (2, 0, 4)),
            ("20020000", True, (2, 0, 2)),  # a CRC error comes at any time
            ("02090000", False, (0, 2, 9)),  # 2/0/9 is no code
            ("02068000 0012", False, (0, 2, 6)),  # the flags tell the order
            ("20060200 0012" + SEND_HEADER.hex(), True, (0, 2, 6)),
        ],
    )
    def test_what_is_meant_without_headers_depends_on_what_it_can_be_about(
        self, body: str, started: bool, meant: tuple[int, int, int]
    ) -> None:
        message = Terminate.parse(bytes.fromhex(body))
        settled = message.settled(started=started)
        assert (settled.layer, settled.etype, settled.code) == meant
        assert settled.scrambled == (meant[0] != bytes.fromhex(body)[0] >> 4)

    def test_cut_off_is_malformed_here_too(self) -> None:
        with pytest.raises(WireError, match="DDP header"):
            Terminate.parse(bytes.fromhex("11000300 0008") + TAGGED_HEADER[:-1])

    def test_we_write_the_standard_order_again(self) -> None:
        assert Terminate.parse(bytes.fromhex("02020000")).emit() == bytes.fromhex("20020000")


class TestWords:
    @pytest.mark.parametrize(("layer", "etype", "code", "words"), MEANINGS)
    def test_every_code(self, layer: int, etype: int, code: int, words: str) -> None:
        text = describe(layer, etype, code)
        assert words in text
        assert text.startswith(Layer(layer).name)
        assert f"({layer:x}/{etype:x}/{code:x})" in text
        assert is_defined(layer, etype, code)

    def test_the_list_above_is_complete(self) -> None:
        without_codes = {(0, 0, 0x00), (0, 0, 0x55)}
        assert {(layer, etype, code) for layer, etype, code, _ in MEANINGS} - without_codes == set(CODES)

    @pytest.mark.parametrize(
        ("layer", "etype", "code"),
        [(0, 1, 5), (0, 2, 0), (1, 2, 0), (1, 3, 1), (2, 0, 0), (2, 1, 0), (3, 0, 0), (15, 15, 255)],
    )
    def test_unknown_numbers_give_a_text(self, layer: int, etype: int, code: int) -> None:
        assert "unknown" in describe(layer, etype, code)
        assert f"({layer:x}/{etype:x}/{code:x})" in describe(layer, etype, code)
        assert not is_defined(layer, etype, code)

    def test_every_pair_of_octets_has_a_text_and_it_tells_numbers_apart(self) -> None:
        texts = {describe(first >> 4, first & 15, code) for first in range(256) for code in range(256)}
        assert len(texts) == 65536

    def test_a_message_is_shown_in_words(self) -> None:
        assert re.fullmatch(r"DDP tagged buffer error: invalid STag \(1/1/0\)", str(Terminate(1, 1, 0)))
