"""Checks of scatter/gather lists that every post makes (R-WR-6, -7, -9)."""

from collections.abc import Sequence
from typing import Final

from softndk.errors import BufferOverflow, DataOverrun, InvalidParameter
from softndk.memory.sge import InlineSge, Sge, Sgl

__all__ = ["check_sge", "checked_sges"]

_U32: Final = 1 << 32
_U64: Final = 1 << 64


def checked_sges(who: str, sgl: Sgl, limit: int, limit_name: str, max_transfer_length: int) -> Sequence[Sge]:
    """The SGEs of `sgl`, in order. `who`: object and operation, for messages.

    Raises: TypeError: no SGEs. DataOverrun: more than `limit`. BufferOverflow: more octets than max_transfer_length.
    InvalidParameter: inline data, or a field out of range.
    """
    sges = (sgl,) if isinstance(sgl, Sge) else sgl
    if not isinstance(sges, (list, tuple)):
        raise TypeError(f"{who}: {type(sgl).__name__} is no SGE and no list of them; register memory, and give mr[a:b]")
    if len(sges) > limit:
        raise DataOverrun(
            f"{who}: {len(sges)} SGEs, limit {limit_name}={limit}; raise it at the creation [DATA_OVERRUN, R-WR-6]"
        )
    total = 0
    for sge in sges:
        check_sge(who, sge)
        if isinstance(sge, InlineSge):
            raise InvalidParameter(f"{who}: Sge.inline without OpFlag.INLINE [INVALID_PARAMETER, R-WR-10]")
        total += sge.length
    if total > max_transfer_length:
        raise BufferOverflow(
            f"{who}: {total} octets, limit max_transfer_length={max_transfer_length} [BUFFER_OVERFLOW, R-WR-7]"
        )
    return sges


def check_sge(who: str, sge: Sge) -> None:
    """Raise TypeError or InvalidParameter unless `sge` is an Sge with fields in range."""
    if not isinstance(sge, Sge):
        raise TypeError(f"{who}: {type(sge).__name__} is not an Sge")
    if not (isinstance(sge.length, int) and isinstance(sge.address, int) and isinstance(sge.token, int)):
        raise TypeError(
            f"{who}: address, length and token of an SGE are ints, not {sge.address!r}, {sge.length!r}, ..."
        )
    if not (0 <= sge.length < _U32 and 0 <= sge.address < _U64 and 0 <= sge.token < _U32):
        raise InvalidParameter(
            f"{who}: address, length or token of an SGE out of range: address {sge.address:#x}, length {sge.length}"
            " [INVALID_PARAMETER, R-WR-9]"
        )
