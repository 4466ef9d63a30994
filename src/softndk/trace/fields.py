"""What one start-up frame or one DDP segment says: its kind, its fields, a line for people.

Knows single PDUs; streams, packets and files are other modules' work. Shows what is there and judges only what makes
the rest unreadable or is plainly irregular.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from softndk.wire import WireError
from softndk.wire.ddp import (
    TAGGED_HEADER,
    UNTAGGED_HEADER,
    VERSION,
    TaggedHeader,
    UntaggedHeader,
    is_tagged,
    parse_tagged,
    parse_untagged,
)
from softndk.wire.mpa import LENGTH_FIELD, FrameKind, StartupFrame
from softndk.wire.rdmap import (
    IMMEDIATES,
    INVALIDATING,
    OPCODES,
    AtomicOperation,
    AtomicRequest,
    AtomicResponse,
    Opcode,
    ReadRequest,
    opcode_of,
    version_of,
)
from softndk.wire.rdmap import VERSION as RDMAP_VERSION
from softndk.wire.terminate import Terminate

__all__ = ["Detail", "Fields", "is_plausible", "segment_fields", "startup_fields", "terminate_sentence"]

Detail = int | bool | str | None | list[str]
"""What a field's value can be; all of it has a form in JSON. Octets are hexadecimal text."""

MALFORMED: Final = "malformed FPDU"

KINDS: Final[Mapping[int, str]] = {
    Opcode.WRITE: "RDMA Write",
    Opcode.READ_REQUEST: "RDMA Read Request",
    Opcode.READ_RESPONSE: "RDMA Read Response",
    Opcode.SEND: "Send",
    Opcode.SEND_INVALIDATE: "Send with Invalidate",
    Opcode.SEND_SE: "Send with Solicited Event",
    Opcode.SEND_SE_INVALIDATE: "Send with SE and Invalidate",
    Opcode.TERMINATE: "Terminate",
    Opcode.IMMEDIATE: "Immediate Data",
    Opcode.IMMEDIATE_SE: "Immediate Data with SE",
    Opcode.ATOMIC_REQUEST: "Atomic Request",
    Opcode.ATOMIC_RESPONSE: "Atomic Response",
}

_ATOMICS: Final[Mapping[int, str]] = {AtomicOperation.FETCH_ADD: "FetchAdd", AtomicOperation.COMPARE_SWAP: "CmpSwap"}
_ONES: Final = (1 << 64) - 1


class Fields(NamedTuple):
    """`payload` lies in the octets that were given: what is behind the header, empty for a start-up frame."""

    kind: str
    summary: str
    details: dict[str, Detail]
    payload: memoryview


def startup_fields(frame: StartupFrame) -> Fields:
    """Fields of an MPA Request or Reply."""
    details: dict[str, Detail] = {
        "revision": frame.revision,
        "markers": frame.markers,
        "crc": frame.crc,
        "reject": frame.reject,
        "enhanced": frame.enhanced is not None,
    }
    words = [f"revision {frame.revision}", f"M={frame.markers:d} C={frame.crc:d}"]
    if frame.enhanced is not None:
        enhanced = frame.enhanced
        options = {"Send": enhanced.rtr_send, "Write": enhanced.rtr_write, "Read": enhanced.rtr_read}
        ready = [name for name, chosen in options.items() if chosen]
        details |= {"ird": enhanced.ird, "ord": enhanced.ord, "peer_to_peer": enhanced.peer_to_peer}
        details["ready_to_receive"] = ready
        words.append(f"IRD {enhanced.ird} ORD {enhanced.ord}")
        if enhanced.peer_to_peer:
            words.append(f"peer-to-peer, ready by {' or '.join(ready) or 'nothing'}")
    details["private_data"] = frame.private_data.hex()
    words.append(f"private data {len(frame.private_data)}")
    if frame.reject and frame.kind is FrameKind.REPLY:
        words.append("REJECTED")
    kind = "MPA request" if frame.kind is FrameKind.REQUEST else "MPA reply"
    return Fields(kind, " ".join(words), details, memoryview(b""))


