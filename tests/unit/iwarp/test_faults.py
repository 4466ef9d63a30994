"""What follows from a fault: Terminate, status, codes and the public record, for every cause there is."""

import pickle

import pytest

from softndk.iwarp.faults import (
    Cause,
    ProtocolFault,
    fault_value,
    read_source_cause,
    received_code,
    received_value,
    sent_code,
    status_for_denial,
    status_for_received,
    terminate_for,
    write_cause,
)
from softndk.memory.access import Denial
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from softndk.wire.terminate import Terminate, is_defined
from tests.pair.raw_peer import read_request, tagged, untagged

WRITE = tagged(Opcode.WRITE, 0xDEADBE01, 0x1000, b"X" * 100)
SEND = untagged(Opcode.SEND, 1, b"X" * 100)
READ = read_request(1, 8, 0xBADBAD02, 0)

# The error table, once more: triple, and which headers are returned.
TABLE = {
    Cause.BAD_CRC: ("2/0/2", "none"),
    Cause.MARKER_MISMATCH: ("2/0/3", "none"),
    Cause.SHORT_HEADER: ("1/0/0", "none"),
    Cause.TAGGED_VERSION: ("1/1/4", "ddp"),
    Cause.UNTAGGED_VERSION: ("1/2/6", "ddp"),
    Cause.RDMAP_VERSION: ("0/2/5", "ddp"),
    Cause.UNKNOWN_OPCODE: ("0/2/6", "ddp"),
    Cause.OPCODE_ON_WRONG_QUEUE: ("0/2/6", "ddp"),
    Cause.CHANGED_OPCODE: ("0/2/6", "ddp"),
    Cause.INVALID_QN: ("1/2/1", "ddp"),
    Cause.INVALID_MSN: ("1/2/3", "ddp"),
    Cause.NO_RECEIVE: ("1/2/2", "ddp"),
    Cause.TOO_MANY_READS: ("1/2/2", "ddp"),
    Cause.INVALID_MO: ("1/2/4", "ddp"),
    Cause.RECEIVE_TOO_SMALL: ("1/2/5", "ddp"),
    Cause.READ_REQUEST_TOO_LONG: ("1/2/5", "ddp"),
    Cause.READ_REQUEST_TOO_SHORT: ("0/2/7", "ddp"),
    Cause.WRITE_INVALID_STAG: ("1/1/0", "ddp"),
    Cause.WRITE_NOT_ASSOCIATED: ("1/1/2", "ddp"),
    Cause.WRITE_NO_RIGHT: ("0/1/2", "ddp"),
    Cause.WRITE_WRAP: ("1/1/3", "ddp"),
    Cause.WRITE_BOUNDS: ("1/1/1", "ddp"),
    Cause.READ_INVALID_STAG: ("0/1/0", "read"),
    Cause.READ_NOT_ASSOCIATED: ("0/1/3", "read"),
    Cause.READ_NO_RIGHT: ("0/1/2", "read"),
    Cause.READ_WRAP: ("0/1/4", "read"),
    Cause.READ_BOUNDS: ("0/1/1", "read"),
    Cause.READ_SOURCE_GONE: ("0/1/0", "read"),
    Cause.UNEXPECTED_RESPONSE: ("0/2/6", "ddp"),
    Cause.RESPONSE_STAG: ("1/1/0", "ddp"),
    Cause.RESPONSE_BOUNDS: ("1/1/1", "ddp"),
    Cause.CANNOT_INVALIDATE: ("0/2/9", "ddp"),
    Cause.INVALIDATE_NOT_ASSOCIATED: ("0/1/9", "ddp"),
    Cause.IMMEDIATE_LENGTH: ("0/2/7", "ddp"),
    Cause.ATOMIC_TOO_LONG: ("1/2/5", "ddp"),
    Cause.ATOMIC_TOO_SHORT: ("0/2/7", "ddp"),
    Cause.ATOMIC_OPERATION: ("0/2/6", "ddp"),
    Cause.ATOMIC_MISALIGNED: ("0/2/7", "ddp"),
    Cause.ATOMIC_INVALID_STAG: ("0/1/0", "ddp"),
    Cause.ATOMIC_NOT_ASSOCIATED: ("0/1/3", "ddp"),
    Cause.ATOMIC_NO_RIGHT: ("0/1/2", "ddp"),
    Cause.ATOMIC_WRAP: ("0/1/4", "ddp"),
    Cause.ATOMIC_BOUNDS: ("0/1/1", "ddp"),
    Cause.UNEXPECTED_ATOMIC_RESPONSE: ("0/2/6", "ddp"),
    Cause.LOCAL_ERROR: ("0/0/0", "none"),
    Cause.NIC_FAILURE: ("0/2/8", "none"),
    Cause.STARTUP_FAILED: ("2/0/5", "none"),
    Cause.STARTUP_INSUFFICIENT_IRD: ("2/0/6", "none"),
    Cause.STARTUP_NO_RTR: ("2/0/7", "none"),
}


def triple(cause: Cause) -> tuple[int, int, int]:
    layer, etype, code = TABLE[cause][0].split("/")
    return int(layer), int(etype), int(code)


def test_the_table_names_every_cause() -> None:
    assert set(TABLE) == set(Cause)


