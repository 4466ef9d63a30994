"""The capture writer as its users rely on it; how others see the packets is tshark's matter (tests/judges)."""

import logging
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from softndk.trace import CaptureWriter, read_frames
from softndk.trace.packets import ACK, FIN, MAX_PAYLOAD, PSH, RST, SYN, Segment, parse_segment
from softndk.trace.pcapng import Packet, read_packets
from tests.vectors.fpdu_model import fpdu, stream
from tests.vectors.iwarp_vectors import named

HERE = ("10.0.0.1", 40001)
THERE = ("10.0.0.2", 5791)
REQUEST = named("MPA v2 request").octets
REPLY = named("MPA v2 reply: C=1 S=1").octets
SEND = named("Send, 8 octets").octets
TERMINATE = named("Terminate for it: DDP").octets


def packets_of(path: Path) -> list[Packet]:
    with path.open("rb") as file:
        return list(read_packets(file))


def segments_of(path: Path) -> list[Segment]:
    segments = [parse_segment(packet.link_type, packet.data) for packet in packets_of(path)]
    return [segment for segment in segments if segment is not None]


def payloads_of(path: Path) -> list[bytes]:
    return [bytes(segment.payload) for segment in segments_of(path) if segment.payload]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does; the test's time limit is the bound."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


# ---- packets ----


@pytest.mark.parametrize("active", [True, False])
def test_numbers_and_flags_of_a_whole_connection(tmp_path: Path, active: bool) -> None:
    """Every octet and every SYN and FIN counts once; each side acknowledges all that the other has shown."""
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path) as writer:
        tap = writer.stream(HERE, THERE, active=active)
        tap.opened()
        tap.sent(REQUEST)
        tap.received(REPLY)
        tap.sent(SEND + SEND)
        tap.fin_sent()
        tap.fin_received()
        tap.closed()
    segments = segments_of(path)
    opener = HERE if active else THERE
    assert [(segment.source == opener, segment.flags) for segment in segments[:3]] == [
        (True, SYN),
        (False, SYN | ACK),
        (True, ACK),
    ]
    assert [segment.flags for segment in segments[3:]] == [PSH | ACK] * 4 + [FIN | ACK] * 2 + [ACK]
    following: dict[tuple[str, int], int] = {}
    for segment, packet in zip(segments, packets_of(path), strict=True):
        assert following.setdefault(segment.source, segment.sequence) == segment.sequence
        following[segment.source] += segment.length + bool(segment.flags & (SYN | FIN))
        if segment.flags & ACK:
            assert int.from_bytes(packet.data[42:46], "big") == following[segment.destination]
    assert [bytes(segment.payload) for segment in segments if segment.payload] == [REQUEST, REPLY, SEND, SEND]


@pytest.mark.parametrize("size", [1, 3, 30, 31, 1000])
def test_one_unit_is_one_segment(tmp_path: Path, size: int) -> None:
    path = tmp_path / "trace.pcapng"
    units = [REQUEST, SEND, named("RDMA Read Request, MSN 1").octets, SEND]
    octets = b"".join(units)
    with CaptureWriter(path) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        for place in range(0, len(octets), size):
            tap.sent(octets[place : place + size])
    assert payloads_of(path) == units


def test_the_octets_are_read_during_the_call_only(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        for octets in (REQUEST[:20], REQUEST[20:] + SEND):
            borrowed = bytearray(octets)
            tap.sent(memoryview(borrowed))
            borrowed[:] = b"\xee" * len(borrowed)
            borrowed.clear()  # fails if somebody still holds a view
    assert payloads_of(path) == [REQUEST, SEND]


def test_a_unit_longer_than_a_packet_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    big = stream([b"\xc1\x40" + bytes(12) + bytes(65535 - 14)], crc=True, markers=False)
    with CaptureWriter(path) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST + big)
    assert [len(payload) for payload in payloads_of(path)] == [26, MAX_PAYLOAD, len(big) - MAX_PAYLOAD]


def test_markers_are_followed(tmp_path: Path) -> None:
    """M in the peer's frame puts markers into what we send, and the other way round."""
    path = tmp_path / "trace.pcapng"
    ulpdus = [b"\xc1\x40" + bytes(12) + bytes(size) for size in (0, 500, 1000, 483, 20)]
    marked = stream(ulpdus, crc=True, markers=True)
    reply = bytearray(named("MPA v1 reply").octets)
    reply[16] |= 0x80
    with CaptureWriter(path) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(named("MPA v1 request").octets)
        tap.received(reply)
        tap.sent(marked)
        tap.received(stream(ulpdus, crc=True, markers=False))
    sent = [bytes(each.payload) for each in segments_of(path) if each.source == HERE and each.payload]
    ends = [len(stream(ulpdus[: count + 1], crc=True, markers=True)) for count in range(len(ulpdus))]
    assert sent[1:] == [marked[start:end] for start, end in pairwise([0, *ends])]
    assert [frame.crc_ok for frame in read_frames(path)] == [None, None] + [True] * 10


