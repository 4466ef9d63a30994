"""The one check of every access to registered memory, local or remote (R-MEM, RFC 5040 8.1.1, RFC 5041 8.2).

Order: token valid, associated, right present, no wrap, inside the bounds (octet granular). Nothing is touched before
all of them hold.
"""

from enum import Enum
from typing import Final

from softndk.memory.logical import LogicalSpace
from softndk.memory.tokens import REMOTE_RIGHTS, ProtectionDomain, Right, Scope, TokenEntry, TokenTable, masked

__all__ = ["AccessDenied", "Denial", "MemoryAccess"]


class Denial(Enum):
    """Why an access is refused."""

    INVALID_TOKEN = "token not valid"
    NOT_ASSOCIATED = "token of another protection domain or queue pair"
    MISSING_RIGHT = "right missing"
    WRAP = "address wraps 2^64"
    OUT_OF_BOUNDS = "outside the region"
    NOT_INVALIDATABLE = "token may not be invalidated"


_RIGHT_NAMES: Final = {
    Right.REMOTE_READ: "remote read",
    Right.REMOTE_WRITE: "remote write",
    Right.REMOTE_ATOMIC: "remote atomic",
}


class AccessDenied(Exception):
    """An access that must not happen. Nothing has been read or written."""

    def __init__(self, denial: Denial, text: str) -> None:
        super().__init__(text)
        self.denial = denial
        self.text = text


