"""The reader of captures: what networks, capture programs and attackers do to a stream."""

import json
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softndk.trace import CaptureWriter, Direction, Frame, TraceError, read_frames
from softndk.trace.packets import ACK, FIN, PSH, RST, SYN, HeaderMaker
from softndk.trace.pcapng import enhanced_packet, interface_description, section_header
from tests.vectors.fpdu_model import stream
from tests.vectors.iwarp_vectors import named

A = ("10.0.0.1", 40001)
B = ("10.0.0.2", 5791)
REQUEST = named("MPA v2 request").octets
REPLY = named("MPA v2 reply: C=1 S=1").octets
DATA = Path(__file__).parents[2] / "data"

Part = tuple[tuple[str, int], int, int, bytes]
"""One packet: sender (of A and B), sequence number, TCP flags, payload."""


def write(index: int, size: int = 40) -> bytes:
    """The ULPDU of a Write whose TO is its number in the stream."""
    return b"\xc1\x40" + (7).to_bytes(4, "big") + index.to_bytes(8, "big") + bytes(index % 256 for _ in range(size))


def fpdus(*ulpdus: bytes, markers: bool = False, crc: bool = True) -> bytes:
    return stream(ulpdus, crc=crc, markers=markers)


def capture(path: Path, parts: Sequence[Part], *, snap: int | None = None) -> Path:
    """A capture file of these packets, each a microsecond after the one before."""
    makers = {A: HeaderMaker(A, B), B: HeaderMaker(B, A)}
    blocks = [section_header("test"), interface_description("test", 1)]
    for index, (source, sequence, flags, payload) in enumerate(parts):
        headers = makers[source].make(sequence % 2**32, 0, flags, memoryview(payload))
        kept = (headers + payload)[:snap]
        blocks.append(enhanced_packet(0, 1000 * index, b"", kept, len(kept)))
    path.write_bytes(b"".join(blocks))
    return path


def opened(first: int = 1000) -> list[Part]:
    """Handshake and start-up: A is the initiator, its FPDUs begin at `first` + 27, B's at 5024."""
    return [
        (A, first, SYN, b""),
        (B, 4999, SYN | ACK, b""),
        (A, first + 1, PSH | ACK, REQUEST),
        (B, 5000, PSH | ACK, REPLY),
    ]


def data(first: int, *units: bytes) -> list[Part]:
    """One packet of A per unit."""
    parts = []
    for unit in units:
        parts.append((A, first, PSH | ACK, unit))
        first += len(unit)
    return parts


def kinds(path: Path) -> list[str]:
    return [frame.kind for frame in read_frames(path)]


def offsets(path: Path) -> list[object]:
    """The TOs of the Writes that were read, all with a good CRC."""
    writes = [frame for frame in read_frames(path) if frame.kind == "RDMA Write"]
    assert all(frame.crc_ok for frame in writes)
    return [frame.details["to"] for frame in writes]


UNITS = [fpdus(write(index)) for index in range(12)]
START = 1027


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.pcapng"


# ---- what a frame tells ----


def test_a_frame(path: Path) -> None:
    capture(path, [*opened(), *data(START, UNITS[5]), (B, 5024, FIN | ACK, b"")])
    request, reply, frame, fin = read_frames(path)
    assert (request.kind, request.direction, request.source, request.destination) == (
        "MPA request",
        Direction.INITIATOR,
        A,
        B,
    )
    assert (reply.kind, reply.direction, reply.crc_ok) == ("MPA reply", Direction.RESPONDER, None)
    assert (frame.number, frame.time_ns, frame.time, frame.stream) == (5, 4000, 4e-6, 0)
    assert frame.payload == bytes([5] * 40)
    assert frame.payload_length == 40
    assert frame.summary == "STag 0x00000007 TO 0x5 len 40 L"
    assert (fin.kind, fin.source) == ("FIN", B)
    as_json = json.loads(json.dumps(frame.as_dict()))
    assert as_json["details"] == {"opcode": 0, "stag": 7, "to": 5, "last": True}
    assert (as_json["source"], as_json["crc_ok"], as_json["payload_length"]) == (list(A), True, 40)


