"""Blocks of pcapng and records of classic pcap, against files put together here by the formats' own rules."""

import io
import struct
from contextlib import nullcontext, suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from softndk.trace.pcapng import (
    MAX_BLOCK,
    Packet,
    TraceError,
    enhanced_packet,
    interface_description,
    read_packets,
    section_header,
)

NANOSECONDS = b"\x09"


def packets_of(file: bytes) -> list[Packet]:
    return list(read_packets(io.BytesIO(file)))


def block(order: str, kind: int, body: bytes) -> bytes:
    padded = body + bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(padded))
    return struct.pack(order + "I", kind) + length + padded + length


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link_type: int, *options: bytes, snap: int = 0) -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link_type, 0, snap) + b"".join(options))


def enhanced(order: str, number: int, stamp: int, data: bytes) -> bytes:
    head = struct.pack(order + "IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
    return block(order, 6, head + data)


@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(0, 2**63), st.text(max_size=20))
def test_what_is_written_is_read(headers: bytes, payload: bytes, time_ns: int, comment: str) -> None:
    written = enhanced_packet(0, time_ns, headers, memoryview(payload), len(payload), comment)
    assert len(written) % 4 == 0
    file = section_header("softndk") + interface_description("10.0.0.1", 1) + written
    assert packets_of(file) == [Packet(1, time_ns, 1, headers + payload, "10.0.0.1")]


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_several_interfaces(order: str) -> None:
    file = section(order) + interface(order, 1, option(order, 2, b"lo"), option(order, 9, NANOSECONDS))
    file += interface(order, 101) + enhanced(order, 1, 5, b"abcde") + enhanced(order, 0, 7, b"fgh")
    assert packets_of(file) == [Packet(1, 5000, 101, b"abcde", ""), Packet(2, 7, 1, b"fgh", "lo")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], 3_000),
        ([(9, b"\x03")], 3_000_000),
        ([(9, b"\x8a")], 3_000_000_000 // 1024),
        ([(9, NANOSECONDS), (14, struct.pack("<q", 10))], 10_000_000_003),
        ([(0, b""), (9, NANOSECONDS)], 3_000),
    ],
    ids=["microseconds by default", "milliseconds", "a power of two", "with an offset", "behind the end of options"],
)
def test_units_of_time(options: list[tuple[int, bytes]], expected: int) -> None:
    file = section("<") + interface("<", 1, *(option("<", *each) for each in options)) + enhanced("<", 0, 3, b"x")
    assert [packet.time_ns for packet in packets_of(file)] == [expected]


def test_a_second_section_has_its_own_byte_order_and_interfaces() -> None:
    file = section("<") + interface("<", 1) + enhanced("<", 0, 1, b"a")
    file += section(">") + interface(">", 228) + enhanced(">", 0, 2, b"b")
    assert [(packet.number, packet.link_type, packet.data) for packet in packets_of(file)] == [
        (1, 1, b"a"),
        (2, 228, b"b"),
    ]


def test_simple_and_obsolete_packets_and_unknown_blocks() -> None:
    file = section("<") + interface("<", 1, snap=4)
    file += block("<", 0x0BAD, b"whatever")
    file += block("<", 2, struct.pack("<HHIIII", 0, 0, 0, 9, 3, 3) + b"old")
    file += block("<", 3, struct.pack("<I", 100) + b"cut!")
    assert packets_of(file) == [Packet(1, 9000, 1, b"old", ""), Packet(2, 9000, 1, b"cut!", "")]


@pytest.mark.parametrize(
    ("magic", "order", "time_ns"),
    [(0xA1B2C3D4, "<", 5000), (0xA1B2C3D4, ">", 5000), (0xA1B23C4D, "<", 5), (0xA1B23C4D, ">", 5)],
)
def test_classic_files(magic: int, order: str, time_ns: int) -> None:
    file = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 0xF0000001)
    file += struct.pack(order + "IIII", 1, 5, 3, 3) + b"abc"
    assert packets_of(file) == [Packet(1, 1_000_000_000 + time_ns, 1, b"abc", "")]


# ---- bad files ----

GOOD = section("<") + interface("<", 1) + enhanced("<", 0, 1, b"abcd") + enhanced("<", 0, 2, b"efgh")
CLASSIC = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + struct.pack("<IIII", 1, 5, 4, 4) + b"abcd"


@pytest.mark.parametrize("file", [b"", b"abc", b"not a capture at all", b"\x7fELF", b"\x1f\x8b\x08\x00"])
def test_what_is_not_a_capture(file: bytes) -> None:
    with pytest.raises(TraceError, match="not a capture file"):
        packets_of(file)


@pytest.mark.parametrize(("file", "ends"), [(GOOD, {28, 48, 84}), (CLASSIC, {24})], ids=["pcapng", "pcap"])
def test_a_file_that_ends_anywhere_gives_its_whole_packets_first(file: bytes, ends: set[int]) -> None:
    """`ends`: where a block ends, so that the shorter file is a whole one too."""
    whole = packets_of(file)
    for size in range(4, len(file)):
        found: list[Packet] = []
        with nullcontext() if size in ends else pytest.raises(TraceError, match="ends inside"):
            found.extend(read_packets(io.BytesIO(file[:size])))
        assert found == whole[: len(found)]
        assert len(found) == sum(end <= size for end in ends if end > 48)


@pytest.mark.parametrize("length", [0, 8, 13, MAX_BLOCK + 4, 0xFFFFFFFC])
def test_an_announced_length_that_cannot_be(length: int) -> None:
    file = GOOD + struct.pack("<II", 6, length) + bytes(64)
    reader = read_packets(io.BytesIO(file))
    assert [next(reader).data, next(reader).data] == [b"abcd", b"efgh"]
    with pytest.raises(TraceError, match=f"behind packet 2.*{length} octets"):
        next(reader)


def test_a_long_packet_in_a_classic_file() -> None:
    with pytest.raises(TraceError, match="packet 2: damaged"):
        packets_of(CLASSIC + struct.pack("<IIII", 1, 5, MAX_BLOCK + 1, 4) + bytes(64))


def test_a_packet_of_no_interface_or_with_too_few_octets() -> None:
    with pytest.raises(TraceError, match="interface that the file does not describe"):
        packets_of(section("<") + enhanced("<", 0, 1, b"abcd"))
    short = struct.pack("<IIIII", 0, 0, 0, 400, 400) + b"only these"
    with pytest.raises(TraceError, match="damaged"):
        packets_of(section("<") + interface("<", 1) + block("<", 6, short))


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
@example(24, b"\x06")
def test_damage_gives_packets_or_a_trace_error(place: int, octets: bytes) -> None:
    damaged = bytearray(GOOD)
    damaged[place : place + len(octets)] = octets
    with suppress(TraceError):
        packets_of(bytes(damaged))
