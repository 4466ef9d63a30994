"""Several rules broken at once: the check that comes first decides, and it alone (RFC 5040 4.8: the first error is told).

The order: CRC, lengths, versions, opcode, queue number, sequence number, receive or slot, offset, room; for tagged segments
token, protection domain, right, wrap, range; what belongs to the opcode at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import pytest

from softndk.memory.tokens import Right
from softndk.wire.ddp import TaggedHeader, UntaggedHeader
from softndk.wire.rdmap import Opcode, ReadRequest
from tests.conformance.error_rows import TOP, Lab

Code = tuple[int, int, int]
Fields = dict[str, Any]


def code_of(lab: Lab) -> Code:
    """Of the Terminate, which is all that has been sent."""
    (ulpdu,) = lab.peer.take()
    assert ulpdu[:2] == b"\x41\x47"
    return ulpdu[18] >> 4, ulpdu[18] & 15, ulpdu[19]


def pairs(faults: Mapping[str, tuple[Code, Fields]]) -> list[Any]:
    """Every two faults, and all from each one on: the first of them is what must be told."""
    found = [
        pytest.param(faults[first][0], [faults[first][1], faults[second][1]], id=f"{first} before {second}")
        for first, second in combinations(faults, 2)
    ]
    names = list(faults)
    for place, name in enumerate(names):
        fields = [faults[other][1] for other in names[place:]]
        found.append(pytest.param(faults[name][0], fields, id=f"{name} and all behind it"))
    return found


def together(fields: Sequence[Fields]) -> Fields:
    """Of two faults in the same field the first is made."""
    merged: Fields = {}
    for some in reversed(fields):
        merged |= some
    return merged


def give(lab: Lab, ulpdu: bytes, *, damage: bool = False) -> None:
    octets = bytearray(lab.peer.frame(ulpdu))
    if damage:
        octets[-1] ^= 1
    lab.peer.received.clear()
    lab.peer.send_octets(bytes(octets))


SENDS: Final[Mapping[str, tuple[Code, Fields]]] = {
    "crc": ((2, 0, 2), {"damage": True}),
    "DDP version": ((1, 2, 6), {"version": 2}),
    "RDMAP version": ((0, 2, 5), {"control": 0x03}),
    "opcode": ((0, 2, 6), {"control": 0x4C}),
    "queue number": ((1, 2, 1), {"qn": 5}),
    "opcode on that queue": ((0, 2, 6), {"qn": 2}),
    "sequence number": ((1, 2, 3), {"msn": 9}),
    "no receive": ((1, 2, 2), {"receives": 0}),
    "offset": ((1, 2, 4), {"mo": 4}),
    "room": ((1, 2, 5), {"payload": b"x" * 65}),
    "invalidation": ((0, 2, 9), {"opcode": Opcode.SEND_INVALIDATE}),
}


@pytest.mark.parametrize(("code", "faults"), pairs(SENDS))
def test_sends(code: Code, faults: list[Fields]) -> None:
    made = together(faults)
    lab = Lab(receives=made.get("receives", 2))
    control = made.get("control", 0x40 | made.get("opcode", Opcode.SEND))
    header = UntaggedHeader(
        True, control, 0xDEADBE01, made.get("qn", 0), made.get("msn", 1), made.get("mo", 0), made.get("version", 1)
    )
    give(lab, header.emit() + made.get("payload", b"x"), damage=made.get("damage", False))
    assert code_of(lab) == code


TOKENS: Final[Mapping[str, Callable[[Lab], int]]] = {
    "unknown": lambda lab: 0xDEADBE01,
    "foreign": lambda lab: lab.spare(Right.LOCAL_WRITE, pd=lab.other_pd()),
    "powerless": lambda lab: lab.spare(Right.LOCAL_WRITE),
    "good": lambda lab: lab.spare(),
}
MEMORY: Final[
    Mapping[str, tuple[Code, Code, Fields]]
] = {  # what is denied of a token, in order; the two codes are a Write's and a Read's
    "token": ((1, 1, 0), (0, 1, 0), {"token": "unknown"}),
    "protection domain": ((1, 1, 2), (0, 1, 3), {"token": "foreign"}),
    "right": ((0, 1, 2), (0, 1, 2), {"token": "powerless"}),
    "wrap": ((1, 1, 3), (0, 1, 4), {"to": TOP - 4}),
    "range": ((1, 1, 1), (0, 1, 1), {"to": 0x70000 + 250}),
}
WRITES: Final[Mapping[str, tuple[Code, Fields]]] = {
    "crc": ((2, 0, 2), {"damage": True}),
    "DDP version": ((1, 1, 4), {"version": 3}),
    "RDMAP version": ((0, 2, 5), {"control": 0x80}),
    "opcode": ((0, 2, 6), {"control": 0x4F}),
    "opcode of the other model": ((0, 2, 6), {"control": 0x43}),
    **{name: (write, fields) for name, (write, _, fields) in MEMORY.items()},
}


@pytest.mark.parametrize(("code", "faults"), pairs(WRITES))
def test_writes(code: Code, faults: list[Fields]) -> None:
    made = together(faults)
    lab = Lab()
    stag = TOKENS[made.get("token", "good")](lab)
    header = TaggedHeader(True, made.get("control", 0x40), stag, made.get("to", 0x70000), made.get("version", 1))
    give(lab, header.emit() + b"x" * 8, damage=made.get("damage", False))
    assert code_of(lab) == code


READS: Final[Mapping[str, tuple[Code, Fields]]] = {
    "crc": ((2, 0, 2), {"damage": True}),
    "DDP version": ((1, 2, 6), {"version": 0}),
    "RDMAP version": ((0, 2, 5), {"control": 0xC1}),
    "queue number": ((1, 2, 1), {"qn": 7}),
    "sequence number": ((1, 2, 3), {"msn": 2}),
    "read limit": ((1, 2, 2), {"ird": 0}),
    "offset": ((1, 2, 4), {"mo": 1}),
    "length": ((1, 2, 5), {"last": False}),
    **{name: (read, fields) for name, (_, read, fields) in MEMORY.items()},
}


@pytest.mark.parametrize(("code", "faults"), pairs(READS))
def test_read_requests(code: Code, faults: list[Fields]) -> None:
    made = together(faults)
    lab = Lab(ird=made.get("ird", 16))
    stag = TOKENS[made.get("token", "good")](lab)
    header = UntaggedHeader(
        made.get("last", True),
        made.get("control", 0x41),
        0,
        made.get("qn", 1),
        made.get("msn", 1),
        made.get("mo", 0),
        made.get("version", 1),
    )
    body = ReadRequest(0x112201, 0, 8, stag, made.get("to", 0x70000)).emit()
    give(lab, header.emit() + body, damage=made.get("damage", False))
    assert code_of(lab) == code


RESPONSES: Final[Mapping[str, tuple[Code, Fields]]] = {
    "nothing outstanding": ((0, 2, 6), {"reads": False}),
    "sink": ((1, 1, 0), {"stag": 0x112201}),
    "offset": ((1, 1, 1), {"to": 3}),
    "length": ((1, 1, 1), {"payload": b"r" * 17}),
}


@pytest.mark.parametrize(("code", "faults"), pairs(RESPONSES))
def test_read_responses(code: Code, faults: list[Fields]) -> None:
    made = together(faults)
    lab = Lab(reads=made.get("reads", True))
    header = TaggedHeader(True, 0x42, made.get("stag", lab.sink_stag), made.get("to", 0))
    give(lab, header.emit() + made.get("payload", b"r" * 16))
    assert code_of(lab) == code


@pytest.mark.parametrize("cut", [0, 1, 2, 13, 17])
def test_a_short_header_comes_before_what_it_says(cut: int) -> None:
    """Versions and opcodes of a segment that has no whole header are not looked at; a wrong CRC is."""
    untagged = UntaggedHeader(True, 0xCF, 0, 9, 9, 9, 3).emit()
    lab = Lab()
    give(lab, untagged[:cut])
    assert code_of(lab) == (1, 0, 0)
    lab = Lab()
    give(lab, untagged[:cut], damage=True)
    assert code_of(lab) == (2, 0, 2)