def test_a_reply_alone_tells_who_is_who(path: Path) -> None:
    capture(path, [(B, 5000, PSH | ACK, REPLY), (A, 1, PSH | ACK, UNITS[0])])
    assert [(frame.kind, frame.direction) for frame in read_frames(path)] == [
        ("MPA reply", Direction.RESPONDER),
        ("gap", Direction.INITIATOR),
        ("RDMA Write", Direction.INITIATOR),
    ]


def test_crc_off_and_crc_wrong(path: Path) -> None:
    bad = UNITS[1][:-1] + bytes([UNITS[1][-1] ^ 1])
    capture(path, [*opened(), *data(START, UNITS[0], bad, UNITS[2])])
    assert [frame.crc_ok for frame in read_frames(path)] == [None, None, True, False, True]

    quiet = [(REQUEST, 0x10), (REPLY, 0x10)]
    request, reply = (octets[:16] + bytes([flags]) + octets[17:] for octets, flags in quiet)
    parts = [(A, 0, SYN, b""), (A, 1, ACK, request), (B, 9, ACK, reply), *data(27, fpdus(write(1), crc=False))]
    assert [frame.crc_ok for frame in read_frames(capture(path, parts))] == [None] * 3


# ---- what becomes of segments ----


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(0, 2**32 - 1), st.booleans(), st.integers())
def test_any_division_repeated_and_swapped(path: Path, sizes: list[int], first: int, markers: bool, seed: int) -> None:
    """TCP divides and repeats the stream as it likes; the frames are the same."""
    octets = fpdus(*(write(index) for index in range(12)), markers=markers)
    reply = bytearray(named("MPA v1 reply").octets)
    reply[16] |= 0x80 if markers else 0
    request = named("MPA v1 request").octets
    parts: list[Part] = [(A, first, SYN, b""), (A, first + 1, ACK, request), (B, 9, ACK, bytes(reply))]
    place, tail = 0, []
    for size in sizes:
        tail.append((A, first + 1 + len(request) + place, PSH | ACK, octets[place : place + size]))
        place += size
    tail.append((A, first + 1 + len(request) + place, PSH | ACK, octets[place:]))
    generator = random.Random(seed)
    tail += generator.sample(tail, len(tail) // 2)
    generator.shuffle(tail)
    assert offsets(capture(path, parts + tail)) == list(range(12))


def test_a_frame_over_many_packets_has_the_number_of_the_last(path: Path) -> None:
    pieces = [UNITS[0][:10], UNITS[0][10:11], UNITS[0][11:]]
    capture(path, [*opened(), *data(START, *pieces)])
    assert list(read_frames(path))[-1].number == 7


def test_many_frames_in_one_packet(path: Path) -> None:
    capture(path, [*opened(), *data(START, b"".join(UNITS))])
    frames = list(read_frames(path))[2:]
    assert [frame.details["to"] for frame in frames] == list(range(12))
    assert {frame.number for frame in frames} == {5}


def test_a_lost_packet_is_a_gap_and_reading_goes_on(path: Path) -> None:
    parts = data(START, *UNITS)
    capture(path, [*opened(), *parts[:3], *parts[4:]])
    frames = list(read_frames(path))
    assert [frame.kind for frame in frames[2:7]] == ["RDMA Write"] * 3 + ["gap", "RDMA Write"]
    assert frames[5].details["missing"] == len(UNITS[3])
    assert offsets(path) == [0, 1, 2, *range(4, 12)]


def test_a_lost_packet_within_frames(path: Path) -> None:
    """Reading goes on at the first segment that begins with an FPDU."""
    octets = b"".join(UNITS)
    size = len(UNITS[0])
    cuts = [0, size + 10, 2 * size + 10, 5 * size, 6 * size, len(octets)]
    parts = data(START, *(octets[a:b] for a, b in pairwise(cuts)))
    capture(path, [*opened(), parts[0], *parts[2:]])
    assert offsets(path) == [0, *range(5, 12)]
    (gap,) = [frame for frame in read_frames(path) if frame.kind == "gap"]
    assert gap.details["missing"] == 4 * size


def test_a_lost_packet_among_markers(path: Path) -> None:
    """The positions of the markers are still known behind the hole."""
    units: list[bytes] = []
    for index in range(40):
        units.append(fpdus(*(write(each) for each in range(index + 1)), markers=True)[sum(map(len, units)) :])
    reply = bytearray(named("MPA v1 reply").octets)
    reply[16] |= 0x80
    parts = data(27, *units)
    head: list[Part] = [(A, 0, SYN, b""), (A, 1, ACK, named("MPA v1 request").octets), (B, 9, ACK, bytes(reply))]
    capture(path, [*head, *parts[:7], *parts[20:]])
    assert offsets(path) == [*range(7), *range(20, 40)]
    # Behind the hole, three segments that begin within an FPDU, then one at an FPDU.
    octets = b"".join(units[20:])
    size = len(units[20])
    cuts = [10, 30, size + 5, sum(map(len, units[20:23])), len(octets)]
    torn = data(parts[20][1] + 10, *(octets[a:b] for a, b in pairwise(cuts)))
    capture(path, [*head, *parts[:7], torn[0], *torn[1:]])
    assert offsets(path) == [*range(7), *range(23, 40)]


@pytest.mark.parametrize("markers", [False, True])
def test_what_only_looks_like_an_fpdu_behind_a_hole(path: Path, markers: bool) -> None:
    """A segment begins with what could be length and control octets; its CRC, when all has come, says no."""
    lure = bytes.fromhex("00504143") + bytes(36)
    ulpdus = [write(0), write(1)[:14] + lure, *(write(index) for index in range(2, 40))]
    octets = fpdus(*ulpdus, markers=markers)
    place = octets.index(lure[:4])
    ends = [len(fpdus(*ulpdus[:count], markers=markers)) for count in range(1, len(ulpdus) + 1)]
    cuts = [place, ends[1], ends[2] - 7, ends[2], ends[3] + 5, *ends[4:]]
    reply = bytearray(named("MPA v1 reply").octets)
    reply[16] |= 0x80 if markers else 0
    head: list[Part] = [(A, 0, SYN, b""), (A, 1, ACK, named("MPA v1 request").octets), (B, 9, ACK, bytes(reply))]
    torn = data(27 + place, *(octets[a:b] for a, b in pairwise(cuts)))
    capture(path, [*head, *data(27, octets[: ends[0]]), *torn])
    assert offsets(path) == [0, *range(2, 40)]


def test_an_fpdu_over_two_segments_behind_a_hole(path: Path) -> None:
    size = len(UNITS[0])
    octets = b"".join(UNITS)
    cuts = [2 * size, 2 * size + 3, 2 * size + 20, len(octets)]
    torn = data(START + 2 * size, *(octets[a:b] for a, b in pairwise(cuts)))
    capture(path, [*opened(), *data(START, UNITS[0]), *torn])
    assert offsets(path) == [0, *range(2, 12)]


def test_a_capture_that_begins_in_the_middle(path: Path) -> None:
    """By its good CRC a segment is known as an FPDU; without CRC, by the zeros that stand there."""
    for crc in (True, False):
        units = [fpdus(write(index), crc=crc) for index in range(4)]
        capture(path, [(A, 77, ACK, b"unreadable beginning"), *data(97, *units)])
        frames = list(read_frames(path))
        assert [frame.kind for frame in frames] == ["gap", *["RDMA Write"] * 4]
        assert [frame.crc_ok for frame in frames[1:]] == [crc or None] * 4
        assert frames[0].details["missing"] == 20
        assert frames[0].direction is Direction.UNKNOWN


@pytest.mark.parametrize(
    ("body", "before", "meant"),
    [
        ("20060000", "start-up", (2, 0, 6)),
        ("02060000", "start-up", (2, 0, 6)),
        ("20060000", "start-up and an FPDU", (0, 2, 6)),
        ("02060000", "start-up and an FPDU", (0, 2, 6)),
        ("20060000", "an FPDU", (0, 2, 6)),
        ("20060000", "nothing", (0, 2, 6)),
        ("20020000", "an FPDU", (2, 0, 2)),
        ("02070000", "start-up", (2, 0, 7)),
    ],
)
def test_a_terminate_without_headers_is_read_by_what_it_can_be_about(
    path: Path, body: str, before: str, meant: tuple[int, int, int]
) -> None:
    """RFC 6581 9: "insufficient IRD" (2/0/6) is a matter of the start-up; the driver of Linux exchanges layer and type, so
    that its "unexpected opcode" (0/2/6) has the same octets. Behind the start-up, where a capture may begin, only that fits.
    """
    head = named("Terminate for a bad CRC").octets[2:20]
    terminate = fpdus(head + bytes.fromhex(body))
    parts = opened() if "start-up" in before else []
    parts += data(START, UNITS[0]) if "FPDU" in before else []
    frames = list(read_frames(capture(path, [*parts, (B, 5024, PSH | ACK, terminate)])))
    (found,) = [frame for frame in frames if frame.kind == "Terminate"]
    assert (found.details["layer"], found.details["type"], found.details["code"]) == meant
    assert found.details["scrambled"] == (meant[0] != int(body[0]))
    assert "({:x}/{:x}/{:x})".format(*meant) in found.summary


def test_a_capture_that_begins_with_the_request(path: Path) -> None:
    capture(path, [(A, 1, ACK, REQUEST), (B, 1, ACK, REPLY), *data(27, UNITS[0])])
    assert kinds(path) == ["MPA request", "MPA reply", "RDMA Write"]


def test_packets_that_were_cut_short(path: Path) -> None:
    """What the snap length took away is a gap, not an error."""
    big = fpdus(write(1, 500))
    capture(path, [*opened(), *data(START, UNITS[0], big, UNITS[2])], snap=200)
    assert offsets(path) == [0, 2]
    assert kinds(path)[2:] == ["RDMA Write", "gap", "RDMA Write"]


# ---- beginnings and ends ----


def test_a_fin_a_reset_and_what_was_unfinished(path: Path) -> None:
    end = START + len(UNITS[0]) + 10
    parts = [*opened(), *data(START, UNITS[0], UNITS[1][:10])]
    capture(path, [*parts, (A, end, FIN | ACK, b""), (A, end, FIN | ACK, b"")])
    assert kinds(path)[2:] == ["RDMA Write", "unfinished frame", "FIN"]
    unfinished = list(read_frames(path))[3]
    assert (unfinished.details["seen"], unfinished.details["wanted"]) == (10, len(UNITS[1]))
    capture(path, [*parts, (B, 5024, RST | ACK, b""), *data(end, UNITS[3]), (B, 5024, RST, b"")])
    assert kinds(path)[2:] == ["RDMA Write", "unfinished frame", "reset"]
    capture(path, parts)
    assert kinds(path)[2:] == ["RDMA Write", "unfinished frame"]


def test_a_fin_that_came_before_what_it_follows(path: Path) -> None:
    end = START + len(UNITS[0])
    capture(path, [*opened(), (A, end, FIN | ACK, b""), *data(START, UNITS[0])])
    frames = list(read_frames(path))
    assert [(frame.kind, frame.number) for frame in frames[2:]] == [("RDMA Write", 6), ("FIN", 5)]


def test_a_connection_after_a_connection(path: Path) -> None:
    """The same ports: a SYN with another number begins another stream, also without an end of the first."""
    capture(path, [*opened(1000), *data(START, UNITS[0]), *opened(90_000), *data(90_027, UNITS[1])])
    frames = list(read_frames(path))
    assert [frame.stream for frame in frames] == [0, 0, 0, 1, 1, 1]
    assert offsets(path) == [0, 1]


def test_repeated_packets_behind_the_end(path: Path) -> None:
    fins: list[Part] = [(A, START, FIN | ACK, b""), (B, 5024, FIN | ACK, b"")]
    capture(path, [*opened(), *fins, *opened(), *fins])
    assert kinds(path) == ["MPA request", "MPA reply", "FIN", "FIN"]


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x02\x00\x01", b"M", b"MPA ID"]
)
@pytest.mark.parametrize("from_start", [True, False])
def test_other_protocols_are_passed_over(path: Path, first: bytes, from_start: bool) -> None:
    parts = opened()[:2] if from_start else []
    parts += [(A, 1001, ACK, first), (A, 1001 + len(first), ACK, b"more of it" * 10), (B, 5000, ACK, bytes(500))]
    parts += [(A, 1101 + len(first), FIN | ACK, b""), (B, 5500, RST | ACK, b"")]
    assert kinds(capture(path, parts)) == []


