"""Memory region (NDK_MR): normal (register, deregister) or fast-register (initialize, then requests on a QP)."""

import operator

from softndk.drivers.pending import Pending
from softndk.errors import InvalidParameter, InvalidState, NdkError, error_for
from softndk.flags import Extension, LocalToken, MrFlag, ObjectType, RemoteToken
from softndk.memory.buffers import Mdl, Memory
from softndk.memory.regions import FastRegion, Region
from softndk.memory.sge import Sge
from softndk.memory.tokens import ProtectionDomain, Right, TokenEntry
from softndk.ndk.context import AdapterContext
from softndk.ndk.limits import check_int
from softndk.ndk.mw import Mw
from softndk.ndk.object import NdkObject
from softndk.status import Status

__all__ = ["Mr"]

_ALL_FLAGS = MrFlag.ALLOW_REMOTE_WRITE | MrFlag.ALLOW_REMOTE_READ | MrFlag.RDMA_READ_SINK | MrFlag.ALLOW_REMOTE_ATOMIC
_REMOTE_ATOMIC = MrFlag.ALLOW_REMOTE_ATOMIC.value
_REMOTE_WRITE = MrFlag.ALLOW_REMOTE_WRITE.value
_REMOTE_WRITE_ALONE = _REMOTE_WRITE & ~MrFlag.ALLOW_LOCAL_WRITE.value  # half of a flag is no flag (R-FLAG-1)


