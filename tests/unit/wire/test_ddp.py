"""DDP headers to the octet."""

import struct

import pytest

from softndk.wire import WireError
from softndk.wire.ddp import (
    TAGGED_HEADER,
    UNTAGGED_HEADER,
    QueueNumber,
    TaggedHeader,
    UntaggedHeader,
    is_tagged,
    parse_tagged,
    parse_untagged,
)
from softndk.wire.rdmap import Opcode
from tests.vectors.iwarp_vectors import UNMARKED_FPDUS, Frame, ulpdu_of

TAGGED = [vector for vector in UNMARKED_FPDUS if "tagged" in vector.expected]
UNTAGGED = [vector for vector in UNMARKED_FPDUS if "untagged" in vector.expected]


def rsvdulp(vector: Frame) -> int:
    """RDMAP version 1 and the opcode."""
    return 0x40 | Opcode[vector.expected["opcode"]]


@pytest.mark.parametrize("vector", TAGGED, ids=str)
def test_tagged_vector(vector: Frame) -> None:
    header = TaggedHeader(rsvdulp=rsvdulp(vector), **vector.expected["tagged"])
    ulpdu = ulpdu_of(vector)
    assert is_tagged(ulpdu[0])
    assert parse_tagged(memoryview(ulpdu)) == header
    assert header.emit() + bytes.fromhex(vector.expected["payload"]) == ulpdu


@pytest.mark.parametrize("vector", UNTAGGED, ids=str)
def test_untagged_vector(vector: Frame) -> None:
    header = UntaggedHeader(rsvdulp=rsvdulp(vector), **vector.expected["untagged"])
    ulpdu = ulpdu_of(vector)
    assert not is_tagged(ulpdu[0])
    assert parse_untagged(memoryview(ulpdu)) == header
    assert header.emit() + bytes.fromhex(vector.expected["payload"]) == ulpdu


def test_both_kinds_are_among_the_vectors() -> None:
    assert TAGGED
    assert UNTAGGED


def test_every_field_has_its_place() -> None:
    tagged = TaggedHeader(last=False, rsvdulp=0x5A, stag=0x01020304, to=0x05060708090A0B0C)
    assert tagged.emit() == bytes.fromhex("81 5a 01020304 05060708090a0b0c")
    assert parse_tagged(tagged.emit()) == tagged
    untagged = UntaggedHeader(
        last=True, rsvdulp=0x5A, rsvdulp_word=0x01020304, qn=0x05060708, msn=0x090A0B0C, mo=0x0D0E0F10
    )
    assert untagged.emit() == bytes.fromhex("41 5a 01020304 05060708 090a0b0c 0d0e0f10")
    assert parse_untagged(untagged.emit()) == untagged


def test_largest_values_travel() -> None:
    tagged = TaggedHeader(last=True, rsvdulp=0xFF, stag=0xFFFFFFFF, to=0xFFFFFFFFFFFFFFFF)
    assert parse_tagged(tagged.emit()) == tagged
    untagged = UntaggedHeader(
        last=True, rsvdulp=0xFF, rsvdulp_word=0xFFFFFFFF, qn=0xFFFFFFFF, msn=0xFFFFFFFF, mo=0xFFFFFFFF
    )
    assert parse_untagged(untagged.emit()) == untagged


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(struct.error):
        TaggedHeader(last=True, rsvdulp=0, stag=1 << 32, to=0).emit()
    with pytest.raises(struct.error):
        UntaggedHeader(last=True, rsvdulp=0, rsvdulp_word=0, qn=0, msn=-1, mo=0).emit()


@pytest.mark.parametrize("version", range(4))
def test_the_version_is_reported_not_judged(version: int) -> None:
    assert parse_tagged(bytes([0x80 | version]) + bytes(13)).version == version
    assert parse_untagged(bytes([version]) + bytes(17)).version == version
    assert TaggedHeader(last=False, rsvdulp=0, stag=0, to=0, version=version).emit()[0] == 0x80 | version
    untagged = UntaggedHeader(last=False, rsvdulp=0, rsvdulp_word=0, qn=0, msn=0, mo=0, version=version)
    assert untagged.emit()[0] == version


def test_reserved_control_bits_are_ignored() -> None:
    assert parse_tagged(b"\xfd" + bytes(13)) == parse_tagged(b"\xc1" + bytes(13))
    assert parse_untagged(b"\x7d" + bytes(17)) == parse_untagged(b"\x41" + bytes(17))


def test_payload_behind_the_header_does_not_matter() -> None:
    header = TaggedHeader(last=True, rsvdulp=0x40, stag=7, to=9)
    assert parse_tagged(header.emit() + b"payload") == header


@pytest.mark.parametrize("length", range(TAGGED_HEADER))
def test_too_short_for_a_tagged_header(length: int) -> None:
    with pytest.raises(WireError, match=f"{length} octets"):
        parse_tagged(bytes(length))


@pytest.mark.parametrize("length", range(UNTAGGED_HEADER))
def test_too_short_for_an_untagged_header(length: int) -> None:
    with pytest.raises(WireError, match=f"{length} octets"):
        parse_untagged(bytes(length))


def test_queue_numbers() -> None:
    assert [(queue.value, queue.name) for queue in QueueNumber] == [
        (0, "SEND"),
        (1, "READ_REQUEST"),
        (2, "TERMINATE"),
        (3, "ATOMIC_RESPONSE"),
    ]
