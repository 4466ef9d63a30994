"""Regions and windows: the objects behind the tokens, and their states (spec: NDKPI memory objects).

normal region:        unregistered -> register -> registered -> deregister -> unregistered
fast-register region: new -> initialize -> invalid -> fast_register -> valid -> invalidate (any kind) -> invalid
window:               invalid -> bind -> valid on one QP -> invalidate (any kind) -> invalid
"""

from collections.abc import Callable

from softndk.errors import AccessViolation, InvalidState
from softndk.memory.buffers import ByteRange
from softndk.memory.tokens import ProtectionDomain, Right, Scope, TokenEntry, TokenTable
from softndk.status import Status

__all__ = ["FastRegion", "Region", "Window"]


class _Pair:
    """Local and remote token of one region; opened and closed together."""

    def __init__(self, table: TokenTable, pd: ProtectionDomain, name: str) -> None:
        self.table = table
        self.pd = pd
        self.name = name
        self.local: TokenEntry | None = None
        self.remote: TokenEntry | None = None
        self.memory: ByteRange | None = None
        self.base = 0
        self.length = 0
        self.rights = Right.NONE
        self.windows = 0
        self.on_idle: Callable[[], None] | None = None  # called when the last of all this has gone
        self._posted = 0
        self._leaving = 0

    @property
    def valid(self) -> bool:
        return self.local is not None and self.local.valid

    @property
    def posted(self) -> int:
        """Requests in queues that will change this region."""
        return self._posted

    @posted.setter
    def posted(self, count: int) -> None:
        self._posted = count
        if not count and self.on_idle is not None:
            self.on_idle()

    @property
    def leaving(self) -> int:
        """Windows that were closed on this region, and whose close callbacks have not returned."""
        return self._leaving

    @leaving.setter
    def leaving(self, count: int) -> None:
        self._leaving = count
        if not count and self.on_idle is not None:
            self.on_idle()

    def _create_tokens(self, local: Scope, remote: Scope) -> None:
        self.local = self.table.create(local, self.pd, self.name)
        self.remote = self.table.create(remote, self.pd, self.name)

    def _open(self, base: int, memory: ByteRange, rights: Right) -> None:
        assert self.local is not None and self.remote is not None
        self.base, self.length, self.memory, self.rights = base, memory.length, memory, rights
        self.local.open(base, memory, rights, length=memory.length)
        self.remote.open(base, memory, rights, length=memory.length)

    def _close(self) -> None:
        assert self.local is not None and self.remote is not None
        self.local.close()
        self.remote.close()
        if self.memory is not None:
            self.memory.release()
            self.memory = None

    def _remove_tokens(self) -> None:
        if self.local is not None and self.remote is not None:
            self._close()
            self.table.remove(self.local)
            self.table.remove(self.remote)
            self.local = self.remote = None

    def count_window(self, change: int) -> None:
        self.windows += change
        for entry in (self.local, self.remote):
            if entry is not None:
                entry.bound_windows = self.windows
        if not self.windows and self.on_idle is not None:
            self.on_idle()

    def rename(self, name: str) -> None:
        self.name = name
        for entry in (self.local, self.remote):
            if entry is not None:
                entry.owner = name


class Region(_Pair):
    """A normal region (NdkRegisterMr)."""

    def register(self, base: int, memory: ByteRange, rights: Right) -> None:
        """Take the memory and make two new tokens (R-REGMR-6). Raises InvalidState when registered already."""
        if self.valid:
            raise InvalidState(
                f"{self.name} register: it holds a registration; deregister first [INVALID_DEVICE_REQUEST, R-REGMR-7]",
                Status.INVALID_DEVICE_REQUEST,
            )
        self._create_tokens(Scope.REGION_LOCAL, Scope.REGION_REMOTE)
        self._open(base, memory, rights)

    def deregister(self) -> None:
        """Kill both tokens and give the memory back (R-DEREG-2). Raises InvalidState: not registered, windows bound."""
        if not self.valid:
            raise InvalidState(
                f"{self.name} deregister: not registered [INVALID_DEVICE_REQUEST, R-DEREG-1]",
                Status.INVALID_DEVICE_REQUEST,
            )
        if self.windows:
            raise InvalidState(
                f"{self.name} deregister: {self.windows} windows are bound to it; invalidate them first"
                " [DEVICE_BUSY, R-INVAL-4]",
                Status.DEVICE_BUSY,
            )
        self._remove_tokens()

    def destroy(self) -> None:
        self._remove_tokens()


