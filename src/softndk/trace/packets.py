"""Ethernet, IPv4, IPv6 and TCP headers: made for the packets that are written, taken off the packets that are read.

Knows one packet at a time; streams, order and start-up frames are other modules' work.
"""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

__all__ = [
    "ACK",
    "FIN",
    "LINK_ETHERNET",
    "LINK_TYPES",
    "MAX_PAYLOAD",
    "PSH",
    "RST",
    "SYN",
    "SYN_OPTIONS",
    "Address",
    "HeaderMaker",
    "Segment",
    "canonical",
    "parse_segment",
]

Address = tuple[str, int]
"""Numeric IPv4 or IPv6 address, port."""

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

LINK_NULL: Final = 0
LINK_ETHERNET: Final = 1
LINK_LOOP: Final = 108
LINK_SLL: Final = 113
LINK_SLL2: Final = 276
_LINK_IP: Final = frozenset({12, 14, 101, 228, 229})
"""Raw IP, by its several numbers: BSD's, OpenBSD's, libpcap's, IPv4 only, IPv6 only."""
LINK_TYPES: Final = frozenset({LINK_NULL, LINK_ETHERNET, LINK_LOOP, LINK_SLL, LINK_SLL2}) | _LINK_IP
"""Link types that `parse_segment` understands."""

MAX_PAYLOAD: Final = 65495
"""Most octets of one TCP segment: an IPv4 total length of 65535 less 20 octets IP and 20 octets TCP."""

_ETHERTYPE_IPV4: Final = 0x0800
_ETHERTYPE_IPV6: Final = 0x86DD
_VLAN_TAGS: Final = frozenset({0x8100, 0x88A8, 0x9100})
_TCP: Final = 6
_EXTENSION_HEADERS: Final = frozenset({0, 43, 60})
"""IPv6 hop-by-hop, routing and destination options: all begin with next header and length."""

_LIFE: Final = 64
_IPV4_FIRST: Final = 0x4500
_DO_NOT_FRAGMENT: Final = 0x4000
_IPV4_LIFE_TCP: Final = _LIFE << 8 | _TCP
_IPV6_FIRST: Final = 0x60000000
_WINDOW: Final = 0xFFFF
SYN_OPTIONS: Final = bytes.fromhex("0204ffd70103030e")
"""Maximum segment size 65495, no-operation, window scale 14: the analysis of a reader never finds the window full."""


