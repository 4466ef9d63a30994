"""Opcodes, the control octet, and the bodies of Read Requests and atomics."""

import pytest

from softndk.wire import WireError
from softndk.wire.rdmap import (
    IMMEDIATES,
    INVALIDATING,
    OPCODES,
    RFC7306,
    SOLICITING,
    AtomicOperation,
    AtomicRequest,
    AtomicResponse,
    Opcode,
    ReadRequest,
    control,
    opcode_of,
    version_of,
)
from tests.vectors.iwarp_vectors import UNMARKED_FPDUS, Frame, ulpdu_of

# Opcode, both control octets of a last segment, QN, ULPDU length of a message without or with its fixed body.
TABLE = [
    (0, "c140", None, 14),
    (1, "4141", 1, 46),
    (2, "c142", None, 14),
    (3, "4143", 0, 18),
    (4, "4144", 0, 18),
    (5, "4145", 0, 18),
    (6, "4146", 0, 18),
    (7, "4147", 2, 18),
    (8, "4148", 0, 26),
    (9, "4149", 0, 26),
    (10, "414a", 1, 70),
    (11, "414b", 3, 30),
]

READS = [vector for vector in UNMARKED_FPDUS if "read_request" in vector.expected]


@pytest.mark.parametrize(("number", "controls", "queue", "ulpdu"), TABLE)
def test_opcode_table(number: int, controls: str, queue: int | None, ulpdu: int) -> None:
    info = OPCODES[number]
    ddp_control, rdmap_control = bytes.fromhex(controls)
    assert info.tagged == bool(ddp_control & 0x80)
    assert info.queue == queue
    assert info.header + (info.body or 0) == ulpdu
    assert control(number) == rdmap_control


def test_only_assigned_opcodes_are_in_the_table() -> None:
    assert sorted(OPCODES) == list(range(12)) == sorted(Opcode)


@pytest.mark.parametrize("vector", UNMARKED_FPDUS, ids=str)
def test_opcode_and_its_ddp_model_in_the_vectors(vector: Frame) -> None:
    ulpdu = ulpdu_of(vector)
    info = OPCODES[opcode_of(ulpdu[1])]
    assert opcode_of(ulpdu[1]) == Opcode[vector.expected["opcode"]]
    assert version_of(ulpdu[1]) == 1
    assert info.tagged == ("tagged" in vector.expected)
    if not info.tagged:
        assert info.queue == vector.expected["untagged"]["qn"]
    if info.body is not None:
        assert info.body == len(ulpdu) - info.header


@pytest.mark.parametrize(("octet", "version", "opcode"), [(0x00, 0, 0), (0x4F, 1, 15), (0xBC, 2, 12), (0xF3, 3, 3)])
def test_control_octet_is_split_and_reserved_bits_ignored(octet: int, version: int, opcode: int) -> None:
    assert version_of(octet) == version
    assert opcode_of(octet) == opcode


def test_opcodes_with_a_solicited_event_and_with_an_stag() -> None:
    assert {5, 6, 9} == SOLICITING
    assert {4, 6} == INVALIDATING


def test_opcodes_of_rfc_7306() -> None:
    assert {8, 9} == IMMEDIATES
    assert {8, 9, 10, 11} == RFC7306


@pytest.mark.parametrize("vector", READS, ids=str)
def test_read_request_vector(vector: Frame) -> None:
    request = ReadRequest(**vector.expected["read_request"])
    body = ulpdu_of(vector)[18:]
    assert request.emit() == body
    assert ReadRequest.parse(memoryview(body)) == request


def test_read_request_vectors_exist() -> None:
    assert len(READS) == 2


@pytest.mark.parametrize("length", [0, 27, 29, 52])
def test_read_request_of_another_length(length: int) -> None:
    with pytest.raises(WireError, match=f"{length} octets"):
        ReadRequest.parse(bytes(length))


def vector(kind: str) -> tuple[dict[str, int], bytes]:
    """The fields and the body of the one worked example with a body of that kind."""
    (found,) = [frame for frame in UNMARKED_FPDUS if kind in frame.expected]
    return found.expected[kind], ulpdu_of(found)[18:]


def test_atomic_request_vector() -> None:
    expected, body = vector("atomic_request")
    request = AtomicRequest(**expected)
    assert request.emit() == body
    assert AtomicRequest.parse(memoryview(body)) == request
    assert request.operation == AtomicOperation.FETCH_ADD


def test_atomic_response_vector() -> None:
    expected, body = vector("atomic_response")
    response = AtomicResponse(**expected)
    assert response.emit() == body
    assert AtomicResponse.parse(memoryview(body)) == response


def test_reserved_bits_of_an_atomic_request_are_ignored() -> None:
    expected, body = vector("atomic_request")
    octets = bytearray(body)
    octets[:4] = bytes.fromhex("fffffff2")
    assert AtomicRequest.parse(octets) == AtomicRequest(**{**expected, "operation": AtomicOperation.COMPARE_SWAP})


@pytest.mark.parametrize("length", [0, 28, 51, 53])
def test_atomic_request_of_another_length(length: int) -> None:
    with pytest.raises(WireError, match=f"{length} octets"):
        AtomicRequest.parse(bytes(length))


@pytest.mark.parametrize("length", [0, 8, 11, 13])
def test_atomic_response_of_another_length(length: int) -> None:
    with pytest.raises(WireError, match=f"{length} octets"):
        AtomicResponse.parse(bytes(length))