class Mr(NdkObject):
    """See the module. Made by Pd.register_mr or Pd.create_mr."""

    _type = ObjectType.MR
    _prefix = "mr"

    def __init__(
        self, context: AdapterContext, pd: NdkObject, domain: ProtectionDomain, *, fast_register: bool
    ) -> None:
        super().__init__(context, [pd])
        self._fast = fast_register
        kind = FastRegion if fast_register else Region
        self._region: Region | FastRegion = kind(context.datapath.tokens, domain, self._label)
        self._region.on_idle = self._settle_close
        self._posted_range: tuple[int, int] | None = None  # of the last posted fast register

    # ---- getters

    @property
    def address(self) -> int:
        """Number of the region's first octet: an index, not a pointer (R-REGMR-3). Of a fast-register region: what the last
        posted fast register gave it (R-TOK-2).

        Raises: InvalidState: it is not registered.
        """
        return self._range("address")[0]

    @property
    def length(self) -> int:
        """Length in octets.

        Raises: InvalidState: it is not registered.
        """
        return self._range("length")[1]

    @property
    def local_token(self) -> LocalToken:
        """Token for SGEs; there after register or initialize_fast_register (R-TOK-1). Never honoured from the wire.

        Raises: InvalidState: it is not there yet, or not any more.
        """
        return LocalToken(self._token("local_token", self._region.local))

    @property
    def remote_token(self) -> RemoteToken:
        """Token to send to the peer (R-TOK-3); what it allows is what `register` or `fast_register` was told. New with each
        registration; the same for the life of a fast-register region (A-7).

        Raises: InvalidState: it is not there yet, or not any more.
        """
        return RemoteToken(self._token("remote_token", self._region.remote))

    @property
    def view(self) -> memoryview:
        """The region's octets, writable if the buffer is. Holds the buffer itself, beyond deregistration too.

        Sees what a peer writes, while it writes.

        Raises: InvalidState: not registered, or a chain of several buffers.
        """
        with self._lock:
            region = self._region
            if not region.valid or region.memory is None:
                raise self._not_ready("view")
            parts = region.memory.slices(0, region.length)
            if len(parts) != 1:
                raise InvalidState(f"{self._label} view: {len(parts)} separate buffers have no single view")
            return parts[0]

    def __getitem__(self, index: slice) -> Sge:
        """``mr[a:b]``: an SGE over octets a to b of the region. Nothing is clipped.

        Raises: IndexError: a step, a negative or an outside bound. InvalidState: not registered. TypeError: no slice.
        """
        if not isinstance(index, slice):
            raise TypeError(f"{self._label}[...]: give a slice of octets, like mr[0:64]")
        address, length = self._range("slice")
        try:
            start = 0 if index.start is None else operator.index(index.start)
            stop = length if index.stop is None else operator.index(index.stop)
        except TypeError:
            raise TypeError(f"{self._label}[{index.start!r}:{index.stop!r}]: bounds are ints, in octets") from None
        if index.step is not None or not 0 <= start <= stop <= length:
            raise IndexError(f"{self._label}[{index.start}:{index.stop}]: outside its {length} octets, or with a step")
        return Sge(address + start, stop - start, LocalToken(self._token("slice", self._region.local)))

    # ---- requests

    def register(self, buffer: Memory | Mdl, flags: int, *, length: int | None = None) -> Pending[None]:
        """Register memory (NdkRegisterMr): its first `length` octets, all if left out. Makes new tokens (R-REGMR-6).

        The buffer's export is held until deregistration or close: Python does not let it be resized. flags: MrFlag;
        a remote right opens the region to every connected peer of the PD that has the token (A-13). length: octets.

        Raises: InvalidParameter: not a buffer or not contiguous (R-REGMR-4), a length that is not 1 to the buffer's and
        max_registration_size (A-24), a write right over a read-only buffer, or unknown flags (R-REGMR-5). NotSupported:
        ALLOW_REMOTE_ATOMIC with IwarpConfig.rfc7306 off. InvalidState (INVALID_DEVICE_REQUEST): registered already
        (R-REGMR-7), or made for fast registers (R-MR-1). Nothing has changed.
        """
        with self._lock:
            self._check_working("register")
            return self._register(buffer, flags, length)

    def deregister(self) -> Pending[None]:
        """End the registration: neither token works any more, the buffer is free (NdkDeregisterMr, R-DEREG-2).

        The region may be registered again (R-DEREG-3).

        Raises: InvalidState (INVALID_DEVICE_REQUEST): not registered, or a fast-register region (R-DEREG-1). InvalidState
        (DEVICE_BUSY): windows are bound to it (R-INVAL-4). Nothing has changed.
        """
        with self._lock:
            self._check_usable("deregister")
            region = self._region
            if not isinstance(region, Region):
                raise self._wrong_kind("deregister", "use qp.invalidate")
            region.deregister()
            return self._finished(f"{self._label} deregister", None)

    def initialize_fast_register(self, page_count: int, allow_remote_access: bool) -> Pending[None]:
        """Prepare for fast registers of up to `page_count` pages (NdkInitializeFastRegisterMr, R-FRINIT).

        allow_remote_access: fast registers may give the peer rights (R-FRINIT-3). Again while invalid: replaces both, the
        tokens stay (A-17).

        Raises: InvalidState (INVALID_DEVICE_REQUEST): a normal region (R-MR-1), or registered now. Nothing has changed.
        The Pending fails with: InvalidParameter (IMPLEMENTATION_LIMIT): page_count is not 1 to frmr_page_count
        (R-FRINIT-2).
        """
        with self._lock:
            self._check_working("initialize_fast_register")
            region = self._region
            what = f"{self._label} initialize_fast_register"
            if not isinstance(region, FastRegion):
                raise self._wrong_kind("initialize_fast_register", "create it with fast_register=True")
            limit = self._context.info.frmr_page_count
            check_int(what, "page_count", page_count)
            if not 0 < page_count <= limit:
                error = error_for(
                    Status.IMPLEMENTATION_LIMIT,
                    f"{what}: {page_count} pages, limit frmr_page_count={limit} [IMPLEMENTATION_LIMIT, R-FRINIT-2]",
                )
                return self._failed(what, error)
            region.initialize(page_count, allow_remote_access)
            return self._finished(what, None)

    # ---- inside

    def _register(self, buffer: Memory | Mdl, flags: int, length: int | None) -> Pending[None]:
        region = self._region
        if not isinstance(region, Region):
            raise self._wrong_kind("register", "create it without fast_register")
        check_int(f"{self._label} register", "flags", flags)
        if flags & ~_ALL_FLAGS.value or flags < 0 or flags & _REMOTE_WRITE == _REMOTE_WRITE_ALONE:
            raise InvalidParameter(f"{self._label} register: unknown flags {flags:#x} [INVALID_PARAMETER, R-REGMR-5]")
        if flags & _REMOTE_ATOMIC:
            self._context.check_extension(
                f"{self._label} register", Extension.ATOMIC_FETCH_ADD | Extension.ATOMIC_COMPARE_SWAP
            )
        mdl = buffer if isinstance(buffer, Mdl) else Mdl(buffer)
        size = mdl.length if length is None else length
        limit = min(mdl.length, self._context.info.max_registration_size)
        check_int(f"{self._label} register", "length", size)
        if not mdl.length:
            raise InvalidParameter(f"{self._label} register: the buffer is empty [INVALID_PARAMETER, A-24]")
        if not 0 < size <= limit:
            raise InvalidParameter(
                f"{self._label} register: the buffer's length {size}, must be 1 to {limit} [INVALID_PARAMETER, R-REGMR-4, A-24]"
            )
        memory = mdl.byte_range(size)
        rights = _rights(flags)
        if memory.readonly and rights & Right.LOCAL_WRITE:
            memory.release()
            raise InvalidParameter(
                f"{self._label} register: the buffer is read-only, flags {MrFlag(flags)!r} ask for a write right"
                " [INVALID_PARAMETER]"
            )
        try:
            region.register(mdl.address, memory, rights)
        except NdkError:
            memory.release()
            raise
        return self._finished(f"{self._label} register", None)

    def _range(self, what: str) -> tuple[int, int]:
        if self._posted_range is not None:
            return self._posted_range
        region = self._region
        if not region.valid:
            raise self._not_ready(what)
        return region.base, region.length

    def _token(self, what: str, entry: TokenEntry | None) -> int:
        if entry is None:
            raise self._not_ready(what)
        return entry.stag

    def _not_ready(self, what: str) -> InvalidState:
        how = "initialize_fast_register and a fast register" if self._fast else "register"
        return InvalidState(f"{self._label} {what}: not there before {how} [INVALID_DEVICE_STATE, R-TOK-1]")

    def _wrong_kind(self, operation: str, instead: str) -> InvalidState:
        kind = "fast-register" if self._fast else "normal"
        return InvalidState(
            f"{self._label} {operation}: this is a {kind} region; {instead} [INVALID_DEVICE_REQUEST, R-MR-1]",
            Status.INVALID_DEVICE_REQUEST,
        )

    def _renamed(self) -> None:
        self._region.rename(self._label)

    def _state_text(self) -> str:
        region = self._region
        if not region.valid:
            return "fast-register, invalid" if self._fast else "not registered"
        windows = f" windows {region.windows}" if region.windows else ""
        return f"{region.length} octets at {region.base:#x}{windows}"

    def _dependents(self) -> tuple[NdkObject, ...]:
        bound = [  # an antecedent of each window that lies on it (R-MW-4)
            item
            for pd in self._antecedents
            for item in pd._successors
            if isinstance(item, Mw) and item._window.region is self._region
        ]
        return (*self._successors, *bound)

    def _holding(self) -> list[str]:
        region = self._region
        held = [f"{region.windows} bound windows"] if region.windows else []
        if region.leaving:
            held.append(f"the close callbacks of {region.leaving} windows")
        return [*held, f"{region.posted} queued requests"] if region.posted else held

    def _finish_close(self) -> None:
        self._region.destroy()


def _rights(flags: int) -> Right:
    rights = Right.NONE
    if flags & MrFlag.ALLOW_LOCAL_WRITE:
        rights |= Right.LOCAL_WRITE
    if flags & MrFlag.ALLOW_REMOTE_READ:
        rights |= Right.REMOTE_READ
    if (flags & MrFlag.ALLOW_REMOTE_WRITE) == MrFlag.ALLOW_REMOTE_WRITE:
        rights |= Right.REMOTE_WRITE
    if flags & _REMOTE_ATOMIC:
        rights |= Right.REMOTE_ATOMIC | Right.LOCAL_WRITE
    return rights