def test_octets_that_are_not_mpa_pass_through(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(b"GET / ")
        tap.sent(b"HTTP/1.1")
    assert payloads_of(path) == [b"GET / ", b"HTTP/1.1"]


def test_a_fin_inside_a_unit_is_preceded_by_what_there_was(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST)
        tap.received(REPLY)
        tap.received(SEND[:10])
        tap.fin_received()
    assert payloads_of(path)[-1] == SEND[:10]
    assert segments_of(path)[-1].flags == FIN | ACK


@pytest.mark.parametrize(
    ("active", "opened", "by_peer", "flags"),
    [
        (True, True, True, [SYN, SYN | ACK, ACK, RST | ACK]),
        (True, True, False, [SYN, SYN | ACK, ACK, RST | ACK]),
        (True, False, True, [SYN, RST | ACK]),
        (True, False, False, [SYN]),
        (False, False, True, [SYN, SYN | ACK, ACK, RST | ACK]),
    ],
)
def test_resets(tmp_path: Path, active: bool, opened: bool, by_peer: bool, flags: list[int]) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path) as writer:
        tap = writer.stream(HERE, THERE, active=active)
        if opened:
            tap.opened()
        tap.reset(by_peer)
        tap.reset(by_peer)
        tap.sent(REQUEST)
        tap.fin_sent()
        tap.closed()
    segments = segments_of(path)
    assert [segment.flags for segment in segments] == flags
    if segments[-1].flags & RST:
        assert segments[-1].source == (THERE if by_peer else HERE)


def test_the_same_ports_again_are_another_connection(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path) as writer:
        for _ in range(3):
            tap = writer.stream(HERE, THERE, active=True)
            tap.sent(REQUEST)
            tap.closed()
    frames = list(read_frames(path))
    assert [(frame.kind, frame.stream) for frame in frames] == [
        ("MPA request", 0),
        ("MPA request", 1),
        ("MPA request", 2),
    ]


@pytest.mark.parametrize("active_first", [True, False])
def test_both_ends_in_one_file_are_one_connection(tmp_path: Path, active_first: bool) -> None:
    """As an adapter that connects to itself has it: each octet once, when its sender sends it."""
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path, flush_interval_s=3600) as writer:
        ends = {}
        for active in (active_first, not active_first):
            here, there = (HERE, THERE) if active else (THERE, HERE)
            ends[active] = writer.stream(here, there, active=active)
            ends[active].opened()
        ends[True].sent(REQUEST)
        ends[False].received(REQUEST)
        ends[False].sent(REPLY)
        ends[True].sent(SEND)
        ends[True].received(REPLY)
        ends[False].sent(TERMINATE[:20])
        ends[False].sent(TERMINATE[20:])
        ends[False].fin_sent()
        ends[True].fin_received()
        ends[False].received(SEND)
        ends[False].closed()
        ends[False].closed()
        ends[True].fin_sent()
        ends[True].closed()
        kinds = [(frame.kind, frame.source) for frame in read_frames(path)]
    assert kinds == [
        ("MPA request", HERE),
        ("MPA reply", THERE),
        ("Send", HERE),
        ("Terminate", THERE),
        ("FIN", THERE),
        ("FIN", HERE),
    ]
    assert [segment.flags & SYN for segment in segments_of(path)].count(SYN) == 2


def test_a_reset_between_two_ends_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path) as writer:
        active = writer.stream(HERE, THERE, active=True)
        passive = writer.stream(THERE, HERE, active=False)
        passive.reset(by_peer=False)
        active.reset(by_peer=True)
        active.closed()
        again = writer.stream(HERE, THERE, active=True)
        again.sent(REQUEST)
    segments = segments_of(path)
    assert [segment.source for segment in segments if segment.flags & RST] == [THERE]
    assert payloads_of(path) == [REQUEST]


def test_a_connection_that_was_never_closed_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path) as writer:
        forgotten = writer.stream(HERE, THERE, active=True)
        forgotten.sent(REQUEST[:5])
        writer.stream(HERE, THERE, active=True).sent(REQUEST)
        forgotten.sent(b"too late")
        forgotten.closed()
        forgotten.reset(by_peer=True)
    assert payloads_of(path) == [REQUEST[:5], REQUEST]


def test_time_stamps_interfaces_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    stamps = iter([1_700_000_000_123_456_789, 1_700_000_000_123_456_790])
    with CaptureWriter(path, clock=lambda: next(stamps)) as writer:
        writer.stream(HERE, THERE, active=True, name="qp3 'client-7'").opened()
        writer.stream(("fd00::1", 1), ("fd00::2", 2), active=True).opened()
    packets = packets_of(path)
    assert [packet.time_ns % 1000 for packet in packets] == [789] * 3 + [790] * 3
    assert [packet.interface for packet in packets] == ["10.0.0.1"] * 3 + ["fd00::1"] * 3
    assert b"qp3 'client-7'" in path.read_bytes()


# ---- the file ----