def test_a_startup_frame_that_cannot_be(path: Path) -> None:
    capture(path, [*opened()[:2], (A, 1001, ACK, b"MPA ID Req Frame\x40\x01\x02\x01" + bytes(600))])
    (frame,) = read_frames(path)
    assert frame.kind == "malformed start-up frame"
    assert "PD_Length 513" in frame.summary


def test_an_fpdu_too_short_for_its_header(path: Path) -> None:
    capture(path, [*opened(), *data(START, fpdus(b"\xc1\x40abc"), fpdus(b""), UNITS[0])])
    assert kinds(path)[2:] == ["malformed FPDU", "malformed FPDU", "RDMA Write"]
    assert [frame.crc_ok for frame in read_frames(path)][2:] == [True, True, True]


# ---- files ----


def test_a_file_that_ends_in_a_packet(path: Path) -> None:
    """After a crash: everything up to there is given, then the error says so."""
    capture(path, [*opened(), *data(START, *UNITS)])
    path.write_bytes(path.read_bytes()[:-5])
    frames: list[Frame] = []
    with pytest.raises(TraceError, match="ends inside the block behind packet 15"):
        frames.extend(read_frames(path))
    assert len(frames) == 2 + 11


def test_link_types(path: Path) -> None:
    usb = section_header("x") + interface_description("usb", 220) + enhanced_packet(0, 0, b"", b"x" * 60, 60)
    path.write_bytes(usb)
    with pytest.raises(TraceError, match="link type 220"):
        list(read_frames(path))
    path.write_bytes(section_header("x"))
    assert kinds(path) == []
    capture(path, [*opened()])
    path.write_bytes(usb + path.read_bytes())
    assert kinds(path) == ["MPA request", "MPA reply"]


