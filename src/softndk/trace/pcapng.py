"""Capture files: blocks of pcapng are written, pcapng and classic pcap are read.

Knows files, blocks, time stamps and link types; knows nothing of what is in a packet.

Three block types are written here and not by the python-pcapng package. Measured on 100-octet packets, that package
takes 23 us for one packet block and this module 0.4 us, and the difference would be spent with the adapter's lock held.
Besides, its reader takes a block's announced length on trust and knows no classic pcap, and its last release is of
2022.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from typing_extensions import Buffer

__all__ = ["Packet", "TraceError", "enhanced_packet", "interface_description", "read_packets", "section_header"]

MAX_BLOCK: Final = 16 << 20
"""Longest block or packet that is read. A packet of ours has at most 64 KiB; what is longer is a damaged file."""

_SECTION_HEADER: Final = 0x0A0D0D0A
_INTERFACE_DESCRIPTION: Final = 1
_OBSOLETE_PACKET: Final = 2
_SIMPLE_PACKET: Final = 3
_ENHANCED_PACKET: Final = 6

_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_OPTION_END: Final = 0
_OPTION_COMMENT: Final = 1
_SHB_USER_APPLICATION: Final = 4
_IF_NAME: Final = 2
_IF_TIME_RESOLUTION: Final = 9
_IF_TIME_OFFSET: Final = 14

_CLASSIC: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
"""First four octets of a classic file: byte order, nanoseconds in one unit of the fraction."""


class TraceError(ValueError):
    """A file is not a capture, is damaged, or holds nothing that can be read."""


class Packet(NamedTuple):
    """One captured packet. `number` counts from 1 as Wireshark does; `time_ns` since 1970; `data` may be cut short."""

    number: int
    time_ns: int
    link_type: int
    data: bytes
    interface: str


# ---- writing: little-endian, whole blocks -----------------------------------------------------------------------


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _block(block_type: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", block_type, length) + body + struct.pack("<I", length)


def section_header(application: str) -> bytes:
    """The block that opens a file. `application`: shown by Wireshark as the writer."""
    fixed = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)
    options = _option(_SHB_USER_APPLICATION, application.encode()) + _option(_OPTION_END, b"")
    return _block(_SECTION_HEADER, fixed + options)


def interface_description(name: str, link_type: int) -> bytes:
    """The block for one interface; interfaces are numbered from 0 in file order. Its time stamps are nanoseconds."""
    options = _option(_IF_NAME, name.encode()) + _option(_IF_TIME_RESOLUTION, b"\x09") + _option(_OPTION_END, b"")
    return _block(_INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, 0) + options)


_PACKET_HEAD: Final = struct.Struct("<7I")
_UINT32: Final = struct.Struct("<I")
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


def enhanced_packet(
    interface: int, time_ns: int, headers: bytes, payload: Buffer, size: int, comment: str = ""
) -> bytes:
    """The block for one packet: `headers` followed by `payload` (`size` octets, copied). `comment` is for people."""
    captured = len(headers) + size
    options = _option(_OPTION_COMMENT, comment.encode()) + _option(_OPTION_END, b"") if comment else b""
    length = 32 + (captured + 3 & ~3) + len(options)
    head = _PACKET_HEAD.pack(
        _ENHANCED_PACKET, length, interface, time_ns >> 32 & 0xFFFFFFFF, time_ns & 0xFFFFFFFF, captured, captured
    )
    return b"".join((head, headers, payload, _PADDING[captured & 3], options, _UINT32.pack(length)))


# ---- reading ----------------------------------------------------------------------------------------------------


class _Interface(NamedTuple):
    link_type: int
    snap_length: int
    name: str
    units_per_second: int
    offset_s: int

    def nanoseconds(self, stamp: int) -> int:
        return stamp * 1_000_000_000 // self.units_per_second + self.offset_s * 1_000_000_000


def read_packets(file: BinaryIO) -> Iterator[Packet]:
    """Give the packets of a pcapng or classic pcap file in file order; one block is in memory at a time.

    Raises: TraceError: not a capture, a damaged block, or a file that ends inside a packet; every packet before that
        place has been given.
    """
    magic = file.read(4)
    if magic in _CLASSIC:
        return _read_classic(file, *_CLASSIC[magic])
    if magic == b"\x0a\x0d\x0d\x0a":
        return _read_blocks(file)
    raise TraceError("not a capture file: neither pcapng nor pcap")


def _exactly(file: BinaryIO, size: int, what: str) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise TraceError(f"the file ends inside {what}")
    return data


def _read_classic(file: BinaryIO, order: str, fraction_ns: int) -> Iterator[Packet]:
    # The word behind the snap length: link type in the low 16 bits, FCS length above.
    *_, link = struct.unpack(order + "HHiIII", _exactly(file, 20, "the file header"))
    link_type = link & 0xFFFF
    record = struct.Struct(order + "IIII")
    number = 0
    while head := file.read(16):
        number += 1
        if len(head) < 16:
            raise TraceError(f"the file ends inside packet {number}")
        seconds, fraction, captured, _ = record.unpack(head)
        if captured > MAX_BLOCK:
            raise TraceError(f"packet {number}: damaged, its length is given as {captured} octets")
        data = _exactly(file, captured, f"packet {number}")
        yield Packet(number, seconds * 1_000_000_000 + fraction * fraction_ns, link_type, data, "")


def _read_blocks(file: BinaryIO) -> Iterator[Packet]:
    """The caller has read the type of the first block, a section header."""
    order = "<"
    interfaces: list[_Interface] = []
    number = 0
    time_ns = 0
    kind_octets = b"\x0a\x0d\x0d\x0a"
    while kind_octets:
        where = f"the block behind packet {number}"
        if len(kind_octets) < 4:
            raise TraceError(f"the file ends inside {where}")
        length_octets = _exactly(file, 4, where)
        begun = b""
        if kind_octets == b"\x0a\x0d\x0d\x0a":
            begun = _exactly(file, 4, where)
            if begun == struct.pack("<I", _BYTE_ORDER_MAGIC):
                order = "<"
            elif begun == struct.pack(">I", _BYTE_ORDER_MAGIC):
                order = ">"
            else:
                raise TraceError(f"{where}: a section header without byte-order magic")
            interfaces = []
        kind = int(struct.unpack(order + "I", kind_octets)[0])
        length = int(struct.unpack(order + "I", length_octets)[0])
        if length % 4 or not 12 + len(begun) <= length <= MAX_BLOCK:
            raise TraceError(f"{where}: damaged, its length is given as {length} octets")
        body = begun + _exactly(file, length - 8 - len(begun), where)[:-4]
        try:
            if kind == _INTERFACE_DESCRIPTION:
                interfaces.append(_parse_interface(order, body))
            elif kind in (_ENHANCED_PACKET, _OBSOLETE_PACKET, _SIMPLE_PACKET):
                number += 1
                packet = _parse_packet(order, kind, body, interfaces, number, time_ns)
                time_ns = packet.time_ns
                yield packet
        except (struct.error, IndexError):
            raise TraceError(
                f"{where}: damaged, too short or of an interface that the file does not describe"
            ) from None
        kind_octets = file.read(4)


def _parse_interface(order: str, body: bytes) -> _Interface:
    link_type, _, snap_length = struct.unpack_from(order + "HHI", body)
    units, offset, name = 1_000_000, 0, ""
    place = 8
    while place + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, place)
        value = body[place + 4 : place + 4 + length]
        place += 4 + length + (-length % 4)
        if code == _OPTION_END:
            break
        if code == _IF_NAME:
            name = value.decode(errors="replace")
        elif code == _IF_TIME_RESOLUTION and value:
            units = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _IF_TIME_OFFSET and len(value) == 8:
            (offset,) = struct.unpack(order + "q", value)
    return _Interface(link_type, snap_length, name, units, offset)


def _parse_packet(
    order: str, kind: int, body: bytes, interfaces: list[_Interface], number: int, last_time_ns: int
) -> Packet:
    if kind == _SIMPLE_PACKET:
        interface = interfaces[0]
        (original,) = struct.unpack_from(order + "I", body)
        captured = min(original, interface.snap_length or original, len(body) - 4)
        return Packet(number, last_time_ns, interface.link_type, body[4 : 4 + captured], interface.name)
    layout = "IIIII" if kind == _ENHANCED_PACKET else "HHIIII"
    fields = struct.unpack_from(order + layout, body)
    interface = interfaces[fields[0]]
    high, low, captured = fields[-4:-1]
    data = body[20 : 20 + captured]
    if len(data) < captured:
        raise IndexError
    return Packet(number, interface.nanoseconds(high << 32 | low), interface.link_type, data, interface.name)
