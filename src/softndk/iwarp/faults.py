"""Every way in which a stream can go wrong: a closed list of causes, and what each one means.

A fault is raised as `ProtocolFault` where it is found and travels upwards as a value. Three functions are the only ones
that know what follows from it: `terminate_for` (the message to the peer), `status_for` (the completion status of the
request that it hit) and `describe` (the sentence for a person). Nothing else knows Terminate codes.
"""

from enum import Enum
from typing import Final, NamedTuple

from softndk.errors import Fault
from softndk.memory.access import Denial
from softndk.status import Status
from softndk.wire import ddp, rdmap
from softndk.wire.terminate import Terminate, describe

__all__ = [
    "CLOSED_EARLY",
    "GRACEFUL",
    "MALFORMED_STARTUP",
    "Cause",
    "ProtocolFault",
    "atomic_cause",
    "fault_value",
    "read_source_cause",
    "received_code",
    "received_value",
    "sent_code",
    "status_for_denial",
    "status_for_received",
    "terminate_for",
    "write_cause",
]

GRACEFUL: Final = 0x40000
"""Provider code of what ends with a connection that nobody has broken."""
CLOSED_EARLY: Final = 0x22001
MALFORMED_STARTUP: Final = 0x22004
"""Provider codes of MPA's own errors (RFC 5044 8) that no Terminate can carry any more, or yet."""


class Echo(Enum):
    """Which headers of the offending segment go into the Terminate (RFC 5040 4.8)."""

    NONE = 0
    DDP = 1
    READ = 2


class _Row(NamedTuple):
    layer: int
    etype: int
    code: int
    echo: Echo
    rule: str
    key: str  # makes rows with equal codes distinct members


