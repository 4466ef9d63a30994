"""What has been sent and received, as values: one start-up frame, one FPDU, one end of a direction.

Decoding is `softndk.trace`'s; here each frame gets the name by which steps call it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from softndk.trace.fields import Detail, Fields, segment_fields, startup_fields
from softndk.wire.mpa import StartupFrame
from softndk.wire.rdmap import Opcode

__all__ = ["FRAME_FIELDS", "FRAME_NAMES", "NumberAt", "Seen", "bare", "can_have", "segment", "startup"]

_NAMES: Final[Mapping[int, str]] = {
    Opcode.WRITE: "write",
    Opcode.READ_REQUEST: "read_request",
    Opcode.READ_RESPONSE: "read_response",
    Opcode.SEND: "send",
    Opcode.SEND_INVALIDATE: "send",
    Opcode.SEND_SE: "send",
    Opcode.SEND_SE_INVALIDATE: "send",
    Opcode.TERMINATE: "terminate",
    Opcode.IMMEDIATE: "immediate",
    Opcode.IMMEDIATE_SE: "immediate",
    Opcode.ATOMIC_REQUEST: "atomic_request",
    Opcode.ATOMIC_RESPONSE: "atomic_response",
}
FRAME_NAMES: Final = ("mpa_request", "mpa_reply", *dict.fromkeys(_NAMES.values()), "unknown")
"""What a step can wait for; Sends of all kinds are "send"."""

_STARTUP: Final = ("revision", "markers", "crc", "reject", "enhanced", "ird", "ord", "peer_to_peer", "private_data")
_TAGGED: Final = ("opcode", "stag", "to", "last", "length")
_UNTAGGED: Final = ("opcode", "qn", "msn", "mo", "last", "length")
FRAME_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "mpa_request": _STARTUP,
    "mpa_reply": _STARTUP,
    "write": _TAGGED,
    "read_request": (*_UNTAGGED, "sink_stag", "sink_to", "size", "source_stag", "source_to"),
    "read_response": _TAGGED,
    "send": (*_UNTAGGED, "invalidate_stag"),
    "terminate": (
        *_UNTAGGED,
        *("layer", "type", "code", "sentence", "segment_length", "scrambled", "ddp_header", "read_header"),
    ),
    "immediate": (*_UNTAGGED, "data"),
    "atomic_request": (*_UNTAGGED, "operation", "request_id", "stag", "to", "data", "mask", "compare", "compare_mask"),
    "atomic_response": (*_UNTAGGED, "request_id", "original"),
    "unknown": ("problem",),
}
"""What each frame has if it is right; what is irregular has "problem" besides."""


def can_have(frame: str) -> frozenset[str]:
    """The fields that a frame of that name, or of "any", may have. A segment may have those of every other: the other side
    can be wrong.
    """
    segments = {name for kind, names in FRAME_FIELDS.items() if not kind.startswith("mpa_") for name in names}
    if frame == "any":
        return frozenset(segments | set(_STARTUP))
    return frozenset(_STARTUP if frame.startswith("mpa_") else segments)


@dataclass(frozen=True, slots=True)
class NumberAt:
    """A big-endian number inside a payload, written `u32@8`."""

    octets: int
    place: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that has passed. seconds: since the connection was there. frame: its name in steps, or "fin", "reset",
    "garbage", "note". title, summary, details: as `softndk trace` shows it. payload: behind the DDP header.
    """

    sent: bool
    seconds: float
    frame: str
    title: str
    summary: str
    details: Mapping[str, Detail] = field(default_factory=dict)
    payload: bytes = field(default=b"", repr=False)

    def number(self, what: str | NumberAt) -> int:
        """A field that is a number, or a number in the payload. Raises: LookupError: there is no such thing."""
        if isinstance(what, NumberAt):
            found = self.payload[what.place : what.place + what.octets]
            if len(found) != what.octets:
                raise LookupError(f"a payload of {len(self.payload)} octets has no u{8 * what.octets}@{what.place}")
            return int.from_bytes(found, "big")
        if what == "length":
            return len(self.payload)
        value = self.details.get(what)
        if not isinstance(value, int):
            names = ", ".join(sorted(name for name, detail in self.details.items() if isinstance(detail, int)))
            raise LookupError(f"a {self.title} has no number {what!r}; it has length, {names}")
        return int(value)

    def u32(self, place: int) -> int:
        """The 32-bit big-endian number at that octet of the payload. Raises: LookupError."""
        return self.number(NumberAt(4, place))

    def u64(self, place: int) -> int:
        """The 64-bit big-endian number at that octet of the payload. Raises: LookupError."""
        return self.number(NumberAt(8, place))

    def as_dict(self) -> dict[str, object]:
        """In types that JSON knows, without the payload."""
        return {
            "sent": self.sent,
            "seconds": round(self.seconds, 6),
            "frame": self.frame,
            "title": self.title,
            "summary": self.summary,
            "details": dict(self.details),
            "payload_length": len(self.payload),
        }


def startup(frame: StartupFrame, *, sent: bool, seconds: float) -> Seen:
    """A start-up frame."""
    fields = startup_fields(frame)
    return Seen(sent, seconds, fields.kind.lower().replace(" ", "_"), fields.kind, fields.summary, fields.details)


def segment(
    ulpdu: bytes | bytearray | memoryview, *, sent: bool, seconds: float, note: str = "", started: bool | None = None
) -> Seen:
    """The DDP segment in an FPDU. note: what else is to be said of it. started: as `segment_fields`."""
    fields: Fields = segment_fields(memoryview(ulpdu), started=started)
    opcode = fields.details.get("opcode")
    name = _NAMES.get(opcode, "unknown") if isinstance(opcode, int) else "unknown"
    summary = f"{fields.summary} [{note}]" if note else fields.summary
    return Seen(sent, seconds, name, fields.kind, summary, fields.details, bytes(fields.payload))


def bare(frame: str, title: str, summary: str, *, sent: bool, seconds: float) -> Seen:
    """What is no frame."""
    return Seen(sent, seconds, frame, title, summary)