def test_the_file_is_whole_after_a_terminate_a_fin_and_a_reset(tmp_path: Path) -> None:
    """As a crash right behind the call would leave it; the flusher is out of the way."""
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path, flush_interval_s=3600) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST + SEND)
        assert packets_of(path) == []
        tap.received(REPLY + TERMINATE)
        assert [frame.kind for frame in read_frames(path)][-1] == "Terminate"
        tap.fin_received()
        assert [frame.kind for frame in read_frames(path)][-1] == "FIN"
        tap.reset(by_peer=True)
        assert [frame.kind for frame in read_frames(path)][-1] == "reset"


def test_the_comment_of_a_terminate_says_what_it_can_be_about(tmp_path: Path) -> None:
    """Without headers, siw's 0/2/6 has the octets of 2/0/6, which is a matter of the start-up (RFC 6581 9)."""
    bare = fpdu(TERMINATE[2:20] + bytes.fromhex("20060000"), position=0, crc=True, markers=False)
    for sent, sentence in ((REQUEST, b"insufficient IRD (2/0/6)"), (REQUEST + SEND, b"unexpected opcode (0/2/6)")):
        path = tmp_path / "trace.pcapng"
        with CaptureWriter(path) as writer:
            tap = writer.stream(HERE, THERE, active=True)
            tap.sent(sent)
            tap.received(REPLY + bare)
        assert sentence in path.read_bytes()


def test_much_is_written_without_being_asked(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path, flush_interval_s=3600) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST + SEND * 2000)
        written = packets_of(path)
        assert 0 < len(written) < 2004
    assert len(packets_of(path)) == 2004


def test_little_is_written_after_the_interval(tmp_path: Path) -> None:
    """Also an unfinished FPDU, though nothing follows; then the thread that does it ends."""
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path, flush_interval_s=0.01) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST + SEND[:10])
        until(lambda: payloads_of(path)[-1:] == [SEND[:10]])
        until(lambda: not any(thread.name == "softndk-capture" for thread in threading.enumerate()))
        tap.sent(SEND[10:])
    assert payloads_of(path) == [REQUEST, SEND[:10], SEND[10:]]
    assert [frame.kind for frame in read_frames(path)] == ["MPA request", "Send"]


def test_flush_on_request(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path, flush_interval_s=3600) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST[:7])
        writer.flush()
        assert payloads_of(path) == [REQUEST[:7]]
        writer.flush()
        tap.sent(REQUEST[7:] + SEND[:9])
        writer.flush()
        tap.sent(SEND[9:12])
        writer.flush()
        tap.sent(SEND[12:] + SEND[:3])
        tap.sent(SEND[3:])
    assert payloads_of(path) == [REQUEST[:7], REQUEST[7:], SEND[:9], SEND[9:12], SEND[12:], SEND]


def test_close_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    writer = CaptureWriter(path)
    tap = writer.stream(HERE, THERE, active=True)
    tap.sent(REQUEST)
    writer.close()
    size = path.stat().st_size
    writer.close()
    writer.flush()
    tap.sent(SEND)
    tap.fin_sent()
    tap.reset(by_peer=True)
    tap.closed()
    late = writer.stream(HERE, THERE, active=True)
    late.sent(REQUEST)
    assert path.stat().st_size == size
    assert not any(thread.name == "softndk-capture" for thread in threading.enumerate())


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CaptureWriter(tmp_path / "missing" / "trace.pcapng")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_ends_the_capture_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "softndk"), CaptureWriter("/dev/full") as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST + SEND * 10_000)
        tap.fin_sent()
        tap.closed()
        assert writer.error is not None
    assert len(caplog.records) == 1
    assert "/dev/full ends here" in caplog.text


def test_addresses_that_are_not_numeric(tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "trace.pcapng") as writer, pytest.raises(ValueError, match="localhost"):
        writer.stream(("localhost", 1), THERE, active=True)


def test_many_threads(tmp_path: Path) -> None:
    """Each stream in a thread of its own; no packet is torn and none is lost."""
    path = tmp_path / "trace.pcapng"

    def one(number: int) -> None:
        tap = writer.stream(("10.0.0.1", 40000 + number), THERE, active=True)
        tap.sent(REQUEST)
        tap.received(REPLY)
        for _ in range(200):
            tap.sent(SEND)
        tap.fin_sent()
        tap.closed()

    with CaptureWriter(path, flush_interval_s=0.001) as writer:
        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    frames = list(read_frames(path))
    assert len(frames) == 8 * 203
    assert sum(frame.crc_ok is True for frame in frames) == 8 * 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path, flush_interval_s=3600) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST)
        child = os.fork()
        if child == 0:
            writer.flush()
            writer.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert payloads_of(path) == [REQUEST]


def test_a_capture_that_is_being_written_can_be_read(tmp_path: Path) -> None:
    """Only whole blocks are ever in the file."""
    path = tmp_path / "trace.pcapng"
    with CaptureWriter(path, flush_interval_s=3600) as writer:
        tap = writer.stream(HERE, THERE, active=True)
        tap.sent(REQUEST)
        for _ in range(300):
            tap.sent(SEND * 37)
            packets_of(path)
