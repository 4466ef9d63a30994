"""Several captures as one, in the order of time: what two processes of one conversation recorded, in one window."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from heapq import merge as merge_sorted
from operator import itemgetter
from typing import Final

from softndk.trace.packets import Address, parse_segment
from softndk.trace.pcapng import Packet, enhanced_packet, interface_description, read_packets, section_header

__all__ = ["merge"]

_WRITE_OCTETS: Final = 1 << 20


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> None:
    """Write the packets of all `paths` to `out`, a pcapng file, sorted by time stamp (each file is sorted already).

    A TCP connection that several files show, as each end records it, is taken from the one whose packet of it is the
    earliest: both together would look like repeated packets. Comments are not carried over.

    Raises: OSError: a file cannot be read or written. TraceError: a file is not a capture or is damaged. ValueError:
        `out` is one of `paths`.
    """
    if any(os.path.exists(out) and os.path.samefile(path, out) for path in paths):
        raise ValueError(f"{os.fspath(out)} is to be written and is one of the captures to be read")
    with ExitStack() as files:
        sources = [read_packets(files.enter_context(open(path, "rb"))) for path in paths]
        target = files.enter_context(open(out, "wb", buffering=_WRITE_OCTETS))
        target.write(section_header("softndk"))
        interfaces: dict[tuple[str, int], int] = {}
        owners: dict[frozenset[Address], int] = {}
        numbered = [_numbered(index, source) for index, source in enumerate(sources)]
        for _, index, packet in merge_sorted(*numbered, key=itemgetter(0)):
            segment = parse_segment(packet.link_type, packet.data)
            if segment is not None:
                connection = frozenset((segment.source, segment.destination))
                if owners.setdefault(connection, index) != index:
                    continue
            interface = (packet.interface or os.path.basename(os.fspath(paths[index])), packet.link_type)
            if interface not in interfaces:
                interfaces[interface] = len(interfaces)
                target.write(interface_description(*interface))
            target.write(enhanced_packet(interfaces[interface], packet.time_ns, b"", packet.data, len(packet.data)))


def _numbered(index: int, packets: Iterator[Packet]) -> Iterator[tuple[int, int, Packet]]:
    for packet in packets:
        yield packet.time_ns, index, packet
