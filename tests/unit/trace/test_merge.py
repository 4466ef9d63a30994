"""Several captures as one."""

from pathlib import Path

import pytest

from softndk.trace import CaptureWriter, TraceError, merge, read_frames
from softndk.trace.pcapng import read_packets
from tests.vectors.iwarp_vectors import named

DATA = Path(__file__).parents[2] / "data"
REQUEST = named("MPA v2 request").octets
REPLY = named("MPA v2 reply: C=1 S=1").octets


def test_two_ends_of_one_connection_and_a_third_party(tmp_path: Path) -> None:
    """Each connection appears once, all in the order of time."""
    a, b, c = ("10.0.0.1", 40001), ("10.0.0.2", 5791), ("10.0.0.3", 40002)
    first, second = tmp_path / "first.pcapng", tmp_path / "second.pcapng"
    times = iter(range(1000, 9000, 10))
    with (
        CaptureWriter(first, clock=lambda: next(times)) as one,
        CaptureWriter(second, clock=lambda: next(times)) as two,
    ):
        at_a = one.stream(a, b, active=True)
        at_b = two.stream(b, a, active=False)
        other = two.stream(b, c, active=False)
        at_a.sent(REQUEST)
        at_b.received(REQUEST)
        other.received(REQUEST)
        at_b.sent(REPLY)
        other.sent(REPLY)
        at_a.received(REPLY)
    merged = tmp_path / "merged.pcapng"
    merge([first, second], merged)
    frames = list(read_frames(merged))
    assert [(frame.kind, frame.source) for frame in frames] == [
        ("MPA request", a),
        ("MPA request", c),
        ("MPA reply", b),
        ("MPA reply", b),
    ]
    times_ns = [frame.time_ns for frame in frames]
    assert times_ns == sorted(times_ns)
    with merged.open("rb") as file:
        packets = list(read_packets(file))
    assert {packet.interface for packet in packets} == {"10.0.0.1", "10.0.0.2"}
    assert len(packets) == 2 * (3 + 2)


def test_a_classic_file_gets_its_name_as_interface(tmp_path: Path) -> None:
    merged = tmp_path / "merged.pcapng"
    source = DATA / "siw_rping_plain.pcap"
    merge([source], merged)
    assert [frame.kind for frame in read_frames(merged)] == [frame.kind for frame in read_frames(source)]
    with merged.open("rb") as file:
        assert {packet.interface for packet in read_packets(file)} == {source.name}


def test_bad_input(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no capture")
    with pytest.raises(TraceError):
        merge([text], tmp_path / "out.pcapng")
    with pytest.raises(FileNotFoundError):
        merge([tmp_path / "missing"], tmp_path / "out.pcapng")
    with pytest.raises(ValueError, match="is to be written"):
        merge([text], text)
    assert text.read_text() == "no capture"