def is_plausible(head: bytes | bytearray | memoryview) -> bool:
    """Whether the first four octets of an FPDU can be a length, versions 1, and an opcode with its model."""
    info = OPCODES.get(opcode_of(head[3]))
    return (
        info is not None
        and head[2] & 3 == VERSION
        and version_of(head[3]) == RDMAP_VERSION
        and info.tagged == is_tagged(head[2])
        and head[0] << 8 | head[1] >= info.header
    )


def segment_fields(ulpdu: memoryview, *, started: bool | None = None) -> Fields:
    """Fields of one DDP segment. One that cannot be read is of the kind "malformed FPDU"; nothing is raised.

    started: for a Terminate that can be read both ways, whether its receiver has sent FPDUs (see Terminate.settled); None:
    its octets alone count.
    """
    if len(ulpdu) < 2:
        return _malformed(ulpdu, f"a ULPDU of {len(ulpdu)} octets has no control octets")
    try:
        if is_tagged(ulpdu[0]):
            return _tagged(parse_tagged(ulpdu), ulpdu[TAGGED_HEADER:])
        return _untagged(parse_untagged(ulpdu), ulpdu[UNTAGGED_HEADER:], started)
    except WireError as error:
        return _malformed(ulpdu, str(error))


def terminate_sentence(fpdu: memoryview, *, started: bool | None = None) -> str:
    """What a Terminate says, from its whole FPDU (without markers). started: as `segment_fields`."""
    fields = segment_fields(fpdu[LENGTH_FIELD : LENGTH_FIELD + (fpdu[0] << 8 | fpdu[1])], started=started)
    return f"{fields.kind}: {fields.details.get('sentence') or fields.summary}"


def _malformed(ulpdu: memoryview, problem: str) -> Fields:
    return Fields(MALFORMED, problem, {"problem": problem}, ulpdu)


def _kind(opcode: int) -> str:
    return KINDS.get(opcode, f"unknown opcode {opcode}")


def _problem(header: TaggedHeader | UntaggedHeader) -> str:
    """What makes a receiver refuse this header whatever its state (RFC 5041 7, RFC 5040 7); empty: nothing."""
    opcode = opcode_of(header.rsvdulp)
    info = OPCODES.get(opcode)
    if header.version != VERSION:
        return f"DDP version {header.version}"
    if version_of(header.rsvdulp) != RDMAP_VERSION:
        return f"RDMAP version {version_of(header.rsvdulp)}"
    if info is None:
        return ""
    if info.tagged != isinstance(header, TaggedHeader):
        return "wrong T bit"
    if isinstance(header, UntaggedHeader) and header.qn != info.queue:
        return f"wrong queue {header.qn}"
    return ""


def _end(details: dict[str, Detail], header: TaggedHeader | UntaggedHeader) -> str:
    details["last"] = header.last
    problem = _problem(header)
    if problem:
        details["problem"] = problem
    return (" L" if header.last else "") + (f" ({problem})" if problem else "")


def _tagged(header: TaggedHeader, payload: memoryview) -> Fields:
    details: dict[str, Detail] = {"opcode": opcode_of(header.rsvdulp), "stag": header.stag, "to": header.to}
    summary = f"{_place(header.stag, header.to)} len {len(payload)}" + _end(details, header)
    return Fields(_kind(opcode_of(header.rsvdulp)), summary, details, payload)


