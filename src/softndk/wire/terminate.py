"""The Terminate message: its body and the names of its codes (RFC 5040 section 4.8; RFC 5041, 5044, 6581).

Responsible for: reading and writing the body, and saying in words what a code means.
Must not know: which failure gets which code, nor what to do about a received one (nothing but show it:
implementations disagree about codes).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Self

from softndk.wire import WireError
from softndk.wire.ddp import TAGGED_HEADER, UNTAGGED_HEADER, is_tagged
from softndk.wire.rdmap import READ_REQUEST_LENGTH

FLAG_SEGMENT_LENGTH: Final = 0x80
FLAG_DDP_HEADER: Final = 0x40
FLAG_READ_HEADER: Final = 0x20
CONTROL_LENGTH: Final = 4
SEGMENT_LENGTH_FIELD: Final = 2
MAX_BODY: Final = CONTROL_LENGTH + SEGMENT_LENGTH_FIELD + UNTAGGED_HEADER + READ_REQUEST_LENGTH

_CONTROL: Final = struct.Struct(">BBBx")
_SEGMENT_LENGTH: Final = struct.Struct(">H")
_STANDARD_FLAGS: Final = FLAG_SEGMENT_LENGTH | FLAG_DDP_HEADER | FLAG_READ_HEADER
_SCRAMBLED_FLAGS: Final = ((0x01, FLAG_SEGMENT_LENGTH), (0x02, FLAG_DDP_HEADER), (0x04, FLAG_READ_HEADER))


class Layer(IntEnum):
    """The layer that found the error."""

    RDMAP = 0
    DDP = 1
    MPA = 2


class RdmapType(IntEnum):
    """Error types of layer RDMAP."""

    LOCAL_CATASTROPHIC = 0
    REMOTE_PROTECTION = 1
    REMOTE_OPERATION = 2


class DdpType(IntEnum):
    """Error types of layer DDP."""

    LOCAL_CATASTROPHIC = 0
    TAGGED_BUFFER = 1
    UNTAGGED_BUFFER = 2
    LOWER_LAYER = 3


class MpaType(IntEnum):
    """Error types of layer MPA."""

    MPA = 0


class ProtectionCode(IntEnum):
    """Codes of RDMAP remote protection errors."""

    INVALID_STAG = 0x00
    BASE_OR_BOUNDS = 0x01
    ACCESS_RIGHTS = 0x02
    NOT_ASSOCIATED = 0x03
    TO_WRAP = 0x04
    CANNOT_INVALIDATE = 0x09
    UNSPECIFIED = 0xFF


class OperationCode(IntEnum):
    """Codes of RDMAP remote operation errors."""

    INVALID_VERSION = 0x05
    UNEXPECTED_OPCODE = 0x06
    CATASTROPHIC_STREAM = 0x07
    CATASTROPHIC_GLOBAL = 0x08
    CANNOT_INVALIDATE = 0x09
    UNSPECIFIED = 0xFF


class TaggedCode(IntEnum):
    """Codes of DDP tagged buffer errors."""

    INVALID_STAG = 0x00
    BASE_OR_BOUNDS = 0x01
    NOT_ASSOCIATED = 0x02
    TO_WRAP = 0x03
    INVALID_VERSION = 0x04


class UntaggedCode(IntEnum):
    """Codes of DDP untagged buffer errors."""

    INVALID_QN = 0x01
    NO_BUFFER = 0x02
    INVALID_MSN = 0x03
    INVALID_MO = 0x04
    TOO_LONG = 0x05
    INVALID_VERSION = 0x06


class MpaCode(IntEnum):
    """Codes of MPA errors."""

    CONNECTION_LOST = 0x01
    BAD_CRC = 0x02
    BAD_MARKER = 0x03
    MALFORMED_STARTUP = 0x04
    LOCAL_CATASTROPHIC = 0x05
    INSUFFICIENT_IRD = 0x06
    NO_MATCHING_RTR = 0x07


_LAYERS: Final[Mapping[int, str]] = {Layer.RDMAP: "RDMAP", Layer.DDP: "DDP", Layer.MPA: "MPA"}

_TYPES: Final[Mapping[tuple[int, int], str]] = {
    (Layer.RDMAP, RdmapType.LOCAL_CATASTROPHIC): "local catastrophic error",
    (Layer.RDMAP, RdmapType.REMOTE_PROTECTION): "remote protection error",
    (Layer.RDMAP, RdmapType.REMOTE_OPERATION): "remote operation error",
    (Layer.DDP, DdpType.LOCAL_CATASTROPHIC): "local catastrophic error",
    (Layer.DDP, DdpType.TAGGED_BUFFER): "tagged buffer error",
    (Layer.DDP, DdpType.UNTAGGED_BUFFER): "untagged buffer error",
    (Layer.DDP, DdpType.LOWER_LAYER): "error of the transport below",
    (Layer.MPA, MpaType.MPA): "MPA error",
}

_PROTECTION: Final = (Layer.RDMAP, RdmapType.REMOTE_PROTECTION)
_OPERATION: Final = (Layer.RDMAP, RdmapType.REMOTE_OPERATION)
_TAGGED_BUFFER: Final = (Layer.DDP, DdpType.TAGGED_BUFFER)
_UNTAGGED_BUFFER: Final = (Layer.DDP, DdpType.UNTAGGED_BUFFER)
_MPA: Final = (Layer.MPA, MpaType.MPA)

CODES: Final[Mapping[tuple[int, int, int], str]] = MappingProxyType(
    {
        (*_PROTECTION, ProtectionCode.INVALID_STAG): "invalid STag",
        (*_PROTECTION, ProtectionCode.BASE_OR_BOUNDS): "base or bounds violation",
        (*_PROTECTION, ProtectionCode.ACCESS_RIGHTS): "access rights violation",
        (*_PROTECTION, ProtectionCode.NOT_ASSOCIATED): "STag not associated with this stream",
        (*_PROTECTION, ProtectionCode.TO_WRAP): "TO wrap",
        (*_PROTECTION, ProtectionCode.CANNOT_INVALIDATE): "STag cannot be invalidated",
        (*_PROTECTION, ProtectionCode.UNSPECIFIED): "unspecified",
        (*_OPERATION, OperationCode.INVALID_VERSION): "invalid RDMAP version",
        (*_OPERATION, OperationCode.UNEXPECTED_OPCODE): "unexpected opcode",
        (*_OPERATION, OperationCode.CATASTROPHIC_STREAM): "catastrophic error, this stream",
        (*_OPERATION, OperationCode.CATASTROPHIC_GLOBAL): "catastrophic error, global",
        (*_OPERATION, OperationCode.CANNOT_INVALIDATE): "STag cannot be invalidated",
        (*_OPERATION, OperationCode.UNSPECIFIED): "unspecified",
        (Layer.DDP, DdpType.LOCAL_CATASTROPHIC, 0): "no further code",
        (*_TAGGED_BUFFER, TaggedCode.INVALID_STAG): "invalid STag",
        (*_TAGGED_BUFFER, TaggedCode.BASE_OR_BOUNDS): "base or bounds violation",
        (*_TAGGED_BUFFER, TaggedCode.NOT_ASSOCIATED): "STag not associated with this stream",
        (*_TAGGED_BUFFER, TaggedCode.TO_WRAP): "TO wrap",
        (*_TAGGED_BUFFER, TaggedCode.INVALID_VERSION): "invalid DDP version",
        (*_UNTAGGED_BUFFER, UntaggedCode.INVALID_QN): "invalid QN",
        (*_UNTAGGED_BUFFER, UntaggedCode.NO_BUFFER): "invalid MSN, no buffer available",
        (*_UNTAGGED_BUFFER, UntaggedCode.INVALID_MSN): "invalid MSN, range not valid",
        (*_UNTAGGED_BUFFER, UntaggedCode.INVALID_MO): "invalid MO",
        (*_UNTAGGED_BUFFER, UntaggedCode.TOO_LONG): "message too long for the buffer",
        (*_UNTAGGED_BUFFER, UntaggedCode.INVALID_VERSION): "invalid DDP version",
        (*_MPA, MpaCode.CONNECTION_LOST): "TCP connection closed, reset or lost",
        (*_MPA, MpaCode.BAD_CRC): "FPDU CRC mismatch",
        (*_MPA, MpaCode.BAD_MARKER): "marker and ULPDU length disagree",
        (*_MPA, MpaCode.MALFORMED_STARTUP): "malformed start-up frame",
        (*_MPA, MpaCode.LOCAL_CATASTROPHIC): "local catastrophic error",
        (*_MPA, MpaCode.INSUFFICIENT_IRD): "insufficient IRD",
        (*_MPA, MpaCode.NO_MATCHING_RTR): "no matching ready-to-receive option",
    }
)
"""Every code that a standard defines; an RDMAP local catastrophic error has none of its own, any value is
valid.
"""

_STARTUP_ONLY: Final = {
    (*_MPA, code)
    for code in (
        MpaCode.MALFORMED_STARTUP,
        MpaCode.LOCAL_CATASTROPHIC,
        MpaCode.INSUFFICIENT_IRD,
        MpaCode.NO_MATCHING_RTR,
    )
}


def is_defined(layer: int, etype: int, code: int) -> bool:
    """Tell whether a standard gives this triple a meaning."""
    return (layer, etype) == (Layer.RDMAP, RdmapType.LOCAL_CATASTROPHIC) or (layer, etype, code) in CODES


def describe(layer: int, etype: int, code: int) -> str:
    """Say in words what a triple means, for example `DDP tagged buffer error: invalid STag (1/1/0)`.

    The numbers in brackets are hexadecimal. Numbers without a meaning are shown as such; nothing is ever
    raised.
    """
    triple = f"({layer:x}/{etype:x}/{code:x})"
    layer_name = _LAYERS.get(layer)
    if layer_name is None:
        return f"error of an unknown layer {triple}"
    type_name = _TYPES.get((layer, etype))
    if type_name is None:
        return f"{layer_name} error of an unknown type {triple}"
    prefix = type_name if type_name.startswith(layer_name) else f"{layer_name} {type_name}"
    if (layer, etype) in (
        (Layer.RDMAP, RdmapType.LOCAL_CATASTROPHIC),
        (Layer.DDP, DdpType.LOCAL_CATASTROPHIC),
    ):
        return f"{prefix} {triple}"
    return f"{prefix}: {CODES.get((layer, etype, code), 'unknown code')} {triple}"


@dataclass(frozen=True, slots=True)
class Terminate:
    """Body of a Terminate message.

    `segment_length` is that of the offending DDP segment in octets, for information only, None if not given.
    `ddp_header` is the offending segment's header (14 octets tagged, 18 untagged) or empty; `read_header` the
    28 octets of a Read Request's body or empty, and needs an untagged `ddp_header`. `scrambled` is set by
    `parse` and `settled` alone: the octets came in the bit order of the Linux software driver.
    """

    layer: int
    etype: int
    code: int
    segment_length: int | None = None
    ddp_header: bytes = b""
    read_header: bytes = b""
    scrambled: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not (0 <= self.layer <= 0xF and 0 <= self.etype <= 0xF and 0 <= self.code <= 0xFF):
            raise ValueError(f"Terminate code {self.layer}/{self.etype}/{self.code} does not fit its fields")
        if self.segment_length is not None and not 0 <= self.segment_length <= 0xFFFF:
            raise ValueError(f"DDP segment length {self.segment_length} does not fit its 16-bit field")
        if self.ddp_header and len(self.ddp_header) != _header_length(self.ddp_header[0]):
            raise ValueError(f"terminated DDP header of {len(self.ddp_header)} octets does not fit its T bit")
        if self.read_header and (
            len(self.read_header) != READ_REQUEST_LENGTH or len(self.ddp_header) != UNTAGGED_HEADER
        ):
            raise ValueError("a terminated Read Request header has 28 octets and follows an untagged DDP header")

    def emit(self) -> bytes:
        """Return the body, 4 to 52 octets, in the standard's bit order."""
        flags = (
            (FLAG_SEGMENT_LENGTH if self.segment_length is not None else 0)
            | (FLAG_DDP_HEADER if self.ddp_header else 0)
            | (FLAG_READ_HEADER if self.read_header else 0)
        )
        control = _CONTROL.pack(self.layer << 4 | self.etype, self.code, flags)
        if not flags:
            return control
        return control + _SEGMENT_LENGTH.pack(self.segment_length or 0) + self.ddp_header + self.read_header

    @classmethod
    def parse(cls, body: bytes | bytearray | memoryview) -> Self:
        """Read a received body, leniently: octets behind the announced parts are ignored.

        The Linux software driver sends layer and type in exchanged nibbles and the flags in the low bits.
        That is taken for granted if only low flag bits are set, or if no flag octet is set and only the
        exchanged triple has a meaning.

        Raises: WireError: fewer than four octets, an announced part is missing or cut off, or a Read Request
            header without an untagged DDP header before it.
        """
        if len(body) < CONTROL_LENGTH:
            raise WireError(f"Terminate body of {len(body)} octets, at least {CONTROL_LENGTH} are needed")
        layer, etype, code, flags, scrambled = _control(body)
        at = CONTROL_LENGTH
        segment_length: int | None = None
        ddp_header = read_header = b""
        if flags & (FLAG_SEGMENT_LENGTH | FLAG_DDP_HEADER):
            field_octets = _part(body, at, SEGMENT_LENGTH_FIELD, "DDP segment length")
            at += SEGMENT_LENGTH_FIELD
            if flags & FLAG_SEGMENT_LENGTH:
                (segment_length,) = _SEGMENT_LENGTH.unpack(field_octets)
        if flags & FLAG_DDP_HEADER:
            length = _header_length(_part(body, at, 1, "DDP header")[0])
            ddp_header = _part(body, at, length, "DDP header")
            at += length
        if flags & FLAG_READ_HEADER:
            if len(ddp_header) != UNTAGGED_HEADER:
                raise WireError("Terminate with a Read Request header but no untagged DDP header before it")
            read_header = _part(body, at, READ_REQUEST_LENGTH, "Read Request header")
        return cls(layer, etype, code, segment_length, ddp_header, read_header, scrambled)

    @classmethod
    def parse_leniently(cls, body: bytes | bytearray | memoryview) -> Self:
        """As `parse`, without errors: of a body that is cut off the codes are kept; fewer than four octets say 0/0/0."""
        try:
            return cls.parse(body)
        except WireError:
            if len(body) < CONTROL_LENGTH:
                return cls(0, 0, 0)
            layer, etype, code, _, scrambled = _control(body)
            return cls(layer, etype, code, scrambled=scrambled)

    def settled(self, *, started: bool) -> Self:
        """What is meant where the octets can be read both ways: without headers, 2/0/6 and 0/2/6 look alike.

        started: the receiver of this message has sent FPDUs that it can be about, so that codes of the start-up (RFC 6581
        9) cannot be meant; otherwise no others can.
        """
        triple = (self.layer, self.etype, self.code)
        swapped = (self.etype, self.layer, self.code)
        bare = self.segment_length is None and not self.ddp_header
        wrong = (triple if started else swapped) in _STARTUP_ONLY
        if bare and not self.scrambled and wrong and is_defined(*swapped):
            return replace(self, layer=self.etype, etype=self.layer, scrambled=True)
        return self

    def __str__(self) -> str:
        return describe(self.layer, self.etype, self.code)


def _control(body: bytes | bytearray | memoryview) -> tuple[int, int, int, int, bool]:
    """Layer, type, code and flags of the first four octets, put in order if they are scrambled, and whether they are."""
    first, code, flags = _CONTROL.unpack_from(body)
    layer, etype = first >> 4, first & 0xF
    scrambled = False
    if not flags & _STANDARD_FLAGS and any(flags & bit for bit, _ in _SCRAMBLED_FLAGS):
        scrambled = True
        flags = sum(standard for bit, standard in _SCRAMBLED_FLAGS if flags & bit)
    elif flags == 0 and not is_defined(layer, etype, code) and is_defined(etype, layer, code):
        scrambled = True
    if scrambled:
        layer, etype = etype, layer
    return layer, etype, code, flags, scrambled


def _header_length(first_octet: int) -> int:
    return TAGGED_HEADER if is_tagged(first_octet) else UNTAGGED_HEADER


def _part(body: bytes | bytearray | memoryview, at: int, length: int, name: str) -> bytes:
    part = bytes(body[at : at + length])
    if len(part) != length:
        raise WireError(f"Terminate body of {len(body)} octets ends within its {name}")
    return part
