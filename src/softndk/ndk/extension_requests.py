"""Requests of a QP that NDKPI does not have: immediate data and atomics (RFC 7306).

Each function checks a call and makes the request that `Qp` queues; what it raises, it raises with nothing changed.
"""

from typing import TYPE_CHECKING, Any, Final

from softndk.errors import InvalidParameter
from softndk.flags import Extension, OperationType
from softndk.memory.buffers import Memory, byte_view
from softndk.memory.sge import Sgl
from softndk.queues.work import AtomicWork, ImmediateWork

if TYPE_CHECKING:
    from softndk.ndk.qp import Qp

__all__ = ["atomic_request", "immediate_request"]

_WIDTH: Final = 8  # octets of immediate data, and of what an atomic changes
_U32: Final = 1 << 32
_U64: Final = 1 << 64
_ATOMICS: Final = {
    "fetch_add": (OperationType.FETCH_ADD, Extension.ATOMIC_FETCH_ADD),
    "compare_swap": (OperationType.COMPARE_SWAP, Extension.ATOMIC_COMPARE_SWAP),
}


def immediate_request(qp: "Qp", operation: str, flags: int, data: Memory | int, context: Any) -> ImmediateWork:
    """An Immediate Data message; an int goes as 8 octets, big-endian."""
    who = f"{qp._label} {operation}"
    qp._context.check_extension(who, Extension.IMMEDIATE_DATA)
    if isinstance(data, int):
        qp._check_number(operation, "data", data, _U64)
        return ImmediateWork(flags, context, data.to_bytes(_WIDTH, "big"))
    view = byte_view(data, who)
    if view.nbytes != _WIDTH:
        raise InvalidParameter(
            f"{who}: data of {view.nbytes} octets; Immediate Data has {_WIDTH} [INVALID_PARAMETER, RFC 7306 6]"
        )
    return ImmediateWork(flags, context, bytes(view))


def atomic_request(
    qp: "Qp",
    operation: str,
    flags: int,
    sgl: Sgl,
    context: Any,
    remote_address: int,
    remote_token: int,
    data: tuple[str, int],
    mask: tuple[str, int],
    compare: tuple[str, int],
    compare_mask: tuple[str, int],
) -> AtomicWork:
    """A FETCH_ADD or COMPARE_SWAP; the operands come with their names in the call."""
    who = f"{qp._label} {operation}"
    kind, extension = _ATOMICS[operation]
    qp._context.check_extension(who, extension)
    qp._check_number(operation, "remote_address", remote_address, _U64)
    qp._check_number(operation, "remote_token", remote_token, _U32)
    for name, value in (data, mask, compare, compare_mask):
        qp._check_number(operation, name, value, _U64)
    sges = qp._sges(operation, sgl, qp._context.info.max_read_request_sge, "max_read_request_sge")
    total = sum(sge.length for sge in sges)
    if total != _WIDTH:
        raise InvalidParameter(
            f"{who}: the SGEs have {total} octets; the original value needs {_WIDTH} [INVALID_PARAMETER, RFC 7306 5]"
        )
    if remote_address % _WIDTH:
        raise InvalidParameter(
            f"{who}: remote_address {remote_address:#x} is no multiple of {_WIDTH}; the peer would end the connection"
            " [INVALID_PARAMETER, RFC 7306 5]"
        )
    qp._check_read_limit(operation)
    return AtomicWork(
        kind,
        flags,
        context,
        sges,
        remote_address,
        remote_token,
        data=data[1],
        mask=mask[1],
        compare=compare[1],
        compare_mask=compare_mask[1],
    )
