"""Several rules broken at once in Immediate Data and atomics: the check that comes first decides (as test_check_order)."""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from softndk.memory.tokens import Right
from softndk.wire.ddp import UntaggedHeader
from tests.conformance.error_rows import TOP, Lab
from tests.conformance.rfc7306_rows import ATOMIC, SPARE
from tests.conformance.test_check_order import Code, Fields, code_of, give, pairs, together

BEGINNING: Final[dict[str, tuple[Code, Fields]]] = {
    "crc": ((2, 0, 2), {"damage": True}),
    "DDP version": ((1, 2, 6), {"version": 2}),
    "RDMAP version": ((0, 2, 5), {"control": 0x0A}),
    "opcode": ((0, 2, 6), {"control": 0x4C}),
    "queue number": ((1, 2, 1), {"qn": 4}),
    "opcode on that queue": ((0, 2, 6), {"qn": 2}),
    "sequence number": ((1, 2, 3), {"msn": 9}),
}


def untagged(made: Mapping[str, Any], control: int, qn: int, body: bytes) -> bytes:
    header = UntaggedHeader(
        made.get("last", True),
        made.get("control", control),
        0,
        made.get("qn", qn),
        made.get("msn", 1),
        made.get("mo", 0),
        made.get("version", 1),
    )
    return header.emit() + body


IMMEDIATES: Final[dict[str, tuple[Code, Fields]]] = {
    **BEGINNING,
    "no receive": ((1, 2, 2), {"receives": 0}),
    "offset": ((1, 2, 4), {"mo": 4}),
    "length": ((0, 2, 7), {"data": bytes(65)}),
}


@pytest.mark.parametrize(("code", "faults"), pairs(IMMEDIATES))
def test_immediate_data(code: Code, faults: list[Fields]) -> None:
    made = together(faults)
    lab = Lab(receives=made.get("receives", 2))
    give(lab, untagged(made, 0x48, 0, made.get("data", bytes(8))), damage=made.get("damage", False))
    assert code_of(lab) == code


TOKENS: Final[Mapping[str, Callable[[Lab], int]]] = {
    "unknown": lambda lab: 0xDEADBE01,
    "foreign": lambda lab: lab.spare(Right.LOCAL_WRITE, pd=lab.other_pd()),
    "powerless": lambda lab: lab.spare(Right.LOCAL_WRITE | Right.REMOTE_WRITE),
    "good": lambda lab: lab.spare(ATOMIC),
}
REQUESTS: Final[dict[str, tuple[Code, Fields]]] = {
    **BEGINNING,
    "read limit": ((1, 2, 2), {"ird": 0}),
    "offset": ((1, 2, 4), {"mo": 4}),
    "length": ((1, 2, 5), {"last": False}),
    "operation": ((0, 2, 6), {"operation": 1}),
    "token": ((0, 1, 0), {"token": "unknown"}),
    "protection domain": ((0, 1, 3), {"token": "foreign"}),
    "right": ((0, 1, 2), {"token": "powerless"}),
    "wrap": ((0, 1, 4), {"to": TOP - 4}),
    "range": ((0, 1, 1), {"to": SPARE + 252}),
    "alignment": ((0, 2, 7), {"to": SPARE + 4}),
}


@pytest.mark.parametrize(("code", "faults"), pairs(REQUESTS))
def test_atomic_requests(code: Code, faults: list[Fields]) -> None:
    made = together(faults)
    lab = Lab(ird=made.get("ird", 16))
    stag = TOKENS[made.get("token", "good")](lab)
    body = struct.pack(">IIIQQQQQ", made.get("operation", 0), 7, stag, made.get("to", SPARE), 1, 0, 0, TOP - 1)
    give(lab, untagged(made, 0x4A, 1, body), damage=made.get("damage", False))
    assert code_of(lab) == code
    assert lab.spare_memory == bytes(256)


RESPONSES: Final[dict[str, tuple[Code, Fields]]] = {
    **BEGINNING,
    "nothing outstanding": ((0, 2, 6), {"atomics": False}),
    "offset": ((1, 2, 4), {"mo": 4}),
    "length": ((0, 2, 7), {"cut": 1}),
    "identifier": ((0, 2, 6), {"identifier": 1}),
}


@pytest.mark.parametrize(("code", "faults"), pairs(RESPONSES))
def test_atomic_responses(code: Code, faults: list[Fields]) -> None:
    made = together(faults)
    lab = Lab(atomics=made.get("atomics", True), reads=False)
    body = struct.pack(">IQ", lab.identifier + made.get("identifier", 0), 7)
    give(lab, untagged(made, 0x4B, 3, body[: 12 - made.get("cut", 0)]), damage=made.get("damage", False))
    assert code_of(lab) == code