def test_not_a_capture(path: Path) -> None:
    path.write_text("hello")
    with pytest.raises(TraceError):
        list(read_frames(path))
    with pytest.raises(FileNotFoundError):
        list(read_frames(path.parent / "missing"))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=6)), min_size=1, max_size=10))
def test_damaged_files_give_frames_or_a_trace_error(path: Path, damage: list[tuple[int, bytes]]) -> None:
    capture(path, [*opened(), *data(START, *UNITS), (A, START + 12 * len(UNITS[0]), FIN | ACK, b"")])
    octets = bytearray(path.read_bytes())
    for place, junk in damage:
        octets[place : place + len(junk)] = junk
    path.write_bytes(octets)
    with suppress(TraceError):
        json.dumps([frame.as_dict() for frame in read_frames(path)])


def test_a_recording_of_the_linux_driver() -> None:
    frames = list(read_frames(DATA / "siw_terminate_read_bounds_crc_p2p.pcap"))
    assert [(frame.number, frame.kind, frame.direction.value) for frame in frames] == [
        (4, "MPA request", "initiator"),
        (6, "MPA reply", "responder"),
        (8, "RDMA Write", "initiator"),
        (9, "Send", "initiator"),
        (11, "RDMA Read Request", "responder"),
        (12, "RDMA Read Response", "initiator"),
        (13, "Terminate", "responder"),
        (14, "FIN", "responder"),
        (15, "FIN", "initiator"),
    ]
    assert frames[6].details["sentence"] == "DDP tagged buffer error: base or bounds violation (1/1/1)"
    assert frames[6].details["scrambled"] is True


def test_what_the_writer_records_is_read(path: Path) -> None:
    """Written and read by two halves of one package: the agreement of both with tshark is tested elsewhere."""
    sizes = list(range(0, 64, 3))
    with CaptureWriter(path) as writer:
        tap = writer.stream(A, B, active=True)
        tap.sent(REQUEST)
        tap.received(REPLY)
        for index, size in enumerate(sizes):
            tap.sent(fpdus(write(index, size)))
    assert [frame.payload_length for frame in read_frames(path)][2:] == sizes
