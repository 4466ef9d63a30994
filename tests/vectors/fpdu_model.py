"""An FPDU stream written out octet group by octet group, straight from RFC 5044 section 4.

Slow and obvious: the judge of the code that computes positions. Knows nothing of softndk.
"""

from collections.abc import Sequence


def crc32c_bitwise(data: bytes | bytearray) -> int:
    """CRC-32C one bit at a time."""
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def fpdu(ulpdu: bytes, *, position: int, crc: bool, markers: bool) -> bytes:
    """The octets of one FPDU that begins at stream offset `position`, its leading marker included."""
    content = len(ulpdu).to_bytes(2, "big") + ulpdu
    while len(content) % 4:
        content += b"\0"
    out = bytearray()
    length_field_at = None
    for group in [content[at : at + 4] for at in range(0, len(content), 4)] + [None]:
        if markers and (position + len(out)) % 512 == 0:
            pointer = 0 if length_field_at is None else len(out) - length_field_at
            out += bytes(2) + pointer.to_bytes(2, "big")
        if length_field_at is None:
            length_field_at = len(out)
        if group is None:
            group = crc32c_bitwise(out).to_bytes(4, "little") if crc else bytes(4)
        out += group
    return bytes(out)


def stream(ulpdus: Sequence[bytes], *, crc: bool, markers: bool) -> bytes:
    """The FPDUs of a whole direction, from its first octet on."""
    out = b""
    for ulpdu in ulpdus:
        out += fpdu(ulpdu, position=len(out), crc=crc, markers=markers)
    return out
