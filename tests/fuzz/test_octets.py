"""The fuzzer's own codec, which judges the project's, against published octets and the slow model."""

import random

import pytest

from fuzz.octets import Damage, Divider, fpdu, read_request_body, startup_frame, tagged, untagged
from tests.vectors import fpdu_model

# RFC 5044, figures 5 and 6: the two frames with their markers.
LEADING = bytes.fromhex("00000000002a414300000000000000000000000100000000") + bytes(24) + bytes.fromhex("52239983")
INNER = (
    bytes.fromhex("002a4143000000000000000000000002000000000000")
    + bytes.fromhex("0014")
    + bytes(24)
    + bytes.fromhex("84925898")
)


def test_published_octets() -> None:
    send = untagged(3, 0, 1, 0, b"ABCDEFGH")
    plain = fpdu(send, position=0, crc=True, markers=False)
    assert plain.hex() == "001a4143000000000000000000000001000000004142434445464748334d7288"
    write = tagged(0, 0xABCD01, 0x0000700000001000, bytes(range(16)))
    assert fpdu(write, position=0, crc=True, markers=False)[-4:].hex() == "66fe6a4b"
    read = untagged(1, 1, 1, 0, read_request_body(0x112201, 0x2000, 10, 0xABCD01, 0x700000001004))
    assert fpdu(read, position=0, crc=True, markers=False)[-4:].hex() == "a14bf6a8"
    frame = startup_frame(b"MPA ID Req Frame", 0x50, 2, bytes.fromhex("00100010") + b"hi")
    assert frame.hex() == "4d504120494420526571204672616d6550020006001000106869"


def test_markers_of_the_figures() -> None:
    assert fpdu(untagged(3, 0, 1, 0, bytes(24)), position=0, crc=True, markers=True) == LEADING
    assert fpdu(untagged(3, 0, 2, 0, bytes(24)), position=492, crc=True, markers=True) == INNER


@pytest.mark.parametrize("markers", [False, True])
@pytest.mark.parametrize("crc", [False, True])
def test_against_the_model(crc: bool, markers: bool) -> None:
    rng = random.Random(5)
    ulpdus = [rng.randbytes(rng.choice((0, 1, 2, 3, 14, 30, 470, 500, 508, 1030))) for _ in range(60)]
    due = fpdu_model.stream(ulpdus, crc=crc, markers=markers)
    made = bytearray()
    for ulpdu in ulpdus:
        made += fpdu(ulpdu, position=len(made), crc=crc, markers=markers)
    assert made == due
    divider = Divider(crc, markers)
    found = []
    for at in range(0, len(due), 37):
        divider.feed(due[at : at + 37])
        found += list(divider)
    assert found == ulpdus
    assert not divider.held


@pytest.mark.parametrize(("octet", "kind"), [(9, "crc"), (3, "marker")])
def test_damage(octet: int, kind: str) -> None:
    damaged = fpdu(untagged(3, 0, 1, 0, b"x"), position=0, crc=kind == "crc", markers=True)
    damaged[octet] ^= 4
    divider = Divider(kind == "crc", True)
    divider.feed(damaged)
    with pytest.raises(Damage) as caught:
        divider.next()
    assert caught.value.kind == kind