def _numeric(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def canonical(address: Address) -> Address:
    """The address as packets show it: no scope, IPv4 not wrapped in IPv6. Raises: ValueError: not numeric."""
    return str(_numeric(address[0])), address[1]


def _sum(data: bytes | memoryview) -> int:
    """Ones' complement sum of 16-bit words modulo 65535, an odd octet padded with zero.

    2**16 is 1 modulo 65535, so the sum of the words is the whole number modulo 65535: one division instead of a loop.
    """
    number = int.from_bytes(data, "big")
    return (number << 8 if len(data) & 1 else number) % 0xFFFF


class HeaderMaker:
    """Makes the headers of one direction of one connection, checksums included.

    Raises: ValueError: an address is not numeric, or the two are of different families.
    """

    __slots__ = ("_constant_ip", "_constant_tcp", "_link", "_ports", "_source_destination", "_v6")

    def __init__(self, source: Address, destination: Address) -> None:
        origin, target = _numeric(source[0]), _numeric(destination[0])
        if origin.version != target.version:
            raise ValueError(f"{source[0]} and {destination[0]} are of different address families")
        self._v6 = origin.version == 6
        self._source_destination = origin.packed + target.packed
        ethertype = _ETHERTYPE_IPV6 if self._v6 else _ETHERTYPE_IPV4
        # Locally administered MAC addresses made of the IP addresses' ends.
        self._link = struct.pack("!2s4s2s4sH", b"\2\0", target.packed[-4:], b"\2\0", origin.packed[-4:], ethertype)
        self._ports = struct.pack("!HH", source[1], destination[1])
        addresses = _sum(self._source_destination)
        self._constant_ip = addresses + _IPV4_FIRST + _DO_NOT_FRAGMENT + _IPV4_LIFE_TCP
        self._constant_tcp = addresses + _TCP + _WINDOW + sum(struct.unpack("!HH", self._ports))

    def make(self, sequence: int, acknowledged: int, flags: int, payload: memoryview, options: bytes = b"") -> bytes:
        """Headers for one segment. `payload`: at most MAX_PAYLOAD octets, read for the checksum, not kept."""
        tcp_length = 20 + len(options) + len(payload)
        offset_flags = 5 + len(options) // 4 << 12 | flags
        # 2**16 is 1 modulo 65535, so the 32-bit fields may be added as they are.
        total = self._constant_tcp + tcp_length + offset_flags + sequence + acknowledged + _sum(options) + _sum(payload)
        tcp = struct.pack("!4sIIHHHH", self._ports, sequence, acknowledged, offset_flags, _WINDOW, -total % 0xFFFF, 0)
        if self._v6:
            ip = struct.pack("!IHBB", _IPV6_FIRST, tcp_length, _TCP, _LIFE)
        else:
            length = 20 + tcp_length
            checksum = -(self._constant_ip + length) % 0xFFFF
            ip = struct.pack("!HHHHHH", _IPV4_FIRST, length, 0, _DO_NOT_FRAGMENT, _IPV4_LIFE_TCP, checksum)
        return b"".join((self._link, ip, self._source_destination, tcp, options))


class Segment(NamedTuple):
    """One TCP segment as captured. `payload` has fewer than `length` octets if the capture cut packets short."""

    source: Address
    destination: Address
    sequence: int
    flags: int
    payload: memoryview
    length: int


def parse_segment(link_type: int, data: bytes) -> Segment | None:
    """Take the headers off one packet. None: not TCP, a fragment, or damaged. Checksums are not judged: captures of
    a sending host hold them unfinished."""
    try:
        place, version = _link_header(link_type, data)
        if version == 4:
            return _parse_ipv4(data, place)
        if version == 6:
            return _parse_ipv6(data, place)
    except (struct.error, IndexError):
        pass
    return None


def _link_header(link_type: int, data: bytes) -> tuple[int, int]:
    """Where IP begins, and its version as the link header or else the packet itself tells it; 0: not IP."""
    if link_type == LINK_ETHERNET:
        place = 12
    elif link_type == LINK_SLL:
        place = 14
    elif link_type == LINK_SLL2:
        return (20, data[20] >> 4) if data[0:2] in (b"\x08\0", b"\x86\xdd") else (0, 0)
    elif link_type in (LINK_NULL, LINK_LOOP):
        return 4, data[4] >> 4
    elif link_type in _LINK_IP:
        return 0, data[0] >> 4
    else:
        return 0, 0
    (ethertype,) = struct.unpack_from("!H", data, place)
    while ethertype in _VLAN_TAGS:
        place += 4
        (ethertype,) = struct.unpack_from("!H", data, place)
    return place + 2, {_ETHERTYPE_IPV4: 4, _ETHERTYPE_IPV6: 6}.get(ethertype, 0)


def _parse_ipv4(data: bytes, place: int) -> Segment | None:
    length, fragment, protocol = struct.unpack_from("!2xHxxHxB", data, place)
    if protocol != _TCP or fragment & 0x3FFF:
        return None
    source, destination = struct.unpack_from("!4s4s", data, place + 12)
    tcp = place + (data[place] & 0x0F) * 4
    # A total length of 0 is how a host's own captures show a packet that its network card will cut up.
    end = place + length if length else len(data)
    return _parse_tcp(data, tcp, end, str(IPv4Address(source)), str(IPv4Address(destination)))


def _parse_ipv6(data: bytes, place: int) -> Segment | None:
    length, following, source, destination = struct.unpack_from("!4xHBx16s16s", data, place)
    end = place + 40 + length if length else len(data)
    place += 40
    while following in _EXTENSION_HEADERS:
        following, extent = data[place], data[place + 1]
        place += 8 + extent * 8
    if following != _TCP:
        return None
    return _parse_tcp(data, place, end, str(IPv6Address(source)), str(IPv6Address(destination)))


def _parse_tcp(data: bytes, place: int, end: int, source: str, destination: str) -> Segment | None:
    port, peer_port, sequence, offset_flags = struct.unpack_from("!HHI4xH", data, place)
    header = (offset_flags >> 12) * 4
    if header < 20:
        return None
    length = max(0, end - place - header)
    payload = memoryview(data)[place + header : place + header + length]
    return Segment((source, port), (destination, peer_port), sequence, offset_flags & 0x3F, payload, length)
