"""How an input is laid out: a head of eight octets, then records of sixteen; and changes that keep it so.

Every string of octets is an input: what is missing counts as zeros. So any mutator may be let loose on it, and the one
here moves whole records and puts in numbers that are interesting for this protocol.
"""

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

__all__ = ["HEAD", "RECORD", "Record", "head_of", "join", "mutate", "random_input", "records_of"]

HEAD: Final = 8
RECORD: Final = 16
MAX_RECORDS: Final = 48
_LAYOUT: Final = struct.Struct(">BBHIQ")
_WIDTHS: Final = (8, 8, 16, 32, 64)
_NUMBERS: Final = (0, 1, 2, 3, 4, 7, 8, 13, 14, 15, 16, 17, 18, 19, 27, 28, 29, 63, 64, 127, 128, 255, 256, 508, 512)


class Record(NamedTuple):
    """One step: what (`op`, `flag`), and three numbers of 16, 32 and 64 bits."""

    op: int
    flag: int = 0
    x: int = 0
    y: int = 0
    z: int = 0

    def emit(self) -> bytes:
        return _LAYOUT.pack(*self)


def head_of(data: bytes) -> bytes:
    """The first eight octets."""
    return data[:HEAD].ljust(HEAD, b"\0")


def records_of(data: bytes) -> Iterator[Record]:
    """The records behind the head, at most MAX_RECORDS; a last one that is cut off is filled up with zeros."""
    end = min(len(data), HEAD + MAX_RECORDS * RECORD)
    for at in range(HEAD, end, RECORD):
        yield Record._make(_LAYOUT.unpack(data[at : at + RECORD].ljust(RECORD, b"\0")))


def join(head: Sequence[int], records: Sequence[Record]) -> bytes:
    """An input from its parts."""
    return bytes(head).ljust(HEAD, b"\0") + b"".join(record.emit() for record in records)


def _number(rng: random.Random, bits: int) -> int:
    choice = rng.randrange(6)
    if choice < 3:
        return rng.choice(_NUMBERS) & (1 << bits) - 1
    if choice == 3:
        return (1 << bits) - 1 - rng.choice(_NUMBERS) & (1 << bits) - 1
    if choice == 4:
        return 1 << rng.randrange(bits)
    return rng.getrandbits(bits)


def _record(rng: random.Random, operations: Sequence[int]) -> Record:
    flag = rng.getrandbits(8) if rng.randrange(2) else rng.randrange(4)
    return Record(rng.choice(operations), flag, _number(rng, 16), _number(rng, 32), _number(rng, 64))


def random_input(rng: random.Random, operations: Sequence[int], *, longest: int = 12) -> bytes:
    """An input out of nothing. `operations`: the values of `op` that mean something, commoner ones repeated."""
    head = bytes(rng.choice((0, 0, 1, 2, rng.getrandbits(8))) for _ in range(HEAD))
    return join(head, [_record(rng, operations) for _ in range(rng.randint(1, longest))])


def mutate(data: bytes, rng: random.Random, operations: Sequence[int], other: Callable[[bytes], bytes]) -> bytes:
    """A changed input. `other`: a mutator that knows no records; it has its turn half of the time."""
    if not HEAD < len(data) <= HEAD + MAX_RECORDS * RECORD or rng.randrange(2):
        return other(data)
    head = bytearray(head_of(data))
    records = list(records_of(data))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(records)) if records else 0
        kind = rng.randrange(7)
        if kind == 0 or not records:
            records.insert(at, _record(rng, operations))
        elif kind == 1:
            records.insert(at, records[at])
        elif kind == 2:
            del records[at]
        elif kind == 3:
            second = rng.randrange(len(records))
            records[at], records[second] = records[second], records[at]
        elif kind == 4:
            head[rng.randrange(HEAD)] = _number(rng, 8)
        elif kind == 5:
            records[at] = records[at]._replace(op=rng.choice(operations))
        else:
            values = list(records[at])
            which = rng.randrange(1, len(values))
            if rng.randrange(2):
                values[which] = _number(rng, _WIDTHS[which])
            else:
                step = rng.choice((1, -1, 2, -2, 4, 8))
                values[which] = values[which] + step & (1 << _WIDTHS[which]) - 1
            records[at] = Record._make(values)
    return join(head, records[:MAX_RECORDS])
