"""tshark, with its default options, is asked what a capture of ours shows: everything, and nothing to complain about.

The octets are worked examples of the standards (tests/vectors), so that neither side's encoder is judged by itself.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from softndk.trace import CaptureWriter, read_frames
from tests.tshark_judge import CHECKSUMS, Verdict, judge, tshark
from tests.vectors.fpdu_model import stream
from tests.vectors.iwarp_vectors import named

pytestmark = pytest.mark.judge

ADDRESSES = [
    pytest.param("10.1.0.1", "10.1.0.2", id="IPv4"),
    pytest.param("fd00:1::1", "fd00:1::2", id="IPv6"),
]
REQUEST = named("MPA v2 request").octets
REPLY = named("MPA v2 reply: C=1 S=1").octets

TEXT = b"sixteen or more octets of text"
"""Send payloads that tshark leaves alone; docs/explain/wireshark.md says which it does not."""


def send(msn: int, payload: bytes) -> bytes:
    """The ULPDU of a Send by RFC 5041 4.3 and RFC 5040 4.1."""
    return b"\x41\x43" + b"".join(number.to_bytes(4, "big") for number in (0, 0, msn, 0)) + payload


def write(stag: int, offset: int, payload: bytes) -> bytes:
    """The ULPDU of an RDMA Write by RFC 5041 4.2."""
    return b"\xc1\x40" + stag.to_bytes(4, "big") + offset.to_bytes(8, "big") + payload


def fpdus(*ulpdus: bytes) -> bytes:
    return stream(ulpdus, crc=True, markers=False)


def ours(path: Path) -> list[str]:
    """The same list from our own reader, without what tshark counts as TCP."""
    return [frame.kind for frame in read_frames(path) if frame.kind not in ("FIN", "reset")]


def assert_agreed(path: Path, expected: Sequence[str]) -> Verdict:
    """Both readers show these operations; every CRC is good; tshark finds nothing to complain about."""
    verdict = judge(path, *CHECKSUMS)
    assert verdict.names == list(expected)
    assert verdict.complaints == []
    assert set(verdict.crcs) <= {"good"}
    assert ours(path) == list(expected)
    assert {frame.crc_ok for frame in read_frames(path) if not frame.kind.startswith(("MPA", "FIN", "reset"))} <= {True}
    return verdict


@pytest.mark.parametrize(("here", "there"), ADDRESSES)
def test_every_worked_example_is_shown(tmp_path: Path, here: str, there: str) -> None:
    """The conversation of the worked examples: short Sends are in another test, tshark has a quirk there."""
    path = tmp_path / "examples.pcapng"
    with CaptureWriter(path) as writer:
        tap = writer.stream((here, 40001), (there, 5791), active=True, name="qp0")
        tap.opened()
        tap.sent(REQUEST)
        tap.received(REPLY)
        tap.sent(named("Send with SE and Invalidate").octets)
        tap.sent(named("Two-segment Send (30 octets split 20+10), segment 1").octets)
        tap.sent(named("Two-segment Send, segment 2").octets)
        tap.sent(named("RDMA Write, STag 0x00abcd01").octets)
        tap.sent(named("RDMA Read Request, MSN 1").octets)
        tap.received(named("RDMA Read Response").octets)
        tap.sent(named("Immediate Data with SE").octets)
        tap.sent(named("Atomic Request").octets)
        tap.received(named("Atomic Response").octets)
        tap.sent(named("RDMA Write with an unknown STag").octets)
        tap.received(named("Terminate for it: DDP").octets)
        tap.fin_received()
        tap.fin_sent()
        tap.closed()
    verdict = assert_agreed(
        path,
        [
            "MPA request",
            "MPA reply",
            "Send with SE and Invalidate",
            "Send",
            "Send",
            "RDMA Write",
            "RDMA Read Request",
            "RDMA Read Response",
            "Immediate Data with SE",
            "Atomic Request",
            "Atomic Response",
            "RDMA Write",
            "Terminate",
        ],
    )
    assert verdict.comments == ["qp0", "Terminate: DDP tagged buffer error: invalid STag (1/1/0)"]
    written = verdict.operations[5].fields
    assert (written["iwarp_ddp.stag"], written["iwarp_ddp.tagged_offset"]) == ("0x00abcd01", "0x0000700000001000")


def test_the_passive_side_and_both_ends_of_a_stream(tmp_path: Path) -> None:
    """Recorded by the responder: the peer opens, and the packets come from where they came."""
    path = tmp_path / "passive.pcapng"
    with CaptureWriter(path) as writer:
        tap = writer.stream(("10.1.0.2", 5791), ("10.1.0.1", 40001), active=False)
        tap.opened()
        tap.received(REQUEST)
        tap.sent(REPLY)
        tap.received(fpdus(send(1, TEXT)))
        tap.closed()
    assert_agreed(path, ["MPA request", "MPA reply", "Send"])
    lines = tshark(path, "-T", "fields", "-e", "tcp.flags.str", "-e", "tcp.srcport").split("\n")[:-1]
    assert [line.split("\t")[1] for line in lines] == ["40001", "5791", "40001", "40001", "5791", "40001"]
    assert "S" in lines[0]
    assert "A" not in lines[0]


@pytest.mark.parametrize(("here", "there"), ADDRESSES)
@pytest.mark.parametrize("ulpdu_length", [64768, 65489, 65490, 65535])
def test_fpdus_of_64_kib(tmp_path: Path, here: str, there: str, ulpdu_length: int) -> None:
    """Up to 65495 octets an FPDU is one segment; a longer one is cut, and put together again by tshark."""
    path = tmp_path / "big.pcapng"
    octets = fpdus(write(0x77, 0x1000, bytes(ulpdu_length - 14)), send(1, TEXT))
    with CaptureWriter(path) as writer:
        tap = writer.stream((here, 40001), (there, 5791), active=True)
        tap.sent(REQUEST)
        tap.received(REPLY)
        for place in range(0, len(octets), 16384):
            tap.sent(octets[place : place + 16384])
        tap.closed()
    assert_agreed(path, ["MPA request", "MPA reply", "RDMA Write", "Send"])


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_octets_that_come_in_any_pieces(tmp_path: Path, size: int) -> None:
    """However the socket divides the stream, each FPDU is one packet."""
    ulpdus = [write(0x77, 64 * index, bytes(range(index, index + 64))) for index in range(20)]
    octets = fpdus(*ulpdus)
    path = tmp_path / "pieces.pcapng"
    with CaptureWriter(path) as writer:
        tap = writer.stream(("10.1.0.1", 40001), ("10.1.0.2", 5791), active=True)
        for place in range(0, len(REQUEST), size):
            tap.sent(REQUEST[place : place + size])
        tap.received(REPLY)
        for place in range(0, len(octets), size):
            tap.sent(octets[place : place + size])
        tap.closed()
    verdict = assert_agreed(path, ["MPA request", "MPA reply", *["RDMA Write"] * 20])
    assert [operation.packet for operation in verdict.operations] == list(range(4, 26))


def test_a_reset_and_a_refused_attempt(tmp_path: Path) -> None:
    path = tmp_path / "reset.pcapng"
    with CaptureWriter(path) as writer:
        broken = writer.stream(("10.1.0.1", 40001), ("10.1.0.2", 5791), active=True)
        broken.sent(REQUEST)
        broken.received(REPLY)
        broken.sent(fpdus(send(1, TEXT))[:20])
        broken.reset(by_peer=False)
        refused = writer.stream(("10.1.0.1", 40002), ("10.1.0.2", 5792), active=True)
        refused.reset(by_peer=True)
    verdict = judge(path, *CHECKSUMS)
    assert verdict.complaints == []
    flags = tshark(path, "-T", "fields", "-e", "tcp.srcport", "-e", "tcp.flags.reset", "-e", "tcp.len").split("\n")
    assert flags[5:7] == ["40001\t0\t20", "40001\t1\t0"]
    assert flags[7:9] == ["40002\t0\t0", "5792\t1\t0"]


def test_a_stream_without_crc(tmp_path: Path) -> None:
    """Both C bits 0: neither reader judges a CRC."""
    path = tmp_path / "nocrc.pcapng"
    quiet = bytes([0x10])
    with CaptureWriter(path) as writer:
        tap = writer.stream(("10.1.0.1", 40001), ("10.1.0.2", 5791), active=True)
        tap.sent(REQUEST[:16] + quiet + REQUEST[17:])
        tap.received(REPLY[:16] + quiet + REPLY[17:])
        tap.sent(stream([write(1, 2, TEXT)], crc=False, markers=False))
        tap.closed()
    verdict = judge(path)
    assert verdict.names == ours(path) == ["MPA request", "MPA reply", "RDMA Write"]
    assert verdict.crcs == [""]
    assert [frame.crc_ok for frame in read_frames(path)] == [None] * 3


def test_a_bad_crc_is_seen_by_both(tmp_path: Path) -> None:
    path = tmp_path / "bad.pcapng"
    octets = bytearray(fpdus(send(1, TEXT), send(2, TEXT)))
    octets[30] ^= 0x10
    with CaptureWriter(path) as writer:
        tap = writer.stream(("10.1.0.1", 40001), ("10.1.0.2", 5791), active=True)
        tap.sent(REQUEST)
        tap.received(REPLY)
        tap.sent(octets)
        tap.closed()
    assert judge(path).crcs == ["bad", "good"]
    assert [frame.crc_ok for frame in read_frames(path)] == [None, None, False, True]


def test_markers_in_both_directions(tmp_path: Path) -> None:
    """tshark takes markers for mutual, and counts one too many in an FPDU that ends where a marker is due; the lengths
    here avoid that. Our own reader needs no such care (tests/unit/trace)."""
    path = tmp_path / "markers.pcapng"
    ulpdus = [write(0x77, 0, bytes(index % 256 for index in range(size))) for size in (0, 100, 600, 1400, 33, 500)]
    octets = stream(ulpdus, crc=True, markers=True)
    marked = bytes([0xC0])
    with CaptureWriter(path) as writer:
        tap = writer.stream(("10.1.0.1", 40001), ("10.1.0.2", 5791), active=True)
        tap.sent(named("MPA v1 request").octets[:16] + marked + named("MPA v1 request").octets[17:])
        tap.received(named("MPA v1 reply").octets[:16] + marked + named("MPA v1 reply").octets[17:])
        tap.sent(octets)
        tap.received(octets)
        tap.closed()
    assert_agreed(path, ["MPA request", "MPA reply", *["RDMA Write"] * 12])


def test_terminates(tmp_path: Path) -> None:
    """Each one as tshark reads its fields, and as our sentence says it."""
    path = tmp_path / "terminates.pcapng"
    beginnings = ["Terminate for it: DDP", "Terminate for it: RDMAP (0) / Remote Operation", "Terminate for a bad CRC"]
    with CaptureWriter(path) as writer:
        for index, beginning in enumerate(beginnings):
            tap = writer.stream(("10.1.0.1", 40001 + index), ("10.1.0.2", 5791), active=True)
            tap.sent(REQUEST)
            tap.received(REPLY)
            tap.received(named(beginning).octets)
            tap.closed()
    verdict = assert_agreed(path, ["MPA request", "MPA reply", "Terminate"] * 3)
    layers = [operation.fields["iwarp_rdma.term_layer"] for operation in verdict.operations[2::3]]
    assert [int(layer, 16) for layer in layers] == [1, 0, 2]
    assert [frame.details["sentence"] for frame in read_frames(path) if frame.kind == "Terminate"] == [
        "DDP tagged buffer error: invalid STag (1/1/0)",
        "RDMAP remote operation error: STag cannot be invalidated (0/2/9)",
        "MPA error: FPDU CRC mismatch (2/0/2)",
    ]