class Cause(Enum):
    """One row each of the error table (docs/reference/errors.md)."""

    BAD_CRC = _Row(2, 0, 2, Echo.NONE, "RFC 5044 8, CRC error", "crc")
    MARKER_MISMATCH = _Row(2, 0, 3, Echo.NONE, "RFC 5044 8, marker error", "marker")
    SHORT_HEADER = _Row(1, 0, 0, Echo.NONE, "RFC 5041 4, header sizes", "short")
    TAGGED_VERSION = _Row(1, 1, 4, Echo.DDP, "RFC 5041 8.2", "tagged version")
    UNTAGGED_VERSION = _Row(1, 2, 6, Echo.DDP, "RFC 5041 8.2", "untagged version")
    RDMAP_VERSION = _Row(0, 2, 5, Echo.DDP, "RFC 5040 4.8", "rdmap version")
    UNKNOWN_OPCODE = _Row(0, 2, 6, Echo.DDP, "RFC 5040 4.3", "opcode")
    OPCODE_ON_WRONG_QUEUE = _Row(0, 2, 6, Echo.DDP, "RFC 5040 4.3", "opcode and queue")
    INVALID_QN = _Row(1, 2, 1, Echo.DDP, "RFC 5041 8.2", "qn")
    INVALID_MSN = _Row(1, 2, 3, Echo.DDP, "RFC 5041 5.3", "msn")
    NO_RECEIVE = _Row(1, 2, 2, Echo.DDP, "RFC 5041 8.2; R-RECV-2", "no receive")
    TOO_MANY_READS = _Row(1, 2, 2, Echo.DDP, "RFC 6581 9; R-LIM-1", "reads")
    INVALID_MO = _Row(1, 2, 4, Echo.DDP, "RFC 5041 5.3", "mo")
    RECEIVE_TOO_SMALL = _Row(1, 2, 5, Echo.DDP, "RFC 5041 8.2; R-RECV-2", "receive too small")
    READ_REQUEST_TOO_LONG = _Row(1, 2, 5, Echo.DDP, "RFC 5040 4.4", "read request long")
    READ_REQUEST_TOO_SHORT = _Row(0, 2, 7, Echo.DDP, "RFC 5040 4.4", "read request short")
    WRITE_INVALID_STAG = _Row(1, 1, 0, Echo.DDP, "RFC 5041 8.2; R-MEM-1", "write stag")
    WRITE_NOT_ASSOCIATED = _Row(1, 1, 2, Echo.DDP, "RFC 5041 8.2; R-MEM-1", "write pd")
    WRITE_NO_RIGHT = _Row(0, 1, 2, Echo.DDP, "RFC 5040 4.8; R-MEM-2", "write right")
    WRITE_WRAP = _Row(1, 1, 3, Echo.DDP, "RFC 5041 8.2; R-MEM-3", "write wrap")
    WRITE_BOUNDS = _Row(1, 1, 1, Echo.DDP, "RFC 5041 8.2; R-MEM-3", "write bounds")
    READ_INVALID_STAG = _Row(0, 1, 0, Echo.READ, "RFC 5040 4.8; R-MEM-1", "read stag")
    READ_NOT_ASSOCIATED = _Row(0, 1, 3, Echo.READ, "RFC 5040 4.8; R-MEM-1", "read pd")
    READ_NO_RIGHT = _Row(0, 1, 2, Echo.READ, "RFC 5040 4.8; R-MEM-2", "read right")
    READ_WRAP = _Row(0, 1, 4, Echo.READ, "RFC 5040 4.8; R-MEM-3", "read wrap")
    READ_BOUNDS = _Row(0, 1, 1, Echo.READ, "RFC 5040 4.8; R-MEM-3", "read bounds")
    READ_SOURCE_GONE = _Row(0, 1, 0, Echo.READ, "RFC 5040 4.8; R-INV-3", "read source gone")
    UNEXPECTED_RESPONSE = _Row(0, 2, 6, Echo.DDP, "RFC 5040 4.5", "response")
    RESPONSE_STAG = _Row(1, 1, 0, Echo.DDP, "RFC 5041 8.2", "response stag")
    RESPONSE_BOUNDS = _Row(1, 1, 1, Echo.DDP, "RFC 5041 8.2", "response bounds")
    CANNOT_INVALIDATE = _Row(0, 2, 9, Echo.DDP, "RFC 5040 4.8; R-SENDINV-2", "invalidate")
    INVALIDATE_NOT_ASSOCIATED = _Row(0, 1, 9, Echo.DDP, "RFC 5040 4.8; R-SENDINV-2", "invalidate pd")
    CHANGED_OPCODE = _Row(0, 2, 6, Echo.DDP, "RFC 5040 4.3", "opcode changed")
    IMMEDIATE_LENGTH = _Row(0, 2, 7, Echo.DDP, "RFC 7306 6", "immediate length")
    ATOMIC_TOO_LONG = _Row(1, 2, 5, Echo.DDP, "RFC 7306 5", "atomic long")
    ATOMIC_TOO_SHORT = _Row(0, 2, 7, Echo.DDP, "RFC 7306 5", "atomic short")
    ATOMIC_OPERATION = _Row(0, 2, 6, Echo.DDP, "RFC 7306 5", "atomic operation")
    ATOMIC_MISALIGNED = _Row(0, 2, 7, Echo.DDP, "RFC 7306 5", "atomic alignment")
    ATOMIC_INVALID_STAG = _Row(0, 1, 0, Echo.DDP, "RFC 5040 4.8; R-MEM-1", "atomic stag")
    ATOMIC_NOT_ASSOCIATED = _Row(0, 1, 3, Echo.DDP, "RFC 5040 4.8; R-MEM-1", "atomic pd")
    ATOMIC_NO_RIGHT = _Row(0, 1, 2, Echo.DDP, "RFC 5040 4.8; R-MEM-2", "atomic right")
    ATOMIC_WRAP = _Row(0, 1, 4, Echo.DDP, "RFC 5040 4.8; R-MEM-3", "atomic wrap")
    ATOMIC_BOUNDS = _Row(0, 1, 1, Echo.DDP, "RFC 5040 4.8; R-MEM-3", "atomic bounds")
    UNEXPECTED_ATOMIC_RESPONSE = _Row(0, 2, 6, Echo.DDP, "RFC 7306 5", "atomic response")
    LOCAL_ERROR = _Row(0, 0, 0, Echo.NONE, "RFC 5040 4.8, local catastrophic", "local")
    NIC_FAILURE = _Row(0, 2, 8, Echo.NONE, "RFC 5040 4.8, catastrophic, global", "nic")
    STARTUP_FAILED = _Row(2, 0, 5, Echo.NONE, "RFC 6581 10", "startup")
    STARTUP_INSUFFICIENT_IRD = _Row(2, 0, 6, Echo.NONE, "RFC 6581 10", "startup ird")
    STARTUP_NO_RTR = _Row(2, 0, 7, Echo.NONE, "RFC 6581 10", "startup rtr")


class ProtocolFault(Exception):
    """A stream that must end, found on this side.

    text: one sentence with object, value and limit. ulpdu: the head of the offending segment, all its headers at least;
    length: the whole segment's octets.
    read_request: the Read Request header to return in place of the one in `ulpdu` (brought up to date, RFC 5040 4.8).
    """

    def __init__(self, cause: Cause, text: str, ulpdu: bytes = b"", length: int = 0, read_request: bytes = b"") -> None:
        super().__init__(cause, text, ulpdu, length, read_request)
        self.cause = cause
        self.text = text
        self.ulpdu = ulpdu
        self.length = length
        self.read_request = read_request

    def __str__(self) -> str:
        return f"{self.text} [{self.cause.value.rule}]"


_WRITE: Final = {
    Denial.INVALID_TOKEN: Cause.WRITE_INVALID_STAG,
    Denial.NOT_ASSOCIATED: Cause.WRITE_NOT_ASSOCIATED,
    Denial.MISSING_RIGHT: Cause.WRITE_NO_RIGHT,
    Denial.WRAP: Cause.WRITE_WRAP,
    Denial.OUT_OF_BOUNDS: Cause.WRITE_BOUNDS,
}
_READ: Final = {
    Denial.INVALID_TOKEN: Cause.READ_INVALID_STAG,
    Denial.NOT_ASSOCIATED: Cause.READ_NOT_ASSOCIATED,
    Denial.MISSING_RIGHT: Cause.READ_NO_RIGHT,
    Denial.WRAP: Cause.READ_WRAP,
    Denial.OUT_OF_BOUNDS: Cause.READ_BOUNDS,
}


