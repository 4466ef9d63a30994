"""RDMAP: control octet, opcodes and the Read Request body (RFC 5040 section 4; opcode names of RFC 7306).

Responsible for: which DDP model, queue and body each opcode has, and how the control octet is made.
Must not know: what a message does, nor whether an opcode is implemented. Terminate bodies are in `terminate`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from softndk.wire import WireError
from softndk.wire.ddp import TAGGED_HEADER, UNTAGGED_HEADER, QueueNumber

VERSION: Final = 1
READ_REQUEST_LENGTH: Final = 28

_VERSION_SHIFT: Final = 6
_OPCODE_MASK: Final = 0x0F
_READ_REQUEST: Final = struct.Struct(">IQIIQ")


class Opcode(IntEnum):
    """RDMAP opcodes; 12 to 14 are unassigned, 15 is experimental."""

    WRITE = 0
    READ_REQUEST = 1
    READ_RESPONSE = 2
    SEND = 3
    SEND_INVALIDATE = 4
    SEND_SE = 5
    SEND_SE_INVALIDATE = 6
    TERMINATE = 7
    IMMEDIATE = 8
    IMMEDIATE_SE = 9
    ATOMIC_REQUEST = 10
    ATOMIC_RESPONSE = 11


class OpcodeInfo(NamedTuple):
    """How a message travels.

    `queue` is its QN, None for tagged messages. `header` is the length in octets of its DDP header. `body` is
    the exact length of what follows the DDP headers of the whole message, None where any length is possible.
    """

    tagged: bool
    queue: QueueNumber | None
    header: int
    body: int | None


_TAGGED: Final = OpcodeInfo(True, None, TAGGED_HEADER, None)
_SEND: Final = OpcodeInfo(False, QueueNumber.SEND, UNTAGGED_HEADER, None)
_IMMEDIATE: Final = OpcodeInfo(False, QueueNumber.SEND, UNTAGGED_HEADER, 8)

OPCODES: Final[Mapping[int, OpcodeInfo]] = MappingProxyType(
    {
        Opcode.WRITE: _TAGGED,
        Opcode.READ_REQUEST: OpcodeInfo(False, QueueNumber.READ_REQUEST, UNTAGGED_HEADER, READ_REQUEST_LENGTH),
        Opcode.READ_RESPONSE: _TAGGED,
        Opcode.SEND: _SEND,
        Opcode.SEND_INVALIDATE: _SEND,
        Opcode.SEND_SE: _SEND,
        Opcode.SEND_SE_INVALIDATE: _SEND,
        Opcode.TERMINATE: OpcodeInfo(False, QueueNumber.TERMINATE, UNTAGGED_HEADER, None),
        Opcode.IMMEDIATE: _IMMEDIATE,
        Opcode.IMMEDIATE_SE: _IMMEDIATE,
        Opcode.ATOMIC_REQUEST: OpcodeInfo(False, QueueNumber.READ_REQUEST, UNTAGGED_HEADER, 52),
        Opcode.ATOMIC_RESPONSE: OpcodeInfo(False, QueueNumber.ATOMIC_RESPONSE, UNTAGGED_HEADER, 12),
    }
)
"""Every assigned opcode; look one up by the number from the wire, a missing key is an unassigned opcode."""

SOLICITING: Final = frozenset({Opcode.SEND_SE, Opcode.SEND_SE_INVALIDATE, Opcode.IMMEDIATE_SE})
"""Opcodes that ask for an event on the target's completion queue."""
INVALIDATING: Final = frozenset({Opcode.SEND_INVALIDATE, Opcode.SEND_SE_INVALIDATE})
"""Opcodes whose DDP header carries an Invalidate STag."""


def control(opcode: int) -> int:
    """Return the control octet of a version 1 message with that opcode (0 to 15)."""
    return VERSION << _VERSION_SHIFT | opcode


def version_of(control_octet: int) -> int:
    """Return the RDMAP version (0 to 3) in a control octet."""
    return control_octet >> _VERSION_SHIFT


def opcode_of(control_octet: int) -> int:
    """Return the opcode (0 to 15, perhaps unassigned) in a control octet; reserved bits are ignored."""
    return control_octet & _OPCODE_MASK


class ReadRequest(NamedTuple):
    """Body of an RDMA Read Request: fetch `size` octets at the source (target's side) into the sink
    (requester's).

    STags and `size` are 32 bits, TOs 64 bits. With `size` 0 none of the others means anything.
    """

    sink_stag: int
    sink_to: int
    size: int
    source_stag: int
    source_to: int

    def emit(self) -> bytes:
        """Return the 28 octets. Raises: struct.error: a value does not fit its field."""
        return _READ_REQUEST.pack(*self)

    @classmethod
    def parse(cls, body: bytes | bytearray | memoryview) -> Self:
        """Read exactly 28 octets. Raises: WireError: any other number of octets."""
        if len(body) != READ_REQUEST_LENGTH:
            raise WireError(f"Read Request body of {len(body)} octets instead of {READ_REQUEST_LENGTH}")
        return cls._make(_READ_REQUEST.unpack(body))
