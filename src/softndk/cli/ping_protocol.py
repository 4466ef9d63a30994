"""What the two sides of `softndk ping` say to each other, octet by octet, and the data that they compare.

Everything is big-endian. What comes from the peer is untrusted: `parse` takes anything and raises `BadMessage`. Knows
neither connections nor the adapter.

One round: the client lends one window over two halves of its buffer and sends an ADVERT of it. The server reads the
first half, compares it, writes it turned round (its two parts exchanged) into the second half, and sends an ANSWER that
takes the window's token away. The client compares the second half.

The 16 octets of MAGIC begin every message; they are chosen so that Wireshark takes none for another protocol.
"""

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = [
    "MAX_COUNT",
    "MAX_SIZE",
    "MESSAGE_SIZE",
    "BadMessage",
    "Hello",
    "Kind",
    "Message",
    "Pattern",
    "Reason",
    "Welcome",
    "readable",
]

MAGIC: Final = b"softndk ping v1\n"
MAX_SIZE: Final = 1 << 28
"""Largest size of a round's data: what both sides can hold twice without trouble."""
MAX_COUNT: Final = 10**12
SEED_SIZE: Final = 16
MESSAGE_SIZE: Final = 256
"""Room for one message, its text included."""

_HELLO: Final = struct.Struct(">16sQQ16s")
_WELCOME: Final = struct.Struct(">16sQ")
_MESSAGE: Final = struct.Struct(">16sHHIQQQQ8x")


class BadMessage(Exception):
    """The peer has said something that this protocol does not have; the text says what."""


class Kind(IntEnum):
    """What a message is."""

    ADVERT = 1
    """Client: `token`, `address` and `length` of a lent window; each half has `length` octets."""
    ANSWER = 2
    """Server: the round is done. `reason` OK or MISMATCH; `detail`: the first wrong octet."""
    BYE = 3
    """Client: the last message. `round`: rounds done; `detail`: those with a mismatch on either side."""
    LEAVE = 4
    """Server: the last message; `text` says why."""


class Reason(IntEnum):
    """More about a message."""

    OK = 0
    MISMATCH = 1
    INTERRUPTED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Hello:
    """Private data of the connect, 48 octets. `size`: of each half; `count`: rounds planned, 0 for no end."""

    size: int
    count: int
    seed: bytes

    def emit(self) -> bytes:
        return _HELLO.pack(MAGIC, self.size, self.count, self.seed)

    @classmethod
    def parse(cls, data: bytes) -> "Hello":
        """From what a client sent; octets after the 48 are ignored. Raises: BadMessage."""
        if len(data) < _HELLO.size:
            raise BadMessage(f"{len(data)} octets of private data, {_HELLO.size} are needed: not softndk ping")
        magic, size, count, seed = _HELLO.unpack_from(data)
        if magic != MAGIC:
            raise BadMessage("the private data are not those of softndk ping version 1")
        if not 1 <= size <= MAX_SIZE:
            raise BadMessage(f"size {size}, must be 1 to {MAX_SIZE}")
        return cls(size, count, seed)


@dataclass(frozen=True, slots=True)
class Welcome:
    """Private data of the accept, 24 octets. `size`: the one agreed on."""

    size: int

    def emit(self) -> bytes:
        return _WELCOME.pack(MAGIC, self.size)

    @classmethod
    def parse(cls, data: bytes) -> "Welcome":
        """From what a server sent. Raises: BadMessage."""
        if len(data) < _WELCOME.size or data[: len(MAGIC)] != MAGIC:
            raise BadMessage("the peer accepted, but it is not a softndk ping server")
        return cls(_WELCOME.unpack_from(data)[1])


@dataclass(frozen=True, slots=True)
class Message:
    """64 octets and a text: magic, kind, reason, token, round, address, length, detail, 8 zeros; UTF-8."""

    kind: Kind
    round: int = 0
    reason: Reason = Reason.OK
    token: int = 0
    address: int = 0
    length: int = 0
    detail: int = 0
    text: str = ""

    def emit(self) -> bytes:
        head = _MESSAGE.pack(
            MAGIC, self.kind, self.reason, self.token, self.round, self.address, self.length, self.detail
        )
        return head + self.text.encode()[: MESSAGE_SIZE - _MESSAGE.size] if self.text else head

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        """From what has been received. Raises: BadMessage."""
        if len(data) < _MESSAGE.size:
            raise BadMessage(f"a message of {len(data)} octets, the shortest has {_MESSAGE.size}")
        magic, kind, reason, token, number, address, length, detail = _MESSAGE.unpack_from(data)
        if magic != MAGIC:
            raise BadMessage(f"a message begins with {data[:16]!r}, not {MAGIC!r}")
        try:
            told, why = Kind(kind), Reason(reason)
        except ValueError as error:
            raise BadMessage(f"a message with an unknown number: {error}") from None
        text = data[_MESSAGE.size :]
        return cls(told, number, why, token, address, length, detail, readable(text) if text else "")


def readable(data: bytes) -> str:
    """A peer's text for a terminal: printable UTF-8 as it is, anything else in hex; its beginning, if it is long."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    return text[:200] if text and text.isprintable() else f"octets {data[:64].hex(' ')}"


class Pattern:
    """The data of every round: a window that moves over a block of random octets, which both sides make from the seed.

    So a round costs no computation, and what is compared can be compared at the speed of memory.
    """

    PERIOD: Final = 4093
    """Rounds until the data repeat; prime."""
    STEP: Final = 1021
    """Octets that the window moves each round."""

    def __init__(self, size: int, seed: bytes) -> None:
        self.size = size
        self._block = memoryview(hashlib.shake_128(seed).digest(size + self.PERIOD))

    def data(self, number: int) -> memoryview:
        """What the client lends in round `number`; read only."""
        start = number * self.STEP % self.PERIOD
        return self._block[start : start + self.size]

    def turn(self, number: int) -> int:
        """Where round `number`'s data are cut: the server writes what is from there on first. 0: not at all."""
        return 1 + number % (self.size - 1) if self.size > 1 else 0

    def first_wrong(self, number: int, buffer: bytearray, start: int = 0) -> int | None:
        """Compare `buffer` from `start` on with round `number`'s data; the place of the first wrong octet, or None."""
        return _first_difference(self.data(number), buffer, start)

    def first_wrong_turned(self, number: int, buffer: bytearray, start: int) -> int | None:
        """The same for data that the server has turned round."""
        data, turn = self.data(number), self.turn(number)
        head = self.size - turn
        wrong = _first_difference(data[turn:], buffer, start)
        if wrong is None and turn:
            later = _first_difference(data[:turn], buffer, start + head)
            wrong = None if later is None else head + later
        return wrong


def _first_difference(expected: memoryview, buffer: bytearray, start: int) -> int | None:
    if buffer.startswith(expected, start):  # unlike memoryview's ==, this is a memcmp without a copy
        return None
    low, high = 0, len(expected)  # the first wrong octet is in low..high-1
    while high - low > 1:
        middle = (low + high) // 2
        if buffer.startswith(expected[low:middle], start + low):
            low = middle
        else:
            high = middle
    return low
