"""What is shown of single PDUs: the worked examples, and never an exception."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softndk.trace.fields import Fields, is_plausible, segment_fields, startup_fields, terminate_sentence
from softndk.wire.mpa import StartupFrame
from softndk.wire.rdmap import AtomicRequest, Opcode
from tests.pair.raw_peer import untagged
from tests.vectors.fpdu_model import fpdu
from tests.vectors.iwarp_vectors import UNMARKED_FPDUS, Frame, named, ulpdu_of

ONES = (1 << 64) - 1


def fields_of(beginning: str) -> Fields:
    return segment_fields(memoryview(ulpdu_of(named(beginning))))


def test_a_request_and_a_reply() -> None:
    request = startup_fields(StartupFrame.parse(named("MPA v2 request").octets))
    assert request.kind == "MPA request"
    assert request.summary == "revision 2 M=0 C=1 IRD 16 ORD 16 private data 2"
    assert request.details["private_data"] == b"hi".hex()
    old = startup_fields(StartupFrame.parse(named("MPA v1 reply").octets))
    assert (old.kind, old.details["enhanced"]) == ("MPA reply", False)
    peers = startup_fields(StartupFrame.parse(named("MPA v2 peer-to-peer request").octets))
    assert peers.details["ready_to_receive"] == ["Write", "Read"]
    assert "peer-to-peer, ready by Write or Read" in peers.summary
    octets = bytearray(named("MPA v2 reply: C=1 S=1").octets)
    octets[16] |= 0x20
    assert startup_fields(StartupFrame.parse(octets)).summary.endswith("REJECTED")


@pytest.mark.parametrize(
    ("beginning", "kind", "summary"),
    [
        ("Send, 8 octets", "Send", "MSN 1 MO 0 len 8 L"),
        ("Send with SE", "Send with SE and Invalidate", "MSN 2 invalidates 0x12345678 MO 0 len 4 L"),
        ("Two-segment Send (30", "Send", "MSN 3 MO 0 len 20"),
        ("Two-segment Send, segment 2", "Send", "MSN 3 MO 20 len 10 L"),
        ("RDMA Write, STag 0x00abcd01", "RDMA Write", "STag 0x00abcd01 TO 0x700000001000 len 16 L"),
        (
            "RDMA Read Request, MSN 1",
            "RDMA Read Request",
            "MSN 1 reads 10 from STag 0x00abcd01 TO 0x700000001004 into STag 0x00112201 TO 0x2000 L",
        ),
        ("RDMA Read Response", "RDMA Read Response", "STag 0x00112201 TO 0x2000 len 10 L"),
        ("Immediate Data with SE", "Immediate Data with SE", "MSN 5 data 1122334455667788 L"),
        ("Atomic Request", "Atomic Request", "MSN 2 id 51966 FetchAdd 1 at STag 0x00abcd01 TO 0x700000001008 L"),
        ("Atomic Response", "Atomic Response", "MSN 1 id 51966 original 7 L"),
        (
            "Terminate for it: DDP",
            "Terminate",
            "DDP tagged buffer error: invalid STag (1/1/0), for RDMA Write to STag 0xdeadbe01 TO 0x1000 L",
        ),
        (
            "Terminate for it: RDMAP (0) / Remote Protection",
            "Terminate",
            "RDMAP remote protection error: invalid STag (0/1/0), for RDMA Read Request of STag 0xbadbad02 TO 0x0 L",
        ),
        (
            "Terminate for it: RDMAP (0) / Remote Operation",
            "Terminate",
            "RDMAP remote operation error: STag cannot be invalidated (0/2/9), "
            "for Send with Invalidate of STag 0x99999901 L",
        ),
        ("Terminate for a bad CRC", "Terminate", "MPA error: FPDU CRC mismatch (2/0/2) L"),
    ],
)
def test_worked_examples(beginning: str, kind: str, summary: str) -> None:
    fields = fields_of(beginning)
    assert (fields.kind, fields.summary) == (kind, summary)
    assert json.loads(json.dumps(fields.details)) == fields.details


ADDRESS = "at STag 0x00abcd01 TO 0x1008 L"


@pytest.mark.parametrize(
    ("atomic", "summary"),
    [
        (AtomicRequest(0, 7, 0xABCD01, 0x1008, 5, 0, 0, ONES), f"MSN 1 id 7 FetchAdd 5 {ADDRESS}"),
        (AtomicRequest(0, 7, 0xABCD01, 0x1008, 5, 0x80, 0, ONES), f"MSN 1 id 7 FetchAdd 5 fields 0x80 {ADDRESS}"),
        (AtomicRequest(2, 7, 0xABCD01, 0x1008, 9, ONES, 5, ONES), f"MSN 1 id 7 CmpSwap 9 if 5 {ADDRESS}"),
        (AtomicRequest(2, 7, 0xABCD01, 0x1008, 9, ONES, 0, ONES), f"MSN 1 id 7 CmpSwap 9 if 0 {ADDRESS}"),
        (AtomicRequest(2, 7, 0xABCD01, 0x1008, 9, 15, 5, 255), f"MSN 1 id 7 CmpSwap 0x9/0xf if 0x5/0xff {ADDRESS}"),
        (AtomicRequest(1, 7, 0xABCD01, 0x1008, 9, 0, 0, ONES), f"MSN 1 id 7 operation 1 9 {ADDRESS}"),
    ],
)
def test_operands_of_atomics(atomic: AtomicRequest, summary: str) -> None:
    fields = segment_fields(memoryview(untagged(Opcode.ATOMIC_REQUEST, 1, atomic.emit())))
    assert (fields.kind, fields.summary) == ("Atomic Request", summary)
    told = fields.details
    assert (told["request_id"], told["stag"], told["to"]) == (7, 0xABCD01, 0x1008)
    assert [told[name] for name in ("data", "mask", "compare", "compare_mask")] == list(atomic[4:])


@pytest.mark.parametrize("length", [0, 11, 13, 51, 53])
@pytest.mark.parametrize("opcode", [Opcode.ATOMIC_REQUEST, Opcode.ATOMIC_RESPONSE])
def test_an_atomic_of_another_length_says_so(opcode: Opcode, length: int) -> None:
    fields = segment_fields(memoryview(untagged(opcode, 1, bytes(length))))
    assert f"body of {length} octets" in str(fields.details["problem"])
    assert fields.summary.startswith(f"MSN 1 MO 0 len {length} (body: ")


def test_immediate_data() -> None:
    fields = segment_fields(memoryview(untagged(Opcode.IMMEDIATE, 3, bytes(range(8)))))
    assert (fields.kind, fields.summary) == ("Immediate Data", "MSN 3 data 0001020304050607 L")
    assert fields.details["data"] == "0001020304050607"


def test_payload_and_numbers() -> None:
    write = fields_of("RDMA Write, STag 0x00abcd01")
    assert bytes(write.payload) == bytes(range(16))
    assert write.details == {"opcode": 0, "stag": 0x00ABCD01, "to": 0x700000001000, "last": True}
    read = fields_of("RDMA Read Request, MSN 1").details
    assert (read["sink_stag"], read["source_to"], read["size"]) == (0x00112201, 0x700000001004, 10)


def test_what_is_irregular_is_said() -> None:
    send = bytearray(ulpdu_of(named("Send, 8 octets")))

    def problem(place: int, octet: int) -> object:
        changed = bytearray(send)
        changed[place] = octet
        return segment_fields(memoryview(changed)).details.get("problem")

    assert problem(0, 0x41) is None
    assert problem(0, 0x40) == "DDP version 0"
    assert problem(1, 0x83) == "RDMAP version 2"
    assert problem(1, 0x40) == "wrong T bit"
    assert problem(9, 1) == "wrong queue 1"
    assert problem(1, 0x47) == "wrong queue 0"
    assert segment_fields(memoryview(b"\x41\x4c" + bytes(16))).kind == "unknown opcode 12"
    assert segment_fields(memoryview(send[:17])).kind == "malformed FPDU"
    assert segment_fields(memoryview(b"\xc1")).kind == "malformed FPDU"


def test_a_terminate_of_the_linux_driver() -> None:
    """Nibbles and flags exchanged: recognised, and said."""
    ulpdu = bytes.fromhex("414700000000000000020000000100000000") + bytes.fromhex("02020000")
    fields = segment_fields(memoryview(ulpdu))
    assert fields.details["sentence"] == "MPA error: FPDU CRC mismatch (2/0/2)"
    assert "siw" in fields.summary


def test_the_sentence_of_a_terminate() -> None:
    octets = named("Terminate for a bad CRC").octets
    assert terminate_sentence(memoryview(octets)) == "Terminate: MPA error: FPDU CRC mismatch (2/0/2)"
    broken = fpdu(bytes.fromhex("4147000000000000000200000001000000001100"), position=0, crc=True, markers=False)
    assert terminate_sentence(memoryview(broken)).startswith("Terminate: ")


@pytest.mark.parametrize("frame", UNMARKED_FPDUS, ids=str)
def test_examples_are_plausible(frame: Frame) -> None:
    assert is_plausible(frame.octets[:4])


@pytest.mark.parametrize("head", ["00001140", "0012c143", "001a4243", "001a4183", "001a414c", "000dc140", "00114143"])
def test_what_is_not_plausible(head: str) -> None:
    assert not is_plausible(bytes.fromhex(head))


@given(st.binary(max_size=90), st.sampled_from(range(16)), st.sampled_from([0x41, 0x01, 0xC1, 0x81]))
def test_any_octets_have_fields(octets: bytes, opcode: int, control: int) -> None:
    for ulpdu in (octets, bytes([control, 0x40 | opcode]) + octets):
        fields = segment_fields(memoryview(ulpdu))
        assert fields.kind
        assert fields.summary
        json.dumps(fields.details)
