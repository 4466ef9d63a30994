"""What the other side can do, and how that compares with what the standards ask for.

Knows the words ("terminate 1/2/3", "close", ...) and their comparison. Must not know sockets, steps or output.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

from softndk.wire import ddp
from softndk.wire.ddp import TAGGED_HEADER, UNTAGGED_HEADER
from softndk.wire.terminate import DdpType, Layer, Terminate, describe

__all__ = ["ACCEPTS", "Kind", "Reaction", "Verdict", "form_differences", "judge"]


_TAGGED_FIELDS: Final = {"control octets": slice(0, 2), "STag": slice(2, 6), "TO": slice(6, 14)}
_UNTAGGED_FIELDS: Final = {
    "control octets": slice(0, 2),
    "Invalidate STag": slice(2, 6),
    "QN": slice(6, 10),
    "MSN": slice(10, 14),
    "MO": slice(14, 18),
}


class Kind(Enum):
    """The ways in which a scenario can end, as seen from our side of the connection."""

    TERMINATE = "terminate"
    CLOSE = "close"
    RESET = "reset"
    REJECT = "reject"
    ACCEPTS = "accepts"
    GARBAGE = "garbage"
    SILENCE = "silence"
    UNREACHED = "not reached"


_MEANING: Final = {
    Kind.CLOSE: "closed TCP",
    Kind.RESET: "reset TCP",
    Kind.REJECT: "an MPA Reply that rejects",
    Kind.ACCEPTS: "carried on",
}
_WRITABLE: Final = (Kind.TERMINATE, Kind.CLOSE, Kind.RESET, Kind.REJECT, Kind.ACCEPTS)
_TRIPLE: Final = re.compile(r"([0-9a-f])/([0-9a-f])/([0-9a-f]{1,2})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the other side did. code: layer, type and code of its Terminate; None in an expectation: any Terminate.

    detail: for a person, more than the words say.
    """

    kind: Kind
    code: tuple[int, int, int] | None = None
    detail: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the words of a scenario. Raises: ValueError: what can be written instead."""
        word, _, rest = text.strip().partition(" ")
        for kind in _WRITABLE:
            if word == kind.value and not rest:
                return cls(kind)
        triple = _TRIPLE.fullmatch(rest.strip())
        if word == Kind.TERMINATE.value and triple is not None:
            layer, etype, code = (int(number, 16) for number in triple.groups())
            return cls(Kind.TERMINATE, (layer, etype, code))
        raise ValueError(f"{text!r} is no reaction; write terminate L/T/C (hexadecimal), or one of: {_words()}")

    @property
    def words(self) -> str:
        """As a scenario writes it."""
        if self.code is not None:
            return f"{self.kind.value} {self.code[0]:x}/{self.code[1]:x}/{self.code[2]:x}"
        return self.kind.value

    def matches(self, expected: "Reaction") -> bool:
        """Whether this is what `expected` stands for."""
        return self.kind is expected.kind and expected.code in (None, self.code)

    def __str__(self) -> str:
        if self.kind is Kind.TERMINATE and self.code is not None:
            return f"Terminate {self.code[0]:x}/{self.code[1]:x}/{self.code[2]:x}"
        if self.kind in (Kind.GARBAGE, Kind.SILENCE, Kind.UNREACHED):
            return self.detail or self.kind.value
        return _MEANING.get(self.kind) or self.words


ACCEPTS: Final = Reaction(Kind.ACCEPTS)


def _words() -> str:
    return ", ".join(kind.value for kind in _WRITABLE)


class Verdict(Enum):
    """How a reaction compares with the standard. Only the first two are what the standard allows in every detail."""

    REQUIRED = "as required"
    ALLOWED = "allowed"
    OTHER_FORM = "OTHER FORM"
    DIFFERENT = "DIFFERENT"
    UNREACHED = "NOT REACHED"

    @property
    def good(self) -> bool:
        return self in (Verdict.REQUIRED, Verdict.ALLOWED)


def judge(
    reaction: Reaction, required: Sequence[Reaction], allowed: Mapping[Reaction, str], rule: str, form: Sequence[str]
) -> tuple[Verdict, str]:
    """The verdict, and one sentence for it.

    allowed: what the standard leaves room for, each with the reason or "". form: what is unusual about the octets of an
    otherwise right reaction.
    """
    if reaction.kind is Kind.UNREACHED:
        return Verdict.UNREACHED, reaction.detail
    wanted = any(reaction.matches(one) for one in required)
    reason = next((reason for one, reason in allowed.items() if reaction.matches(one)), None)
    if not wanted and reason is None:
        asked = " or ".join(one.words for one in required)
        return Verdict.DIFFERENT, f"got {_named(reaction)}; {rule} says {asked}"
    if form:
        return Verdict.OTHER_FORM, f"{reaction}, but {'; '.join(form)}"
    if wanted:
        return Verdict.REQUIRED, str(reaction)
    return Verdict.ALLOWED, f"{reaction}" + (f": {reason}" if reason else "")


def _named(reaction: Reaction) -> str:
    if reaction.code is not None:
        meaning = describe(*reaction.code).rpartition(" (")[0]
        return f"{reaction.words} ({meaning})"
    return str(reaction)


def form_differences(message: Terminate, header: ddp.UntaggedHeader | None, sent: Sequence[bytes]) -> list[str]:
    """What of a received Terminate is not as RFC 5040 4.8 and RFC 5041 draw it.

    header: its own DDP header. sent: the ULPDUs that it can be about, so that a returned header can be compared.
    """
    found: list[str] = []
    if message.scrambled:
        found.append("the nibbles of layer and type and the header bits are in exchanged order (RFC 5040 4.8)")
    if header is not None and (header.msn != 1 or header.mo != 0 or not header.last):
        found.append(f"the Terminate has MSN {header.msn}, MO {header.mo}, L={header.last:d}; it must be 1, 0, 1")
    about_segment = message.layer == Layer.DDP and message.etype in (DdpType.TAGGED_BUFFER, DdpType.UNTAGGED_BUFFER)
    if about_segment and not message.ddp_header:
        found.append("the header of the refused segment is not returned (RFC 5040 4.8)")
    if message.layer == Layer.MPA and message.ddp_header:
        found.append("a DDP header is returned for an error of MPA (RFC 5040 4.8)")
    if message.ddp_header and sent and not any(_is_header_of(message.ddp_header, ulpdu) for ulpdu in sent):
        found.append(f"the returned DDP header has {_closest(message.ddp_header, sent)} (RFC 5040 4.8)")
    return found


def _closest(header: bytes, sent: Sequence[bytes]) -> str:
    """Which fields of a returned header differ from those of the sent one that is most like it."""
    tagged = ddp.is_tagged(header[0])
    fields = _TAGGED_FIELDS if tagged else _UNTAGGED_FIELDS
    best = list(fields)
    for ulpdu in sent:
        if len(ulpdu) >= len(header) and ddp.is_tagged(ulpdu[0]) is tagged:
            differing = [name for name, place in fields.items() if header[place] != ulpdu[place]]
            best = min(best, differing, key=len)
    return f"another {' and '.join(best)} than was sent"


def _is_header_of(header: bytes, ulpdu: bytes) -> bool:
    size = TAGGED_HEADER if header[0] & ddp.CONTROL_TAGGED else UNTAGGED_HEADER
    return len(header) == size and ulpdu[:size] == header
