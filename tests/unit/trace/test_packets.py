"""Headers that are made stand up to RFC 791, 793 and 1071; headers of many kinds are taken off."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softndk.trace.packets import ACK, LINK_TYPES, MAX_PAYLOAD, PSH, HeaderMaker, parse_segment

V4 = (("10.0.0.1", 40001), ("10.0.0.2", 5791))
V6 = (("fd00::1", 40001), ("fd00::2", 5791))


def checksum(octets: bytes) -> int:
    """RFC 1071, word by word; 0 over octets that hold their own checksum."""
    total = 0
    for place in range(0, len(octets), 2):
        total += int.from_bytes(octets[place : place + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def made(addresses: tuple[tuple[str, int], tuple[str, int]], payload: bytes, sequence: int = 7, ack: int = 9) -> bytes:
    return HeaderMaker(*addresses).make(sequence, ack, PSH | ACK, memoryview(payload)) + payload


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_ipv4_checksums(payload: bytes, sequence: int, ack: int) -> None:
    packet = made(V4, payload, sequence, ack)
    ip, tcp = packet[14:34], packet[34:]
    assert int.from_bytes(ip[2:4], "big") == len(ip) + len(tcp)
    assert checksum(ip) == 0
    assert checksum(ip[12:20] + struct.pack("!HH", 6, len(tcp)) + tcp) == 0


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_ipv6_checksum(payload: bytes, sequence: int) -> None:
    packet = made(V6, payload, sequence)
    ip, tcp = packet[14:54], packet[54:]
    assert int.from_bytes(ip[4:6], "big") == len(tcp)
    assert checksum(ip[8:40] + struct.pack("!II", len(tcp), 6) + tcp) == 0


@pytest.mark.parametrize("addresses", [V4, V6], ids=["IPv4", "IPv6"])
def test_what_is_made_is_parsed(addresses: tuple[tuple[str, int], tuple[str, int]]) -> None:
    payload = bytes(range(256)) * 256
    segment = parse_segment(1, made(addresses, payload[:MAX_PAYLOAD], 0xFFFFFFFF))
    assert segment is not None
    assert (segment.source, segment.destination) == addresses
    assert (segment.sequence, segment.flags) == (0xFFFFFFFF, PSH | ACK)
    assert bytes(segment.payload) == payload[:MAX_PAYLOAD]
    assert segment.length == MAX_PAYLOAD


def test_scopes_and_mapped_addresses() -> None:
    scoped = parse_segment(1, made((("fe80::1%eth0", 1), ("fe80::2%2", 2)), b"x"))
    mapped = parse_segment(1, made((("::ffff:10.0.0.1", 1), ("10.0.0.2", 2)), b"x"))
    assert scoped is not None
    assert scoped.source == ("fe80::1", 1)
    assert mapped is not None
    assert (mapped.source, mapped.destination) == (("10.0.0.1", 1), ("10.0.0.2", 2))


@pytest.mark.parametrize("addresses", [(("localhost", 1), ("10.0.0.1", 2)), (("10.0.0.1", 1), ("fd00::1", 2))])
def test_addresses_that_cannot_be(addresses: tuple[tuple[str, int], tuple[str, int]]) -> None:
    with pytest.raises(ValueError, match=r"localhost|families"):
        HeaderMaker(*addresses)


IP = made(V4, b"payload")[14:]
IP6 = made(V6, b"payload")[14:]


@pytest.mark.parametrize(
    ("link_type", "packet"),
    [
        (1, bytes(12) + b"\x08\0" + IP),
        (1, bytes(12) + b"\x86\xdd" + IP6),
        (1, bytes(12) + b"\x81\0\0\x05\x08\0" + IP),
        (1, bytes(12) + b"\x88\xa8\0\x05\x81\0\0\x06\x08\0" + IP),
        (0, b"\x02\0\0\0" + IP),
        (0, b"\0\0\0\x1e" + IP6),
        (108, b"\0\0\0\x02" + IP),
        (113, bytes(14) + b"\x08\0" + IP),
        (276, b"\x08\0" + bytes(18) + IP),
        (276, b"\x86\xdd" + bytes(18) + IP6),
        (101, IP),
        (12, IP6),
        (228, IP),
        (229, IP6),
    ],
)
def test_link_headers(link_type: int, packet: bytes) -> None:
    """Ethernet with and without VLANs, BSD loopback, Linux cooked, raw IP."""
    assert link_type in LINK_TYPES
    segment = parse_segment(link_type, packet)
    assert segment is not None
    assert (segment.source[1], bytes(segment.payload)) == (40001, b"payload")


def test_ethernet_padding_is_not_payload() -> None:
    segment = parse_segment(1, bytes(12) + b"\x08\0" + IP + bytes(20))
    assert segment is not None
    assert bytes(segment.payload) == b"payload"


def test_options_and_extension_headers() -> None:
    tcp = IP[20:]
    with_options = bytes([0x46, *IP[1:2], *(len(IP) + 4).to_bytes(2, "big")]) + IP[4:20] + b"\x01\x01\x01\0" + tcp
    hop_by_hop = bytes([6, 0]) + bytes(6)
    with_extension = IP6[:4] + (len(IP6) - 40 + 8).to_bytes(2, "big") + b"\0" + IP6[7:40] + hop_by_hop + IP6[40:]
    for packet in (with_options, with_extension):
        segment = parse_segment(101, packet)
        assert segment is not None
        assert bytes(segment.payload) == b"payload"


def test_a_packet_longer_than_its_length_field_can_say() -> None:
    """A sending host's capture shows what its network card has still to cut up, with a total length of 0."""
    segment = parse_segment(101, IP[:2] + b"\0\0" + IP[4:])
    assert segment is not None
    assert bytes(segment.payload) == b"payload"


def test_a_packet_that_was_cut_short() -> None:
    segment = parse_segment(101, IP[:-3])
    assert segment is not None
    assert (bytes(segment.payload), segment.length) == (b"payl", 7)


@pytest.mark.parametrize(
    ("link_type", "packet"),
    [
        (1, b""),
        (1, bytes(12) + b"\x08\x06" + bytes(28)),
        (101, IP[:9] + b"\x11" + IP[10:]),
        (101, IP[:6] + b"\x20\0" + IP[8:]),
        (101, IP[:6] + b"\0\x01" + IP[8:]),
        (101, IP[:32] + b"\x10" + IP[33:]),
        (276, b"\x08\x06" + bytes(40)),
        (147, IP),
    ],
    ids=["empty", "ARP", "UDP", "first fragment", "later fragment", "TCP header of 4", "cooked ARP", "unknown link"],
)
def test_what_is_passed_over(link_type: int, packet: bytes) -> None:
    assert parse_segment(link_type, packet) is None


@given(st.sampled_from(sorted(LINK_TYPES)), st.binary(max_size=120))
def test_any_octets_are_a_segment_or_none(link_type: int, packet: bytes) -> None:
    parse_segment(link_type, packet)
    for start in (bytes(12) + b"\x08\0" + IP[:10], IP6[:8]):
        parse_segment(link_type, start + packet)
