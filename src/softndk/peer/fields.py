"""What a field of a step can be: numbers, octets, choices; from a scenario file's values to Python's.

The same annotations type the methods of `Peer`, check the files, and make the table in the documents. Knows single
values only. Values that need what is captured at run time become a `Later`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NewType

from softndk.peer.frames import NumberAt

__all__ = [
    "U2",
    "U4",
    "U8",
    "U14",
    "U16",
    "U32",
    "U64",
    "BadValue",
    "Captures",
    "Count",
    "Later",
    "OctetString",
    "Octets",
    "Pieces",
    "Seconds",
    "Where",
    "Whole",
    "YesNo",
    "resolved",
]

MOST_OCTETS: Final = 1 << 24
"""The longest payload that a scenario may name."""
SHOWN: Final = 80
_TERM: Final = re.compile(r"\s*(?:\$([a-z_][a-z0-9_]*)|(0x[0-9a-f]+|[0-9]+))\s*", re.IGNORECASE | re.ASCII)
_NUMBER_AT: Final = re.compile(r"u(8|16|32|64)@([0-9]{1,5})", re.ASCII)
_PART: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


class BadValue(ValueError):
    """A value that a field cannot have; the text says which it can."""


@dataclass(frozen=True, slots=True)
class Later:
    """A value that is worked out when its step comes. names: of the variables that it needs."""

    names: frozenset[str]
    make: Callable[[Mapping[str, int]], Any]


def _cut(value: Any) -> str:
    """A value for a message: however long it is, its beginning."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def resolved(value: Any, variables: Mapping[str, int]) -> Any:
    """The value of a field at run time. Raises: BadValue: outside the field's range."""
    return value.make(variables) if isinstance(value, Later) else value


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number, also as `$name`, or sums and differences and exclusive ors of such: `$to + 64`.

    Sums wrap as the field does: 0 - 1 is the largest number of a field that has all its bits.
    """

    low: int
    high: int

    @property
    def text(self) -> str:
        return f"a number from {_shown(self.low)} to {_shown(self.high)}"

    def convert(self, value: Any) -> Any:
        if isinstance(value, str) and "$" in value:
            return _expression(value, self)
        return self.check(value)

    def check(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValue(f"{_cut(value)} is not {self.text}, or a variable such as $stag")
        if not self.low <= value <= self.high:
            raise BadValue(f"{value} is not {self.text}")
        return value


def _shown(number: int) -> str:
    return hex(number) if number > 0xFFFF and number & number + 1 == 0 else str(number)


def _expression(text: str, whole: Whole) -> Later:
    """Terms with + - ^ between them, from left to right."""
    terms: list[tuple[str, str | int]] = []
    place, sign = 0, "+"
    while True:
        found = _TERM.match(text, place)
        if found is None:
            raise BadValue(f"{_cut(text)}: after {text[:place]!r} must come $name or a number")
        terms.append((sign, found[1] if found[1] else int(found[2], 0)))
        place = found.end()
        if place == len(text):
            break
        sign = text[place]
        if sign not in "+-^":
            raise BadValue(f"{_cut(text)}: {sign!r} is not +, - or ^")
        place += 1

    def make(variables: Mapping[str, int]) -> int:
        total = 0
        for sign, term in terms:
            number = variables[term] if isinstance(term, str) else term
            total = total ^ number if sign == "^" else total + (number if sign == "+" else -number)
        wraps = whole.low == 0 and whole.high & whole.high + 1 == 0
        return total & whole.high if wraps else whole.check(total)

    return Later(frozenset(term for _, term in terms if isinstance(term, str)), make)


@dataclass(frozen=True, slots=True)
class OctetString:
    """Octets: a text, a number of octets that count up, or `{hex: ...}`, `{zeros: 4}`, `{text: ...}`, `{u32: $stag}`, or a
    list of such parts.
    """

    text: Final = (
        "a text, a number of octets, {hex: 00 ff}, {zeros: n}, {text: ...}, {u8|u16|u32|u64: n}, or a list of such"
    )

    def convert(self, value: Any) -> Any:
        parts = value if isinstance(value, list) else [value]
        made = [self._part(part) for part in parts]
        names = frozenset[str]().union(*(part.names for part in made if isinstance(part, Later)))
        if not names:
            octets = b"".join(made)
            if len(octets) > MOST_OCTETS:
                raise BadValue(f"{len(octets)} octets, limit {MOST_OCTETS}")
            return octets
        return Later(names, lambda variables: b"".join(resolved(part, variables) for part in made))

    def _part(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, int) and not isinstance(value, bool):
            return bytes(range(256)) * (self._size(value) // 256) + bytes(range(value % 256))
        if isinstance(value, dict) and len(value) == 1:
            [(kind, inner)] = value.items()
            if kind == "text" and isinstance(inner, str):
                return inner.encode()
            if kind == "hex" and isinstance(inner, (str, int)) and not isinstance(inner, bool):
                try:
                    return bytes.fromhex(str(inner))
                except ValueError:
                    raise BadValue(f"{_cut(inner)} is not hexadecimal (put it in quotes)") from None
            if kind == "zeros" and isinstance(inner, int):
                return bytes(self._size(inner))
            if kind in _PART:
                return _packed(Whole(0, (1 << 8 * _PART[kind]) - 1).convert(inner), _PART[kind])
        raise BadValue(f"{_cut(value)} is not {self.text}")

    @staticmethod
    def _size(value: int) -> int:
        if not 0 <= value <= MOST_OCTETS:
            raise BadValue(f"{value} octets, limit {MOST_OCTETS}")
        return value


def _packed(value: Any, size: int) -> Any:
    if isinstance(value, Later):
        return Later(value.names, lambda variables: resolved(value, variables).to_bytes(size, "big"))
    return value.to_bytes(size, "big")


@dataclass(frozen=True, slots=True)
class YesNo:
    text: Final = "true or false"

    def convert(self, value: Any) -> Any:
        if not isinstance(value, bool):
            raise BadValue(f"{_cut(value)} is not {self.text}")
        return value


@dataclass(frozen=True, slots=True)
class Duration:
    text: Final = "seconds, from 0 to 600"

    def convert(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 600:
            raise BadValue(f"{_cut(value)} is not {self.text}")
        return float(value)


@dataclass(frozen=True, slots=True)
class OneOf:
    names: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"one of {', '.join(self.names)}"

    def convert(self, value: Any) -> Any:
        if value not in self.names:
            raise BadValue(f"{_cut(value)} is not {self.text}")
        return value


@dataclass(frozen=True, slots=True)
class Sizes:
    text: Final = "octets per piece, or a list of the first pieces' octets"

    def convert(self, value: Any) -> Any:
        sizes = value if isinstance(value, list) else [value]
        if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise BadValue(f"{_cut(value)} is not {self.text}")
        return tuple(sizes) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class FieldValues:
    text: Final = "fields of the frame and the values that they must have, such as {msn: 1}"

    def convert(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise BadValue(f"{_cut(value)} is not a map of {self.text}")
        made = {name: _wanted(wanted) for name, wanted in value.items()}
        names = frozenset[str]().union(*(wanted.names for wanted in made.values() if isinstance(wanted, Later)))
        if not names:
            return made
        return Later(names, lambda variables: {name: resolved(wanted, variables) for name, wanted in made.items()})


def _wanted(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("$"):
        return _expression(value, Whole(0, (1 << 64) - 1))
    if not isinstance(value, (str, int)):
        raise BadValue(f"{_cut(value)} is neither a number, a text, true nor false")
    return value


@dataclass(frozen=True, slots=True)
class Capture:
    text: Final = "variables and what they take: {stag: sink_stag, to: u64@0}, a field or a number in the payload"

    def convert(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise BadValue(f"{_cut(value)} is not a map of {self.text}")
        return {name: _source(name, source) for name, source in value.items()}


def _source(name: Any, source: Any) -> str | NumberAt:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z_][a-z0-9_]*", name, re.ASCII):
        raise BadValue(f"{_cut(name)} cannot be the name of a variable: small letters, digits and _ only")
    if not isinstance(source, str):
        raise BadValue(f"{_cut(source)} is neither a field nor a number in the payload such as u32@8")
    found = _NUMBER_AT.fullmatch(source)
    return NumberAt(int(found[1]) // 8, int(found[2])) if found else source


U2 = Annotated[int, Whole(0, 3)]
U4 = Annotated[int, Whole(0, 15)]
U8 = Annotated[int, Whole(0, 0xFF)]
U14 = Annotated[int, Whole(0, 0x3FFF)]
U16 = Annotated[int, Whole(0, 0xFFFF)]
U32 = Annotated[int, Whole(0, 0xFFFFFFFF)]
U64 = Annotated[int, Whole(0, (1 << 64) - 1)]
Count = Annotated[int, Whole(1, 100_000)]
Octets = Annotated[bytes, OctetString()]
Flag = Annotated[bool, YesNo()]
Seconds = Annotated[float, Duration()]
Pieces = Annotated[int | Sequence[int], Sizes()]
Where = Annotated[Mapping[str, object], FieldValues()]
Captures = Annotated[Mapping[str, str | NumberAt], Capture()]
Steps = NewType("Steps", list[object])
"""Steps inside a step."""