_ATOMIC: Final = {
    Denial.INVALID_TOKEN: Cause.ATOMIC_INVALID_STAG,
    Denial.NOT_ASSOCIATED: Cause.ATOMIC_NOT_ASSOCIATED,
    Denial.MISSING_RIGHT: Cause.ATOMIC_NO_RIGHT,
    Denial.WRAP: Cause.ATOMIC_WRAP,
    Denial.OUT_OF_BOUNDS: Cause.ATOMIC_BOUNDS,
}


def write_cause(denial: Denial) -> Cause:
    """The fault of an inbound RDMA Write that was denied."""
    return _WRITE[denial]


def read_source_cause(denial: Denial) -> Cause:
    """The fault of an inbound Read Request whose source was denied."""
    return _READ[denial]


def atomic_cause(denial: Denial) -> Cause:
    """The fault of an inbound Atomic Request whose target was denied."""
    return _ATOMIC[denial]


def sent_code(fault: ProtocolFault) -> int:
    """Provider code of what fails by a Terminate of ours: 0x20000 | its first two octets."""
    row = fault.cause.value
    return 0x20000 | row.layer << 12 | row.etype << 8 | row.code


def received_code(message: Terminate) -> int:
    """Provider code of what fails by the peer's Terminate: 0x10000 | its first two octets."""
    return 0x10000 | (message.layer & 15) << 12 | (message.etype & 15) << 8 | message.code & 255


def terminate_for(fault: ProtocolFault) -> Terminate:
    """The Terminate message that reports `fault` (RFC 5040 4.8; headers as its table asks)."""
    row = fault.cause.value
    header = read = b""
    length = None
    if row.echo is not Echo.NONE and fault.ulpdu:
        tagged = ddp.is_tagged(fault.ulpdu[0])
        size = ddp.TAGGED_HEADER if tagged else ddp.UNTAGGED_HEADER
        header = fault.ulpdu[:size]
        length = fault.length
        if row.echo is Echo.READ:
            read = fault.read_request or fault.ulpdu[size : size + rdmap.READ_REQUEST_LENGTH]
    return Terminate(row.layer, row.etype, row.code, length, header, read)


def fault_value(fault: ProtocolFault) -> Fault:
    """The public record of a fault that this side found."""
    row = fault.cause.value
    message = terminate_for(fault)
    return Fault(
        layer=row.layer,
        etype=row.etype,
        code=row.code,
        received=False,
        header=message.ddp_header + message.read_header,
        rule=row.rule,
        text=fault.text,
    )


def received_value(message: Terminate, *, extended: bool = False) -> Fault:
    """The public record of the peer's Terminate. extended: something of RFC 7306 has been sent on this connection."""
    text = describe(message.layer, message.etype, message.code)
    if (message.layer, message.etype, message.code) == _UNEXPECTED_OPCODE:
        opcode = rdmap.opcode_of(message.ddp_header[1]) if message.ddp_header else None
        if opcode in rdmap.RFC7306:
            text += f", to our {rdmap.Opcode(opcode).name}: this peer has no RFC 7306, which iWARP does not negotiate"
        elif opcode is None and extended:
            text += ": perhaps this peer has no RFC 7306, which this side has used and iWARP does not negotiate"
    return Fault(
        layer=message.layer,
        etype=message.etype,
        code=message.code,
        received=True,
        header=message.ddp_header + message.read_header,
        rule="RFC 5040 4.8",
        text=text,
    )


def status_for_denial(denial: Denial) -> Status:
    """Completion status of an own request whose local memory was denied (R-WR-15)."""
    return Status.INVALID_DEVICE_REQUEST if denial is Denial.NOT_INVALIDATABLE else Status.ACCESS_VIOLATION


def status_for_received(message: Terminate) -> Status | None:
    """Completion status of the request that the peer's Terminate is about; None: no request's fault (A-4).

    A read beyond the remote memory is REMOTE_RESOURCES, an unknown token or a missing right ACCESS_VIOLATION, anything
    else REMOTE_RESOURCES. A refused invalidation belongs to no unfinished request: its send is done or is cancelled.
    """
    triple = (message.layer, message.etype, message.code)
    if triple in _REFUSED_INVALIDATION:
        return None
    if triple in _DENIED_MEMORY:
        return Status.ACCESS_VIOLATION
    return Status.REMOTE_RESOURCES


_UNEXPECTED_OPCODE: Final = (0, 2, 6)
_REFUSED_INVALIDATION: Final = {(0, 2, 9), (0, 1, 9)}
_DENIED_MEMORY: Final = {(0, 1, 0), (0, 1, 2), (0, 1, 3), (1, 1, 0), (1, 1, 2)}
