"""CRC-32C as MPA uses it (RFC 5044 section 4.4).

Responsible for: the checksum and its form on the wire. Must not know: which octets of an FPDU it covers.
"""

from __future__ import annotations

import struct
from typing import Final

from crc32c import crc32c as _accelerated

CRC_LENGTH: Final = 4
CRC_OCTETS: Final = struct.Struct("<I")
"""The checksum as sent: least significant octet first, the only little-endian field of these protocols."""

RESIDUE: Final = 0x48674BC7
"""`crc32c` of any octets followed by their own checksum as sent."""


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Return the CRC-32C of `data`, an unsigned 32-bit number.

    Args: data: contiguous unsigned bytes, read only. value: what an earlier call returned for the octets
        before `data`, so that `crc32c(b, crc32c(a)) == crc32c(a + b)`.
    """
    return _accelerated(data, value)
