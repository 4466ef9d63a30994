"""Tokens (STags on the wire): what each of them names, and whether it is alive.

An STag has a 24-bit index and an 8-bit key. Both are drawn at random, so that a peer can't guess them, and an index
rests after use (RFC 5042 6.2, R-TOKEN-3). Local and remote tokens of one object are different numbers: no token with
only local rights ever helps a peer.
"""

import secrets
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, IntFlag
from typing import Final

from softndk.memory.buffers import ByteRange

__all__ = ["REMOTE_RIGHTS", "ProtectionDomain", "Right", "Scope", "TokenEntry", "TokenTable", "masked"]

RESTING_INDICES: Final = 4096
"""Freed indices that are not handed out again: with 2^24 indices a stale token stays dead for a long time."""


class Right(IntFlag):
    """What an access needs."""

    NONE = 0
    LOCAL_WRITE = 1
    REMOTE_READ = 2
    REMOTE_WRITE = 4
    REMOTE_ATOMIC = 8


REMOTE_RIGHTS: Final = Right.REMOTE_READ | Right.REMOTE_WRITE | Right.REMOTE_ATOMIC


class Scope(Enum):
    """What kind of object a token names; decides who may use and who may invalidate it."""

    REGION_LOCAL = "local token of a registered region"
    REGION_REMOTE = "remote token of a registered region"
    FAST_LOCAL = "local token of a fast-register region"
    FAST_REMOTE = "remote token of a fast-register region"
    WINDOW = "memory window"
    PRIVILEGED = "privileged token"


_LOCAL: Final = (Scope.REGION_LOCAL, Scope.FAST_LOCAL, Scope.PRIVILEGED)


class ProtectionDomain:
    """Identity of a PD; tokens and QPs of different ones never meet (A-13)."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class TokenEntry:
    """One token. `base`, `length`, `memory`, `rights` mean something while `valid`.

    `stream`: for a window the identity of the QP that it is bound to; else None.
    `invalidate`: makes the object invalid (set by its owner); None: may never be invalidated by a request.
    `bound_windows`: windows that lie on this region now. `region`: the fast-register region of its tokens.
    """

    __slots__ = (
        "base",
        "bound_windows",
        "invalidate",
        "length",
        "memory",
        "memory_offset",
        "owner",
        "pd",
        "region",
        "rights",
        "scope",
        "stag",
        "stream",
        "valid",
    )

    def __init__(self, stag: int, scope: Scope, pd: ProtectionDomain, owner: str) -> None:
        self.stag = stag
        self.scope = scope
        self.pd = pd
        self.owner = owner
        self.valid = False
        self.base = 0
        self.length = 0
        self.memory: ByteRange | None = None
        self.memory_offset = 0
        self.rights = Right.NONE
        self.stream: object = None
        self.invalidate: Callable[[], None] | None = None
        self.bound_windows = 0
        self.region: object = None

    @property
    def is_local(self) -> bool:
        return self.scope in _LOCAL

    def open(self, base: int, memory: ByteRange, rights: Right, *, memory_offset: int = 0, length: int) -> None:
        """Make the token valid over `length` octets of `memory` from `memory_offset`, addressed from `base`."""
        self.base = base
        self.memory = memory
        self.memory_offset = memory_offset
        self.length = length
        self.rights = rights
        self.valid = True

    def close(self) -> None:
        """Make the token invalid; from now on no access through it succeeds."""
        self.valid = False
        self.memory = None
        self.rights = Right.NONE
        self.stream = None


class TokenTable:
    """All tokens of one adapter."""

    def __init__(self, draw: Callable[[int], int] = secrets.randbelow) -> None:
        self._entries: dict[int, TokenEntry] = {}
        self._by_index: dict[int, TokenEntry] = {}
        self._resting: deque[int] = deque()
        self._resting_set: set[int] = set()
        self._draw = draw
        self.refused = 0
        """Accesses by peers that named no usable token: a count of guesses."""

    def __len__(self) -> int:
        return len(self._entries)

    def create(self, scope: Scope, pd: ProtectionDomain, owner: str) -> TokenEntry:
        """A new, still invalid token. Never 0, never an index that is in use or has just been freed."""
        while True:
            index = 1 + self._draw((1 << 24) - 1)
            if index not in self._by_index and index not in self._resting_set:
                break
        entry = TokenEntry(index << 8 | self._draw(256), scope, pd, owner)
        self._entries[entry.stag] = entry
        self._by_index[index] = entry
        return entry

    def remove(self, entry: TokenEntry) -> None:
        """Forget a token; its index rests."""
        entry.close()
        index = entry.stag >> 8
        del self._entries[entry.stag]
        del self._by_index[index]
        self._resting.append(index)
        self._resting_set.add(index)
        if len(self._resting) > RESTING_INDICES:
            self._resting_set.discard(self._resting.popleft())

    def draw_private(self) -> int:
        """A number that names no token here: the sink of one read (R-SINK-6)."""
        while True:
            index = 1 + self._draw((1 << 24) - 1)
            if index not in self._by_index:
                return index << 8 | self._draw(256)

    def find(self, stag: int) -> TokenEntry | None:
        """The entry with exactly this number, valid or not."""
        return self._entries.get(stag)

    def entries_of(self, pd: ProtectionDomain) -> Iterator[TokenEntry]:
        """Every entry of a PD."""
        return (entry for entry in self._entries.values() if entry.pd is pd)

    def has_index(self, stag: int) -> bool:
        """True if the index is in use although the number as a whole may not be (wrong key)."""
        return stag >> 8 in self._by_index


def masked(token: int) -> str:
    """A token for messages and logs: recognisable, not usable."""
    return f"0x{token >> 16 & 0xFFFF:04x}****"