@pytest.mark.parametrize("cause", TABLE, ids=lambda cause: cause.name)
class TestEveryCause:
    def test_terminate(self, cause: Cause) -> None:
        echo = TABLE[cause][1]
        ulpdu = READ if echo == "read" else WRITE
        message = terminate_for(ProtocolFault(cause, "text", ulpdu, len(ulpdu)))
        assert (message.layer, message.etype, message.code) == triple(cause)
        header = 18 if echo == "read" else 14
        assert message.ddp_header == (b"" if echo == "none" else ulpdu[:header])
        assert message.segment_length == (None if echo == "none" else len(ulpdu))
        assert message.read_header == (READ[18:46] if echo == "read" else b"")

    def test_untagged_header(self, cause: Cause) -> None:
        if TABLE[cause][1] == "ddp":
            assert terminate_for(ProtocolFault(cause, "text", SEND[:46], len(SEND))).ddp_header == SEND[:18]

    def test_without_a_segment_no_header(self, cause: Cause) -> None:
        message = terminate_for(ProtocolFault(cause, "text"))
        assert message == Terminate(*triple(cause))

    def test_codes(self, cause: Cause) -> None:
        """Provider codes: 0x20000 sent, 0x10000 received, with the first two octets."""
        layer, etype, code = triple(cause)
        fault = ProtocolFault(cause, "text")
        assert sent_code(fault) == 0x20000 | layer << 12 | etype << 8 | code
        assert received_code(terminate_for(fault)) == 0x10000 | layer << 12 | etype << 8 | code

    def test_record(self, cause: Cause) -> None:
        value = fault_value(ProtocolFault(cause, "what happened", READ, len(READ)))
        assert (value.layer, value.etype, value.code) == triple(cause)
        assert value.text == "what happened"
        assert not value.received
        assert value.rule == cause.value.rule
        assert value.header == {"none": b"", "ddp": READ[:18], "read": READ[:46]}[TABLE[cause][1]]

    def test_a_standard_gives_the_code_a_meaning(self, cause: Cause) -> None:
        assert is_defined(*triple(cause))

    def test_a_sentence_with_its_rule(self, cause: Cause) -> None:
        fault = ProtocolFault(cause, "what happened")
        assert str(fault) == f"what happened [{cause.value.rule}]"
        assert cause.value.rule.split()[0] in ("RFC",)

    def test_it_pickles(self, cause: Cause) -> None:
        twin = pickle.loads(pickle.dumps(ProtocolFault(cause, "text", WRITE, 114, b"read")))
        assert (twin.cause, twin.text, twin.ulpdu, twin.length, twin.read_request) == (
            cause,
            "text",
            WRITE,
            114,
            b"read",
        )


def test_a_read_request_that_was_brought_up_to_date_replaces_the_received_one() -> None:
    updated = read_request(1, 4, 0xBADBAD02, 4)[18:]
    message = terminate_for(ProtocolFault(Cause.READ_SOURCE_GONE, "text", READ, len(READ), updated))
    assert message.read_header == updated
    assert message.ddp_header == READ[:18]


@pytest.mark.parametrize(
    ("denial", "write", "read"),
    [
        (Denial.INVALID_TOKEN, "1/1/0", "0/1/0"),
        (Denial.NOT_ASSOCIATED, "1/1/2", "0/1/3"),
        (Denial.MISSING_RIGHT, "0/1/2", "0/1/2"),
        (Denial.WRAP, "1/1/3", "0/1/4"),
        (Denial.OUT_OF_BOUNDS, "1/1/1", "0/1/1"),
    ],
)
def test_denied_remote_access(denial: Denial, write: str, read: str) -> None:
    assert TABLE[write_cause(denial)][0] == write
    assert TABLE[read_source_cause(denial)][0] == read


@pytest.mark.rules("R-WR-15")
@pytest.mark.parametrize("denial", Denial)
def test_denied_local_access(denial: Denial) -> None:
    """R-WR-15."""
    expected = Status.INVALID_DEVICE_REQUEST if denial is Denial.NOT_INVALIDATABLE else Status.ACCESS_VIOLATION
    assert status_for_denial(denial) is expected


@pytest.mark.rules("A-4")
@pytest.mark.parametrize("layer", range(16))
def test_every_received_code_has_a_status(layer: int) -> None:
    """A-4: REMOTE_RESOURCES but for the few that say more; none for a refused invalidation."""
    special = {
        **dict.fromkeys([(0, 1, 0), (0, 1, 2), (0, 1, 3), (1, 1, 0), (1, 1, 2)], Status.ACCESS_VIOLATION),
        **dict.fromkeys([(0, 2, 9), (0, 1, 9)], None),
    }
    for etype in range(16):
        for code in range(256):
            expected = special.get((layer, etype, code), Status.REMOTE_RESOURCES)
            assert status_for_received(Terminate(layer, etype, code)) is expected


def test_received_record() -> None:
    message = Terminate(0, 1, 1, 46, READ[:18], READ[18:46])
    value = received_value(message)
    assert value.received
    assert (value.layer, value.etype, value.code) == (0, 1, 1)
    assert value.header == READ
    assert "base or bounds" in value.text
    assert value.rule == "RFC 5040 4.8"