class MemoryAccess:
    """Accesses by one QP: its PD's tokens, its own windows.

    `stream` is the QP's identity, which windows are bound to.
    """

    def __init__(self, table: TokenTable, logical: LogicalSpace, pd: ProtectionDomain, stream: object) -> None:
        self._table = table
        self._logical = logical
        self._pd = pd
        self._stream = stream

    def local(self, token: int, address: int, length: int, *, write: bool) -> list[memoryview]:
        """Octets of local memory that an SGE names (R-WR-9, R-WR-15). Raises AccessDenied."""
        entry = self._table.find(token)
        if entry is None or not entry.is_local:
            raise AccessDenied(Denial.INVALID_TOKEN, f"local token {masked(token)} names nothing registered here")
        if entry.pd is not self._pd:
            raise AccessDenied(
                Denial.NOT_ASSOCIATED,
                f"local token {masked(token)} belongs to {entry.owner} of {entry.pd.name}, the QP to {self._pd.name}",
            )
        if entry.scope is Scope.PRIVILEGED:
            found = self._logical.slices(address, length)
            if found is None:
                raise AccessDenied(
                    Denial.OUT_OF_BOUNDS,
                    f"logical address {address:#x} + {length} is not mapped by build_lam [R-WR-9]",
                )
            if write and any(view.readonly for view in found):
                raise AccessDenied(Denial.MISSING_RIGHT, f"logical address {address:#x} maps a read-only buffer")
            return found
        if not entry.valid:
            raise AccessDenied(
                Denial.INVALID_TOKEN,
                f"local token {masked(token)} of {entry.owner} is not valid now [R-INV-3]",
            )
        if write and not entry.rights & Right.LOCAL_WRITE:
            raise AccessDenied(
                Denial.MISSING_RIGHT,
                f"{entry.owner} has no local write right, which a receive or read needs [R-WR-15]",
            )
        return self._slices(entry, address, length)

    def inline(self, token: int, address: int, length: int) -> list[memoryview]:
        """Octets for an INLINE SGE: rights and validity of the token do not matter, only that Python holds the memory.

        The token's region first, then any region of the PD that has these addresses (R-WR-10). Raises AccessDenied.
        """
        entry = self._table.find(token)
        candidates = [entry] if entry is not None and entry.scope is not Scope.PRIVILEGED else []
        for entry in (*candidates, *self._table.entries_of(self._pd)):
            offset = address - entry.base
            if entry.memory is not None and offset >= 0 and offset + length <= entry.length:
                return entry.memory.slices(entry.memory_offset + offset, length)
        raise AccessDenied(
            Denial.OUT_OF_BOUNDS,
            f"inline octets [{address:#x}, +{length}) lie in no registered region; use Sge.inline(data) [R-WR-10]",
        )

    def remote(self, stag: int, to: int, length: int, right: Right) -> list[memoryview]:
        """Octets that the peer may use with the one remote `right` (R-MEM-1 to -3). Raises AccessDenied."""
        entry = self._associated(stag)
        if not entry.rights & right:
            name = _RIGHT_NAMES[right]
            raise AccessDenied(Denial.MISSING_RIGHT, f"token {masked(stag)} of {entry.owner} gives no {name} [R-MEM-2]")
        return self._slices(entry, to, length)

    def invalidate(self, stag: int) -> None:
        """The peer's invalidation of a token: done, or AccessDenied (R-SENDINV-2, R-INVAL-1)."""
        entry = self._associated(stag)
        if entry.invalidate is None:
            raise AccessDenied(
                Denial.NOT_INVALIDATABLE,
                f"token {masked(stag)} of {entry.owner} is a {entry.scope.value}: a peer may not invalidate it"
                " [R-INVAL-1]",
            )
        if entry.bound_windows:
            raise AccessDenied(
                Denial.NOT_INVALIDATABLE,
                f"token {masked(stag)} of {entry.owner}, which has {entry.bound_windows} windows bound:"
                " a peer may not invalidate it [R-INVAL-1]",
            )
        if entry.scope is Scope.FAST_REMOTE and not entry.rights & REMOTE_RIGHTS:
            raise AccessDenied(
                Denial.NOT_INVALIDATABLE,
                f"token {masked(stag)} of {entry.owner}, which has no remote rights: not the peer's to invalidate"
                " [R-INVAL-1]",
            )
        entry.invalidate()

    def _associated(self, stag: int) -> TokenEntry:
        entry = self._table.find(stag)
        if entry is None or entry.is_local or not entry.valid:
            self._table.refused += 1
            if entry is None and self._table.has_index(stag):
                text = f"token {masked(stag)}: wrong key octet, the index is in use"
            elif entry is None:
                text = f"token {masked(stag)} names nothing here"
            elif entry.is_local:
                text = f"token {masked(stag)} of {entry.owner} is local and never honoured from the wire [R-PRIV-3]"
            else:
                text = (
                    f"token {masked(stag)} of {entry.owner} is not valid: it was invalidated or never bound [R-INV-3]"
                )
            raise AccessDenied(Denial.INVALID_TOKEN, text)
        if entry.pd is not self._pd:
            self._table.refused += 1
            raise AccessDenied(
                Denial.NOT_ASSOCIATED,
                f"token {masked(stag)} of {entry.owner} belongs to {entry.pd.name}, the connection to {self._pd.name}"
                " [R-MEM-1]",
            )
        if entry.scope is Scope.WINDOW and entry.stream is not self._stream:
            self._table.refused += 1
            raise AccessDenied(
                Denial.NOT_ASSOCIATED,
                f"window token {masked(stag)} of {entry.owner} is bound to another QP [R-MEM-1]",
            )
        return entry

    @staticmethod
    def _slices(entry: TokenEntry, address: int, length: int) -> list[memoryview]:
        if address + length > 1 << 64:
            raise AccessDenied(Denial.WRAP, f"{address:#x} + {length} wraps 2^64 ({entry.owner}) [R-MEM-3]")
        offset = address - entry.base
        if offset < 0 or offset + length > entry.length:
            raise AccessDenied(
                Denial.OUT_OF_BOUNDS,
                f"[{address:#x}, +{length}) is not inside {entry.owner} [{entry.base:#x}, +{entry.length}) [R-MEM-3]",
            )
        assert entry.memory is not None
        return entry.memory.slices(entry.memory_offset + offset, length)
