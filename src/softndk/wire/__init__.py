"""Codecs and constants of MPA, DDP and RDMAP: octets to values and back, nothing else.

Responsible for: where each field lies, how wide it is, and what its named values are. One module per layer
(`mpa`, `ddp`, `rdmap`, `terminate`), and `crc32c` for the checksum.
Must not know: streams, connections, memory, or what to do about a bad value. A codec refuses only octets that
cannot be read at all; whether a version, an opcode or a number is acceptable is judged by its reader.
"""

from __future__ import annotations

__all__ = ["WireError"]


class WireError(ValueError):
    """Octets that do not form what they were said to be. The text names the field and the value."""
