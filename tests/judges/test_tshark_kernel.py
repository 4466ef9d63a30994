"""Recordings of the Linux driver: tshark and our reader show the same list of operations, packet by packet."""

from pathlib import Path

import pytest

from softndk.trace import CaptureWriter, read_frames
from tests.tshark_judge import HEURISTICS_FIRST, judge, tshark

pytestmark = pytest.mark.judge

DATA = Path(__file__).parents[1] / "data"
CAPTURES = sorted(DATA.glob("siw_*.pcap"))


def test_the_recordings_are_there() -> None:
    assert len(CAPTURES) == 6


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_the_same_operations(path: Path) -> None:
    verdict = judge(path, *HEURISTICS_FIRST)
    frames = [frame for frame in read_frames(path) if frame.kind not in ("FIN", "reset")]
    assert [(frame.number, frame.kind) for frame in frames] == [(each.packet, each.name) for each in verdict.operations]
    assert len(frames) > 5
    with_crc = "crc" in path.stem
    fpdus = [frame for frame in frames if not frame.kind.startswith("MPA")]
    assert {frame.crc_ok for frame in fpdus} == {True if with_crc else None}
    assert set(verdict.crcs) == {"good" if with_crc else ""}


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_the_same_fields(path: Path) -> None:
    ours = {frame.number: frame.details for frame in read_frames(path) if "opcode" in frame.details}
    compared = 0
    for each in judge(path, *HEURISTICS_FIRST).operations:
        for theirs, name in (
            ("iwarp_ddp.stag", "stag"),
            ("iwarp_ddp.tagged_offset", "to"),
            ("iwarp_ddp.msn", "msn"),
            ("iwarp_ddp.mo", "mo"),
            ("iwarp_rdma.inval_stag", "invalidate_stag"),
            ("iwarp_rdma.sinkstag", "sink_stag"),
            ("iwarp_rdma.srcto", "source_to"),
            ("iwarp_rdma.rdmardsz", "size"),
        ):
            if theirs in each.fields:
                assert int(each.fields[theirs], 0) == ours[each.packet][name], (each.packet, name)
                compared += 1
    assert compared > 10


def test_what_the_driver_sent_looks_the_same_in_a_capture_of_ours(tmp_path: Path) -> None:
    """The kernel's octets through our writer: the packets are made by us, the operations stay the kernel's."""
    path = DATA / "siw_rping_plain.pcap"
    again = tmp_path / "again.pcapng"
    initiator, responder = ("10.0.2.15", 48023), ("10.0.2.15", 7174)
    fields = ("-T", "fields", "-e", "tcp.srcport", "-e", "tcp.payload")
    with CaptureWriter(again) as writer:
        tap = writer.stream(initiator, responder, active=True)
        for line in tshark(path, *fields).splitlines():
            port, payload = line.split("\t")
            (tap.sent if int(port) == initiator[1] else tap.received)(bytes.fromhex(payload))
        tap.closed()
    assert judge(again).names == judge(path).names
    assert len(judge(again).names) == 23
