"""Octets of `softndk ping`, and its data: what one side says the other understands, and nothing else is understood."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softndk.cli.ping_protocol import (
    MAX_SIZE,
    MESSAGE_SIZE,
    BadMessage,
    Hello,
    Kind,
    Message,
    Pattern,
    Reason,
    Welcome,
    readable,
)

SEED = b"sixteen octets ."


def number(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


# ---- messages


def test_hello_on_the_wire() -> None:
    octets = b"softndk ping v1\n" + (0x10203).to_bytes(8, "big") + (5).to_bytes(8, "big") + SEED
    assert Hello(0x10203, 5, SEED).emit() == octets
    assert Hello.parse(octets) == Hello(0x10203, 5, SEED)
    assert Hello.parse(octets + b"more") == Hello(0x10203, 5, SEED)


def test_welcome_on_the_wire() -> None:
    octets = b"softndk ping v1\n" + (64).to_bytes(8, "big")
    assert Welcome(64).emit() == octets
    assert Welcome.parse(octets) == Welcome(64)


def test_message_on_the_wire() -> None:
    octets = (
        b"softndk ping v1\n\0\x02\0\x01\x12\x34\x56\x78"
        + b"".join(value.to_bytes(8, "big") for value in (7, 0xFFFF000012345678, 64, 9))
        + bytes(8)
    )
    message = Message(Kind.ANSWER, 7, Reason.MISMATCH, 0x12345678, 0xFFFF000012345678, 64, 9)
    assert message.emit() == octets
    assert Message.parse(octets) == message


@given(st.sampled_from(Kind), number(64), st.sampled_from(Reason), number(32), number(64), number(64), number(64))
def test_a_message_comes_back(
    kind: Kind, count: int, reason: Reason, token: int, address: int, length: int, detail: int
) -> None:
    message = Message(kind, count, reason, token, address, length, detail, "because")
    assert Message.parse(message.emit()) == message


@given(st.text(max_size=400))
def test_a_message_with_a_text_fits_its_room(text: str) -> None:
    octets = Message(Kind.LEAVE, text=text).emit()
    assert len(octets) <= MESSAGE_SIZE
    assert Message.parse(octets).kind is Kind.LEAVE


@pytest.mark.parametrize("parse", [Hello.parse, Welcome.parse, Message.parse])
@given(data=st.binary(max_size=300))
def test_anything_else_is_refused(parse: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(BadMessage):
        parse(data)


@pytest.mark.parametrize("parse", [Hello.parse, Welcome.parse, Message.parse])
@given(data=st.binary(max_size=60))
def test_what_begins_rightly_is_understood_or_refused(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(b"softndk ping v1\n" + data)
    except BadMessage:
        return


@pytest.mark.parametrize("size", [0, MAX_SIZE + 1, (1 << 64) - 1])
def test_sizes_that_cannot_be(size: int) -> None:
    with pytest.raises(BadMessage, match=f"size {size}"):
        Hello.parse(Hello(size, 1, SEED).emit())


@pytest.mark.parametrize("size", [1, MAX_SIZE])
def test_sizes_that_can_be(size: int) -> None:
    assert Hello.parse(Hello(size, 1, SEED).emit()).size == size


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        ("gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n".encode(), "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n"),
        (b"two\nlines", "octets 74 77 6f 0a 6c 69 6e 65 73"),
        (b"\xff", "octets ff"),
        (b"x" * 300, "x" * 200),
        (b"\0" * 100, "octets " + " ".join(["00"] * 64)),
    ],
)
def test_texts_of_a_peer(data: bytes, text: str) -> None:
    assert readable(data) == text


def test_no_message_is_taken_for_another_protocol() -> None:
    """What tshark's heuristics for RPC and SMB Direct look at is in the first 16 octets, which never change."""
    octets = Message(Kind.ADVERT).emit()
    assert int.from_bytes(octets[12:16], "big") > 4
    assert octets[1] > 1
    assert octets[3] > 1


# ---- data


def test_the_block_is_defined_by_seed_and_size() -> None:
    block = hashlib.shake_128(SEED).digest(64 + 4093)
    pattern = Pattern(64, SEED)
    assert bytes(pattern.data(0)) == block[:64]
    assert bytes(pattern.data(1)) == block[1021 : 1021 + 64]
    assert bytes(pattern.data(4093 + 1)) == block[1021 : 1021 + 64]
    assert bytes(pattern.data(5)) == block[5 * 1021 - 4093 : 5 * 1021 - 4093 + 64]


def test_data_change_each_round() -> None:
    pattern = Pattern(64, SEED)
    assert len({bytes(pattern.data(count)) for count in range(4093)}) == 4093


def test_data_are_others_with_another_seed() -> None:
    assert bytes(Pattern(64, SEED).data(1)) != bytes(Pattern(64, SEED[::-1]).data(1))


@given(st.integers(1, 5000), st.integers(0, 1 << 62))
def test_data_have_their_size_in_every_round(size: int, count: int) -> None:
    pattern = Pattern(size, SEED)
    assert len(pattern.data(count)) == size
    assert 0 <= pattern.turn(count) < size
    assert pattern.turn(count) > 0 or size == 1


@given(st.integers(1, 300), st.integers(1, 10000), st.data())
def test_the_first_wrong_octet_is_found(size: int, count: int, draw: st.DataObject) -> None:
    pattern = Pattern(size, SEED)
    start = draw.draw(st.integers(0, 10))
    wrong = sorted(draw.draw(st.sets(st.integers(0, size - 1), max_size=3)))
    data, turn = bytes(pattern.data(count)), pattern.turn(count)
    for good, find in (
        (data, pattern.first_wrong),
        (data[turn:] + data[:turn], pattern.first_wrong_turned),
    ):
        buffer = bytearray(b"." * start + good + b".")
        assert find(count, buffer, start) is None
        for place in wrong:
            buffer[start + place] ^= 0x10
        assert find(count, buffer, start) == (wrong[0] if wrong else None)


def test_missing_octets_are_wrong_ones() -> None:
    pattern = Pattern(64, SEED)
    assert pattern.first_wrong(1, bytearray(pattern.data(1)[:40])) == 40