class FastRegion(_Pair):
    """A fast-register region: its two tokens live as long as it does (R-TOK-4)."""

    page_limit = 0
    remote_access = False

    def initialize(self, page_limit: int, remote_access: bool) -> None:
        """Allow fast registers of up to `page_limit` pages. Again while invalid: replaces the limit (A-17)."""
        if self.valid:
            raise InvalidState(
                f"{self.name} initialize_fast_register: it is registered; invalidate it first"
                " [INVALID_DEVICE_REQUEST, R-FRINIT-1]",
                Status.INVALID_DEVICE_REQUEST,
            )
        self.page_limit = page_limit
        self.remote_access = remote_access
        if self.local is None:
            self._create_tokens(Scope.FAST_LOCAL, Scope.FAST_REMOTE)
            assert self.local is not None and self.remote is not None
            self.remote.invalidate = self.invalidate
            self.local.invalidate = self.invalidate
            self.local.region = self.remote.region = self

    def fast_register(self, base: int, memory: ByteRange, rights: Right) -> None:
        """Execute a fast register: valid from now on. Raises InvalidState when already valid (R-FREG-6)."""
        self.check_fast_register()
        self._open(base, memory, rights)

    def check_fast_register(self) -> None:
        """Raise what `fast_register` would raise now."""
        if self.valid:
            raise InvalidState(
                f"{self.name} fast_register: registered already; invalidate first [INVALID_DEVICE_REQUEST, R-FREG-6]",
                Status.INVALID_DEVICE_REQUEST,
            )

    def invalidate(self) -> None:
        """Execute an invalidate of any kind. Raises InvalidState: already invalid, or windows bound."""
        self.check_invalidate()
        self._close()

    def check_invalidate(self) -> None:
        """Raise what `invalidate` would raise now."""
        if not self.valid:
            raise _already_invalid(self.name)
        if self.windows:
            raise InvalidState(
                f"{self.name} invalidate: {self.windows} windows are bound to it; invalidate them first"
                " [INVALID_DEVICE_REQUEST, R-INVAL-4]",
                Status.INVALID_DEVICE_REQUEST,
            )

    def destroy(self) -> None:
        self._remove_tokens()


class Window:
    """A memory window: one remote token, no local one (R-MW-3)."""

    def __init__(self, table: TokenTable, pd: ProtectionDomain, name: str) -> None:
        self.name = name
        self.pd = pd
        self._table = table
        self.token = table.create(Scope.WINDOW, pd, name)
        self.token.invalidate = self.invalidate
        self.region: Region | FastRegion | None = None
        self.on_idle: Callable[[], None] | None = None  # called when the last queued request has gone
        self._posted = 0

    def rename(self, name: str) -> None:
        self.name = self.token.owner = name

    @property
    def valid(self) -> bool:
        return self.token.valid

    @property
    def posted(self) -> int:
        """Requests in queues that will change this window."""
        return self._posted

    @posted.setter
    def posted(self, count: int) -> None:
        self._posted = count
        if not count and self.on_idle is not None:
            self.on_idle()

    def bind(self, region: Region | FastRegion, base: int, length: int, rights: Right, stream: object) -> None:
        """Execute a bind (R-BIND-2, -5).

        Raises: InvalidState: bound already. AccessViolation: region not valid, range outside, or remote write or atomic
        over a region without local write. Nothing has changed then.
        """
        self.check_bind(region, base, length, rights)
        assert region.memory is not None
        self.token.open(base, region.memory, rights, memory_offset=base - region.base, length=length)
        self.token.stream = stream
        self.region = region
        region.count_window(1)

    def check_bind(self, region: Region | FastRegion, base: int, length: int, rights: Right) -> None:
        """Raise what `bind` would raise now."""
        if self.valid:
            raise InvalidState(
                f"{self.name} bind: already bound; invalidate it first [INVALID_DEVICE_REQUEST, R-BIND-5]",
                Status.INVALID_DEVICE_REQUEST,
            )
        if not region.valid:
            raise AccessViolation(f"{self.name} bind: {region.name} is not registered [ACCESS_VIOLATION, A-6]")
        if base < region.base or base + length > region.base + region.length:
            raise AccessViolation(
                f"{self.name} bind: [{base:#x}, +{length}) is not inside {region.name}"
                f" [{region.base:#x}, +{region.length}) [ACCESS_VIOLATION, R-BIND-2]"
            )
        if rights & (Right.REMOTE_WRITE | Right.REMOTE_ATOMIC) and not region.rights & Right.LOCAL_WRITE:
            wanted = "remote write" if rights & Right.REMOTE_WRITE else "remote atomic"
            raise AccessViolation(
                f"{self.name} bind: {wanted} over {region.name}, which has no local write [ACCESS_VIOLATION, R-BIND-1]"
            )

    def invalidate(self) -> None:
        """Execute an invalidate of any kind. Raises InvalidState when already invalid (A-9)."""
        self.check_invalidate()
        self.token.close()
        region, self.region = self.region, None
        if region is not None:
            region.count_window(-1)

    def check_invalidate(self) -> None:
        """Raise what `invalidate` would raise now."""
        if not self.valid:
            raise _already_invalid(self.name)

    def destroy(self) -> None:
        if self.valid:
            self.invalidate()
        self._table.remove(self.token)


def _already_invalid(name: str) -> InvalidState:
    return InvalidState(
        f"{name} invalidate: already invalid (never registered or bound, or the peer took it away)"
        " [INVALID_DEVICE_REQUEST, R-SENDINV-6]",
        Status.INVALID_DEVICE_REQUEST,
    )