def _untagged(header: UntaggedHeader, payload: memoryview, started: bool | None) -> Fields:
    opcode = opcode_of(header.rsvdulp)
    details: dict[str, Detail] = {"opcode": opcode, "qn": header.qn, "msn": header.msn, "mo": header.mo}
    summary = "" if opcode == Opcode.TERMINATE else f"MSN {header.msn} "
    if opcode in INVALIDATING:
        details["invalidate_stag"] = header.rsvdulp_word
        summary += f"invalidates 0x{header.rsvdulp_word:08x} "
    place = f"MO {header.mo} len {len(payload)}"
    try:
        summary += _body(opcode, payload, details, started) or place
    except WireError as error:
        details["problem"] = f"body: {error}"
        summary += f"{place} (body: {error})"
    return Fields(_kind(opcode), summary + _end(details, header), details, payload)


def _body(opcode: int, body: memoryview, details: dict[str, Detail], started: bool | None) -> str:
    """Fill in the fields of a body that the protocol defines; empty text: the body is the user's payload."""
    if opcode == Opcode.READ_REQUEST:
        read = ReadRequest.parse(body)
        details.update(read._asdict())
        source, sink = _place(read.source_stag, read.source_to), _place(read.sink_stag, read.sink_to)
        return f"reads {read.size} from {source} into {sink}"
    if opcode == Opcode.TERMINATE:
        terminate = Terminate.parse(body)
        return _terminate(terminate if started is None else terminate.settled(started=started), details)
    if opcode in IMMEDIATES:
        details["data"] = body.hex()
        return f"data {body.hex()}"
    if opcode == Opcode.ATOMIC_REQUEST:
        atomic = AtomicRequest.parse(body)
        name = _ATOMICS.get(atomic.operation, f"operation {atomic.operation}")
        details |= {"operation": name, "request_id": atomic.identifier, "stag": atomic.stag, "to": atomic.to}
        details |= {"data": atomic.data, "mask": atomic.mask}
        details |= {"compare": atomic.compare, "compare_mask": atomic.compare_mask}
        if atomic.operation == AtomicOperation.COMPARE_SWAP:
            operands = f"{_masked(atomic.data, atomic.mask)} if {_masked(atomic.compare, atomic.compare_mask)}"
        else:
            operands = f"{atomic.data}" + (f" fields 0x{atomic.mask:x}" if atomic.mask else "")
        return f"id {atomic.identifier} {name} {operands} at {_place(atomic.stag, atomic.to)}"
    if opcode == Opcode.ATOMIC_RESPONSE:
        details["request_id"], details["original"] = AtomicResponse.parse(body)
        return f"id {details['request_id']} original {details['original']}"
    return ""


def _terminate(terminate: Terminate, details: dict[str, Detail]) -> str:
    sentence = str(terminate)
    details |= {"layer": terminate.layer, "type": terminate.etype, "code": terminate.code, "sentence": sentence}
    details |= {"segment_length": terminate.segment_length, "scrambled": terminate.scrambled}
    details |= {"ddp_header": terminate.ddp_header.hex(), "read_header": terminate.read_header.hex()}
    if terminate.ddp_header:
        offender = segment_fields(memoryview(terminate.ddp_header + terminate.read_header))
        sentence += f", for {offender.kind}" + _subject(offender)
    return sentence + (", in siw's octet order" if terminate.scrambled else "")


def _subject(offender: Fields) -> str:
    """The token that a terminated header is about, if it names one."""
    details = offender.details
    if details["opcode"] == Opcode.READ_REQUEST and isinstance(details.get("source_stag"), int):
        return f" of STag 0x{details['source_stag']:08x} TO 0x{details['source_to']:x}"
    if "invalidate_stag" in details:
        return f" of STag 0x{details['invalidate_stag']:08x}"
    return f" to STag 0x{details['stag']:08x} TO 0x{details['to']:x}" if "stag" in details else ""


def _masked(value: int, mask: int) -> str:
    """A number of which only the bits of the mask count."""
    return f"{value}" if mask == _ONES else f"0x{value:x}/0x{mask:x}"


def _place(stag: int, to: int) -> str:
    return f"STag 0x{stag:08x} TO 0x{to:x}"
