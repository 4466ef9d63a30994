"""Requests of a QP that move octets: send, write, read.

Each function checks a call and makes the request that `Qp` queues; what it raises, it raises with nothing changed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from softndk.errors import BufferOverflow, InvalidParameter, InvalidState
from softndk.flags import OpFlag
from softndk.memory.access import AccessDenied
from softndk.memory.buffers import Memory, byte_view
from softndk.memory.regions import FastRegion
from softndk.memory.sge import InlineSge, Sge, Sgl
from softndk.ndk.sges import check_sge
from softndk.queues.work import ReadWork, SendWork, WriteWork
from softndk.status import Status

if TYPE_CHECKING:
    from softndk.ndk.qp import Qp

__all__ = ["read_request", "send_request", "write_request"]

_INLINE: Final = OpFlag.INLINE.value
_U32: Final = 1 << 32
_U64: Final = 1 << 64


def send_request(
    qp: "Qp", operation: str, flags: int, sgl: Sgl | Memory, context: Any, remote_token: int | None
) -> SendWork:
    sges, inline = _payload(qp, operation, flags, sgl)
    if operation == "send_and_invalidate":
        qp._check_number(operation, "remote_token", remote_token, _U32)
    return SendWork(flags, context, sges, inline, remote_token)


def write_request(
    qp: "Qp", operation: str, flags: int, sgl: Sgl | Memory, context: Any, remote_address: int, remote_token: int
) -> WriteWork:
    qp._check_number(operation, "remote_address", remote_address, _U64)
    qp._check_number(operation, "remote_token", remote_token, _U32)
    sges, inline = _payload(qp, operation, flags, sgl)
    return WriteWork(flags, context, sges, inline, remote_address, remote_token)


def read_request(
    qp: "Qp", operation: str, flags: int, sgl: Sgl, context: Any, remote_address: int, remote_token: int
) -> ReadWork:
    qp._check_number(operation, "remote_address", remote_address, _U64)
    qp._check_number(operation, "remote_token", remote_token, _U32)
    sges = qp._sges(operation, sgl, qp._context.info.max_read_request_sge, "max_read_request_sge")
    qp._check_read_limit(operation)
    if not flags & OpFlag.RDMA_READ_LOCAL_INVALIDATE.value or not sges:
        return ReadWork(flags, context, sges, remote_address, remote_token)
    region = _local_invalidation(qp, operation, sges[0])

    def invalidate() -> None:
        if region.valid:
            region.invalidate()  # refused while windows are bound, and so is the read then (R-READ-5, R-INVAL-4)

    return ReadWork(flags, context, sges, remote_address, remote_token, invalidate, region)


def _local_invalidation(qp: "Qp", operation: str, sge: Sge) -> FastRegion:
    entry = qp._context.datapath.tokens.find(sge.token)
    region = None if entry is None or not entry.is_local or entry.pd is not qp._domain else entry.region
    if not isinstance(region, FastRegion):
        raise InvalidState(
            f"{qp._label} {operation}: RDMA_READ_LOCAL_INVALIDATE needs the local token of a fast-register region"
            f" of {qp._domain.name} in the first SGE [INVALID_DEVICE_REQUEST, R-READ-5, A-13]",
            Status.INVALID_DEVICE_REQUEST,
        )
    return region


def _payload(qp: "Qp", operation: str, flags: int, sgl: Sgl | Memory) -> tuple[Sequence[Sge], bytes | None]:
    """SGEs, or for inline data its copy."""
    if not isinstance(sgl, (Sge, list, tuple)):
        return (), _inline_copy(qp, operation, [byte_view(cast(Memory, sgl), f"{qp._label} {operation}")])
    if not flags & _INLINE:
        return qp._sges(operation, sgl, qp._max_initiator_sge, "max_initiator_sge"), None
    views: list[memoryview] = []
    for sge in (sgl,) if isinstance(sgl, Sge) else sgl:
        if isinstance(sge, InlineSge):
            views.append(sge.data)
            continue
        check_sge(f"{qp._label} {operation}", sge)
        try:
            views += qp._access.inline(sge.token, sge.address, sge.length)
        except AccessDenied as denied:
            raise InvalidParameter(f"{qp._label} {operation}: {denied.text} [INVALID_PARAMETER]") from None
    return (), _inline_copy(qp, operation, views)


def _inline_copy(qp: "Qp", operation: str, views: Sequence[memoryview]) -> bytes:
    total = sum(view.nbytes for view in views)
    if total > qp._inline_data_size:
        raise BufferOverflow(
            f"{qp._label} {operation}: {total} octets inline, limit inline_data_size={qp._inline_data_size};"
            " raise it in create_qp or register the memory [BUFFER_OVERFLOW, R-WR-10]"
        )
    return b"".join(views)
