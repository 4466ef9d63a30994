"""Requests of a QP that change a region or a window: bind, fast register, invalidate.

Each function checks a call and makes the request that `Qp` queues; what it raises, it raises with nothing changed.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from softndk.errors import AccessViolation, InvalidParameter, InvalidState
from softndk.flags import PAGE_SIZE, Extension, OperationType, OpFlag
from softndk.memory.buffers import ByteRange
from softndk.memory.regions import FastRegion, Window
from softndk.memory.tokens import REMOTE_RIGHTS, Right
from softndk.ndk.lam import LogicalAddressMapping
from softndk.ndk.limits import check_int
from softndk.ndk.mr import Mr
from softndk.ndk.mw import Mw
from softndk.queues.work import LocalRequest
from softndk.status import Status

if TYPE_CHECKING:
    from softndk.ndk.qp import Qp

__all__ = ["bind_request", "fast_register_request", "invalidate_request"]

_LOCAL_WRITE: Final = OpFlag.ALLOW_LOCAL_WRITE.value
_REMOTE_WRITE: Final = OpFlag.ALLOW_REMOTE_WRITE.value  # contains the former (R-FLAG-1)
_REMOTE_ATOMIC: Final = OpFlag.ALLOW_REMOTE_ATOMIC.value
_ATOMICS: Final = Extension.ATOMIC_FETCH_ADD | Extension.ATOMIC_COMPARE_SWAP
_U64: Final = 1 << 64


def bind_request(
    qp: "Qp", operation: str, flags: int, mr: Mr, context: Any, mw: Mw, address: int | None, length: int | None
) -> LocalRequest:
    region, window = qp._own(operation, mr, Mr)._region, qp._own(operation, mw, Mw)._window
    if flags & _REMOTE_WRITE not in (0, _REMOTE_WRITE):
        raise _half_a_flag(qp, operation, flags)
    rights = Right.NONE
    if flags & OpFlag.ALLOW_REMOTE_READ.value:
        rights |= Right.REMOTE_READ
    if flags & _REMOTE_WRITE == _REMOTE_WRITE:
        rights |= Right.REMOTE_WRITE
    if flags & _REMOTE_ATOMIC:
        qp._context.check_extension(f"{qp._label} bind", _ATOMICS)
        rights |= Right.REMOTE_ATOMIC
    if not rights:
        raise InvalidParameter(
            f"{qp._label} bind: flags give none of ALLOW_REMOTE_READ, ALLOW_REMOTE_WRITE, ALLOW_REMOTE_ATOMIC"
            " [INVALID_PARAMETER, R-BIND-1]"
        )
    for name, value in (("address", address), ("length", length)):
        if value is not None:
            check_int(f"{qp._label} bind", name, value)
    start, size = mr._range("bind") if address is None or length is None else (address, length)
    if address is not None:
        size = size - (address - start) if length is None else length
        start = address
    elif length is not None:
        size = length
    if not 0 < size <= qp._context.info.max_window_size:
        raise InvalidParameter(
            f"{qp._label} bind: length {size}, must be 1 to {qp._context.info.max_window_size}"
            " [INVALID_PARAMETER, A-24]"
        )
    if not window.posted and not region.posted:
        window.check_bind(region, start, size, rights)
    pair = qp._pair
    return _local(
        OperationType.BIND, flags, context, lambda: window.bind(region, start, size, rights, pair), (window, region)
    )


def fast_register_request(
    qp: "Qp",
    operation: str,
    flags: int,
    mr: Mr,
    context: Any,
    pages: LogicalAddressMapping | Sequence[int],
    fbo: int | None,
    length: int | None,
    base_address: int | None,
) -> LocalRequest:
    region = qp._own(operation, mr, Mr)._region
    if not isinstance(region, FastRegion) or region.local is None:
        raise InvalidState(
            f"{qp._label} fast_register: {mr._label} is not an initialised fast-register region"
            " [INVALID_DEVICE_REQUEST, R-FREG-6]",
            Status.INVALID_DEVICE_REQUEST,
        )
    if isinstance(pages, LogicalAddressMapping):
        fbo = pages.fbo if fbo is None else fbo
        length = pages.length if length is None else length
        base_address = pages.address if base_address is None else base_address
        pages = pages.pages
    elif fbo is None or length is None or base_address is None:
        raise InvalidParameter(
            f"{qp._label} fast_register: with a list of pages give fbo, length and base_address [INVALID_PARAMETER]"
        )
    who = f"{qp._label} fast_register"
    check_int(who, "fbo", fbo)
    check_int(who, "length", length)
    try:
        pages = tuple(pages)
    except TypeError:
        raise TypeError(f"{who}: pages={pages!r} is no sequence of page addresses") from None
    for page in pages:
        check_int(who, "page address", page)
    if not 0 < len(pages) <= region.page_limit:
        raise InvalidParameter(
            f"{who}: {len(pages)} pages, initialised for {region.page_limit} [INVALID_PARAMETER, R-FREG-2]"
        )
    if not 0 <= fbo < PAGE_SIZE or length <= 0 or length > len(pages) * PAGE_SIZE - fbo:
        raise InvalidParameter(
            f"{who}: fbo {fbo}, length {length} do not fit {len(pages)} pages [INVALID_PARAMETER, R-FREG-3]"
        )
    qp._check_number(operation, "base_address", base_address, _U64 - length + 1)
    if (base_address - fbo) % PAGE_SIZE or base_address < fbo:
        raise InvalidParameter(
            f"{who}: base_address {base_address:#x} is not fbo + n * {PAGE_SIZE} [INVALID_PARAMETER, R-FREG-4]"
        )
    if flags & _REMOTE_WRITE not in (0, _LOCAL_WRITE, _REMOTE_WRITE):
        raise _half_a_flag(qp, operation, flags)
    if flags & _REMOTE_ATOMIC:
        qp._context.check_extension(who, _ATOMICS)
    rights = _fast_rights(flags)
    if rights & REMOTE_RIGHTS and not region.remote_access:
        raise AccessViolation(
            f"{who}: remote right asked, {mr._label} was initialised without allow_remote_access"
            " [ACCESS_VIOLATION, R-FRINIT-3]"
        )
    if not region.posted:
        region.check_fast_register()
    memory = qp._context.datapath.logical.gather(pages, fbo, length)
    if memory.readonly and rights & Right.LOCAL_WRITE:
        memory.release()
        raise InvalidParameter(
            f"{who}: the mapped buffer is read-only, flags ask for a write right [INVALID_PARAMETER]"
        )
    return _FastRegister(mr, base_address, memory, rights, flags, context)


def invalidate_request(qp: "Qp", operation: str, flags: int, target: Mr | Mw, context: Any) -> LocalRequest:
    subject: FastRegion | Window
    if isinstance(target, Mw):
        subject = qp._own(operation, target, Mw)._window
    else:
        region = qp._own(operation, target, Mr)._region
        if not isinstance(region, FastRegion):
            raise InvalidParameter(
                f"{qp._label} invalidate: {target._label} is a normal region; use deregister"
                " [INVALID_PARAMETER, R-INV-2]"
            )
        subject = region
    if not subject.posted and not _windows_may_go(qp, subject):
        subject.check_invalidate()
    return _local(
        OperationType.INVALIDATE,
        flags,
        context,
        subject.invalidate,
        (subject,),
        waits_for_reads=isinstance(subject, FastRegion),
    )


def _windows_may_go(qp: "Qp", region: FastRegion | Window) -> bool:
    """A request in the queue will change a window that lies on the region (A-9)."""
    return any(
        isinstance(request, LocalRequest)
        and any(isinstance(subject, Window) and subject.region is region for subject in request.subjects)
        for request in qp._pair.waiting
    )


def _local(
    kind: OperationType,
    flags: int,
    context: Any,
    action: Callable[[], None],
    subjects: Sequence[Any],
    *,
    waits_for_reads: bool = False,
) -> LocalRequest:
    """A local request that counts as queued on its objects until it has run or has been cancelled."""
    return LocalRequest(kind, flags, context, action, subjects, waits_for_reads=waits_for_reads)


def _half_a_flag(qp: "Qp", operation: str, flags: int) -> InvalidParameter:
    return InvalidParameter(
        f"{qp._label} {operation}: flags {flags:#x} have a part of ALLOW_REMOTE_WRITE ({_REMOTE_WRITE:#x}) that is no"
        " flag of this request [INVALID_PARAMETER, R-FLAG-1, R-FLAG-3]"
    )


class _FastRegister(LocalRequest):
    """A fast register. Once it is queued, the region has the posted address and length for the program (R-TOK-2)."""

    __slots__ = ("_mr", "_range")

    def __init__(self, mr: Mr, base: int, memory: ByteRange, rights: Right, flags: int, context: Any) -> None:
        region = mr._region
        assert isinstance(region, FastRegion)
        super().__init__(
            OperationType.FAST_REGISTER, flags, context, lambda: region.fast_register(base, memory, rights), (region,)
        )
        self._mr = mr
        self._range = (base, memory.length)

    def entered(self) -> None:
        super().entered()
        self._mr._posted_range = self._range


def _fast_rights(flags: int) -> Right:
    rights = Right.NONE
    if flags & OpFlag.ALLOW_REMOTE_READ.value:
        rights |= Right.REMOTE_READ
    if flags & OpFlag.ALLOW_LOCAL_WRITE.value:
        rights |= Right.LOCAL_WRITE
    if flags & _REMOTE_WRITE == _REMOTE_WRITE:
        rights |= Right.REMOTE_WRITE
    if flags & _REMOTE_ATOMIC:
        rights |= Right.REMOTE_ATOMIC | Right.LOCAL_WRITE
    return rights
