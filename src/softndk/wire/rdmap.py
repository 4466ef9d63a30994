"""RDMAP: control octet, opcodes, and the bodies of Read Requests and atomics (RFC 5040 section 4, RFC 7306).

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
IMMEDIATE_LENGTH: Final = 8
ATOMIC_REQUEST_LENGTH: Final = 52
ATOMIC_RESPONSE_LENGTH: Final = 12

_VERSION_SHIFT: Final = 6
_OPCODE_MASK: Final = 0x0F
_ATOMIC_OPERATION_MASK: Final = 0x0F
_READ_REQUEST: Final = struct.Struct(">IQIIQ")
_ATOMIC_REQUEST: Final = struct.Struct(">IIIQQQQQ")
_ATOMIC_RESPONSE: Final = struct.Struct(">IQ")


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


class AtomicOperation(IntEnum):
    """AOpCode of an Atomic Request (RFC 7306 5); the other values of its 4 bits are reserved."""

    FETCH_ADD = 0
    COMPARE_SWAP = 2


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
_IMMEDIATE: Final = OpcodeInfo(False, QueueNumber.SEND, UNTAGGED_HEADER, IMMEDIATE_LENGTH)

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
        Opcode.ATOMIC_REQUEST: OpcodeInfo(False, QueueNumber.READ_REQUEST, UNTAGGED_HEADER, ATOMIC_REQUEST_LENGTH),
        Opcode.ATOMIC_RESPONSE: OpcodeInfo(False, QueueNumber.ATOMIC_RESPONSE, UNTAGGED_HEADER, ATOMIC_RESPONSE_LENGTH),
    }
)
"""Every assigned opcode; look one up by the number from the wire, a missing key is an unassigned opcode."""

SOLICITING: Final = frozenset({Opcode.SEND_SE, Opcode.SEND_SE_INVALIDATE, Opcode.IMMEDIATE_SE})
"""Opcodes that ask for an event on the target's completion queue."""
INVALIDATING: Final = frozenset({Opcode.SEND_INVALIDATE, Opcode.SEND_SE_INVALIDATE})
"""Opcodes whose DDP header carries an Invalidate STag."""
IMMEDIATES: Final = frozenset({Opcode.IMMEDIATE, Opcode.IMMEDIATE_SE})
"""Opcodes whose payload is for the target's completion."""
RFC7306: Final = IMMEDIATES | {Opcode.ATOMIC_REQUEST, Opcode.ATOMIC_RESPONSE}
"""Opcodes that a peer need not know (RFC 7306)."""


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


class AtomicRequest(NamedTuple):
    """Body of an Atomic Request: change the 64 bits at the target's `stag` and `to`, and tell what they were.

    `operation`: 4 bits, an AtomicOperation unless the peer has sent a reserved value. `identifier` (32 bits) comes
    back in the response. `data`, `mask`: what is added or swapped in; `compare`, `compare_mask`: 0 and all ones in a
    FETCH_ADD. These four, and `to`, have 64 bits.
    """

    operation: int
    identifier: int
    stag: int
    to: int
    data: int
    mask: int
    compare: int
    compare_mask: int

    def emit(self) -> bytes:
        """Return the 52 octets. Raises: struct.error: a value does not fit its field."""
        return _ATOMIC_REQUEST.pack(*self)

    @classmethod
    def parse(cls, body: bytes | bytearray | memoryview) -> Self:
        """Read exactly 52 octets; reserved bits are ignored. Raises: WireError: any other number of octets."""
        if len(body) != ATOMIC_REQUEST_LENGTH:
            raise WireError(f"Atomic Request body of {len(body)} octets instead of {ATOMIC_REQUEST_LENGTH}")
        operation, *others = _ATOMIC_REQUEST.unpack(body)
        return cls(operation & _ATOMIC_OPERATION_MASK, *others)


class AtomicResponse(NamedTuple):
    """Body of an Atomic Response: the request's `identifier` (32 bits) and the `original` value (64 bits)."""

    identifier: int
    original: int

    def emit(self) -> bytes:
        """Return the 12 octets. Raises: struct.error: a value does not fit its field."""
        return _ATOMIC_RESPONSE.pack(*self)

    @classmethod
    def parse(cls, body: bytes | bytearray | memoryview) -> Self:
        """Read exactly 12 octets. Raises: WireError: any other number of octets."""
        if len(body) != ATOMIC_RESPONSE_LENGTH:
            raise WireError(f"Atomic Response body of {len(body)} octets instead of {ATOMIC_RESPONSE_LENGTH}")
        return cls._make(_ATOMIC_RESPONSE.unpack(body))
